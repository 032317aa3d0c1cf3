"""The breaker by its own clock: when it opens, who may look, and what closes it."""

import asyncio

import pytest

from switchboard.errors import InvalidOffer, ProviderBusy, ProviderRefused, ProviderTimeout, ProviderUnavailable
from switchboard.providers.breaker import FAILURES, LONGEST_SECONDS, Breaker
from switchboard.providers.events import BreakerClosed, BreakerOpened
from switchboard.providers.keys import KeyRefused


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def seen():
    return []


@pytest.fixture
def breaker(clock, seen):
    return Breaker(seen.append, clock=clock)


def unavailable(cause="500"):
    error = ProviderUnavailable()
    error.cause = cause
    return error


def one(breaker, error=None):
    """One request that ends so; the refusal if it is not let through."""
    guard = breaker.guard()
    try:
        guard.__enter__()
    except ProviderBusy as shed:
        return shed
    assert not guard.__exit__(type(error) if error else None, error, None)
    return None


def break_it(breaker, clock, error=None):
    for _ in range(FAILURES):
        one(breaker, error or unavailable())
        clock.now += 0.25
    assert breaker.is_open


@pytest.mark.parametrize("error", [unavailable("unreachable"), ProviderTimeout()])
def test_it_opens_after_failures_in_a_row(breaker, clock, seen, error):
    for _ in range(FAILURES - 1):
        one(breaker, error)
        clock.now += 0.25
    assert not breaker.is_open
    one(breaker, error)
    assert breaker.is_open
    assert seen == [BreakerOpened(error.cause, 1.0, again=False)]
    shed = one(breaker)
    assert (shed.code, shed.status, shed.retry_after, shed.untried) == ("provider_busy", 503, 1, True)


@pytest.mark.parametrize(
    "answer", [None, ProviderRefused(), ProviderBusy(), InvalidOffer("no"), KeyRefused("401", None)]
)
def test_any_answer_in_between_shows_that_it_is_up(breaker, clock, answer):
    for _ in range(3 * FAILURES):
        for _ in range(FAILURES - 1):
            one(breaker, unavailable())
            clock.now += 10
        one(breaker, answer)
    assert not breaker.is_open


def test_what_breaks_in_one_moment_is_no_outage(breaker, clock):
    for _ in range(1000):
        one(breaker, unavailable("broken"))
    clock.now += 0.9
    one(breaker, unavailable("broken"))
    assert not breaker.is_open
    clock.now += 0.1
    one(breaker, unavailable("broken"))
    assert breaker.is_open


def test_one_probe_at_a_time_and_an_answer_closes_it(breaker, clock, seen):
    break_it(breaker, clock)
    clock.now += 1.0
    with breaker.guard():
        for _ in range(5):
            assert one(breaker).retry_after == 1
    assert not breaker.is_open
    assert one(breaker) is None
    assert seen[1:] == [BreakerClosed(2.25)]


def test_each_probe_that_fails_doubles_the_wait_up_to_a_bound(breaker, clock, seen):
    break_it(breaker, clock)
    clock.now += 1.0
    for wait in (2, 4, 8, 16, 30, 30):
        one(breaker, unavailable("timeout"))
        assert seen[-1] == BreakerOpened("timeout", wait, again=True)
        assert one(breaker).retry_after == wait
        clock.now += wait - 0.5
        assert one(breaker).retry_after == 1
        clock.now += 0.5
    assert LONGEST_SECONDS == 30
    assert one(breaker) is None
    # And from the beginning again.
    break_it(breaker, clock)
    assert seen[-1] == BreakerOpened("500", 1.0, again=False)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError("a defect of ours")])
def test_a_probe_that_comes_to_nothing_says_nothing_and_the_next_one_looks(breaker, clock, seen, error):
    break_it(breaker, clock)
    clock.now += 1.0
    one(breaker, error)
    assert breaker.is_open
    assert one(breaker) is None
    assert not breaker.is_open
    assert len(seen) == 2


def test_what_was_sent_before_it_opened_neither_closes_nor_prolongs_it(breaker, clock, seen):
    early, late = breaker.guard(), breaker.guard()
    early.__enter__()
    late.__enter__()
    break_it(breaker, clock)
    early.__exit__(None, None, None)
    error = unavailable()
    late.__exit__(type(error), error, None)
    assert breaker.is_open
    clock.now += 1.0
    assert one(breaker) is None
    assert [type(happening) for happening in seen] == [BreakerOpened, BreakerClosed]
