"""docs/scaling.md, held against services that run: what is shared by whom, what it costs, where calls go.

Each cell of its first table is an experiment with two replicas; each row of its second one is counted by Redis itself.
"""

import asyncio
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx
import pytest
import redis as client_library
from redis.crc import key_slot

from switchboard import app, emulator
from switchboard.config.reading import check
from switchboard.ledger.connection import connect
from switchboard.ledger.redis import BUCKETS, RedisLedger
from tests.prove.service import policy, tenant, token
from tests.support import world as worlds
from tests.support.faults import SlowWay
from tests.support.leaks import LEAKS
from tests.support.redis import RedisServer, cluster, redis_server
from tests.support.servers import serving
from tests.support.world import fresh_offer
from tests.test_docs import DOCS, rows

pytestmark = pytest.mark.anyio

PAGE = DOCS / "scaling.md"
TOGETHER, ALONE = "together", "each alone"
OUTSIDE = "198.51.100.7"  # whose requests the edge counts
SECONDS = 5.0  # for what replicas tell each other; they look twice a second


# Replicas


@dataclass
class Replica:
    """One process's worth of the service."""

    client: httpx.AsyncClient
    ops: httpx.AsyncClient
    from_outside: httpx.AsyncClient
    records: list[dict[str, Any]]


@dataclass
class Provider:
    """An emulator, and where it is."""

    url: str
    emulated: emulator.Emulator


@dataclass
class Users:
    """Users and offers that nobody has seen before."""

    numbers: int = 0

    def new(self, tenant: str) -> dict[str, str]:
        self.numbers += 1
        return {"authorization": f"Bearer {token(f'user-scaling-{self.numbers}', tenant=tenant)}"}

    async def offer(self, replica: Replica, who: dict[str, str]) -> httpx.Response:
        self.numbers += 1
        headers = {**who, "content-type": "application/sdp"}
        return await replica.client.post("/sdp", headers=headers, content=fresh_offer(self.numbers))


def tree(*providers: Provider) -> dict[str, Any]:
    """A policy with a tenant for each experiment, and one for each provider."""
    made = policy(
        plain=tenant(),
        usual=tenant(limits={"user": ["10/minute", "100/day"], "tenant": ["1000/minute"]}),
        quota=tenant(limits={"user": ["5/minute"]}),
        capped=tenant(limits={"open_calls": {"user": 1}, "when_user_full": "refuse"}),
        timed=tenant(limits={"minutes": {"user": "1/day"}, "call_seconds": 45}),
        stopped=tenant(),
        every=tenant(
            limits={
                "user": ["1000/minute", "10000/day"],
                "tenant": ["1000/minute"],
                "minutes": {"user": "1000/day", "tenant": "10000/day"},
                "open_calls": {"user": 50, "tenant": 200},
                "call_seconds": 900,
                "idle_seconds": 60,
            }
        ),
        far=tenant(provider="other"),
        direct=tenant(provider="other", preset={"delivery": "direct"}),
    )
    made["issuers"][0]["secret"] = "env:LEGACY_JWT_SECRET"
    made["providers"] = {
        name: {"kind": "openai", "base_url": f"{provider.url}/v1", "keys": ["env:OPENAI_API_KEY"]}
        for name, provider in zip(("openai", "other"), (providers[0], providers[-1]), strict=True)
    }
    return made


@asynccontextmanager
async def a_provider() -> AsyncIterator[Provider]:
    made = emulator.create_app(emulator.Options(keys=frozenset({worlds.API_KEY}), media=False))
    async with made.router.lifespan_context(made), serving(made) as url:
        yield Provider(url, made.state.emulator)


@asynccontextmanager
async def a_replica(*providers: Provider, **settings: Any) -> AsyncIterator[Replica]:
    sink = worlds.ListSink()
    checked = check(tree(*providers), today=worlds.TODAY)
    assert checked.config is not None, checked.mistakes
    given = {"edge_limit": "20/minute", "edge_exempt": "127.0.0.0/8", "admin_token": worlds.ADMIN_TOKEN, **settings}
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            app.build(
                worlds.settings(**given),
                checked.config,
                sink=sink,
                environ={"OPENAI_API_KEY": worlds.API_KEY, "LEGACY_JWT_SECRET": worlds.LEGACY_SECRET},
            )
        )
        service.readiness.ready()
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(transport=httpx.ASGITransport(port, client=(address, 1)), base_url=worlds.PUBLIC_URL)
            )
            for port, address in ((service.public, "127.0.0.1"), (service.ops, "127.0.0.1"), (service.public, OUTSIDE))
        ]
        client, ops, from_outside = clients
        yield Replica(client, ops, from_outside, sink.records)


@asynccontextmanager
async def two(first: dict[str, Any], second: dict[str, Any]) -> AsyncIterator[tuple[Replica, Replica]]:
    async with (
        a_provider() as provider,
        a_replica(provider, **first) as one,
        a_replica(provider, **second) as other,
    ):
        yield one, other


# What is shared: a row of the table each


async def quotas(one: Replica, other: Replica, users: Users) -> str:
    """Of a limit of 5, two replicas together let through 5, or 10."""
    who = users.new("quota")
    answers = [await replica.client.post("/token", headers=who) for replica in (one, other) for _ in range(7)]
    return {5: TOGETHER, 10: ALONE}[sum(answer.status_code == 200 for answer in answers)]


async def used_grants(one: Replica, other: Replica, users: Users) -> str:
    minted = (await one.client.post("/token", headers=users.new("plain"))).json()
    grant = {"authorization": f"Bearer {minted['value']}"}
    assert (await users.offer(one, grant)).status_code == 201
    again = await users.offer(other, grant)
    return {401: TOGETHER, 201: ALONE}[again.status_code]


async def calls(one: Replica, other: Replica, users: Users) -> str:
    who = users.new("plain")
    place = (await users.offer(one, who)).headers["location"]
    looked, ended = await other.client.get(place, headers=who), await other.client.delete(place, headers=who)
    known = {(200, 200): TOGETHER, (404, 404): ALONE}[looked.status_code, ended.status_code]
    state = (await one.client.get(place, headers=who)).json()["state"]
    assert state == {TOGETHER: "ended", ALONE: "open"}[known]
    return known


async def caps(one: Replica, other: Replica, users: Users) -> str:
    who = users.new("capped")
    assert (await users.offer(one, who)).status_code == 201
    return {429: TOGETHER, 201: ALONE}[(await users.offer(other, who)).status_code]


async def minutes(one: Replica, other: Replica, users: Users) -> str:
    """Of a minute, a call of 45 seconds leaves 15, or another one has 45 as well."""
    who = users.new("timed")
    assert (await users.offer(one, who)).status_code == 201
    place = (await users.offer(other, who)).headers["location"]
    call = (await other.client.get(place, headers=who)).json()
    return {15: TOGETHER, 45: ALONE}[round(call["deadline"] - call["started_at"])]


async def kill_switch(one: Replica, other: Replica, users: Users) -> str:
    admin = {"authorization": f"Bearer {worlds.ADMIN_TOKEN}"}
    assert (await one.ops.post("/admin/tenants/stopped/suspend", headers=admin)).status_code == 200
    assert (await one.client.post("/token", headers=users.new("stopped"))).status_code == 403
    end = time.monotonic() + SECONDS / 2
    while time.monotonic() < end:
        if (await other.client.post("/token", headers=users.new("stopped"))).status_code == 403:
            return TOGETHER
        await asyncio.sleep(0.05)
    return ALONE


async def edge(one: Replica, other: Replica, users: Users) -> str:
    answers = [await one.from_outside.get("/calls", headers=users.new("plain")) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    there = await other.from_outside.get("/calls", headers=users.new("plain"))
    return {429: TOGETHER, 200: ALONE}[there.status_code]


async def audit_chain(one: Replica, other: Replica, users: Users) -> str:
    """A record stands where its decision was made, and nowhere else."""
    answer = await one.client.post("/token", headers=users.new("plain"))
    has = [
        any(record["request_id"] == answer.headers["x-request-id"] for record in replica.records)
        for replica in (one, other)
    ]
    return {(True, True): TOGETHER, (True, False): ALONE}[has[0], has[1]]


Experiment = Callable[[Replica, Replica, Users], Awaitable[str]]
EXPERIMENTS: dict[str, Experiment] = {
    "quotas of requests": quotas,
    "used grants": used_grants,
    "calls: found and ended": calls,
    "caps of open calls": caps,
    "minutes of calls": minutes,
    "kill switch": kill_switch,
    "edge limit": edge,
    "audit": audit_chain,
}


@contextmanager
def _nothing(_: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    yield {}, {}


@contextmanager
def _one_redis(folder: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with redis_server(folder) as server:
        yield {"redis_url": server.url}, {"redis_url": server.url}


@contextmanager
def _a_cluster(folder: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with cluster(folder) as servers:
        yield {"redis_url": servers.url}, {"redis_url": servers.url}


@contextmanager
def _regions(folder: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with redis_server(folder) as near, redis_server(folder) as far:
        yield {"redis_url": near.url}, {"redis_url": far.url}


TOPOLOGIES = {
    "two without Redis": _nothing,
    "one Redis": _one_redis,
    "Redis Cluster": _a_cluster,
    "a Redis in each region": _regions,
}


def test_the_page_tells_of_every_experiment():
    told = rows(PAGE, "what")
    assert [what for what, *_ in told] == list(EXPERIMENTS)
    assert {len(cells) for _, *cells in told} == {len(TOPOLOGIES)}
    (head,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| what |")]
    assert [cell.strip() for cell in head.strip("|").split("|")][1:] == list(TOPOLOGIES)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_what_is_shared_is_what_the_page_says(topology, tmp_path):
    column = 1 + list(TOPOLOGIES).index(topology)
    found, users = {}, Users()
    with TOPOLOGIES[topology](tmp_path) as (first, second):
        async with two(first, second) as (one, other):
            for what, experiment in EXPERIMENTS.items():
                found[what] = await experiment(one, other, users)
    assert found == {cells[0]: cells[column] for cells in rows(PAGE, "what")}


@pytest.mark.usefixtures("patient")
async def test_regions_with_signing_keys_of_their_own_do_not_take_each_others_grants(redis):
    other_keys = {"signing_keys": LEAKS.plant("signing key", "signing-key-of-another-region-0123456")}
    users = Users()
    async with two({"redis_url": redis.url}, other_keys) as (one, other):
        minted = (await one.client.post("/token", headers=users.new("plain"))).json()
        refused = await users.offer(other, {"authorization": f"Bearer {minted['value']}"})
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


# What it costs


@dataclass(frozen=True)
class Cost:
    """Waits for Redis, and the commands that it carried out."""

    waits: int
    commands: int


class Monitor:
    """What a Redis is asked, as it tells by MONITOR; what replicas ask by themselves is left out."""

    OWN = ("sweep", "count")
    GREETINGS = ("client", "echo", "hello", "select")  # of connections that are made, our marks' among them

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._names = {one.sha: name for name, one in vars(RedisLedger(connect(server.url))._scripts).items()}
        self._client = client_library.Redis(port=server.port, decode_responses=True, socket_timeout=10)
        self._seen: list[dict[str, Any]] = []
        self._marks = 0
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_listening.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.do("ECHO", "the-end")
        self._thread.join(5)
        self._client.close()

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._is_listening.set()
            while True:
                seen = monitor.next_command()
                self._seen.append(seen)
                if seen["command"] == "ECHO the-end":
                    return

    async def cost(self, step: Awaitable[Any]) -> Cost:
        """Of what one step asks."""
        begin = await self._mark()
        await step
        end = await self._mark()
        waits = commands = 0
        counts = False
        for seen in self._seen[begin + 1 : end]:
            words = seen["command"].split(" ")
            if seen["client_type"] == "lua":
                commands += counts
                continue
            name = self._names.get(words[1]) if words[0].upper() == "EVALSHA" else words[0].lower()
            counts = name not in self.OWN and name not in self.GREETINGS
            waits += counts
            commands += counts and name not in self._names.values()
        return Cost(waits, commands)

    async def _mark(self) -> int:
        self._marks += 1
        mark = f"ECHO mark-{self._marks}"
        await asyncio.to_thread(self._server.do, *mark.split(" "))
        end = time.monotonic() + 5
        while True:
            for number, seen in enumerate(self._seen):
                if seen["command"] == mark:
                    return number
            assert time.monotonic() < end
            await asyncio.sleep(0.005)


class Caller:
    """Requests that have to be answered as expected."""

    def __init__(self, replica: Replica, users: Users) -> None:
        self._replica = replica
        self.users = users

    async def mint(self, who: dict[str, str], status: int = 200) -> httpx.Response:
        return self._expected(status, await self._replica.client.post("/token", headers=who))

    async def offer(self, who: dict[str, str], status: int = 201) -> httpx.Response:
        return self._expected(status, await self.users.offer(self._replica, who))

    async def grant(self, tenant: str) -> dict[str, str]:
        return {"authorization": f"Bearer {(await self.mint(self.users.new(tenant))).json()['value']}"}

    async def look(self, path: str, who: dict[str, str]) -> httpx.Response:
        return self._expected(200, await self._replica.client.get(path, headers=who))

    async def hang_up(self, path: str, who: dict[str, str]) -> httpx.Response:
        return self._expected(200, await self._replica.client.delete(path, headers=who))

    async def beat(self, path: str, who: dict[str, str]) -> httpx.Response:
        report = {"event": "alive"}
        return self._expected(204, await self._replica.client.post(f"{path}/report", headers=who, json=report))

    def _expected(self, status: int, answer: httpx.Response) -> httpx.Response:
        assert answer.status_code == status, answer.text
        return answer


async def costs(caller: Caller, monitor: Monitor) -> dict[str, Cost]:
    """Of each row of the page."""
    spent, full, known, every = map(caller.users.new, ("quota", "capped", "usual", "every"))
    for _ in range(5):
        await caller.mint(spent)
    await caller.offer(full)
    await caller.mint(known)
    await caller.offer(every)
    grant, beating = await caller.grant("usual"), caller.users.new("every")
    call = (await caller.offer(beating)).headers["location"]
    await caller.beat(call, beating)
    steps: dict[str, Callable[[], Awaitable[Any]]] = {
        "`/token`": lambda: caller.mint(known),
        "an offer with a grant": lambda: caller.offer(grant),
        "an offer with the user's own token": lambda: caller.offer(known),
        "the same, with caps, minutes and heartbeats": lambda: caller.offer(every),
        "refused: quota": lambda: caller.mint(spent, 429),
        "refused: cap of open calls": lambda: caller.offer(full, 429),
        "refused: the token": lambda: caller.mint({"authorization": "Bearer no.jwt"}, 401),
        "`GET /sdp/{call_id}`": lambda: caller.look(call, beating),
        "`GET /calls`, with one call": lambda: caller.look("/calls", beating),
        "a heartbeat": lambda: caller.beat(call, beating),
        "`DELETE /sdp/{call_id}`": lambda: caller.hang_up(call, beating),
    }
    return {what: await monitor.cost(step()) for what, step in steps.items()}


@pytest.mark.usefixtures("patient")
async def test_what_requests_cost_is_what_the_page_says(redis):
    async with a_provider() as provider, a_replica(provider, provider, redis_url=redis.url) as replica:
        caller = Caller(replica, Users())
        with Monitor(redis) as monitor:
            await costs(caller, monitor)  # Redis learns the scripts
            found = await costs(caller, monitor)
    told = {what: Cost(int(waits), int(commands)) for what, waits, commands in rows(PAGE, "request")}
    assert found == told


@pytest.mark.timing
@pytest.mark.usefixtures("patient")
async def test_a_replica_by_itself_asks_as_often_as_the_page_says(redis):
    async with a_provider() as provider, a_replica(provider, provider, redis_url=redis.url):
        redis.do("CONFIG", "RESETSTAT")
        await asyncio.sleep(3)
        connections = len(redis.do("CLIENT", "LIST").splitlines()) - 1  # without the one that asks
        asked = int(redis.do("INFO", "commandstats")["cmdstat_evalsha"]["calls"]) / 3
    ((told_connections, told_asked),) = [cells[1:] for cells in rows(PAGE, "one process") if cells[0] == "by itself"]
    fewest, most = map(int, told_connections.split(" to "))
    assert fewest <= connections <= most
    assert 0.8 * int(told_asked) <= asked <= 1.1 * int(told_asked)


@pytest.mark.timing
async def test_a_redis_that_is_far_away(redis):
    """Each wait takes one way there and back; from a tenth of a second on it counts as away."""
    users = Users()
    with SlowWay(redis.port) as way:
        async with a_provider() as provider, a_replica(provider, provider, redis_url=way.url) as replica:
            way.delay_by(0.05)
            who = users.new("plain")
            begin = time.perf_counter()
            minted = await replica.client.post("/token", headers=who)
            for_token = time.perf_counter() - begin
            begin = time.perf_counter()
            opened = await users.offer(replica, {"authorization": f"Bearer {minted.json()['value']}"})
            for_offer = time.perf_counter() - begin
            assert (minted.status_code, opened.status_code) == (200, 201)
            assert 0.05 <= for_token < 0.1 <= for_offer < 0.2
            another = (await replica.client.post("/token", headers=who)).json()["value"]
            way.delay_by(0.15)
            end = time.monotonic() + SECONDS
            while "degraded" not in (await replica.client.get("/readyz")).json():
                assert time.monotonic() < end
                await replica.client.post("/token", headers=users.new("plain"))
            refused = await users.offer(replica, {"authorization": f"Bearer {another}"})
            assert (refused.status_code, refused.json()["code"]) == (503, "degraded")
            way.delay_by(0)


# A Cluster


def busiest(masters: int, tenants: int) -> tuple[int, float]:
    """Buckets, and the share of equally busy tenants, on the busiest of masters with equal ranges of slots."""
    master_of = [key_slot(str(bucket).encode()) * masters // 16384 for bucket in range(BUCKETS)]
    buckets = [master_of.count(master) for master in range(masters)]
    loads = [0] * masters
    for number in range(tenants):
        loads[master_of[zlib.crc32(f"tenant-{number}".encode()) % BUCKETS]] += 1
    return max(buckets), max(loads) / tenants


def test_how_a_cluster_shares_the_load():
    told = {int(masters): (int(most), share) for masters, most, share in rows(PAGE, "masters")}
    found = {masters: busiest(masters, 10_000) for masters in told}
    assert {masters: (most, f"{share:.0%}") for masters, (most, share) in found.items()} == told


# Residency


@pytest.mark.usefixtures("patient")
async def test_a_tenants_calls_go_to_its_own_provider():
    users = Users()
    async with a_provider() as near, a_provider() as far, a_replica(near, far) as replica:
        who = users.new("far")
        opened = await users.offer(replica, who)
        assert opened.status_code == 201
        assert (await replica.client.delete(opened.headers["location"], headers=who)).status_code == 200
        minted = (await replica.client.post("/token", headers=users.new("direct"))).json()
        assert minted["calls_url"] == f"{far.url}/v1/realtime/calls"
        assert [request.path for request in near.emulated.requests] == []
        assert [call.state for call in far.emulated.calls] == ["ended"]
        assert len(far.emulated.requests) == 3
        await users.offer(replica, users.new("plain"))
        assert len(near.emulated.calls) == 1
