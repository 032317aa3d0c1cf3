"""How a process ends: real ones, asked and signalled; nobody who was taken is left without an answer."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.prove.service import Ground, Replica, ground, new_offer, new_user, policy, tenant
from tests.support.contract import check

LAME_DUCK_SECONDS = 1.0
LONGER = "3"  # where something has to happen within it, on a machine that has other things to do
DELAY = 4.0  # seconds that the provider takes, to be in flight when the lame duck's time is over


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground(policy(acme=tenant(), direct=tenant(preset={"delivery": "direct"}))) as made:
        yield made


class Service:
    """One replica, with its audit in a file."""

    def __init__(self, place: Ground, folder: Path, **settings: str) -> None:
        self.place = place
        self.folder = folder
        given = {"lame_duck_seconds": str(LAME_DUCK_SECONDS), "audit": f"file:{folder}/audit.jsonl", **settings}
        self.replica: Replica = place.add(**given)
        self.replica.start()
        self.replica.until_ready()
        self.url = f"http://127.0.0.1:{self.replica.port}"
        self.ops = f"http://127.0.0.1:{self.replica._ops_port}"

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.replica.process.popen.send_signal(number)

    def get(self, path: str, *, token: str | None = None, port: str = "") -> httpx.Response:
        """On a connection of its own."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{port or self.url}{path}", headers=headers, trust_env=False, timeout=30)

    def minting(self, seconds: float = DELAY) -> "Asked":
        """A mint that takes its time, begun."""
        self.place.faults(delay_seconds=seconds)
        asked = Asked(self, new_user("direct").token)
        time.sleep(0.3)
        return asked

    def last_records(self) -> list[str]:
        files = sorted(self.folder.glob("audit*.jsonl"))
        return [json.loads(file.read_text().splitlines()[-1])["action"] for file in files]


class Asked(threading.Thread):
    """A request in flight."""

    def __init__(self, service: Service, token: str) -> None:
        super().__init__()
        self._service, self._token = service, token
        self.answer: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            self.answer = self._service.get("/token", token=self._token)

    @property
    def status(self) -> int | None:
        self.join()
        return None if self.answer is None else self.answer.status_code


@pytest.fixture
def start(place, tmp_path):
    made: list[Service] = []

    def begin(**settings: str) -> Service:
        made.append(Service(place, tmp_path, **settings))
        return made[-1]

    yield begin
    place.faults()
    for one in made:
        one.replica.kill()


def until_refused(service: Service) -> float:
    """When a connection was refused for the first time."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", service.replica.port), timeout=1).close()
        except ConnectionRefusedError:
            return time.monotonic()
        time.sleep(0.01)


def all_of(connection: socket.socket) -> bytes:
    """What comes until it is closed."""
    with connection.makefile("rb") as stream:
        return stream.read()


# In order


def test_not_ready_then_refusing_then_over(start):
    service = start()
    minting = service.minting()
    service.place.faults()
    began = time.monotonic()
    service.signal()
    time.sleep(0.1)
    # At once not ready, and work is still taken: whoever asks /readyz can learn of it.
    ready = service.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    taken = service.get("/token", token=new_user("acme").token)
    assert (taken.status_code, taken.headers["connection"]) == (200, "close")
    # Then new work is refused, on new connections as well, while the mint goes on.
    time.sleep(LAME_DUCK_SECONDS)
    refused = service.get("/token", token=new_user("acme").token)
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
    check("GET", "/token", refused)
    assert service.get("/healthz").status_code == 200
    assert service.get("/readyz").status_code == 503
    assert service.get("/readyz", port=service.ops).json()["status"] == "draining"
    metrics = service.get("/metrics", port=service.ops).text
    assert 'switchboard_http_request_duration_seconds_count{method="GET",route="/token",status="503"} 1.0' in metrics
    # What was in flight is answered, the chain is closed, and that is the end.
    assert minting.status == 200
    assert minting.answer is not None
    assert minting.answer.headers["connection"] == "close"
    assert service.replica.process.wait() == 0
    assert time.monotonic() - began < DELAY + 4
    assert service.last_records() == ["audit.close"]


def test_without_work_it_ends_after_the_lame_duck(start):
    service = start()
    began = time.monotonic()
    service.signal()
    assert service.replica.process.wait() == 0
    assert LAME_DUCK_SECONDS <= time.monotonic() - began < LAME_DUCK_SECONDS + 5


def test_a_kept_connection_is_told_to_end(start):
    service = start(lame_duck_seconds=LONGER)
    with httpx.Client(trust_env=False, base_url=service.url) as client:
        assert "connection" not in client.get("/healthz").headers
        service.signal()
        time.sleep(0.1)
        assert client.get("/healthz").headers["connection"] == "close"
    assert service.replica.process.wait() == 0


def test_a_second_signal_ends_at_once(start):
    service = start(lame_duck_seconds="60")
    service.place.faults(delay_seconds=30)
    minting = Asked(service, new_user("direct").token)
    time.sleep(0.3)
    service.signal()
    time.sleep(0.2)
    assert service.get("/healthz").status_code == 200
    began = time.monotonic()
    service.signal()
    assert service.replica.process.wait() == 0
    assert time.monotonic() - began < 10
    assert minting.status in (None, 503)
    assert service.last_records() == ["audit.close"]


def test_what_takes_longer_is_cut_off_with_an_answer_of_ours(start):
    service = start(lame_duck_seconds="0.2", drain_seconds="1")
    service.place.faults(delay_seconds=30)
    minting = Asked(service, new_user("direct").token)
    time.sleep(0.3)
    began = time.monotonic()
    service.signal()
    assert service.replica.process.wait() == 0
    assert 1.2 <= time.monotonic() - began < 10
    assert minting.status == 503
    assert minting.answer is not None
    assert (minting.answer.json()["code"], minting.answer.headers["connection"]) == ("draining", "close")
    assert "ended before it could finish" in minting.answer.json()["detail"]
    assert minting.answer.headers["x-should-retry"] == "false"
    assert service.last_records() == ["audit.close"]


# For a proxy that does not ask /readyz


def test_a_closed_port_refuses_new_connections_and_serves_those_that_are_open(start):
    service = start(lame_duck_port="closed", lame_duck_seconds=LONGER)
    with httpx.Client(trust_env=False, base_url=service.url) as client:
        assert client.get("/healthz").status_code == 200
        began = time.monotonic()
        service.signal()
        assert until_refused(service) - began < float(LONGER)
        headers = {"authorization": f"Bearer {new_user('acme').token}"}
        answer = client.get("/token", headers=headers)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert service.replica.process.wait() == 0
    assert time.monotonic() - began >= float(LONGER)


@pytest.mark.parametrize(
    "settings", [{"lame_duck_port": "closed", "lame_duck_seconds": LONGER}, {"lame_duck_seconds": "0"}], ids=str
)
def test_who_waits_to_be_accepted_when_the_port_closes_is_answered(start, settings):
    """The kernel makes connections before the program takes them, and resets them when the port is closed."""
    service = start(**settings)
    service.signal(signal.SIGSTOP)
    tokens = [new_user("acme").token for _ in range(20)]
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", service.replica.port))) for _ in tokens]
        for one, token in zip(waiting, tokens, strict=True):
            head = f"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer {token}\r\n\r\n"
            one.sendall(head.encode())
        service.signal()
        service.signal(signal.SIGCONT)
        answers = [all_of(one) for one in waiting]
    assert Counter(answer.split(b"\r\n")[0] for answer in answers) == {b"HTTP/1.1 200 OK": 20}
    assert service.replica.process.wait() == 0


def test_without_a_lame_duck_the_port_closes_at_once_and_work_is_finished(start):
    service = start(lame_duck_seconds="0")
    minting = service.minting(2)
    service.signal()
    until_refused(service)
    assert minting.is_alive()
    assert minting.status == 200
    assert service.replica.process.wait() == 0


# Several processes


def test_workers_drain_as_one_process_does(start):
    service = start(workers="2", lame_duck_seconds=LONGER)
    minting = [service.minting() for _ in range(4)]
    service.place.faults()
    service.signal()
    time.sleep(0.4)
    ready = service.get("/readyz", port=service.ops)
    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
    assert {one["status"] for one in ready.json()["workers"]} == {"draining"}
    assert service.get("/token", token=new_user("acme").token).status_code == 200
    assert [one.status for one in minting] == [200] * 4
    assert service.replica.process.wait() == 0
    assert service.last_records() == ["audit.close"] * 3


class Balancer:
    """What a proxy does that asks each replica for /readyz now and then, and sends work to those that are ready."""

    def __init__(self, services: list[Service]) -> None:
        self._urls = [service.url for service in services]
        self._ready: list[str] = []
        self.wrong: list[Any] = []
        self.answers: Counter[int] = Counter()

    async def run(self, over: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group, httpx.AsyncClient(trust_env=False, timeout=30) as client:
            group.create_task(self._watch(over))
            await asyncio.sleep(0.2)
            async with asyncio.TaskGroup() as load:
                for number in range(6):
                    load.create_task(self._load(client, over, number))

    async def _watch(self, over: asyncio.Event) -> None:
        async with httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            while not over.is_set():
                found = []
                for url in self._urls:
                    with contextlib.suppress(httpx.TransportError):
                        found += [url] if (await client.get(f"{url}/readyz")).status_code == 200 else []
                self._ready = found
                await asyncio.sleep(0.1)

    async def _load(self, client: httpx.AsyncClient, over: asyncio.Event, number: int) -> None:
        while not over.is_set():
            number += 1
            url, user = self._ready[number % len(self._ready)], new_user("acme")
            headers = {"authorization": f"Bearer {user.token}", "content-type": "application/sdp"}
            try:
                answer = await client.post(f"{url}/sdp", headers=headers, content=new_offer())
                self.answers[answer.status_code] += 1
                self.wrong += [] if answer.status_code == 201 else [answer.text]
            except httpx.TransportError as error:
                self.wrong.append(repr(error))
            await asyncio.sleep(0.02)


@pytest.mark.long
@pytest.mark.anyio
async def test_a_rolling_restart_behind_what_asks_for_readiness_loses_nothing(place, tmp_path):
    def begin(folder: Path) -> Service:
        return Service(place, folder, lame_duck_seconds=LONGER)

    services = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        services.append(await asyncio.to_thread(begin, tmp_path / str(number)))
    balancer, over, before = Balancer(services), asyncio.Event(), len(place.calls())
    running = asyncio.create_task(balancer.run(over))
    await asyncio.sleep(0.5)
    for service in services:
        assert await asyncio.to_thread(service.replica.process.stop) == 0
        service.replica.kill()  # closes what it wrote to
        await asyncio.to_thread(service.replica.start)
        await asyncio.to_thread(service.replica.until_ready)
        await asyncio.sleep(0.3)
    over.set()
    await running
    for service in services:
        service.replica.kill()
    assert balancer.wrong == []
    assert balancer.answers[201] > 100
    assert len(place.calls()) - before == balancer.answers[201]
