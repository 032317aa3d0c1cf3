"""Replicas whose clocks are half a minute off, by libfaketime."""

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.prove.calls.books import (
    OVER_SECONDS,
    Entry,
    add_replica,
    ask,
    expected,
    insisted,
    left_behind,
    open_call,
    read_books,
    until,
    warm,
)
from tests.prove.client import Caller
from tests.prove.service import Ground, Replica, Result, Say, User, ground, new_offer, new_user, policy, table, tenant

CALL_SECONDS, IDLE_SECONDS, GRANT_SECONDS = 10, 10, 10  # each the shortest that a policy may say
LATE_SECONDS = 2.0
APART_SECONDS = 1.0
ALONE_SECONDS = 1.0  # longer, where the register is away: whoever opened a call waits for others first
EACH = 4  # calls that each replica opens
PERIOD, LONGEST = 60, 40  # of the quota of minutes, and of one call under it; seconds


@dataclass
class Seen:
    """What one run shows."""

    clocks: str
    pairs: int = 0
    """Of replicas, one of which did something that the other one had to do with."""
    deadlines: list[float] = field(default_factory=list)
    """Seconds after the deadline, by the provider's clock."""
    alone: list[float] = field(default_factory=list)
    """The same where the replica whose clock is off was the only one."""
    without_redis: list[float] = field(default_factory=list)
    """And where it had no Redis either."""
    idle: list[float] = field(default_factory=list)
    """Seconds after the idle time."""
    young: list[int] = field(default_factory=list)
    """Answers to grants that are more than a second from their end."""
    old: list[str] = field(default_factory=list)
    """Codes for grants that are a second past it."""
    apart: list[float] = field(default_factory=list)
    """Between what replicas say that a time is, and what it is."""
    minutes: list[float] = field(default_factory=list)
    """Between what is left of a quota of minutes, and what should be."""
    hang_ups: int = 0
    away: int = 0
    """How often this machine was so busy that Redis seemed to be away; then its calls are hung up by two replicas."""
    calls: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    left: dict[str, int] = field(default_factory=dict)


def prove_clocks(say: Say, *, runs: Sequence[Sequence[str]], alone: bool) -> Result:
    """Deadlines, idle times, grants, minutes and listed times, whichever replica is asked.

    Args:
        say: progress.
        runs: of each run, how far the clocks are off; one replica more has the right time.
        alone: whether to look as well at a replica that has nobody beside it, and no Redis in the end.
    """
    limits = {
        "prove": {"call_seconds": CALL_SECONDS},
        "idle": {"idle_seconds": IDLE_SECONDS},
        "minutes": {"minutes": {"user": "1/hour"}, "call_seconds": LONGEST},
    }
    rows, result = [], Result()
    for offsets in runs:
        say(f"clocks off by {', '.join(offsets)}")
        tenants = {name: tenant(limits=one, preset={"token_ttl": GRANT_SECONDS}) for name, one in limits.items()}
        with ground(policy(**tenants)) as place:
            add_replica(place)
            for offset in offsets:
                add_replica(place, off_by=offset)
            place.start()
            seen = Seen(", ".join(offsets))
            asyncio.run(_run(place, seen, alone=alone))
        rows.append(_row(seen))
        _bounds(result, seen)
    result.lines = table(
        "clocks off",
        "calls",
        "hang-ups",
        "latest end after the deadline",
        "the same, alone",
        "and without Redis",
        "latest end after idle time",
        f"grants accepted at {GRANT_SECONDS - 1.5} s",
        f"refused at {GRANT_SECONDS + 1} s",
        "times apart",
        "minutes apart",
        rows=rows,
    )
    return result


async def _run(place: Ground, seen: Seen, *, alone: bool) -> None:
    await warm(place)
    replicas = place.replicas
    async with asyncio.TaskGroup() as group:
        group.create_task(_deadlines(place, replicas, seen))
        for here, there in itertools.permutations(replicas, 2):
            seen.pairs += 1
            group.create_task(_idle(here, there))
            group.create_task(_grants(here, there, seen))
            group.create_task(_minutes(place, here, there, seen))
    await until(lambda: not left_behind(place.redis), OVER_SECONDS)
    seen.hang_ups = await asyncio.to_thread(lambda: sum(replica.hang_ups for replica in replicas))
    # Not by the log: libfaketime makes `time.sleep` fail, and with it the thread that writes a log.
    seen.away = int(
        await asyncio.to_thread(lambda: sum(one.metric("switchboard_redis_errors_total") for one in replicas))
    )
    books = await read_books(place)
    seen.calls, seen.ends = len(books.entries), books.ends
    seen.deadlines = [entry.late for entry in books.of("prove") if entry.register.ended_by == "deadline"]
    seen.idle = [_idle_late(entry) for entry in books.of("idle") if entry.register.ended_by == "idle"]
    seen.left = await asyncio.to_thread(left_behind, place.redis)
    if alone:
        for replica in replicas[:1] + replicas[2:]:
            await asyncio.to_thread(replica.kill)
        seen.alone = await _lone(place, replicas[1])
        seen.without_redis = await _lone(place, replicas[1], redis=False)


def _idle_late(entry: Entry) -> float:
    assert entry.register.heard_at is not None
    assert entry.provider.ended_at is not None, "it should have been hung up"
    return entry.provider.ended_at - entry.register.heard_at - IDLE_SECONDS


async def _deadlines(place: Ground, replicas: Sequence[Replica], seen: Seen) -> None:
    """Calls that each replica opens, read at all of them."""
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Caller(replica.port)) for replica in replicas]
        opened = [await open_call(caller, "prove") for caller in callers for _ in range(EACH)]
        known = await asyncio.to_thread(place.calls)
        for user, location in opened:
            told = [await _shown(caller, user, location) for caller in callers]
            seen.apart += [abs(one["started_at"] - known[one["id"]].started_at) for one in told]
            seen.apart += [abs(one["deadline"] - one["started_at"] - CALL_SECONDS) for one in told]
            seen.apart += [0.0 if one == told[0] else math.inf for one in told]
    await asyncio.sleep(CALL_SECONDS + LATE_SECONDS)


async def _idle(here: Replica, there: Replica) -> None:
    """Heartbeats at one replica of a call that another one opened; then none any more."""
    async with Caller(here.port) as opening, Caller(there.port) as beating:
        user, location = await open_call(opening, "idle")
        for _ in range(3):
            await ask(beating, "POST", f"{location}/report", user, b'{"event":"alive"}', status=204)
            await asyncio.sleep(0.3)
    await asyncio.sleep(IDLE_SECONDS + LATE_SECONDS)


async def _grants(here: Replica, there: Replica, seen: Seen) -> None:
    """Grants that one replica mints and another one takes, young and old."""
    user = new_user("prove")
    async with Caller(here.port) as caller:
        before = time.time()
        young, old = [(await ask(caller, "POST", "/token", user)).json for _ in range(2)]
        after = time.time()
    whole = GRANT_SECONDS - 1  # `expires_at` is a whole number: a part of the last second may be missing
    seen.apart += [_off(one["expires_at"], before + whole, after + GRANT_SECONDS) for one in (young, old)]
    await asyncio.sleep(max(0.0, before + GRANT_SECONDS - 1.5 - time.time()))
    async with Caller(there.port) as caller:
        taken = await caller.offer(young["value"], new_offer())
        if time.time() < before + whole:  # else this side was late
            seen.young.append(taken.status)
        if taken.status == 201:
            await ask(caller, "DELETE", taken.headers["location"], user)
        await asyncio.sleep(max(0.0, after + GRANT_SECONDS + APART_SECONDS - time.time()))
        refused = await caller.offer(old["value"], new_offer())
        seen.old.append(refused.json["code"])


def _off(value: float, least: float, most: float) -> float:
    """How far a value is beyond its bounds."""
    return max(0.0, least - value, value - most)


async def _minutes(place: Ground, here: Replica, there: Replica, seen: Seen) -> None:
    """A quota of minutes that two replicas charge and give back."""
    async with Caller(here.port) as one, Caller(there.port) as other:
        seen.minutes += await insisted(lambda: _minutes_apart(place, one, other))


async def _minutes_apart(place: Ground, one: Caller, other: Caller) -> list[float]:
    """How far the lengths of two calls are from what an earlier call leaves of the minutes."""
    user, opened = new_user("minutes"), list[str]()
    try:
        for caller in (one, other):
            opened.append(expected(await caller.offer(user.token, new_offer()), 201).headers["location"])
        await asyncio.sleep(2)
        expected(await other.ask("DELETE", opened[0], user.token), 200)
        opened.append(expected(await one.offer(user.token, new_offer()), 201).headers["location"])
        shown = [await _shown(one, user, location) for location in opened]
    finally:
        for location in opened:
            await ask(one, "DELETE", location, user)
    call = (await asyncio.to_thread(place.calls))[shown[0]["id"]]
    used = (call.ended_at or math.inf) - call.started_at
    lengths = [call["deadline"] - call["started_at"] for call in shown]
    return [abs(lengths[1] - (PERIOD - LONGEST)), abs(lengths[2] - (LONGEST - used))]


async def _lone(place: Ground, replica: Replica, *, redis: bool = True) -> list[float]:
    """How late calls end at the provider whose opener is the only replica left."""
    async with Caller(replica.port) as caller:
        opened = [(await open_call(caller, "prove"))[1].rpartition("/")[2] for _ in range(EACH)]
    if not redis:
        await asyncio.to_thread(place.redis.kill)
    await asyncio.sleep(CALL_SECONDS + LATE_SECONDS + ALONE_SECONDS)
    known = await asyncio.to_thread(place.calls)
    mine = [known[call_id] for call_id in opened]
    return [math.inf if call.ended_at is None else call.ended_at - call.started_at - CALL_SECONDS for call in mine]


async def _shown(caller: Caller, user: User, location: str) -> dict[str, Any]:
    return dict((await ask(caller, "GET", location, user)).json)


def _longest(seconds: Sequence[float]) -> str:
    return f"{max(seconds):.1f} s" if seconds else "–"


def _row(seen: Seen) -> list[object]:
    return [
        seen.clocks,
        seen.calls,
        seen.hang_ups,
        *(_longest(one) for one in (seen.deadlines, seen.alone, seen.without_redis, seen.idle)),
        f"{seen.young.count(201)} of {len(seen.young)}",
        f"{seen.old.count('grant_expired')} of {len(seen.old)}",
        _longest(seen.apart),
        _longest(seen.minutes),
    ]


def _bounds(result: Result, seen: Seen) -> None:
    at = f"clocks off by {seen.clocks}:"
    for what, late, bound in (
        ("deadline", seen.deadlines, LATE_SECONDS),
        ("deadline, alone", seen.alone, LATE_SECONDS),
        ("deadline, without Redis", seen.without_redis, LATE_SECONDS + ALONE_SECONDS),
        ("idle time", seen.idle, LATE_SECONDS),
    ):
        result.bound(all(0 <= one <= bound for one in late), f"{at} {what}: ended {late} s after it")
    result.bound(len(seen.idle) == seen.pairs, f"{at} {len(seen.idle)} idle calls of {seen.pairs}")
    result.bound(set(seen.young) <= {201, 503}, f"{at} young grants: {seen.young}")
    result.bound(set(seen.old) <= {"grant_expired", "degraded"}, f"{at} old grants: {seen.old}")
    result.bound(max(seen.apart) <= APART_SECONDS, f"{at} times are {max(seen.apart)} s apart")
    result.bound(max(seen.minutes) <= APART_SECONDS, f"{at} minutes are {max(seen.minutes)} s apart")
    result.bound(seen.away > 0 or seen.hang_ups == seen.calls, f"{at} {seen.hang_ups} hang-ups of {seen.calls} calls")
    result.bound(set(seen.ends) == {1}, f"{at} ends on record: {seen.ends}")
    result.bound(not seen.left, f"{at} left in the register: {seen.left}")
