"""What three sides know of the same calls: the provider, the register and the audit; and what is left behind."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

from redis.asyncio import Redis

from switchboard.app import LEASE_MARGIN
from switchboard.calls import Call
from switchboard.ledger.connection import Commands
from switchboard.ledger.redis import RedisLedger
from tests.prove.client import Caller, Reply
from tests.prove.service import Ground, ProviderCall, Replica, User, new_offer, new_user
from tests.support.redis import RedisServer

CONNECTIONS = 64
AWAY_SECONDS, TRIES = 0.5, 20
PATIENT_SECONDS = 30.0
PROVIDER_TIMEOUT = 3.0
LEASE_SECONDS = PROVIDER_TIMEOUT + LEASE_MARGIN
RECORD_SECONDS = 10.0  # for an end whose recorder is gone: five until it is due, a claim, a sweep
OVER_SECONDS = LEASE_SECONDS + RECORD_SECONDS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One call: as the provider knows it, as the register does, and how often its end is on record."""

    provider: ProviderCall
    register: Call
    ends: int

    @property
    def late(self) -> float:
        """Seconds from its deadline until the provider was told; without end, for ever."""
        ended = self.provider.ended_at
        return float("inf") if ended is None else ended - self.register.deadline


@dataclass(frozen=True, slots=True)
class Books:
    """All calls."""

    entries: Sequence[Entry]
    unbound: Sequence[ProviderCall]
    """Calls that the provider opened and the register never heard of."""

    @property
    def ends(self) -> Counter[int]:
        """How many calls' ends are on record how often."""
        return Counter(entry.ends for entry in self.entries)

    def of(self, tenant: str) -> Sequence[Entry]:
        return [entry for entry in self.entries if entry.register.tenant == tenant]


async def read_books(place: Ground) -> Books:
    """Everything that is known now."""
    calls = await asyncio.to_thread(place.calls)
    recorded = Counter(
        record["call_id"]
        for record in place.records
        if record.get("action") == "call.end" and record["outcome"] == "allowed" and record["reason"] != "already_ended"
    )
    async with register(place.redis) as ledger:
        found = {call_id: await _found(ledger, place.tenants, call_id) for call_id in calls}
    return Books(
        [Entry(calls[call_id], call, recorded[call_id]) for call_id, call in found.items() if call is not None],
        [calls[call_id] for call_id, call in found.items() if call is None],
    )


async def _found(ledger: RedisLedger, tenants: Iterable[str], call_id: str) -> Call | None:
    for tenant in tenants:
        if (call := await ledger.find(tenant, call_id)) is not None:
            return call
    return None


@asynccontextmanager
async def register(redis: RedisServer) -> AsyncIterator[RedisLedger]:
    """The register, by the replicas' own code, but with all the time that it needs."""
    ledger = RedisLedger(cast("Commands", Redis.from_url(redis.url)), wait=PATIENT_SECONDS)
    try:
        yield ledger
    finally:
        await ledger.aclose()


def left_behind(redis: RedisServer) -> dict[str, int]:
    """What the register still holds of open calls, reserved slots and things to do; empty when all is over."""
    sizes = {key: _size(redis, key) for key in redis.do("KEYS", "swb:*")}
    return {key: size for key, size in sizes.items() if size}


def _size(redis: RedisServer, key: str) -> int:
    kind = key.partition("}:")[2]
    if kind == "due" or ":open" in kind:
        return int(redis.do("ZCARD", key))
    return int(redis.do("HLEN", key)) if kind == "where" else 0


def add_replica(place: Ground, **settings: str) -> Replica:
    """One more, which holds a slot that nobody heard of no longer than need be."""
    return place.add(provider_timeout=str(PROVIDER_TIMEOUT), **settings)


async def warm(place: Ground) -> None:
    """Have each replica make its connections to Redis: a burst at one that has just started is not what is shown."""
    for replica in place.replicas:
        user = new_user(place.tenants[0])
        callers = [await Caller(replica.port).__aenter__() for _ in range(CONNECTIONS)]
        for _ in range(2):
            await asyncio.gather(*(caller.ask("GET", "/calls", user.token) for caller in callers))
        for caller in callers:
            await caller.__aexit__()
    await asyncio.sleep(AWAY_SECONDS)  # in which it finds Redis again, if that was too much at once


class TooBusy(Exception):
    """This machine kept a replica from Redis for longer than it waits, so that it refused: nothing of what is shown."""


def expected(reply: Reply, status: int) -> Reply:
    """The reply, if it is as it should be.

    Raises:
        TooBusy: see there.
    """
    if reply.status == 503 and reply.json["code"] == "degraded":
        raise TooBusy
    assert reply.status == status, reply.body
    return reply


async def insisted(step: Callable[[], Awaitable[T]]) -> T:
    """What a step gives, tried again for a while, as a caller would."""
    for _ in range(TRIES):
        with contextlib.suppress(TooBusy):
            return await step()
        await asyncio.sleep(AWAY_SECONDS)
    raise TooBusy


async def open_call(caller: Caller, tenant: str) -> tuple[User, str]:
    """Somebody's call; gives where it is. Each try is another user's: a slot that nobody heard of stays a while."""

    async def step() -> tuple[User, str]:
        user = new_user(tenant)
        return user, expected(await caller.offer(user.token, new_offer()), 201).headers["location"]

    return await insisted(step)


async def ask(caller: Caller, method: str, path: str, user: User, body: bytes = b"", *, status: int = 200) -> Reply:
    """What the owner of a call gets."""

    async def step() -> Reply:
        return expected(await caller.ask(method, path, user.token, body=body), status)

    return await insisted(step)


async def until(holds: Callable[[], bool], seconds: float, *, every: float = 0.1) -> bool:
    """Wait until something holds, for so long at most; gives whether it does."""
    end = time.monotonic() + seconds
    while not (held := await asyncio.to_thread(holds)) and time.monotonic() < end:  # noqa: ASYNC110 - others' state
        await asyncio.sleep(every)
    return held
