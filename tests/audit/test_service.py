"""The service as a process: what its file holds, whatever is done to the process, the file, and the reader."""

import asyncio
import fcntl
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from switchboard.audit.anchors import Anchor
from switchboard.cli import main
from tests.prove import service
from tests.prove.audit import Load, policy, records_in, tokens
from tests.prove.client import Caller
from tests.prove.service import ground
from tests.support.chains import KEY, found, verified, written
from tests.support.leaks import LEAKS
from tests.support.world import AUDIT_KEY, EXAMPLE, USER_KEY_SECRET


@pytest.fixture(scope="module")
def place():
    """A provider and a Redis for the services of these tests."""
    with ground(policy()) as made:
        yield made


@pytest.fixture
def file(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def serve(place, file):
    """Starts a service with its audit in the file."""
    started = []

    def start(*, under=(), **settings):
        replica = place.add(**{"audit": f"file:{file}", "redis_url": "", **settings})
        replica._under = under
        replica.start()
        replica.until_ready()
        started.append(replica)
        return replica

    yield start
    for replica in started:
        replica.kill()
    for path in file.parent.glob("audit.jsonl*"):
        LEAKS.saw(path.name, path.read_text())


def load_on(replica, seconds=0.3):
    """Requests of all kinds for so long, or longer on a machine that has other things to do."""
    load = Load(replica.port, tokens(20))
    while load.answers.total() < 20:
        asyncio.run(load.run(seconds))
    return load


def say(*arguments, **env):
    """What a command prints, and its exit code."""
    result = CliRunner().invoke(main, list(map(str, arguments)), env={"SWITCHBOARD_AUDIT_KEY": AUDIT_KEY, **env})
    return result.output, result.exit_code


def test_from_start_to_stop(serve, file):
    replica = serve()
    load = load_on(replica)
    assert load.handed_out > 10
    output, code = say("audit", "verify", file)
    assert (code, "is open, and its process is running" in output) == (0, True)
    assert replica.process.stop(signal.SIGTERM) == 0
    records = records_in(file)
    assert not load.unaccounted(records)
    assert (records[0]["action"], records[-1]["action"]) == ("audit.open", "audit.close")
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))
    output, code = say("audit", "verify", file)
    assert (code, output.splitlines()[-1].startswith("no problem: ")) == (0, True)


def test_an_address_in_part(serve, file):
    for shown, wanted in (("prefix", {"127.0.0.0/24"}), ("off", {None})):
        replica = serve(audit_client_ip=shown)
        load_on(replica, 0.1)
        replica.kill()
        decisions = [one for one in records_in(file) if not one["action"].startswith("audit.")]
        assert {one.get("client_ip") for one in decisions} == wanted
        file.unlink()


def test_the_next_process_goes_on_in_the_same_file(serve, file):
    first = serve()
    load_on(first, 0.1)
    first.kill()
    with file.open("ab") as torn:
        torn.write(b'{"time":"2026-11-20T10:')  # what a crash can leave, which cannot be had at will
    second = serve()
    load_on(second, 0.1)
    assert second.process.stop(signal.SIGTERM) == 0
    verdict = verified(file)
    assert [one.kind for one in verdict.problems] == ["unclosed"]
    assert [one.state for one in verdict.chains] == ["unclosed", "closed"]
    assert verdict.notes[0].endswith("torn by a crash, as the record after it says")
    output, code = say("audit", "verify", file)
    assert (code, "unclosed: crash or cut, after record" in output) == (1, True)


def test_a_file_has_one_process(serve, place, file):
    serve()
    other = place.add(audit=f"file:{file}", redis_url="")
    other.start()
    assert other.process.wait() == 1
    assert "another process writes to it; give each its own file" in other.process.err


def test_sighup_and_rotation_lose_no_record(serve, file):
    """Under load the file is moved away five times; by size it is rotated much more often."""
    replica = serve(audit_rotate_bytes="30000")
    load = Load(replica.port, tokens(20))

    async def move():
        asking = asyncio.create_task(load.run(2))
        for number in range(5):
            await asyncio.sleep(0.2)
            with suppress(FileNotFoundError):
                file.rename(f"{file}.moved-{number}")
            replica.process.popen.send_signal(signal.SIGHUP)
        await asking

    asyncio.run(move())
    assert replica.process.stop(signal.SIGTERM) == 0
    files = list(file.parent.iterdir())
    assert len(files) > 8
    records = records_in(*files)
    assert not load.unaccounted(records)
    decided = [one for one in records if one["action"] in ("token.mint", "grant.issue", "call.open")]
    assert len(decided) >= load.answers.total()
    assert found(verified(*files)) == []
    output, code = say("audit", "verify", *files)
    assert (code, f"{len(files)} files" in output) == (0, True)
    # One of them taken away is missed.
    assert say("audit", "verify", *sorted(files)[2:])[1] == 1


@pytest.mark.parametrize("fsync", [False, True])
def test_write_then_fsync_then_send(serve, file, tmp_path, fsync):
    """In this order for each request, as the kernel saw it; and one fsync for many that come together."""
    trace = tmp_path / "trace"
    calls = "openat,write,writev,pwrite64,fsync,fdatasync,sendto,sendmsg"
    under = ["strace", "-f", "-y", "-s", "1000000", "-e", f"trace={calls}", "-o", str(trace)]
    replica = serve(under=under, audit_fsync="1" if fsync else "")
    known = tokens(40)

    async def ask():
        for token in known[:3]:
            async with Caller(replica.port) as caller:
                assert await caller.token(token) == 200
        callers = [await Caller(replica.port).__aenter__() for _ in known]
        statuses = await asyncio.gather(*(one.token(token) for one, token in zip(callers, known, strict=True)))
        assert set(statuses) == {200}
        for one in callers:
            await one.__aexit__()

    asyncio.run(ask())
    pid = replica.process.popen.pid  # of strace, whose only child is the service
    os.kill(int(Path(f"/proc/{pid}/task/{pid}/children").read_text()), signal.SIGTERM)
    assert replica.process.wait() == 0
    steps = steps_of(trace.read_text(errors="replace"), file)
    on_record = {one for step, one in steps if step == "write"}
    sends = [(place, one) for place, (step, one) in enumerate(steps) if step == "send" and one in on_record]
    assert len(sends) == 43
    for place, request_id in sends:
        written_at = steps.index(("write", request_id))
        assert written_at < place
        assert not fsync or ("fsync", None) in steps[written_at:place]
    syncs = [step for step, _ in steps].count("fsync")
    assert (0 < syncs < 43) if fsync else syncs == 0


def steps_of(trace, file):
    """What was done with the file and the callers' sockets: `write` and `send` with a request id each, `fsync`.

    A call counts when it has returned, a send from when it begins: strace splits calls that overlap.
    """
    steps: list[tuple[str, str | None]] = []
    waiting: dict[str, tuple[bool, list[str], str]] = {}
    for line in trace.splitlines():
        thread, _, said = line.partition(" ")
        said = said.strip()
        ids = re.findall(r'\\"request_id\\":\\"([0-9a-f]{32})|x-request-id: ([0-9a-f]{32})', said)
        ids = [one or other for one, other in ids]
        is_file = f"<{file}>" in said
        done = said
        if said.startswith("<..."):
            is_file, ids, done = waiting.pop(thread, (False, [], "")) if "resumed" in said else (False, [], "")
        elif said.endswith("<unfinished ...>"):
            waiting[thread] = (is_file, ids, said)
            if is_file:
                continue
        if is_file and done.startswith("write("):
            steps += [("write", one) for one in ids]
        elif is_file and done.startswith(("fsync(", "fdatasync(")):
            steps.append(("fsync", None))
        elif "HTTP/1.1 200 OK" in said:
            steps += [("send", one) for one in ids]
    return steps


def test_what_is_on_record_after_kill_9(serve, file):
    replica = serve()
    load = Load(replica.port, tokens(20))

    async def kill():
        asking = asyncio.create_task(load.run(30))
        while load.handed_out < 20:  # noqa: ASYNC110 - the load tells by counting
            await asyncio.sleep(0.005)
        await asyncio.to_thread(replica.kill)
        await asking

    asyncio.run(kill())
    assert load.handed_out > 10
    assert not load.unaccounted(records_in(file))
    assert {one.kind for one in verified(file).problems} == {"unclosed"}


@contextmanager
def unread(replica):
    """A service whose standard output goes into a pipe that nobody reads; gives its process and the pipe."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    env = {**{name: value for name, value in os.environ.items() if "SWITCHBOARD" not in name}, **replica._env}
    process = subprocess.Popen(
        [sys.executable, "-m", "switchboard", "serve"], env=env, stdout=writing, stderr=subprocess.DEVNULL
    )
    os.close(writing)
    try:
        end = time.monotonic() + 20
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{replica.port}/readyz", trust_env=False).status_code == 200:
                    break
            assert time.monotonic() < end
            time.sleep(0.02)
        yield process, reading
    finally:
        process.kill()
        process.wait()


async def ask_until(port, status, *, at_most=200):
    """Ask for grants until the answer has a status; gives all answers, and the longest wait in seconds."""
    longest, statuses = 0.0, []
    async with Caller(port) as caller:
        for token in tokens(at_most):
            begin = time.monotonic()
            statuses.append(await caller.token(token))
            longest = max(longest, time.monotonic() - begin)
            if statuses[-1] == status:
                return statuses, longest
            if status != 503:
                await asyncio.sleep(0.1)
    raise AssertionError(statuses)


async def health(port):
    async with Caller(port) as caller:
        begin = time.monotonic()
        assert (await caller.ask("GET", "/healthz", "")).status == 200
        ready = await caller.ask("GET", "/readyz", "")
        return ready.status, ready.json.get("degraded"), time.monotonic() - begin


def test_standard_output_that_nobody_reads(place):
    replica = place.add(audit="stdout", redis_url="")
    with unread(replica) as (process, reading):
        # The pipe fills up; the one whose record does not fit waits for the reader, and no longer than that.
        statuses, longest = asyncio.run(ask_until(replica.port, 503))
        assert set(statuses[:-1]) == {200}
        assert longest < 3
        status, degraded, took = asyncio.run(health(replica.port))
        assert (status, degraded) == (200, ["audit"])
        assert took < 0.5
        # From now on the refusal is immediate, and the provider is not asked.
        before = len(place.calls())
        for _ in range(3):
            statuses, longest = asyncio.run(ask_until(replica.port, 503))
            assert (statuses, longest < 0.5) == ([503], True)
        load = load_on(replica, 0.2)
        assert set(load.answers) == {503}
        assert len(place.calls()) == before
        # Somebody reads, and it goes on by itself.
        os.set_blocking(reading, False)
        text = os.read(reading, 100_000)
        statuses, _ = asyncio.run(ask_until(replica.port, 200))
        assert statuses[-1] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        with suppress(BlockingIOError):
            while piece := os.read(reading, 100_000):
                text += piece
        os.close(reading)
    LEAKS.saw("standard output", text.decode())
    records = [json.loads(line) for line in text.splitlines()]
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))
    (resumed,) = [one for one in records if one["action"] == "audit.resume"]
    assert resumed["refused"] >= 4
    assert records[-1]["action"] == "audit.close"


def test_standard_output_that_is_closed_at_the_start(place):
    replica = place.add(audit="stdout", redis_url="")
    env = {**os.environ, **replica._env}
    command = shlex.join([sys.executable, "-m", "switchboard", "serve"])
    run = subprocess.run(["sh", "-c", f"exec {command} >&-"], env=env, stderr=subprocess.PIPE, check=False, text=True)
    assert run.returncode == 1
    assert "SWITCHBOARD_AUDIT: stdout: it is closed" in run.stderr


def test_standard_output_whose_reader_is_gone(place):
    replica = place.add(audit="stdout", redis_url="")
    with unread(replica) as (process, reading):
        os.close(reading)
        statuses, _ = asyncio.run(ask_until(replica.port, 503))
        assert set(statuses) <= {200, 503}
        assert asyncio.run(health(replica.port))[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_a_disk_that_is_full(serve, place, file):
    """A file that may not grow, which is what a full disk or a quota looks like, and needs no right to mount one."""
    earlier = set(place.calls())
    replica = serve()
    pid = replica.process.popen.pid
    load_on(replica, 0.2)
    limit = file.stat().st_size + 700
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    while 503 not in load_on(replica, 0.1).answers:
        assert file.stat().st_size <= limit
    full = load_on(replica, 0.5)
    assert set(full.answers) == {503}
    assert full.handed_out == 0
    assert "switchboard_audit_unavailable 1.0" in replica.metrics
    assert asyncio.run(health(replica.port))[1] == ["audit"]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    asyncio.run(ask_until(replica.port, 200))
    assert "switchboard_audit_unavailable 0.0" in replica.metrics
    assert asyncio.run(health(replica.port))[1] is None
    load = load_on(replica, 0.2)
    assert replica.process.stop(signal.SIGTERM) == 0
    assert not load.unaccounted(records_in(file))
    assert found(verified(file)) == []
    said = [json.loads(line) for line in replica.log.splitlines()]
    assert [one["event"] for one in said if one["logger"] == "switchboard"] == [
        "the audit cannot be written; every request is refused",
        "the audit is written again",
    ]
    # Whose record failed after a call was opened has no call.
    open_calls = {call.id for call in place.calls().values() if call.ended_at is None} - earlier
    assert open_calls
    assert open_calls <= {one.get("call_id") for one in records_in(file)}


# Anchors


def test_anchors_in_redis(serve, place, file):
    replica = serve(redis_url=place.redis.url)
    load_on(replica, 0.2)
    assert replica.process.stop(signal.SIGTERM) == 0
    assert 'switchboard_audit_anchors_total{outcome="ok"}' not in replica.log
    chain = records_in(file)[0]["chain"]
    assert place.redis.do("TTL", f"swb:audit:anchor:{chain}") > 300 * 86400
    anchor = Anchor.from_json(place.redis.do("GET", f"swb:audit:anchor:{chain}").encode())
    assert (anchor.seq, anchor.hash) == (records_in(file)[-1]["seq"], records_in(file)[-1]["hash"])
    redis = {"SWITCHBOARD_REDIS_URL": place.redis.url}
    asked = ("audit", "verify", file, "--anchor", "redis", "--host", anchor.host)
    assert say(*asked, **redis)[1] == 0
    lines = file.read_bytes().splitlines()
    written(file, lines[:-3])
    output, code = say(*asked, **redis)
    assert (code, f"cut: records {len(lines) - 2} to {len(lines)} of chain {chain}" in output) == (1, True)
    written(file, [])
    output, code = say(*asked, **redis)
    assert (code, f"missing: chain {chain} of {anchor.host}" in output) == (1, True)
    output, code = say(*asked[:-1], "another-host", **redis)
    assert (code, output.splitlines()[0]) == (1, "empty: there is no record in these files")


def test_anchors_in_a_file(serve, file):
    anchors = file.with_name("anchors")
    replica = serve(audit_anchors=f"file:{anchors}")
    load_on(replica, 0.1)
    assert 'switchboard_audit_anchors_total{outcome="ok"} ' in replica.metrics
    assert replica.process.stop(signal.SIGTERM) == 0
    assert say("audit", "verify", file, "--anchor", anchors)[1] == 0
    lines = file.read_bytes().splitlines()
    written(file, lines[:-1])
    output, code = say("audit", "verify", file, "--anchor", anchors)
    assert (code, f":{len(lines) - 1}: cut: record {len(lines)} of chain" in output) == (1, True)


def test_anchors_that_cannot_be_kept_refuse_nobody(serve, file):
    replica = serve(audit_anchors=f"file:{file.parent}")
    load = load_on(replica, 0.3)
    assert set(load.answers) == {200, 201}
    assert 'switchboard_audit_anchors_total{outcome="failed"} ' in replica.metrics
    assert replica.process.stop(signal.SIGTERM) == 0
    said = [one for one in map(json.loads, replica.log.splitlines()) if one["logger"] == "switchboard"]
    assert [one["event"] for one in said] == ["the audit's chain cannot be anchored"]
    assert said[0]["reason"] == f"{file.parent}: Is a directory"
    assert found(verified(file)) == []


# Commands


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (["verify"], {}, "Missing argument 'FILE...'"),
        (["verify", "/nowhere"], {}, "File '/nowhere' does not exist"),
        (["verify", str(EXAMPLE)], {"SWITCHBOARD_AUDIT_KEY": ""}, "SWITCHBOARD_AUDIT_KEY (or …_FILE, or --key-file)"),
        (["verify", str(EXAMPLE)], {"SWITCHBOARD_AUDIT_KEY": "none"}, "without a key there is no chain to verify"),
        (["verify", str(EXAMPLE), "--anchor", "/nowhere"], {}, "/nowhere: No such file or directory"),
        (["verify", str(EXAMPLE), "--anchor", str(EXAMPLE)], {}, "no line of it is an anchor"),
        (["verify", str(EXAMPLE), "--anchor", "redis"], {}, "SWITCHBOARD_REDIS_URL"),
        (
            ["verify", str(EXAMPLE), "--anchor", "redis"],
            {"SWITCHBOARD_REDIS_URL": "redis://127.0.0.1:1"},
            "Redis: ConnectionError",
        ),
        (["verify", str(EXAMPLE), "--anchor", "redis"], {"SWITCHBOARD_REDIS_URL": "x://y"}, "the scheme has to be"),
        (["verify", str(EXAMPLE), "--since", "yesterday"], {}, "'yesterday' is no time: write 2026-11-20T10:00Z"),
        (["show", "/nowhere"], {}, "File '/nowhere' does not exist"),
    ],
)
def test_wrong_use(arguments, env, says):
    output, code = say("audit", *arguments, **env)
    assert code == 2
    assert says in output


def test_a_file_that_holds_something_else():
    output, code = say("audit", "verify", EXAMPLE)
    assert (code, f"{EXAMPLE}:1: inserted: " in output) == (1, True)
    assert "no record fits the key" in output


def test_a_pipe_in_place_of_a_file(tmp_path):
    reading, writing = os.pipe()
    os.write(writing, b"{}\n")
    os.close(writing)
    output, code = say("audit", "verify", f"/proc/self/fd/{reading}")
    os.close(reading)
    assert code == 2
    assert "Traceback" not in output


def test_the_key_as_a_file(tmp_path, serve, file):
    load_on(serve(), 0.1)
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(KEY + b"\n")
    other.write_bytes(b"another-key-of-the-tests-0123456789ab")
    none = {"SWITCHBOARD_AUDIT_KEY": ""}
    assert say("audit", "verify", file, "--key-file", key, **none)[1] == 0
    assert say("audit", "verify", file, "--key-file", other, "--key-file", key, **none)[1] == 0
    assert say("audit", "verify", file, "--key-file", other, **none)[1] == 1
    assert say("audit", "verify", file, **none, SWITCHBOARD_AUDIT_KEY_FILE=str(key))[1] == 0


def test_what_happened_to_a_user(serve, file):
    replica = serve()
    user = service.new_user("acme")

    LEAKS.plant("JWT", user.token)

    async def ask():
        async with Caller(replica.port) as caller:
            LEAKS.plant("grant", (await caller.ask("GET", "/token", user.token)).json["value"])
            await caller.ask("GET", "/token?preset=nonsense", user.token)
            await caller.token(service.new_user("acme").token)

    asyncio.run(ask())
    subject = LEAKS.plant("subject", jwt_subject(user.token))
    command = ("user-key", "--issuer", service.ISSUER, "--tenant", "acme", "--subject", subject)
    output, code = say(*command, SWITCHBOARD_USER_KEY_SECRET=USER_KEY_SECRET)
    assert (code, output) == (0, f"{user.key}\n")
    assert say(*command)[1] == 2
    shown, code = say("audit", "show", file, "--user-key", user.key)
    assert code == 0
    head, *rows = [line.split() for line in shown.splitlines()]
    assert head[:4] == ["time", "action", "outcome", "reason"]
    assert [row[1:4] for row in rows] == [["grant.issue", "allowed", "ok"], ["token.mint", "denied", "unknown_preset"]]
    lines, _ = say("audit", "show", file, "--user-key", user.key, "--outcome", "denied", "--json")
    (record,) = [json.loads(line) for line in lines.splitlines()]
    assert (record["user_key"], record["reason"]) == (user.key, "unknown_preset")
    assert say("audit", "show", file, "--json", "--until", record["time"])[0].count("\n") == 2
    piped = CliRunner().invoke(main, ["audit", "show", "-", "--json", "--tenant", "acme"], input=file.read_bytes())
    assert piped.output.count("\n") == 3


def jwt_subject(token):
    import jwt

    return str(jwt.decode(token, options={"verify_signature": False})["sub"])


def test_verify_for_machines_and_in_several_processes(tmp_path, monkeypatch):
    """A large file is read by as many processes as there are cores, and the lines are still counted right."""
    from tests.prove.audit import _long_chain

    file = tmp_path / "large"
    count = _long_chain(file, 70_000_000)
    line = count // 2
    with file.open("r+b") as large:
        for _ in range(line - 1):
            large.readline()
        large.write(b"x")
    run = subprocess.run(
        [sys.executable, "-m", "switchboard", "audit", "verify", str(file), "--json"],
        capture_output=True,
        check=False,
        env={**os.environ, "SWITCHBOARD_AUDIT_KEY": AUDIT_KEY},
    )
    assert (run.returncode, run.stderr) == (1, b"")
    told = json.loads(run.stdout)
    assert [(one["kind"], one["line"], one["seq"]) for one in told["problems"]] == [("edited", line, line)]
    assert told["records"] == count - 1


def test_a_progress_bar_on_a_terminal_only(tmp_path):
    import pty

    from tests.support.chains import chain_of

    file = written(tmp_path / "a", chain_of(5))
    terminal, end = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "switchboard", "audit", "verify", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=end,
        check=True,
        env={**os.environ, "SWITCHBOARD_AUDIT_KEY": AUDIT_KEY},
    )
    os.close(end)
    shown = b""
    with suppress(OSError):  # a terminal that nobody holds any more
        while piece := os.read(terminal, 10_000):
            shown += piece
    os.close(terminal)
    assert b"verifying" in shown
    assert b"100%" in shown
