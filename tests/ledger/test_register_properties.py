"""The register in memory and in Redis, side by side, by whatever sequences hypothesis thinks of.

Times are so long that none of them passes: what passing time does is in test_ledgers.py. A call is told when it ended,
so that both ledgers count the same seconds.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import redis as client_library
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from switchboard.calls import Call
from switchboard.errors import GrantUsed, TenantSuspended
from switchboard.ledger import Ending, Ledger, Reservation, Reserved
from switchboard.ledger import redis as redis_ledger
from switchboard.ledger import register as memory_register
from switchboard.ledger.connection import connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import RedisLedger
from switchboard.ratelimit import Quota
from tests.support.ledgers import a_slot, an_opening, asked, slot_of

TENANTS, USERS = ("acme", "b.c"), ("u" * 64, "v" * 64)
LONG = 3000.0
QUOTAS = st.lists(st.sampled_from([Quota("user", 6, 3600), Quota("tenant", 9, 86400)]), max_size=2, unique=True)
MINUTES = st.lists(
    st.sampled_from(
        [Quota("user", 2000, 86400, "seconds of calls"), Quota("tenant", 4000, 2 * 86400, "seconds of calls")]
    ),
    max_size=2,
    unique=True,
)
CAPS = st.sampled_from([None, None, 1, 2, 3])
SECONDS = st.sampled_from([0.0, 0.001, 1.0, 333.333, 899.999, 900.0, 1000.0])


@dataclass(frozen=True)
class Pending:
    """A reservation that was granted, and for how long a call."""

    reservation: Reservation
    seconds: float


@dataclass(frozen=True)
class Opened:
    """The same call in memory and in Redis: its times differ by the milliseconds between the two."""

    pair: tuple[Call, Call]
    charged: float
    minutes: tuple[Quota, ...]

    @property
    def id(self) -> str:
        return self.pair[0].id


class Ledgers(RuleBasedStateMachine):
    """Both ledgers, and of the model as much as the promises need."""

    server: ClassVar[Any]
    url: ClassVar[str]
    pending = Bundle("pending")
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.server.flushall()
        self.loop = asyncio.new_event_loop()
        self.client = connect(self.url)
        self.memory, self.redis = MemoryLedger(), RedisLedger(self.client, wait=10)
        self.ended: dict[str, Opened] = {}
        self.all: dict[str, Opened] = {}
        self.held: dict[str, Pending] = {}
        self.used: Counter[tuple[str, str, int]] = Counter()
        """Milliseconds of minutes that calls were charged and did not give back, by window."""

    def teardown(self) -> None:
        try:
            self.leave()
        finally:
            self.loop.run_until_complete(self.redis.aclose())
            self.loop.close()

    def both(self, step: Callable[[Ledger, int], Awaitable[Any]]) -> tuple[Any, Any]:
        """What each of them answers, or raises of what is expected."""

        async def answer(ledger: Ledger, number: int) -> Any:
            try:
                return await step(ledger, number)
            except (GrantUsed, TenantSuspended) as refusal:
                return type(refusal)

        memory = self.loop.run_until_complete(answer(self.memory, 0))
        return memory, self.loop.run_until_complete(answer(self.redis, 1))

    @initialize()
    def begin(self) -> None:
        assert self.both(lambda ledger, _: ledger.open_calls()) == ([], [])

    @rule(
        target=pending,
        tenant=st.sampled_from(TENANTS),
        user=st.sampled_from(USERS),
        quotas=QUOTAS,
        enforce=st.sampled_from([True, True, True, False]),
        grant=st.sampled_from([None, None, "g-1", "g-2"]),
        digest=st.sampled_from([None, None, "d" * 64]),
        minutes=MINUTES,
        user_calls=CAPS,
        tenant_calls=CAPS,
        replaces=st.booleans(),
        call_seconds=st.sampled_from([10, 900]),
    )
    def reserve(
        self, *, tenant, user, quotas, enforce, grant, digest, minutes, user_calls, tenant_calls, replaces, call_seconds
    ):
        given = {
            "lease_seconds": LONG, "call_seconds": call_seconds, "idle_seconds": 2000, "minutes": tuple(minutes),
            "user_calls": user_calls, "tenant_calls": tenant_calls, "replace": replaces,
        }  # fmt: skip
        slot = a_slot(**given, **({"offer_digest": digest} if digest else {}))
        reservation = asked(
            *quotas, user=user, tenant=tenant, enforce=enforce, grant_id=grant, grant_seconds=LONG, slot=slot
        )
        memory, redis = self.both(lambda ledger, _: ledger.reserve(reservation))
        assert shape(memory) == shape(redis)
        if not isinstance(memory, Reserved):
            return multiple()
        if memory.replace or (memory.full and (enforce or memory.full.which == "offer")):
            return multiple()
        if enforce and memory.standing.exceeded:
            return multiple()
        if enforce:
            count = self.both(lambda ledger, _: ledger.count([tenant]))
            assert not tenant_calls or count[0][0] <= tenant_calls
            mine = sum(
                one.reservation.user_key == user for one in self.held.values() if one.reservation.tenant == tenant
            )
            open_calls = self.both(lambda ledger, _: ledger.open_calls(tenant, user))[0]
            assert not user_calls or mine + 1 + len(open_calls) <= user_calls
        assert minutes or memory.call_seconds == call_seconds
        self.held[slot.id] = Pending(reservation, memory.call_seconds)
        return self.held[slot.id]

    @rule(target=calls, one=consumes(pending))
    def bind(self, one):
        reservation = one.reservation
        opening = an_opening()
        pair = self.both(lambda ledger, _: ledger.bind(reservation, opening, one.seconds))
        assert shape(pair[0]) == shape(pair[1])
        assert round(pair[0].deadline - pair[0].started_at, 3) == one.seconds
        # A slot that was released has given its minutes back.
        minutes = slot_of(reservation).minutes if self.held.pop(slot_of(reservation).id, None) else ()
        opened = Opened(pair, one.seconds, minutes)
        self.all[opened.id] = opened
        return opened

    @rule(one=pending, untried=st.booleans())
    def release(self, one, untried):
        """It may be bound all the same afterwards, as by a replica that was too slow."""
        self.both(lambda ledger, _: ledger.release(one.reservation, untried=untried))
        self.held.pop(slot_of(one.reservation).id, None)

    @rule(one=consumes(pending))
    def overtake(self, one):
        """The call was given up before it was bound: a bind that comes later finds it so."""
        reservation, opening, now = one.reservation, an_opening(), float(round(time.time()))
        call = Call(
            opening.id, reservation.tenant, "i", reservation.user_key, "p", "o", "k", now, now + LONG, ended_at=now + 1
        )
        ended = self.both(lambda ledger, _: ledger.end(call, by="admin"))
        assert ended[0] == ended[1] == Ending(replace(call, ended_by="admin"), is_ours=True)
        bound = self.both(lambda ledger, _: ledger.bind(reservation, opening, one.seconds))
        assert bound == (ended[0].call, ended[0].call)
        self.held.pop(slot_of(reservation).id, None)
        self.all[call.id] = self.ended[call.id] = Opened(bound, 0.0, ())

    @rule(one=calls)
    def heard(self, one):
        self.both(lambda ledger, number: ledger.heard(one.pair[number].tenant, one.id))

    @rule(one=calls, by=st.sampled_from(["owner", "admin", "replaced"]), seconds=st.sampled_from([0.0, LONG]))
    def put_off(self, one, by, seconds):
        self.both(lambda ledger, number: ledger.put_off(one.pair[number], by=by, seconds=seconds))

    @rule(one=calls, by=st.sampled_from(["owner", "deadline", "idle", "provider"]), seconds=SECONDS)
    def end(self, one, by, seconds):
        def told(number):
            return replace(one.pair[number], ended_at=one.pair[number].started_at + seconds)

        memory, redis = self.both(lambda ledger, number: ledger.end(told(number), by=by))
        assert (shape(memory.call), memory.is_ours) == (shape(redis.call), redis.is_ours)
        assert memory.is_ours is (one.id not in self.ended)
        if memory.is_ours:
            assert (memory.call.ended_by, memory.call.seconds) == (by, seconds)
            self.ended[one.id] = one
            for quota in one.minutes:
                used = min(seconds, one.charged)
                self.used[window(memory.call, quota)] += round(1000 * used)

    @rule(one=calls)
    def confirm(self, one):
        self.both(lambda ledger, number: ledger.confirm(one.pair[number]))

    @rule(tenant=st.sampled_from(TENANTS), suspended=st.booleans())
    def suspend(self, tenant, suspended):
        self.both(lambda ledger, _: ledger.suspend(tenant, suspended=suspended))

    @rule(all_of_them=st.booleans())
    def sweep(self, all_of_them):
        memory, redis = self.both(lambda ledger, _: ledger.sweep(1000 if all_of_them else 0))
        assert memory.suspended == redis.suspended
        assert shapes(memory.due) == shapes(redis.due)

    @invariant()
    def both_know_the_same(self) -> None:
        async def everything(ledger: Ledger, _: int) -> Any:
            lists = {(tenant, user): await ledger.open_calls(tenant, user) for tenant in TENANTS for user in USERS}
            return lists, await ledger.count(TENANTS)

        (memory, counts), (redis, redis_counts) = self.both(everything)
        assert {whose: shapes(calls) for whose, calls in memory.items()} == {
            whose: shapes(calls) for whose, calls in redis.items()
        }
        held = Counter(one.reservation.tenant for one in self.held.values())
        open_calls = Counter(call.tenant for calls in memory.values() for call in calls)
        assert counts == redis_counts == [held[tenant] + open_calls[tenant] for tenant in TENANTS]
        assert {call.id for calls in memory.values() for call in calls} == self.all.keys() - self.ended.keys()

    @invariant()
    def each_open_call_is_due_once(self) -> None:
        """In both at the same time, and nothing else is but what is held, and ends that are not on record."""
        open_calls = {(one.pair[0].tenant, one.id) for name, one in self.all.items() if name not in self.ended}
        memory = self.memory._register._due._times
        redis = {
            tuple(member.split("/")): score / 1000
            for bucket in {redis_ledger._bucket(tenant) for tenant in TENANTS}
            for member, score in self.server.zrange(f"swb:{{{bucket}}}:due", 0, -1, withscores=True)
        }
        slots = {(one.reservation.tenant, f"~{name}") for name, one in self.held.items()}
        assert open_calls <= memory.keys()
        assert redis.keys() == memory.keys() | slots
        assert all(abs(redis[key] - at) < 60 for key, at in memory.items())
        assert memory.keys() - open_calls == self.memory._register._unrecorded

    def leave(self) -> None:
        """Everybody leaves: nothing is left of slots, offers and what was due, and minutes are those that were used."""
        for pending in list(self.held.values()):
            self.release(pending, untried=False)
        for call in self.all.values():
            if call.id not in self.ended:
                self.end(call, "owner", 1.0)
            self.confirm(call)
        self.both_know_the_same()
        self.each_open_call_is_due_once()
        register = self.memory._register
        assert (register._held, register._open, register._offers, register._offer_of) == ({}, {}, {}, {})
        assert (register._due._times, register._unrecorded, self.memory._charges) == ({}, set(), {})

        charged: dict[str, Counter[tuple[str, str, int]]] = defaultdict(Counter)
        kinds = set()
        for key in self.server.keys("swb:*"):
            kind, *rest = key.split(":", 3)[2:]
            if kind in TENANTS:
                kind, _, name = rest[0].partition(":")
                assert kind in ("quota", "minutes", "grant", "call"), key
                assert self.server.pttl(key) > 0
                if kind == "minutes":
                    whose, _, seconds = name.rpartition(":")
                    charged["redis"][key.split(":")[2], whose.removeprefix("user:"), int(seconds)] = int(
                        self.server.get(key)
                    )
            kinds.add(kind)
        assert kinds <= {"quota", "minutes", "grant", "call", "suspended", "generation"}
        for name, (_, milliseconds) in self.memory._windows._windows.items():
            if name.startswith("minutes/"):
                tenant, *whose, seconds = name.split("/")[1:]
                charged["memory"][tenant, whose[0] if whose else "tenant", int(seconds)] = milliseconds
        assert +charged["memory"] == +charged["redis"] == +self.used


def window(call: Call, quota: Quota) -> tuple[str, str, int]:
    return call.tenant, call.user_key if quota.scope == "user" else "tenant", quota.seconds


def shape(answer: Any) -> Any:
    """An answer without the milliseconds that lie between the two ledgers."""
    if isinstance(answer, Call):
        seconds = (answer.deadline, answer.heard_at, answer.ended_at)
        relative = [None if one is None else round(one - answer.started_at) for one in seconds]
        return replace(answer, started_at=0, deadline=0, heard_at=None, ended_at=None), *relative
    if isinstance(answer, Reserved):
        standing = [(one.quota, one.remaining, round(one.resets_in / 60)) for one in answer.standing.windows]
        exceeded = [(one.quota, one.remaining, round(one.resets_in / 60)) for one in answer.standing.exceeded]
        full = answer.full and (answer.full.which, round(answer.full.frees_in / 60))
        return standing, exceeded, answer.call_seconds, full, answer.replace and shape(answer.replace)
    return answer


def shapes(calls: Any) -> list[Any]:
    return sorted((shape(call) for call in calls), key=lambda one: one[0].id)


def test_memory_and_redis_agree_and_lose_nothing(redis, patient, monkeypatch):
    for module in (redis_ledger, memory_register):
        monkeypatch.setattr(module, "CLAIM_SECONDS", LONG)
        monkeypatch.setattr(module, "RECORD_SECONDS", LONG)
    with client_library.Redis(port=redis.port, decode_responses=True) as server:
        monkeypatch.setattr(Ledgers, "server", server, raising=False)
        monkeypatch.setattr(Ledgers, "url", redis.url, raising=False)
        run_state_machine_as_test(Ledgers, settings=settings(max_examples=50, stateful_step_count=30, deadline=None))
