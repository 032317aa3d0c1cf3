"""Redis restarted, or lost with its data, while calls are open."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.prove.calls.books import OVER_SECONDS, add_replica, ask, left_behind, open_call, read_books, until, warm
from tests.prove.client import Caller, Reply
from tests.prove.service import Ground, Replica, Result, Say, User, ground, new_offer, new_user, policy, table, tenant

CALL_SECONDS = 10  # the shortest that a policy may say
LATE_SECONDS = 2.0
BEHIND_SECONDS = 1.0  # later, where the register is away: whoever opened a call waits for others first
HEAL_SECONDS = 2.0
EACH = 8  # calls that each replica opens
PERSISTENT = ("--appendonly", "yes")


@dataclass(frozen=True, slots=True)
class Case:
    """When Redis is killed and started again, in seconds from the calls' begin, and whether it has its data then."""

    name: str
    down: float
    up: float
    keeps_data: bool

    @property
    def is_away_at_deadline(self) -> bool:
        return self.up > CALL_SECONDS


CASES = (
    Case("restarted with its data", 2, 4, keeps_data=True),
    Case("restarted with its data, away at the deadlines", 7, 14, keeps_data=True),
    Case("back empty", 2, 4, keeps_data=False),
    Case("back empty, away at the deadlines", 7, 14, keeps_data=False),
)


@dataclass
class Seen:
    """What one case shows."""

    late: list[float] = field(default_factory=list)
    meanwhile: dict[str, set[str]] = field(default_factory=dict)
    """What offers got while Redis was away, by what they came with."""
    healed: list[str] = field(default_factory=list)
    """What was wrong when Redis was back: at the other replica, for the owner of a call."""
    ends: Counter[int] = field(default_factory=Counter)
    left: dict[str, int] = field(default_factory=dict)


def prove_redis(say: Say, *, cases: Sequence[Case] = CASES) -> Result:
    """Calls end on time and once whatever becomes of Redis, and the register is whole again when it is back."""
    rows, result = [], Result()
    for case in cases:
        say(f"Redis {case.name}")
        limits = {"open_calls": {"user": 1}, "when_user_full": "refuse", "call_seconds": CALL_SECONDS}
        tenants = {
            "prove": tenant(limits=limits),
            "allowed": tenant(limits=limits, calls_without_register="allow"),
        }
        with ground(policy(**tenants), *PERSISTENT) as place:
            for _ in range(2):
                add_replica(place, expected_replicas="2")
            place.start()
            seen = Seen()
            asyncio.run(_run(place, case, seen))
        rows.append(_row(case, seen))
        _bounds(result, case, seen)
    result.lines = table(
        f"Redis (killed {CASES[0].down:.0f} s or {CASES[1].down:.0f} s after the calls began)",
        "calls",
        "latest end after the deadline",
        "ends on record once",
        "meanwhile: own token",
        "with a grant",
        "register not needed",
        "wrong at the other replica afterwards",
        rows=rows,
    )
    return result


async def _run(place: Ground, case: Case, seen: Seen) -> None:
    await warm(place)
    opened: list[tuple[Replica, User, str]] = []
    others = dict(zip(place.replicas, reversed(place.replicas), strict=True))
    for replica in place.replicas:
        async with Caller(replica.port) as caller:
            opened += [(replica, *await open_call(caller, "prove")) for _ in range(EACH)]
    begin = time.monotonic()
    grants = {name: await _grants(place, name) for name in ("prove", "allowed")}

    await _at(begin + case.down)
    await asyncio.to_thread(place.redis.kill)
    await asyncio.gather(*(_meanwhile(replica, grants, seen) for replica in place.replicas))
    await _at(begin + case.up)
    if not case.keeps_data:
        shutil.rmtree(place.redis.folder / "appendonlydir")
    await asyncio.to_thread(place.redis.start)
    await asyncio.sleep(HEAL_SECONDS)

    for replica, user, location in opened:
        seen.healed += await _wrong(others[replica], user, location, is_open=not case.is_away_at_deadline)
    await _at(begin + CALL_SECONDS + LATE_SECONDS + BEHIND_SECONDS)
    await until(lambda: not left_behind(place.redis), OVER_SECONDS + CALL_SECONDS)
    seen.left = await asyncio.to_thread(left_behind, place.redis)
    books = await read_books(place)
    seen.late = [entry.late for entry in books.entries if entry.register.ended_by == "deadline"]
    seen.ends = books.ends


async def _grants(place: Ground, name: str) -> list[str]:
    """A grant for each replica to be asked with."""
    users = [new_user(name) for _ in place.replicas]
    async with Caller(place.replicas[0].port) as caller:
        return [(await ask(caller, "POST", "/token", user)).json["value"] for user in users]


async def _meanwhile(replica: Replica, grants: dict[str, list[str]], seen: Seen) -> None:
    """Offers while Redis is away: with a user's own token, with grants, of a tenant that needs no register."""
    async with Caller(replica.port) as caller:
        for what, name in (("own", "prove"), ("allowed", "allowed")):
            reply = await caller.offer(new_user(name).token, new_offer())
            seen.meanwhile.setdefault(what, set()).add(_answer(reply))
        for name in ("prove", "allowed"):
            reply = await caller.offer(grants[name].pop(), new_offer())
            seen.meanwhile.setdefault("grant", set()).add(_answer(reply))


async def _wrong(replica: Replica, user: User, location: str, *, is_open: bool) -> list[str]:
    """What a replica that has not opened this call says of it, where that is not so."""
    wrong = []
    async with Caller(replica.port) as caller:
        shown = (await caller.ask("GET", location, user.token)).json
        state, ended_by = ("open", None) if is_open else ("ended", "deadline")
        if (shown.get("state"), shown.get("ended_by")) != (state, ended_by):
            wrong.append(f"GET says {shown}")
        again = await caller.offer(user.token, new_offer())
        if again.status != (429 if is_open else 201):
            wrong.append(f"another offer: {_answer(again)}")
        if again.status == 201:
            await caller.ask("DELETE", again.headers["location"], user.token)
    return wrong


def _answer(reply: Reply) -> str:
    return str(reply.status) if reply.status == 201 else f"{reply.status} {reply.json['code']}"


async def _at(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def _row(case: Case, seen: Seen) -> list[object]:
    return [
        case.name,
        len(seen.late),
        f"{max(seen.late):.1f} s",
        f"{seen.ends[1]} of {sum(seen.ends.values())}",
        *(", ".join(sorted(seen.meanwhile[what])) for what in ("own", "grant", "allowed")),
        len(seen.healed),
    ]


def _bounds(result: Result, case: Case, seen: Seen) -> None:
    bound = LATE_SECONDS + (BEHIND_SECONDS if case.is_away_at_deadline else 0)
    late = max(seen.late)
    result.bound(min(seen.late) >= 0 and late <= bound, f"{case.name}: ended {min(seen.late)} s to {late} s late")
    result.bound(set(seen.ends) == {1}, f"{case.name}: ends on record: {seen.ends}")
    expected = {"own": {"503 degraded"}, "grant": {"503 degraded"}, "allowed": {"201"}}
    result.bound(seen.meanwhile == expected, f"{case.name}: meanwhile {seen.meanwhile}")
    result.bound(not seen.healed, f"{case.name}: wrong when Redis was back: {seen.healed}")
    result.bound(not seen.left, f"{case.name}: left in the register: {seen.left}")
