"""Several workers behind one port: real processes, killed and counted."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from switchboard import workers
from switchboard.app.needs import CannotServe, needed_of
from switchboard.metrics import shared
from switchboard.workers import Crew
from tests.prove.service import Ground, Replica, ground, new_offer, new_user, policy, tenant, token
from tests.support import world as worlds
from tests.support.process import switchboard
from tests.support.world import ADMIN_TOKEN
from tests.test_cli import serve_environment
from tests.test_metrics import samples

pytestmark = pytest.mark.anyio


class Service:
    """A parent with two workers."""

    def __init__(self, place: Ground, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.place = place
        self.replica: Replica = place.add(
            workers="2", audit=f"file:{folder}/audit.jsonl", drain_seconds="10", admin_token=ADMIN_TOKEN, **settings
        )
        self.replica._env["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
        self.replica.start()
        self.ops = f"http://127.0.0.1:{self.replica._ops_port}"
        self.url = f"http://127.0.0.1:{self.replica.port}"
        self.until(lambda: [one["status"] for one in self.ready["workers"]] == ["ready", "ready"])

    @property
    def process(self):
        return self.replica.process

    @property
    def ready(self) -> Any:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.ops}/readyz", trust_env=False).json()
        return {"status": "away", "workers": []}

    @property
    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.ready["workers"]]

    @property
    def page(self) -> str:
        return httpx.get(f"{self.ops}/metrics", trust_env=False).text

    @property
    def counted(self) -> Counter[Any]:
        """Decisions as metrics have them."""
        names = ("action", "tenant", "outcome", "reason")
        return Counter(
            {
                tuple(dict(labels)[name] for name in names): int(value)
                for labels, value in samples(self.page, "switchboard_decisions_total").items()
            }
        )

    def records(self, part: str) -> list[Any]:
        """Decisions in the audit of one process."""
        lines = (self.folder / f"audit.{part}.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.endswith("}")]
        return [record for record in records if not record["action"].startswith("audit.")]

    def recorded(self, *parts: str) -> Counter[Any]:
        return Counter(
            (record["action"], record.get("tenant", ""), record["outcome"], record["reason"])
            for part in parts or ("parent", "worker-1", "worker-2")
            for record in self.records(part)
        )

    def until(self, holds, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self.process.popen.poll() is None, self.process.err
            assert time.monotonic() < end, f"{self.ready} {self.process.err}"
            time.sleep(0.03)


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    tenants = {"acme": tenant(limits={"user": ["2/minute"]}), "direct": tenant(preset={"delivery": "direct"})}
    with ground(policy(**tenants)) as made:
        yield made


@pytest.fixture(scope="module")
def service(place, tmp_path_factory) -> Iterator[Service]:
    made = Service(place, tmp_path_factory.mktemp("workers"))
    yield made
    if made.process.popen.poll() is None:
        made.process.stop()


def ask(client: httpx.Client, url: str, jwt: str | None = None, **how) -> int:
    headers = {"authorization": f"Bearer {jwt}"} if jwt else {}
    method = how.pop("method", "GET")
    return client.request(method, url, headers={**headers, **how.pop("headers", {})}, **how).status_code


def mixed_run(service: Service, users: int = 40) -> Counter[Any]:
    """Requests of every kind, each on a connection of its own; their statuses."""
    statuses: Counter[int] = Counter()
    with httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        for number in range(users):
            user, of_direct = new_user("acme"), new_user("direct")
            asked = [
                ask(client, f"{service.url}/token", user.token),
                ask(client, f"{service.url}/token?preset=none", user.token),
                ask(client, f"{service.url}/token"),
                ask(client, f"{service.url}/token", of_direct.token),
            ]
            if number % 4 == 0:
                offer = {"content": new_offer(), "headers": {"content-type": "application/sdp"}, "method": "POST"}
                asked += [ask(client, f"{service.url}/sdp", user.token, **offer)]
                asked += [ask(client, f"{service.url}/token", user.token)]
            statuses.update(asked)
    return statuses


# What both do together


def test_both_workers_take_work_and_metrics_agree_with_the_audit(service):
    statuses = mixed_run(service)
    assert statuses == {200: 80, 404: 40, 401: 40, 201: 10, 429: 10}
    admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    assert httpx.get(f"{service.ops}/admin/calls", headers=admin, trust_env=False).json()["open_calls"] == 10
    assert httpx.get(f"{service.ops}/admin/calls", trust_env=False).status_code == 401
    shares = [sum(service.recorded(f"worker-{number}").values()) for number in (1, 2)]
    assert sum(shares) == 180
    assert min(shares) > 0  # whoever is free takes a connection; how many, the machine decides
    counted = service.counted
    assert counted == service.recorded()
    assert counted["admin.calls", "", "allowed", "ok"] == 1
    assert samples(service.page, "switchboard_audit_records_total") == {frozenset(): sum(counted.values())}
    requests = samples(service.page, "switchboard_http_request_duration_seconds_count")
    assert {
        int(dict(labels)["status"]): value for labels, value in requests.items() if dict(labels)["route"] != "/sdp"
    } == {200: 80, 404: 40, 401: 40, 429: 10}


def test_each_process_has_an_audit_of_its_own_that_verifies(service, tmp_path):
    key = tmp_path / "key"
    key.write_text(service.replica._env["SWITCHBOARD_AUDIT_KEY"])
    files = sorted(map(str, service.folder.glob("audit.*.jsonl")))
    assert [Path(file).name for file in files] == ["audit.parent.jsonl", "audit.worker-1.jsonl", "audit.worker-2.jsonl"]
    with switchboard("audit", "verify", *files, "--key-file", str(key)) as verifying:
        assert verifying.wait() == 0, verifying.out


def test_the_page_has_the_form_of_one_process(service):
    page = service.page
    for name in re.findall(r"^# TYPE (\S+)", page, re.MULTILINE):
        assert page.count(f"# TYPE {name} ") == 1
    assert "pid=" not in page
    assert samples(page, "switchboard_build_info") == {frozenset({("version", "0.1.0")}): 1}
    assert samples(page, "switchboard_audit_unavailable") == {frozenset(): 0}
    lag = samples(page, "switchboard_event_loop_lag_seconds_count")[frozenset()]
    assert lag > 4
    answer = httpx.get(f"{service.ops}/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.text.endswith("# EOF\n")
    assert "request_id" not in answer.text


def test_open_calls_are_told_once_and_not_added_up(service):
    def told():
        return samples(service.page, "switchboard_open_calls").get(frozenset({("tenant", "acme")}))

    service.until(lambda: told() == 10)


def test_the_ops_port_tells_of_each_worker(service):
    ready = service.ready
    assert (ready["status"], ready["version"]) == ("ready", "0.1.0")
    assert "degraded" not in ready
    first, second = ready["workers"]
    assert (first["worker"], first["status"], first["restarts"]) == (1, "ready", 0)
    assert first["pid"] != second["pid"] != service.process.popen.pid
    lines = [json.loads(line) for line in tuple(service.process.lines["stderr"])]
    assert {line.get("process") for line in lines if line["event"] == "request"} == {
        "worker-1",
        "worker-2",
        "parent",
    }
    # A worker that lost something says so; here both lost Redis, and so did the parent.
    service.place.redis.freeze()
    service.until(lambda: all("redis" in one.get("degraded", {}) for one in service.ready["workers"]))
    service.place.redis.thaw()
    service.until(lambda: not any("degraded" in one for one in (service.ready, *service.ready["workers"])))


def test_sighup_reaches_everybody(service):
    before = {part: len(service.records(part)) for part in ("worker-1", "worker-2")}
    for part in ("parent", *before):
        (service.folder / f"audit.{part}.jsonl").rename(service.folder / f"old.{part}.jsonl")
    service.process.popen.send_signal(signal.SIGHUP)
    service.until(lambda: len(list(service.folder.glob("audit.*.jsonl"))) == 3)
    assert service.pids == [one["pid"] for one in service.ready["workers"]]
    for part in ("parent", *before):
        # Back again, for the tests that follow; what is new goes into the new file until the next SIGHUP.
        old, new = (service.folder / f"{name}.{part}.jsonl" for name in ("old", "audit"))
        service.until(lambda old=old: old.read_text().endswith("\n"))
        new.write_text(old.read_text() + new.read_text())


# A worker that dies


class Load(threading.Thread):
    """Requests until it is told to stop, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.lost = 0

    def run(self) -> None:
        with httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            while not self._over.is_set():
                try:
                    self.statuses[ask(client, f"{self._url}/token", token(f"load-{time.time()}", tenant="acme"))] += 1
                except httpx.TransportError:
                    self.lost += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_a_worker_that_is_killed_under_load_is_replaced_and_no_counter_goes_down(service):
    before = service.counted
    loads = [Load(service.url) for _ in range(3)]
    for load in loads:
        load.start()
    seen, killed = [before], service.pids[0]
    try:
        for number in range(30):
            if number == 5:
                os.kill(killed, signal.SIGKILL)
            seen.append(service.counted)
            time.sleep(0.02)
        service.until(lambda: [one["status"] for one in service.ready["workers"]] == ["ready", "ready"])
        seen.append(service.counted)
    finally:
        for load in loads:
            load.stop()
    fallen = [
        (what, value, later[what])
        for earlier, later in pairwise(seen)
        for what, value in earlier.items()
        if later[what] < value
    ]
    assert fallen == []
    first, second = service.ready["workers"]
    assert (first["restarts"], second["restarts"]) == (1, 0)
    assert first["pid"] != killed
    told = [json.loads(line) for line in tuple(service.process.lines["stderr"])]
    (died,) = [line for line in told if line["event"].startswith("a worker died")]
    assert (died["worker"], died["code"], died["level"]) == (1, -9, "error")
    assert samples(service.page, "switchboard_worker_restarts_total") == {frozenset(): 1}
    # The dead one's work still counts; what was in its hands may be on record and not counted, or not answered.
    counted, recorded = service.counted, service.recorded()
    asked, lost = sum(sum(load.statuses.values()) for load in loads), sum(load.lost for load in loads)
    assert asked > 20
    assert set().union(*(load.statuses for load in loads)) == {200}
    assert lost <= len(loads)
    assert counted.total() - before.total() >= asked
    assert 0 <= recorded.total() - counted.total() <= len(loads)
    assert samples(service.page, "switchboard_ratelimit_degraded") == {frozenset(): 0}


# The end


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_sigterm_lets_work_finish_and_a_second_one_ends_at_once(service):
    statuses: list[int] = []

    def mint() -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            statuses.append(ask(client, f"{service.url}/token", new_user("direct").token))

    service.place.faults(delay_seconds=2)
    minting = [threading.Thread(target=mint) for _ in range(6)]
    for one in minting:
        one.start()
    time.sleep(1)
    service.place.faults(delay_seconds=60)
    try:
        with socket.create_connection(("127.0.0.1", service.replica.port)) as stuck:
            jwt = new_user("direct").token
            stuck.sendall(f"GET /token HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {jwt}\r\n\r\n".encode())
            time.sleep(0.2)
            pids = service.pids
            service.process.popen.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{service.url}/token", trust_env=False)
            for one in minting:
                one.join()
            assert statuses == [200] * 6
            assert any(map(alive, pids))
            began = time.monotonic()
            assert service.process.stop(signal.SIGTERM) == 0
            assert time.monotonic() - began < 5
            assert not any(map(alive, pids))
    finally:
        service.place.faults()
    assert list((service.folder / "metrics").glob("*.db")) != []  # given, so it is kept
    for part in ("parent", "worker-1", "worker-2"):
        *_, last = (service.folder / f"audit.{part}.jsonl").read_text().splitlines()
        assert json.loads(last)["action"] == "audit.close"


def test_a_parent_that_is_killed_takes_its_workers_along(place, tmp_path):
    service = Service(place, tmp_path)
    pids = service.pids
    service.process.popen.kill()
    service.process.popen.wait()
    end = time.monotonic() + 15
    while any(map(alive, pids)):
        assert time.monotonic() < end
        time.sleep(0.05)
    service.process.wait()
    told = [json.loads(line) for line in service.process.lines["stderr"]]
    assert [line["process"] for line in told if line["event"].startswith("the parent is gone")] != []
    with socket.create_server(("127.0.0.1", service.replica.port)):
        pass  # the port is free again


# What cannot be


def test_workers_without_redis_are_refused():
    with pytest.raises(CannotServe, match="SWITCHBOARD_REDIS_URL: needed by more than one worker; without Redis each"):
        needed_of(worlds.settings(workers=2))


def test_a_worker_that_refuses_to_start_ends_the_start(redis, tmp_path):
    taken = tmp_path / "audit.worker-2.jsonl"
    env = serve_environment(SWITCHBOARD_REDIS_URL=redis.url, SWITCHBOARD_AUDIT=f"file:{tmp_path}/audit.jsonl")
    with taken.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with switchboard("serve", "--workers", "2", env=env) as process:
            assert process.wait(30) == 1
    assert f"SWITCHBOARD_AUDIT: file:{taken}: another process writes to it" in process.err
    assert "a worker refused to start" in process.err
    # The other one may not have come as far as that when it was told to end.
    other = tmp_path / "audit.worker-1.jsonl"
    assert not other.exists() or other.read_text().endswith("\n")


def test_a_folder_for_metrics_that_cannot_be(redis, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    env = serve_environment(
        SWITCHBOARD_REDIS_URL=redis.url, PROMETHEUS_MULTIPROC_DIR=str(file), SWITCHBOARD_WORKERS="2"
    )
    with switchboard("serve", env=env) as process:
        assert process.wait() == 1
        assert f"PROMETHEUS_MULTIPROC_DIR: {file}: File exists" in process.err


def test_one_worker_is_one_process_whatever_the_environment_says(tmp_path):
    env = serve_environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path), SWITCHBOARD_WORKERS="3")
    with switchboard("serve", "--workers", "1", env=env) as process:
        process.until(f"http://127.0.0.1:{env['SWITCHBOARD_OPS_PORT']}/readyz")
        children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text()
        assert children.split() == []
        assert list(tmp_path.iterdir()) == []
        assert process.stop() == 0


# The crew, with programs that are simpler than ours


@contextlib.contextmanager
def crew_of(script: str, count: int = 1, **how) -> Iterator[tuple[Crew, list[Any], list[float]]]:
    changes: list[Any] = []
    restarts: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield (
            Crew(
                count,
                listening,
                lambda number, _, line: [sys.executable, "-c", script, str(number), str(line)],
                environ=dict(os.environ),
                drain_seconds=how.get("drain_seconds", 0.2),
                on_change=changes.append,
                on_death=lambda _: None,
                on_restart=lambda: restarts.append(time.monotonic()),
            ),
            changes,
            restarts,
        )


async def until(holds) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what changes are lists
            await asyncio.sleep(0.01)


async def test_pauses_grow_and_are_bounded(monkeypatch):
    monkeypatch.setattr(workers, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(workers, "LONGEST_PAUSE", 0.2)
    with crew_of("import sys; sys.exit(3)") as (crew, changes, restarts):
        running = asyncio.create_task(crew.run())
        await until(lambda: len(restarts) >= 5)
        crew.stop()
        await running
    pauses = [later - earlier for earlier, later in pairwise(restarts)]
    assert all(pause > least for pause, least in zip(pauses, (0.1, 0.2, 0.2, 0.2), strict=True))
    assert max(pauses) < 2
    assert not crew.refused
    assert changes[-1][0]["restarts"] >= 4
    assert changes[-1][0]["status"] == "starting"


async def test_a_worker_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(workers, "LATE_SECONDS", 0.2)
    deaf = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        ' os.write(int(sys.argv[2]), b\'{"status": "ready"}\\n\'); time.sleep(60)'
    )
    with crew_of(deaf, 2) as (crew, changes, _):
        running = asyncio.create_task(crew.run())
        await until(lambda: changes and all(worker["status"] == "ready" for worker in changes[-1]))
        began = time.monotonic()
        crew.stop()
        await running
    assert time.monotonic() - began < 3


async def test_a_program_that_cannot_be_started_is_tried_again(monkeypatch):
    monkeypatch.setattr(workers, "FIRST_PAUSE", 0.01)
    with crew_of("") as (crew, _, restarts):
        crew._command = lambda *_: ["/no/such/program"]
        running = asyncio.create_task(crew.run())
        await until(lambda: len(restarts) >= 2)
        crew.stop()
        await running


# Where the values are


def test_a_folder_of_ones_own_is_made_and_removed():
    with shared.folder_for_values(None) as folder:
        assert folder.is_dir()
        (folder / "counter_x.db").write_bytes(b"")
    assert not folder.exists()


def test_what_a_killed_parent_left_behind_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "IN_MEMORY", tmp_path)
    names = ("dead", "alive", "young", "other")
    folders = {name: tmp_path / f"{'' if name == 'other' else shared.PREFIX}{name}" for name in names}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "counter_parent.db").write_bytes(b"")
        if name != "young":
            os.utime(folder, (0, 0))
    (tmp_path / f"{shared.PREFIX}link").symlink_to(folders["other"])
    with shared._held(folders["alive"]), shared.folder_for_values(None) as made:
        assert made.parent == tmp_path
        assert [name for name, folder in folders.items() if folder.exists()] == ["alive", "young", "other"]
    assert (folders["other"] / "counter_parent.db").exists()


def test_a_given_folder_is_emptied_of_values_and_kept(tmp_path):
    (tmp_path / "counter_1.db").write_bytes(b"old")
    (tmp_path / "mine.txt").write_text("mine")
    with shared.folder_for_values(str(tmp_path)) as folder:
        assert sorted(file.name for file in folder.iterdir()) == ["mine.txt"]
    assert tmp_path.exists()


async def test_a_file_that_has_just_been_begun_is_looked_at_again(tmp_path, monkeypatch):
    begun = tmp_path / "counter_worker-1.db"
    begun.write_bytes(b"")
    with pytest.raises(struct.error):
        await shared.SumPage(tmp_path)("")
    looks = iter([b"", b"", b"\0" * 4096])  # as the library leaves a file when it begins with it
    monkeypatch.setattr(shared.SumPage, "_sums", begin_meanwhile(begun, looks))
    assert await shared.SumPage(tmp_path)("") == (b"", "text/plain; version=0.0.4; charset=utf-8")


def begin_meanwhile(file, looks):
    sums = shared.SumPage._sums

    def look(page, *tries):
        file.write_bytes(next(looks))
        return sums(page, *tries)

    return look
