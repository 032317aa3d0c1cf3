"""Many offers of one user at once, over two replicas: one call, whatever the policy does with the others."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tests.prove.calls.books import (
    AWAY_SECONDS,
    OVER_SECONDS,
    Entry,
    add_replica,
    ask,
    left_behind,
    read_books,
    until,
    warm,
)
from tests.prove.client import Caller, Reply
from tests.prove.service import (
    Ground,
    ProviderCall,
    Result,
    Say,
    User,
    ground,
    new_offer,
    new_user,
    policy,
    table,
    tenant,
)

AT_ONCE = 200
PROVIDER_SECONDS = 0.02
MOST_AGAIN = 5
WAYS = {"refuse": 1, "replace": 5}  # and how many offers each caller makes in a row


def prove_at_once(say: Say, *, rounds: int) -> Result:
    """A cap of one call holds to the call, also while calls make room for others."""
    tenants = {
        way: tenant(limits={"open_calls": {"user": 1}, "when_user_full": way, "call_seconds": 3600}) for way in WAYS
    }
    with ground(policy(**tenants)) as place:
        for _ in range(2):
            add_replica(place)
        ports = place.start()
        place.faults(delay_seconds=PROVIDER_SECONDS, operations=["call"])
        return asyncio.run(_rounds(say, place, ports, rounds))


@dataclass
class Seen:
    """What the rounds of one way show."""

    through: dict[str, int] = field(default_factory=dict)
    """How many offers of a user, by key, opened a call; of rounds in which Redis was there throughout."""
    refused: Counter[str] = field(default_factory=Counter)
    again: int = 0
    """Rounds that were repeated: this machine was so busy that Redis seemed to be away."""


async def _rounds(say: Say, place: Ground, ports: Sequence[int], rounds: int) -> Result:
    await warm(place)
    seen = {way: Seen() for way in WAYS}
    opened: list[tuple[User, str]] = []
    for way, in_a_row in WAYS.items():
        while len(seen[way].through) < rounds and seen[way].again < MOST_AGAIN * rounds:
            user = new_user(way)
            replies = await _at_once(ports, user, in_a_row)
            locations = [reply.headers["location"] for reply in replies if reply.status == 201]
            opened += [(user, location) for location in locations]
            codes = Counter(reply.json["code"] for reply in replies if reply.status != 201)
            if "degraded" in codes:
                seen[way].again += 1
                await asyncio.sleep(AWAY_SECONDS)
                continue
            seen[way].refused += codes
            seen[way].through[user.key] = len(locations)
        say(f"{way}: {len(seen[way].through)} of {rounds} rounds")
    result, rows = Result(), []
    still_open = Counter(entry.register.user_key for entry in (await read_books(place)).entries if _is_open(entry))
    async with Caller(ports[0]) as caller:
        for user, location in opened:
            await ask(caller, "DELETE", location, user)
    await until(lambda: not left_behind(place.redis), OVER_SECONDS)
    books = await read_books(place)
    for way, of_way in seen.items():
        entries = books.of(way)
        most, ends = _most_open(entries, books.unbound), Counter(entry.ends for entry in entries)
        clean = [entry for entry in entries if entry.register.user_key in of_way.through]
        result.bound(len(of_way.through) == rounds, f"{way}: Redis seemed away in {of_way.again} rounds")
        result.bound(most == 1, f"{way}: {most} calls of one user were open at a time")
        result.bound(all(still_open[key] == 1 for key in of_way.through), f"{way}: open afterwards {still_open}")
        result.bound(all(entry.ends == 1 for entry in clean), f"{way}: ends on record {ends}")
        reasons = Counter(entry.register.ended_by for entry in clean)
        result.bound(set(reasons) <= {"replaced", "owner"}, f"{way}: ended by {reasons}")
        result.bound(way == "replace" or set(of_way.through.values()) == {1}, f"{way}: opened {of_way.through}")
        rows.append(
            [
                f"`{way}`" if WAYS[way] == 1 else f"`{way}`, {WAYS[way]} in a row",
                len(of_way.through),
                of_way.again,
                _range(of_way.through.values()),
                ", ".join(f"{count} × {what}" for what, count in sorted(of_way.refused.items())),
                most,
                f"{ends[1]} of {sum(ends.values())}",
            ]
        )
    result.lines = table(
        f"{AT_ONCE} at a time, one user",
        "rounds",
        "repeated",
        "201 in each",
        "refused in all",
        "most open at a time",
        "ends on record once",
        rows=rows,
    )
    return result


def _is_open(entry: Entry) -> bool:
    return entry.provider.ended_at is None


def _range(counts: Collection[int]) -> str:
    least, most = min(counts, default=0), max(counts, default=0)
    return str(most) if least == most else f"{least} to {most}"


async def _at_once(ports: Sequence[int], user: User, in_a_row: int) -> Sequence[Reply]:
    callers = [await Caller(ports[number % len(ports)]).__aenter__() for number in range(AT_ONCE)]

    async def offer(caller: Caller) -> list[Reply]:
        return [await caller.offer(user.token, new_offer()) for _ in range(in_a_row)]

    replies = await asyncio.gather(*(offer(caller) for caller in callers))
    for caller in callers:
        await caller.__aexit__()
    return [reply for of_one in replies for reply in of_one]


def _most_open(entries: Iterable[Entry], unbound: Iterable[ProviderCall]) -> int:
    """How many calls of one user were open at one time, by all of the provider's list: nothing slips past."""
    calls: dict[str, list[ProviderCall]] = {}
    for call in (*(entry.provider for entry in entries), *unbound):
        calls.setdefault(call.user_key, []).append(call)
    return max(_deepest(of_user) for of_user in calls.values())


def _deepest(calls: Iterable[ProviderCall]) -> int:
    moments = [(call.started_at, 1) for call in calls]
    moments += [(call.ended_at, -1) for call in calls if call.ended_at is not None]
    now = most = 0
    for _, change in sorted(moments):  # at one moment, ends before begins
        now += change
        most = max(most, now)
    return most
