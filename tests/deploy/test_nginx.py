"""Two replicas behind a real nginx with the file in deploy/: what it passes on and holds back; restarts."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.deploy.nginx import FILE, Nginx, nginx
from tests.prove.service import Ground, Replica, ground, new_offer, new_user, policy, tenant

pytestmark = pytest.mark.anyio
LAME_DUCK_SECONDS = 2.5
USERS = 6
PAUSE_SECONDS = 0.05


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground(policy(acme=tenant(), direct=tenant(preset={"delivery": "direct"}))) as made:
        for _ in range(2):
            made.add(
                trusted_proxies="127.0.0.1",
                lame_duck_seconds=str(LAME_DUCK_SECONDS),
                lame_duck_port="closed",
            )
        made.start()
        yield made


@pytest.fixture(scope="module")
def proxy(place, tmp_path_factory) -> Iterator[Nginx]:
    with nginx(tmp_path_factory.mktemp("nginx"), [replica.port for replica in place.replicas]) as made:
        yield made


class Load:
    """Users who mint, call, look and hang up, one request after the other, until they are told to stop."""

    def __init__(self, proxy: Nginx) -> None:
        self._proxy = proxy
        self._is_over = asyncio.Event()
        self.answers: Counter[tuple[str, int]] = Counter()
        self.opened: list[str] = []
        self.wrong: list[str] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(USERS):
                group.create_task(self._one())

    def stop(self) -> None:
        self._is_over.set()

    async def _one(self) -> None:
        async with self._proxy.client(timeout=30) as client:
            while not self._is_over.is_set():
                caller, minter = new_user("acme"), new_user("direct")
                await self._ask(client, "POST", "/token", minter.token, 200, json={})
                headers = {"content-type": "application/sdp"}
                opened = await self._ask(
                    client, "POST", "/sdp", caller.token, 201, content=new_offer(), headers=headers
                )
                if opened is not None:
                    path = opened.headers["location"]
                    self.opened.append(path.rpartition("/")[2])
                    await self._ask(client, "GET", path, caller.token, 200)
                    await self._ask(client, "DELETE", path, caller.token, 200)

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, token: str, expected: int, **content: Any
    ) -> httpx.Response | None:
        await asyncio.sleep(PAUSE_SECONDS)
        headers = {"authorization": f"Bearer {token}", **content.pop("headers", {})}
        try:
            answer = await client.request(method, path, headers=headers, **content)
        except httpx.TransportError as error:
            self.wrong.append(f"{method} {path}: {error!r}")
            return None
        self.answers[method, answer.status_code] += 1
        if answer.status_code != expected:
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text}")
            return None
        return answer


async def _restart(replica: Replica) -> None:
    code = await asyncio.to_thread(replica.process.stop)
    assert code == 0
    replica.kill()  # closes what it wrote to
    await asyncio.to_thread(replica.start)
    await asyncio.to_thread(replica.until_ready)
    await asyncio.sleep(2)  # for nginx, to which it is away for a second


async def test_a_rolling_restart_under_load_loses_nothing(place, proxy):
    load = Load(proxy)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(0.5)
    for replica in place.replicas:
        await _restart(replica)
    load.stop()
    await running
    assert load.wrong == [], [line for line in proxy.errors.splitlines() if "[error]" in line]
    assert set(load.answers) == {("POST", 200), ("POST", 201), ("GET", 200), ("DELETE", 200)}
    assert min(load.answers.values()) > 50
    # Both took their part, each refused some while it was away, and no offer was sent twice.
    served = {f"127.0.0.1:{replica.port}" for replica in place.replicas}
    assert all(any(line.split()[-3] == one for line in proxy.log) for one in served)
    assert "Connection refused" in proxy.errors
    calls = place.calls()
    assert set(load.opened) == set(calls)
    assert len(load.opened) == len(calls)
    assert all(call.ended_at is not None for call in calls.values())


async def test_the_callers_own_address_gets_through(place, proxy):
    user = new_user("acme")
    claimed = {"x-forwarded-for": "198.51.100.7", "forwarded": "for=198.51.100.8"}
    transport = httpx.AsyncHTTPTransport(verify=proxy.context, local_address="127.0.0.2")
    async with httpx.AsyncClient(transport=transport, base_url=proxy.url) as client:
        answer = await client.get("/token", headers={"authorization": f"Bearer {user.token}", **claimed})
        assert answer.status_code == 200
    async with asyncio.timeout(5):  # what a process says is read by a thread
        while not (told := [one for one in place.records if one.get("user_key") == user.key]):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    (record,) = told
    assert record["client_ip"] == "127.0.0.2"


async def test_too_much_is_held_back(proxy):
    async with proxy.client() as client:
        whole = await client.post("/sdp", content=b"v" * 300_000, headers={"content-type": "application/sdp"})
        assert (whole.status_code, whole.headers["server"].partition("/")[0]) == (413, "nginx")
        small = await client.post("/sdp", content=b"v" * 70_000, headers={"content-type": "application/sdp"})
        assert (small.status_code, small.json()["code"]) == (413, "payload_too_large")


async def test_an_offer_that_was_sent_is_sent_to_nobody_else(place, proxy):
    """A replica that dies with an offer in its hands: the caller is told, and one call at most has come of it."""
    user, before = new_user("acme"), set(place.calls())
    place.faults(delay_seconds=3)
    try:
        async with proxy.client(timeout=30) as client:
            headers = {"authorization": f"Bearer {user.token}", "content-type": "application/sdp"}
            offering = asyncio.create_task(client.post("/sdp", headers=headers, content=new_offer()))
            await asyncio.sleep(1)
            for replica in place.replicas:
                replica.kill()
            answer = await offering
    finally:
        place.faults()
        for replica in place.replicas:
            replica.start()
        for replica in place.replicas:
            replica.until_ready()
    assert answer.status_code == 502
    assert len(set(place.calls()) - before) <= 1
    assert proxy.log[-1].count("127.0.0.1:") == 1, proxy.log[-1]


def test_the_file_says_what_holds_for_the_program():
    text = FILE.read_text()
    assert "non_idempotent;" not in text
    assert "proxy_next_upstream error timeout;" in text
