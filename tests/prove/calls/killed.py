"""kill -9 of the process that opens calls, at random moments of an exchange."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.prove.calls.books import OVER_SECONDS, Books, add_replica, ask, left_behind, read_books, until
from tests.prove.client import Caller, Reply
from tests.prove.service import Ground, Replica, Result, Say, User, ground, new_offer, new_user, policy, table, tenant
from tests.support.faults import SlowWay

TENANT = "prove"
CALL_SECONDS = 10  # the shortest that a policy may say
LATE_SECONDS = 5.0
PROVIDER_SECONDS, REDIS_SECONDS = 0.04, 0.004  # how long the provider works, and how far Redis is from the victim
EXCHANGE_SECONDS = PROVIDER_SECONDS + 4 * REDIS_SECONDS
AT_ONCE = 6
LANDED = {
    "before": "before the slot was reserved",
    "reserved": "slot reserved, nothing sent",
    "provider": "while the provider worked",
    "answered": "between the answer and the register",
    "bound": "in the register, the caller had not heard",
}


@dataclass
class Offered:
    """One offer of a user who makes no other."""

    user: User
    reply: Reply | None = None
    killed_at: float = 0.0
    """When its opener was killed in the middle of it."""
    reserved: bool = False
    """Whether it held a slot thereafter."""


def prove_kills(say: Say, *, kills: int) -> Result:
    """No bound call outlives its deadline by more than five seconds, and no slot stays."""
    limits = {"open_calls": {"user": 1}, "when_user_full": "refuse", "call_seconds": CALL_SECONDS}
    with (
        ground(policy(**{TENANT: tenant(limits=limits)})) as place,
        SlowWay(place.redis.port, both_ways=True) as way,
    ):
        way.delay_by(REDIS_SECONDS)
        victim = add_replica(place, redis_url=way.url)
        survivor = add_replica(place)
        place.start()
        return asyncio.run(_kills(say, place, victim, survivor, kills))


async def _kills(say: Say, place: Ground, victim: Replica, survivor: Replica, kills: int) -> Result:
    place.faults(delay_seconds=PROVIDER_SECONDS, operations=["call"])
    offers: list[Offered] = []
    for number in range(1, kills + 1):
        offers += await _kill(place, victim)
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(victim.until_ready)
        if number % 10 == 0 or number == kills:
            say(f"{number} of {kills} kills")
    killed = time.time()
    await until(lambda: not left_behind(place.redis), CALL_SECONDS + OVER_SECONDS)
    say(f"all is over {time.time() - killed:.1f} s after the last kill")
    left = await asyncio.to_thread(left_behind, place.redis)
    books = await read_books(place)
    place.faults()
    cut = [offer for offer in offers if offer.reply is None]
    stuck = await _cannot_call_again(survivor, [offer.user for offer in cut])
    return _result(books, offers, cut, kills=kills, left=left, stuck=stuck)


async def _kill(place: Ground, victim: Replica) -> Sequence[Offered]:
    """Offers from several users at once, and in the middle of them the end."""
    offers: list[Offered] = []
    callers = [asyncio.create_task(_keep_offering(victim.port, offers)) for _ in range(AT_ONCE)]
    await asyncio.sleep(random.uniform(0, 4 * EXCHANGE_SECONDS))
    killed_at = time.time()
    await asyncio.to_thread(victim.kill)
    await asyncio.gather(*callers)
    await asyncio.sleep(EXCHANGE_SECONDS)  # in which what was on its way arrives
    for offer in offers:
        if offer.reply is None:
            offer.killed_at = killed_at
            offer.reserved = await asyncio.to_thread(_has_slot, place, offer.user)
    return offers


async def _keep_offering(port: int, offers: list[Offered]) -> None:
    await asyncio.sleep(random.uniform(0, EXCHANGE_SECONDS))
    try:
        async with Caller(port) as caller:
            while True:
                offer = Offered(new_user(TENANT))
                offers.append(offer)
                offer.reply = await caller.offer(offer.user.token, new_offer())
                # 503: this machine was too busy for the way to Redis to be quick enough.
                assert offer.reply.status in (201, 503), offer.reply.body
    except (OSError, EOFError):
        pass  # it was killed


def _has_slot(place: Ground, user: User) -> bool:
    keys = place.redis.do("KEYS", f"swb:*:{TENANT}:open:{user.key}")
    return bool(keys) and any(one.startswith("~") for one in place.redis.do("ZRANGE", keys[0], 0, -1))


async def _cannot_call_again(replica: Replica, users: Sequence[User]) -> int:
    """Of users whose offer was cut off: how many are refused now because they have a call, as it seems."""
    refused = 0
    async with Caller(replica.port) as caller:
        for user in users:
            opened = await caller.offer(user.token, new_offer())
            if opened.status == 201:
                await ask(caller, "DELETE", opened.headers["location"], user)
            refused += opened.status == 429
    return refused


def _where(offer: Offered, books: Books) -> str:
    if any(entry.register.user_key == offer.user.key for entry in books.entries):
        return "bound"
    calls = [call for call in books.unbound if call.user_key == offer.user.key]
    if calls:
        return "provider" if calls[0].started_at > offer.killed_at else "answered"
    return "reserved" if offer.reserved else "before"


def _result(
    books: Books, offers: Sequence[Offered], cut: Sequence[Offered], *, kills: int, left: dict[str, int], stuck: int
) -> Result:
    landed = Counter(_where(offer, books) for offer in cut)
    ends, latest = books.ends, max(entry.late for entry in books.entries)
    still_open = [entry for entry in books.entries if entry.provider.ended_at is None]
    unheard = [call for call in books.unbound if call.ended_at is None]
    result = Result(
        [
            *table(
                "where the kill met an offer",
                "offers",
                rows=[(text, landed[where]) for where, text in LANDED.items()],
            ),
            "",
            *table(
                f"{kills} kills, {len(offers)} offers",
                "bound",
                "found",
                rows=[
                    ("calls in the register", "–", len(books.entries)),
                    ("of them still open at the provider", "0", len(still_open)),
                    ("the latest end after its deadline", f"{LATE_SECONDS:.0f} s", f"{latest:.1f} s"),
                    ("calls and slots left in the register", "0", sum(left.values())),
                    ("users of the offers cut off who cannot call again", "0", stuck),
                    ("ends on record: never, once, twice", "none never", f"{ends[0]}, {ends[1]}, {ends[2]}"),
                    ("calls that the provider opened, and nobody ever heard of", "–", len(unheard)),
                ],
            ),
        ]
    )
    result.bound(not still_open, f"{len(still_open)} calls are still open")
    result.bound(latest <= LATE_SECONDS, f"a call ended {latest:.1f} s after its deadline")
    early = [entry for entry in books.entries if entry.late < 0]
    result.bound(not early, f"{len(early)} calls ended before their deadline")
    result.bound(not left, f"left in the register: {left}")
    result.bound(not stuck, f"{stuck} users cannot call again")
    result.bound(ends[0] == 0, f"{ends[0]} ends are not on record")
    result.bound(max(ends) <= 2, f"ends on record: {ends}")
    heard = [offer for offer in offers if offer.reply is not None and offer.reply.status == 201]
    result.bound(len(books.entries) >= len(heard), f"{len(heard)} callers heard of {len(books.entries)} calls")
    return result
