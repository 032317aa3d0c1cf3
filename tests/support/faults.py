"""The ways in which Redis fails, and a service that is watched while it happens. Tests and the proof both use them."""

import asyncio
import contextlib
import gc
import logging
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import jwt

from tests.support import keys, redis, world
from tests.support.redis import RedisServer, redis_server

DECISION_MS = 250.0
STALL_MS = 50.0
HEALTH_MS = 50.0

ACME = f"swb:{{{zlib.crc32(b'acme') % 16}}}:acme:"  # how the keys of acme begin

QUOTA, SHARE = 6, 3  # of a user, and of one replica alone among two
ASKED = 5  # requests of each user: more than the share, less than the quota
AT_ONCE = 20


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@dataclass
class Trouble:
    """A Redis in which something can go wrong."""

    url: str
    begin: Callable[[], object]
    end: Callable[[], object]
    server: Callable[[], RedisServer]
    """Which server has the counters of acme, when all is well."""


Setup = Callable[[Path], AbstractContextManager[Trouble]]


def _of_one_server(begin: Callable[[RedisServer], object], end: Callable[[RedisServer], object]) -> Setup:
    @contextmanager
    def setup(folder: Path) -> Iterator[Trouble]:
        with redis_server(folder) as server:
            yield Trouble(server.url, lambda: begin(server), lambda: end(server), lambda: server)

    return setup


@contextmanager
def _slow(folder: Path) -> Iterator[Trouble]:
    with redis_server(folder) as server, SlowWay(server.port) as way:
        yield Trouble(way.url, lambda: way.delay_by(0.3), lambda: way.delay_by(0), lambda: server)


@contextmanager
def _read_only(folder: Path) -> Iterator[Trouble]:
    with redis_server(folder) as server, redis_server(folder) as other:
        yield Trouble(
            server.url,
            lambda: server.do("REPLICAOF", "127.0.0.1", other.port),
            lambda: server.do("REPLICAOF", "NO", "ONE"),
            lambda: server,
        )


@contextmanager
def _failover(folder: Path) -> Iterator[Trouble]:
    with redis.sentinel_setup(folder) as setup:
        first = setup.primary
        yield Trouble(setup.url, first.kill, lambda: setup.until_promoted(first), lambda: setup.primary)


@contextmanager
def _frozen_primary(folder: Path) -> Iterator[Trouble]:
    with redis.sentinel_setup(folder) as setup:
        first = setup.primary
        yield Trouble(setup.url, first.freeze, lambda: setup.until_promoted(first), lambda: setup.primary)


@contextmanager
def _lost_master(folder: Path) -> Iterator[Trouble]:
    with redis.cluster(folder) as setup:
        first = setup.master_of(ACME)
        alive = next(server for server in setup.servers if server is not first)
        yield Trouble(
            setup.url,
            first.kill,
            lambda: setup.until_promoted(first, ACME),
            lambda: setup.master_of(ACME, asked=alive),
        )


FAULTS: dict[str, Setup] = {
    "connections refused": _of_one_server(RedisServer.kill, RedisServer.start),
    "frozen (SIGSTOP)": _of_one_server(RedisServer.freeze, RedisServer.thaw),
    "slow answers (300 ms)": _slow,
    "READONLY": _read_only,
    "memory full": _of_one_server(
        lambda server: server.do("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.do("CONFIG", "SET", "maxmemory", "0"),
    ),
    "scripts evicted": _of_one_server(lambda server: server.do("SCRIPT", "FLUSH"), lambda _: None),
    "Sentinel: primary killed": _failover,
    "Sentinel: primary frozen": _frozen_primary,
    "Cluster: master killed": _lost_master,
}
HARMLESS = {"scripts evicted"}
HEALS_ITSELF = {"Sentinel: primary killed", "Sentinel: primary frozen", "Cluster: master killed"}


@contextmanager
def nothing_wrong(folder: Path) -> Iterator[Trouble]:
    """What the other lines are to be held against."""
    with redis_server(folder) as server:
        yield Trouble(server.url, lambda: None, lambda: None, lambda: server)


class SlowWay:
    """A way to a port on which each answer takes its time, or what is asked as well; in a thread of its own."""

    def __init__(self, port: int, *, both_ways: bool = False) -> None:
        self._target = port
        self._both_ways = both_ways
        self._delay = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def delay_by(self, seconds: float) -> None:
        self._delay = seconds

    def __enter__(self) -> Self:
        self._thread.start()
        self._port = 0
        self.open()
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def port(self) -> int:
        return self._port

    def open(self) -> None:
        """Take connections, again on the same port if it was shut."""
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", self._port))

    def shut(self) -> None:
        """Break all connections, and refuse new ones."""
        self._run(self._close())

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, step: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # in which the transports close

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            there, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(there_writer)
            asked = self._pass(reader, there_writer, delayed=self._both_ways)
            await asyncio.gather(asked, self._pass(there, writer, delayed=True))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for one in writers:
                one.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(self._delay if delayed else 0)
            writer.write(data)
        writer.close()


class Stalls:
    """The longest time that the event loop did not come around, in milliseconds, its own doing or waiting.

    Time in which the machine gave its processors to others does not count.
    """

    longest = 0.0

    async def sample(self) -> None:
        while True:
            begin, kept = time.perf_counter(), _kept_from_running()
            await asyncio.sleep(0.001)
            taken = time.perf_counter() - begin - (_kept_from_running() - kept)
            self.longest = max(self.longest, taken * 1000 - 1)


def _kept_from_running() -> float:
    """Seconds that this thread could have run and did not: Linux's schedstat, in nanoseconds."""
    return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9


class Heard(logging.Handler):
    """The lines of the log about Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = str(record.msg.get("event")) if isinstance(record.msg, dict) else record.getMessage()
        if text.startswith("Redis"):
            self.lines.append(text)


@dataclass
class Seen:
    """What happened between the begin of a failure and the way back."""

    decisions: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    unready: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    stall: float = 0.0
    back_after: float | None = None
    degraded: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    counted: tuple[int, int] = (0, 0)
    """Of one user after the way back: let through, and what Redis counted."""
    retry_after: set[str] = field(default_factory=set)

    @property
    def longest(self) -> float:
        return max(self.decisions)


class Watch:
    """A service whose acme has QUOTA per user, seen from its callers' side."""

    def __init__(self, around: world.World, tokens: Iterator[str]) -> None:
        self.world = around
        self.seen = Seen()
        self._tokens = tokens
        # Not the world's own client: it keeps every answer for the scan.
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(around.public), base_url=world.PUBLIC_URL)

    async def ask(self, token: str) -> httpx.Response:
        begin = time.perf_counter()
        answer = await self._client.get("/token", headers={"authorization": f"Bearer {token}"})
        self.seen.decisions.append((time.perf_counter() - begin) * 1000)
        self.seen.answers[f"{answer.status_code} {answer.json().get('code', '')}".strip()] += 1
        if answer.status_code == 503:
            self.seen.retry_after.add(answer.headers["retry-after"])
        return answer

    async def round(self) -> None:
        """New users, each asking for more than a share, all at once."""
        users = [next(self._tokens) for _ in range(AT_ONCE // ASKED)]
        await asyncio.gather(*(self.ask(token) for token in users for _ in range(ASKED)))

    async def look_at_health(self) -> None:
        while True:
            for path in ("/healthz", "/readyz"):
                begin = time.perf_counter()
                answer = await self._client.get(path)
                self.seen.health.append((time.perf_counter() - begin) * 1000)
                self.seen.unready += answer.status_code != 200
            await asyncio.sleep(0.02)

    async def degraded(self) -> dict[str, str]:
        answer = await self.world.ops.get("/readyz")
        assert answer.status_code == 200
        return dict(answer.json().get("degraded", {}))

    async def until_back(self, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while await self.degraded():
            assert time.monotonic() < end, "the way back was not found"
            await asyncio.sleep(0.005)


def policy() -> dict[str, Any]:
    """The example, with a quota that is soon used up."""
    tree = world.example()
    tree["tenants"]["acme"]["limits"] = {"user": [f"{QUOTA}/hour"], "tenant": ["1000000/hour"]}
    tree["tenants"]["acme"].pop("limits_by", None)
    return tree


def tokens(count: int, kind: str) -> list[str]:
    """Good tokens of as many users of acme; not planted for the scan, which they would slow down."""
    key = keys.private_key("RSA")
    return [jwt.encode(keys.claims(sub=f"{kind}-{n}"), key, "RS256", headers={"kid": "rsa-1"}) for n in range(count)]


@asynccontextmanager
async def watched(url: str, mode: str, *, users: int = 400, **changes: Any) -> AsyncIterator[Watch]:
    """A service on this Redis, warm, with everything prepared that would disturb the watching."""
    given = {"redis_url": url, "on_redis_down": mode, "expected_replicas": 2, "edge_limit": "1000000/second", **changes}
    prepared = await asyncio.to_thread(tokens, users, "load")
    heard = Heard()
    logging.getLogger().addHandler(heard)
    try:
        async with world.world(policy(), **given) as around:
            watch = Watch(around, iter(prepared))
            watch.seen.log = heard.lines
            yield watch
    finally:
        logging.getLogger().removeHandler(heard)


async def run(name: str, setup: Setup, mode: str, folder: Path, *, seconds: float) -> Seen:
    """One failure from its begin to the way back, under load.

    Args:
        name: in FAULTS, or anything else.
        mode: `local` or `deny`.
        seconds: of load while Redis is away; where Redis heals itself, until it has.
    """
    with await asyncio.to_thread(_entered, setup(folder)) as trouble:
        async with watched(trouble.url, mode) as watch:
            await watch.round()  # warm: keys of issuers, connections, scripts
            assert set(watch.seen.answers) == {"200"}, watch.seen.answers
            watch.seen.decisions.clear()
            watch.seen.answers.clear()
            await _while_it_lasts(name, trouble, watch, seconds)
            await _afterwards(trouble, watch)
            return watch.seen


async def _while_it_lasts(name: str, trouble: Trouble, watch: Watch, seconds: float) -> None:
    stalls = Stalls()
    gc.collect()
    gc.freeze()  # what the tests before have left behind is not the service's
    around = [asyncio.create_task(one) for one in (stalls.sample(), watch.look_at_health())]
    try:
        begin = time.monotonic()
        await asyncio.to_thread(trouble.begin)
        healing = asyncio.create_task(asyncio.to_thread(trouble.end)) if name in HEALS_ITSELF else None
        while not healing.done() if healing else time.monotonic() < begin + seconds:
            await watch.round()
            if not watch.seen.degraded and (detail := await watch.degraded()):
                watch.seen.detail = detail
                watch.seen.degraded["away"] = await watch.world.metric("switchboard_ratelimit_degraded")
            await asyncio.sleep(0.1)
        if healing:
            await healing
        else:
            begin = time.monotonic()
            await asyncio.to_thread(trouble.end)
        await watch.until_back()
        watch.seen.back_after = (time.monotonic() - begin) * 1000
    finally:
        gc.unfreeze()
        for task in around:
            task.cancel()
        await asyncio.gather(*around, return_exceptions=True)
    watch.seen.stall = stalls.longest


async def _afterwards(trouble: Trouble, watch: Watch) -> None:
    """The service counts in Redis again, without anybody's help."""
    seen, watch.seen = watch.seen, Seen()
    (token,) = await asyncio.to_thread(tokens, 1, f"after-{time.monotonic_ns()}")
    for _ in range(QUOTA + 2):
        await watch.ask(token)
    through = watch.seen.answers["200"]
    seen.degraded["back"] = await watch.world.metric("switchboard_ratelimit_degraded")
    user_key = watch.world.records[-1]["user_key"]
    server = await asyncio.to_thread(trouble.server)
    written = await asyncio.to_thread(server.do, "GET", f"{ACME}quota:user:{user_key}:3600")
    seen.counted = (through, int(written or 0))
    watch.seen = seen


@contextlib.contextmanager
def _left(context: AbstractContextManager[Trouble], trouble: Trouble) -> Iterator[Trouble]:
    try:
        yield trouble
    finally:
        context.__exit__(None, None, None)


def _entered(context: AbstractContextManager[Trouble]) -> AbstractContextManager[Trouble]:
    """Entered already, in a thread, as servers take their time to start."""
    return _left(context, context.__enter__())
