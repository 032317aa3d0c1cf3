"""Windows in memory and in Redis, held against a model of a few lines by whatever sequences hypothesis thinks of."""

import asyncio
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchboard.ledger import Reservation
from switchboard.ledger.connection import connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import RedisLedger
from switchboard.ratelimit import Quota
from switchboard.ratelimit.windows import FORGOTTEN_AT_ONCE, WindowStorage


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Every request that was counted, by window; a window is found by reading them from the first one on."""

    def __init__(self) -> None:
        self.counted: dict[tuple[object, ...], list[float]] = defaultdict(list)

    def window(self, key: tuple[object, ...], seconds: int, now: float) -> tuple[float, int]:
        """When the window that is open now has begun (or would), and what it counts."""
        begin, count = now, 0
        for at in self.counted[key]:
            if count == 0 or at >= begin + seconds:
                begin, count = at, 0
            count += 1
        return (now, 0) if not count or now >= begin + seconds else (begin, count)

    def reserve(self, asked: Reservation, now: float) -> tuple[list[tuple[str, int, float]], list[str]]:
        keys = [
            (asked.tenant, quota.scope == "user" and asked.user_key, quota.scope, quota.seconds, quota.limit)
            for quota in asked.quotas
        ]
        before = [self.window(key, quota.seconds, now) for key, quota in zip(keys, asked.quotas, strict=True)]
        full = [quota for quota, (_, count) in zip(asked.quotas, before, strict=True) if count >= quota.limit]
        for key in keys if not full else ():
            self.counted[key].append(now)
        after = [self.window(key, quota.seconds, now) for key, quota in zip(keys, asked.quotas, strict=True)]
        windows = [
            (quota.name, quota.limit - count, begin + quota.seconds - now)
            for quota, (begin, count) in zip(asked.quotas, after, strict=True)
        ]
        return windows, [quota.name for quota in full]


@dataclass(frozen=True)
class Step:
    user: str
    tenant: str
    wait: float
    enforce: bool


QUOTAS = st.lists(
    st.builds(Quota, st.sampled_from(["user", "tenant"]), st.integers(1, 6), st.sampled_from([1, 7, 60, 3600, 86400])),
    min_size=1,
    max_size=4,
    unique_by=lambda quota: (quota.scope, quota.seconds),
).map(tuple)
# Whole and half seconds meet the ends of windows exactly, and are exact as floats.
WAITS = st.one_of(st.just(0.0), st.sampled_from([0.5, 1.0, 3.5, 6.5, 7.0, 59.5, 60.0, 61.0, 3600.0, 86400.0]))
STEPS = st.lists(
    st.builds(Step, st.sampled_from("abc"), st.sampled_from(["acme", "widgets"]), WAITS, st.booleans()), max_size=60
)


def asked(step: Step, quotas: tuple[Quota, ...]) -> Reservation:
    return Reservation(step.tenant, step.user, quotas, enforce=step.enforce)


@settings(max_examples=300, deadline=None)
@given(QUOTAS, STEPS)
def test_memory_agrees_with_the_model(quotas, steps):
    """Never more than the limit in a window; a refused request costs nothing; `remaining` and `resets_in` are right."""
    clock, model = Clock(), Model()
    ledger = MemoryLedger(clock=clock, window_clock=clock)

    async def walk() -> None:
        for step in steps:
            clock.now += step.wait
            standing = (await ledger.reserve(asked(step, quotas))).standing
            windows = [(window.quota.name, window.remaining, window.resets_in) for window in standing.windows]
            told = (windows, [window.quota.name for window in standing.exceeded])
            assert told == model.reserve(asked(step, quotas), clock.now)

    asyncio.run(walk())
    for key, counted in model.counted.items():
        *_, seconds, limit = cast("tuple[int, ...]", key)
        for first in counted:
            # A window is fixed, so that as many again fit around its edge; never more.
            assert sum(first <= at < first + seconds for at in counted) <= 2 * limit


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(quotas=QUOTAS, steps=STEPS)
def test_redis_agrees_with_memory(quotas, steps, redis):
    """The same sequences within one hour and without waits: Redis's clock is its own."""
    long = tuple(Quota(quota.scope, quota.limit, quota.seconds + 3600) for quota in quotas)
    tenant = uuid.uuid4().hex  # its windows are new

    async def walk() -> None:
        client = connect(redis.url)
        ledgers = MemoryLedger(), RedisLedger(client, wait=5)
        for step in steps:
            told = []
            for ledger in ledgers:
                reservation = Reservation(tenant + step.tenant, step.user, long, enforce=step.enforce)
                standing = (await ledger.reserve(reservation)).standing
                told.append(
                    (
                        [(window.quota.name, window.remaining) for window in standing.windows],
                        [window.quota.name for window in standing.exceeded],
                    )
                )
                assert all(0 <= one.quota.seconds - one.resets_in < 60 for one in standing.windows)
            assert told[0] == told[1]
        await client.aclose()

    asyncio.run(walk())


HITS = st.lists(
    st.tuples(
        st.integers(0, 40), st.sampled_from([1, 60, 3600]), WAITS, st.sampled_from(["hit", "hit", "hit", "clear"])
    ),
    max_size=200,
)


@settings(max_examples=200, deadline=None)
@given(HITS)
def test_storage_agrees_with_a_dictionary_and_keeps_nothing_for_long(hits):
    clock = Clock()
    storage = WindowStorage(clock=clock)
    model: dict[str, tuple[float, int]] = {}
    for number, seconds, wait, action in hits:
        clock.now += wait
        key = f"{number}/{seconds}"
        model = {name: window for name, window in model.items() if window[0] > clock.now}
        if action == "clear":
            storage.clear(key)
            model.pop(key, None)
        else:
            end, count = model.get(key, (clock.now + seconds, 0))
            model[key] = (end, count + 1)
            assert storage.incr(key, seconds) == count + 1
        for name, (end, count) in model.items():
            assert (storage.get(name), storage.get_expiry(name)) == (count, end)
        assert len(storage) >= len(model)
    clock.now += 3601
    storage.incr("last", 1)
    assert len(storage) == 1
    assert len(storage._ends) <= 1 + sum(action == "clear" for *_, action in hits)


@pytest.mark.parametrize("keys", [1_000, 50_000])
def test_a_hit_costs_the_same_however_many_keys_are_live(keys, monkeypatch):
    """Counted, not timed: how often a hit looks at the queue of ends."""
    clock = Clock()
    storage = WindowStorage(clock=clock)
    for number in range(keys):
        storage.incr(f"user-{number}", 3600)
    looked = 0

    class Counted(list[tuple[float, str]]):
        def __getitem__(self, index):
            nonlocal looked
            looked += 1
            return super().__getitem__(index)

        def __iter__(self):
            raise AssertionError("a hit looks through all keys")

    storage._ends = Counted(storage._ends)
    for _ in range(100):
        storage.incr("user-7", 3600)
    assert looked <= 200
    clock.now += 3601
    looked = 0
    storage.incr("user-7", 3600)
    assert looked <= 3 * FORGOTTEN_AT_ONCE
    assert len(storage) >= keys - FORGOTTEN_AT_ONCE
    for _ in range(keys // FORGOTTEN_AT_ONCE):
        storage.incr("user-7", 3600)
    assert len(storage) == 1
