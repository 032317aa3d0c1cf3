"""The bench's own logic, without load: what it makes of numbers, what it says, and its open loop on a small server."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import jwt
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.bench import __main__ as bench
from tests.bench import clients, figures, growth, load, nginx, paced, parts, people, profile
from tests.bench.cores import Busy, Cores, cpu_seconds, family, megabytes, shielded
from tests.bench.figures import Results, judge, percentile, ratio, targets, to_accept
from tests.bench.page import page
from tests.bench.program import Failed, Program
from tests.bench.subjects import BY_NAME, SUBJECTS, at_hand
from tests.support.servers import serving

MACHINE = {"machine": "a core of some kind, 2 cores"}


def sample(per_second, **changes):
    good = {"per_second": per_second, "p50_ms": 5.0, "p99_ms": 9.0, "max_ms": 20.0, "errors": 0, "requests": 1000}
    good |= {
        "core": 1.0,
        "foreign": 0.0,
        "others": 0.5,
        "cpu_us": 200.0,
        "redis_us": 20.0,
        "redis_scripts": 1.0,
        "redis_bytes": 70.0,
    }
    return {**good, "memory_mb": 90.0, "ready_seconds": 0.8, **changes}


def results(**closed):
    """Speeds by subject, one per round."""
    return Results(
        machine=MACHINE, closed={name: [sample(speed) for speed in speeds] for name, speeds in closed.items()}
    )


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 99, 0.0),
        ([7], 50, 7),
        ([4, 1, 3, 2], 50, 2),
        (range(1, 101), 99, 99),
        (range(1, 1001), 99, 990),
        ([1, 2], 100, 2),
    ],
)
def test_percentiles_are_values_that_were_seen(values, percent, expected):
    assert percentile(list(values), percent) == expected


def test_a_ratio_is_the_median_of_rounds_and_not_of_speeds():
    """A machine that is slower in one round is so for both."""
    run = results(token=[100, 50, 110], bare=[400, 200, 200])
    assert ratio(run.closed, "token", "bare") == 0.25
    assert ratio(run.closed, "token", "litellm") is None


def test_targets_of_what_was_measured_and_no_other():
    run = results(token=[4000], bare=[10_000], express=[3000])
    assert [(one.what, one.bound, one.found, one.met) for one in targets(run)] == [
        ("`/token` direct to Express", "≥ 1.5 (aim: 2)", "1.33", False),
        ("`/token` direct to bare Starlette", "≥ 0.25 (aim: 0.4)", "0.40", True),
        ("`/token` direct: errors", "0", "0", True),
    ]
    assert targets(Results()) == []


def test_targets_with_thousands_in_flight():
    good, bad = sample(3600.0, p99_ms=400.0, memory_mb=150.0), sample(2900.0, p99_ms=650.0, memory_mb=210.0, errors=2)
    run = Results(in_flight={"1000": {"token": [good], "bare": [bad]}, "5000": {"token": [bad]}})
    assert [(one.what, one.met) for one in targets(run)] == [
        ("`/token` direct, 1,000 in flight: errors", True),
        ("`/token` direct, 1,000 in flight: share of the ideal 4,000/s", True),
        ("`/token` direct, 1,000 in flight: p99", True),
        ("`/token` direct, 1,000 in flight: memory", True),
        ("`/token` direct, 5,000 in flight: errors", False),
    ]
    assert [one.met for one in targets(Results(in_flight={"1000": {"token": [bad]}}))] == [False] * 4


def test_added_latency_is_that_of_one_round():
    rounds = [
        {"p50_ms": 2.0, "direct_p50_ms": 0.5, "p99_ms": 7.0, "direct_p99_ms": 2.0, "rate": 2000.0, "errors": 0},
        {"p50_ms": 9.0, "direct_p50_ms": 7.0, "p99_ms": 9.0, "direct_p99_ms": 1.0, "rate": 2000.0, "errors": 0},
        {"p50_ms": 1.0, "direct_p50_ms": 0.5, "p99_ms": 3.0, "direct_p99_ms": 1.0, "rate": 2000.0, "errors": 1},
    ]
    run = Results(latency={"token": rounds})
    assert [(one.found, one.met) for one in targets(run)] == [("1.50 ms", True), ("5.00 ms", True), ("1", False)]


def test_targets_of_growth():
    measured = {
        "start_seconds": 1.2,
        "tenants_start_seconds": 11.0,
        "tenants_memory_mb": 380.0,
        "tenants_cost": 1.02,
        "metrics_mb": 0.4,
        "user_bytes": 0.0,
        "workers_ratio": 1.5,
        "workers_cores": 2,
        "reload_missed": True,
    }
    found = {one.what: one.met for one in targets(Results(growth=measured))}
    assert [what for what, met in found.items() if not met] == [
        "10,000 tenants: start",
        "10,000 tenants: one changed file is taken",
    ]
    on_four = targets(Results(growth={"workers_ratio": 1.5, "workers_cores": 4}))
    assert [(one.bound, one.met) for one in on_four] == [("≥ 1.7", False)]


def test_what_a_further_user_leaves_is_seen_once_caches_are_full():
    flat = [(100_000, 150.0), (200_000, 180.0), (300_000, 181.0), (400_000, 181.0)]
    assert growth.slope(flat) == {
        "users": 400_000,
        "users_memory_mb": flat,
        "user_bytes": pytest.approx(5.24, abs=0.01),
    }
    assert growth.slope([(100_000, 150.0)]) == {"users": 100_000, "users_memory_mb": [(100_000, 150.0)]}


def test_the_guard_lets_fifteen_per_cent_pass():
    accepted = to_accept(results(token=[400, 420, 380], sdp=[300, 300, 300], bare=[1000, 1000, 1000]))
    assert accepted == {"ratios_to_bare": {"token": 0.4, "sdp": 0.3}, "rounds": 3, "machine": MACHINE}
    verdicts = judge(results(token=[345], sdp=[250], bare=[1000]), accepted)
    assert [(one.name, one.holds, round(one.change, 3)) for one in verdicts] == [
        ("token", True, -0.138),
        ("sdp", False, -0.167),
    ]
    with pytest.raises(ValueError, match="in one run"):
        to_accept(results(token=[400]))


def test_the_page_shows_what_there_is():
    run = results(token=[4000, 4200], bare=[10_000, 10_000], nginx=[50_000, 50_000])
    run.growth = {"start_seconds": 1.234}
    run.in_flight = {
        "1000": {"token": [sample(3500, memory_mb=100.0)]},
        "5000": {"token": [sample(3600, memory_mb=140.0)]},
    }
    found = targets(run)
    text = page(run, found, judge(run, {"ratios_to_bare": {"token": 0.6}}))
    assert text.startswith("# Proof: performance\n")
    row = "| 4,100 | 0.410 | 5.0 ms | 9.0 ms | 200 µs | 20 µs | 1.0 | 70 bytes | 90 MB | 0.80 s | 0 |"
    assert f"| Switchboard `/token`, direct {row}" in text
    assert "| cold start of `serve` to ready | 1.23 s |" in text
    assert "| `/token` direct | 0.600 | 0.410 | -32% | **no** |" in text
    assert "per further request in flight: `/token` direct 10.2 KB." in text
    assert "not to be trusted" not in text
    run.unsound = ["somebody else was busy"]
    assert "- somebody else was busy" in page(run, found)
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") in {3, 5, 6, 7, 13}, line


def test_a_sample_belongs_to_the_innermost_frame_that_some_part_owns():
    below = "serve (switchboard/cli.py:90);run_asgi (uvicorn/protocols/http/httptools_impl.py:419)"
    lines = [
        f"{below};Broker.mint (switchboard/broker.py:60);Verifier.verify (switchboard/identity/verifier.py:80) 30",
        f"{below};Verifier.verify (switchboard/identity/verifier.py);PyJWS._load (jwt/api_jws.py);loads (json/x.py) 50",
        f"{below};Script.run (switchboard/ledger/redis.py:1);execute_command (redis/asyncio/client.py:7) 15",
        f"{below} 5",
        "_bootstrap (threading.py:1002);_worker (concurrent/futures/thread.py:81) 400",
    ]
    found = {part: dict(functions) for part, functions in profile.by_part(lines).items() if functions}
    assert found == {
        "JWT": {"verify": 30, "_load": 50},
        "Redis: client": {"execute_command": 15},
        "uvicorn": {"run_asgi": 5},
    }
    seen = load.Seen(requests=1000, seconds=2.0, p50_ms=1, p99_ms=2, max_ms=3, errors=0)
    text = profile.page(profile.by_part(lines), seen, cpu_us=250.0)
    assert text.splitlines()[4] == "| JWT | 80.0% | `_load` 50.0%, `verify` 30.0% |"


# The command


@pytest.fixture
def ran(monkeypatch, tmp_path, capsys):
    """Runs the command on given results instead of measuring; gives exit code, JSON and what it said."""

    def run(*arguments, **changes):
        def measure(results, *_):
            for name, value in changes.items():
                setattr(results, name, value)

        monkeypatch.setattr(bench, "_run", measure)
        monkeypatch.setattr(bench, "PAGE", tmp_path / "bench.md")
        monkeypatch.setattr(bench, "ROOT", tmp_path)
        file = tmp_path / "figures" / "bench.json"
        code = bench.main([*arguments, "--json", str(file)])
        return code, orjson.loads(file.read_bytes()), capsys.readouterr().err

    return run


FAST = results(token=[4000], bare=[10_000]).closed
SLOW = results(token=[2000], bare=[10_000]).closed


def test_exit_codes_of_targets(ran):
    code, told, _ = ran(closed=FAST)
    assert (code, told["closed"]) == (0, FAST)
    code, told, said = ran(closed=SLOW)
    assert code == 1
    assert "MISSED   `/token` direct to bare Starlette: 0.20, not ≥ 0.25" in said
    assert [one["met"] for one in told["targets"]] == [False, True]


def test_what_cannot_be_trusted_is_never_written(ran, tmp_path):
    code, _, said = ran("--write", closed=FAST, unsound=["the provider bounded it"])
    assert (code, "UNSOUND  the provider bounded it" in said) == (2, True)
    assert not (tmp_path / "bench.md").exists()
    assert ran("--write", closed=FAST)[0] == 0
    assert (tmp_path / "bench.md").read_text().startswith("# Proof: performance\n")


def test_a_part_that_fails_leaves_the_others_their_figures():
    def fail():
        raise Failed("the generator was late")

    run = Results()
    bench.carry_out({"latency": fail, "start": lambda: run.growth.update(start_seconds=1.0)}, run)
    assert (run.growth, run.unsound) == ({"start_seconds": 1.0}, ["latency: the generator was late"])


def test_the_guard_fails_on_a_loss(ran, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "ACCEPTED", tmp_path / "accepted.json")
    assert ran("--guard", "--accept", closed=FAST)[0] == 0
    kept = orjson.loads((tmp_path / "accepted.json").read_bytes())
    assert kept["ratios_to_bare"] == {"token": 0.4}
    assert ran("--guard", closed=FAST)[0] == 0
    code, told, said = ran("--guard", closed=SLOW)
    assert (code, told["guard"]) == (1, [{"name": "token", "accepted": 0.4, "now": 0.2}])
    assert "LOST     token: 0.200 of bare Starlette, accepted were 0.400" in said


def test_help_names_every_subject_and_part(capsys):
    with pytest.raises(SystemExit) as end:
        bench.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name in (*BY_NAME, *bench.PARTS, "exit codes", "make bench-guard"):
        assert name in text


@pytest.mark.parametrize("arguments", [["--only", "apache"], ["--parts", "closed,open"], ["--rounds", "many"]])
def test_mistakes_are_told(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        bench.main(arguments)
    assert end.value.code == 2
    assert arguments[1].rpartition(",")[2] in capsys.readouterr().err


def test_litellm_is_measured_only_if_it_is_wanted(monkeypatch):
    monkeypatch.delenv("BENCH_LITELLM", raising=False)
    without = [one.name for one in at_hand()]
    monkeypatch.setenv("BENCH_LITELLM", "1")
    assert [one.name for one in at_hand()] == [*without, "litellm"] == [one.name for one in SUBJECTS]
    assert set(figures.TITLES) == set(BY_NAME)
    assert [one.name for one in SUBJECTS if one.ours] == list(figures.GUARDED)


# Who calls, and how


def test_clients_are_shown_beside_ours_and_who_answers_nobody_as_that():
    closed = {"ours": [sample(8000.0, cpu_us=100.0)], "aiohttp": [sample(4000.0, cpu_us=150.0)]}
    in_flight = {"1000": {"ours": [sample(3500.0)], "httpx": [sample(0.0, errors=1000)]}}
    lines = clients.page(Results(machine={"time": "now"}, closed=closed, in_flight=in_flight)).splitlines()
    cells = {
        line.split("|")[1].split()[0]: [cell.strip() for cell in line.split("|")[2:]]
        for line in lines
        if line.startswith("| ") and line.strip("| ")
    }
    assert cells["aiohttp"][:7] == ["4,000", "0.50", "5.0 ms", "9.0 ms", "150 µs", "1.5", "90 MB"]
    assert cells["httpx"][0] == "nobody was answered"


def test_a_client_that_collapses_does_so_once(monkeypatch):
    speeds = {"ours": 3500.0, "httpx": 10.0}
    asked = []

    def measured(_, subject, *, connections, slow):
        asked.append((subject.name, connections, slow))
        return figures.Sample(**sample(speeds[subject.name]))

    monkeypatch.setattr(clients, "measured", measured)
    monkeypatch.setattr(parts, "measure_closed", lambda *_: None)
    run = Results()
    on: Any = SimpleNamespace(plan=clients.PLAN, results=run, say=lambda _: None)
    clients.measure(on, clients.subjects(["ours", "httpx"]))
    assert [len(run.in_flight["1000"][name]) for name in ("ours", "httpx")] == [clients.PLAN.rounds, 1]
    assert set(asked) == {("ours", 1000, True), ("httpx", 1000, True)}


def test_users_come_back_five_times_with_their_own_jwt(tmp_path):
    signer = people.Signer.new("a-shared-secret-of-the-bench-0123456789")
    known = signer.people(tmp_path / "people", 6, ["acme", "widgets"])
    lines = [line.split() for line in known.file.read_text().splitlines()]
    key = jwt.PyJWK(orjson.loads(signer.key_set)["keys"][0])
    claims = [jwt.decode(token, key, algorithms=["RS256"], audience="switchboard") for _, token in lines]
    assert [one["org_id"] for one in claims] == ["acme", "widgets"] * 3
    assert len({one["sub"] for one in claims}) == len({address for address, _ in lines}) == 6

    wanted = {"people": str(known.file), "method": "POST", "path": "/sdp", "port": 1, "media_type": "application/sdp"}
    wanted |= {"content": load.OFFER.read_bytes().decode(), "first": 0, "uses": 5, "apart": 5}
    made = paced.requests(wanted, 30)
    assert Counter(one.split(b"Bearer ")[1].split(b"\r\n")[0].decode() for one in made) == {
        token: 5 for _, token in lines
    }
    bodies = [one.partition(b"\r\n\r\n")[2] for one in made]
    assert len(set(bodies)) == 30
    assert {len(body) for body in bodies} == {load.OFFER.stat().st_size}


def test_nobody_else_is_on_the_core_of_the_subject():
    cores = Cores.of_this_machine()
    with subprocess.Popen(["sleep", "20"]) as daemon:
        with shielded(cores) as moved:
            assert moved > 0
            assert os.sched_getaffinity(daemon.pid) == cores.others
            assert os.sched_getaffinity(0) == cores.all
        assert os.sched_getaffinity(daemon.pid) == cores.all
        daemon.kill()


def test_one_request_in_five_is_by_somebody_new_at_any_time(tmp_path):
    """And in one load after another: who has begun in the first comes back in the second."""
    file = tmp_path / "people"
    file.write_text("".join(f"10.0.0.1 {number}\n" for number in range(9000)))
    how = {"people": str(file), "method": "GET", "path": "/token", "port": 1, "media_type": "", "content": ""}
    warm = load.Seen(requests=4000, seconds=2.0, p50_ms=1, p99_ms=2, max_ms=3, errors=0)
    firsts = [0, load.after([warm], in_flight=0)]
    made = [paced.requests({**how, "first": first, "uses": 5, "apart": 1000}, 4000) for first in firsts]
    tokens = [one.split(b"Bearer ")[1].split(b"\r\n")[0] for some in made for one in some]
    known = set(tokens[:1000])
    for begin in range(1000, len(tokens), 5):
        five = tokens[begin : begin + 5]
        assert len(set(five) - known) == 1
        known |= set(five)
    places = {token: [at for at, one in enumerate(tokens) if one == token] for token in tokens[:200:5]}
    assert {len(found) for found in places.values()} == {5}
    assert all(later - earlier == 1001 for found in places.values() for earlier, later in pairwise(found))
    assert load.users_of(8000) == len(known)


def test_who_has_been_asked_for_is_not_asked_for_again():
    seen = load.Seen(requests=6968, seconds=2.0, p50_ms=1, p99_ms=2, max_ms=3, errors=0)
    assert load.after([seen], in_flight=32) == 1400
    assert load.jwts_used_up(7000, people.People(load.OFFER, 2199))
    assert not load.jwts_used_up(7000, people.People(load.OFFER, 2200))


def test_nginx_cannot_misread_what_the_provider_answers():
    """In its quoted words a backslash, a quote or a dollar has a meaning of its own, and none is longer than 4 KB."""
    words = [nginx.secret().decode(), r"\r\n".join(nginx.ANSWER)]
    assert not any(sign in words[0] for sign in "\\'$")
    assert not any(sign in "".join(nginx.ANSWER) for sign in '\\"$')
    assert max(len(word) for word in words) < 4000


@pytest.mark.anyio
async def test_the_open_loop_counts_what_comes_back(tmp_path):
    hits = Counter[str]()

    async def token(request: Request) -> Response:
        hits[request.headers["authorization"]] += 1
        status = 503 if hits.total() == 3 else 200
        await asyncio.sleep(0.02)
        return Response(b"x" * 3000, status)

    file = tmp_path / "people"
    file.write_text("10.0.0.1 one\n10.0.0.2 two\n")
    async with serving(Starlette(routes=[Route("/token", token)])) as url:
        wanted = {"port": int(url.rpartition(":")[2]), "method": "GET", "path": "/token", "status": 200, "content": ""}
        wanted |= {"media_type": "", "people": str(file), "first": 0, "uses": 5, "apart": 2, "rate": 50, "seconds": 0.4}
        begun = time.perf_counter()
        seen = await paced.run(wanted)
        took = time.perf_counter() - begun
    assert hits == {"Bearer one": 10, "Bearer two": 10}
    assert (seen["requests"], seen["errors"]) == (20, 1)
    assert 20 <= seen["p50_ms"] <= seen["p99_ms"] <= seen["max_ms"]
    assert 0.35 < seen["seconds"] < took


def test_processes_are_weighed():
    with subprocess.Popen([sys.executable, "-c", "sum(range(10**7)); input()"], stdin=subprocess.PIPE) as child:
        begun = time.monotonic()
        before = Busy.now(frozenset(os.sched_getaffinity(0)))
        while cpu_seconds(child.pid) < 0.1:
            assert time.monotonic() - begun < 10
            time.sleep(0.01)
        share = Busy.now(frozenset(os.sched_getaffinity(0))).share_since(before)
        assert family(os.getpid())[0] == os.getpid()
        assert child.pid in family(os.getpid())
        assert 3 < megabytes(child.pid) <= megabytes(child.pid, "VmHWM") < 100
        assert 0 < share <= 1.1
        child.kill()


def test_what_a_subject_says_is_kept(tmp_path):
    lines = [{"event": "request", "status": 200}, {"event": "request", "status": 503}, {"event": "Redis is away"}]
    said = "\n".join(orjson.dumps(line).decode() for line in lines)
    command = [sys.executable, "-c", "import sys; print(sys.argv[1]); sys.exit('no more')", said]
    program = Program(command, on=frozenset(os.sched_getaffinity(0)), env={}, log=tmp_path / "log")
    with pytest.raises(Failed, match=r"(?s)ended with 1: .*no more"):
        program.until("http://127.0.0.1:9/", seconds=10)
    assert program.refusals() == {"503": 1}
    assert (program.says("Redis is away"), program.says("Redis is back")) == (1, 0)
    program.stop()
