"""Windows in memory: they end when they say, and take bounded room and time whoever chooses the keys."""

import pytest

from switchboard.ratelimit import windows
from switchboard.ratelimit.windows import WindowStorage


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_window_begins_with_its_first_hit_and_ends_its_length_later(clock):
    storage = WindowStorage(clock=clock)
    assert (storage.get("a"), storage.get_expiry("a")) == (0, 1000.0)
    assert [storage.incr("a", 60), storage.incr("a", 60, amount=2)] == [1, 3]
    clock.now = 1059.9
    assert (storage.incr("a", 60), storage.get("a"), storage.get_expiry("a")) == (4, 4, 1060.0)
    clock.now = 1060.0
    assert (storage.get("a"), storage.get_expiry("a")) == (0, 1060.0)
    assert (storage.incr("a", 60), storage.get_expiry("a")) == (1, 1120.0)


def test_windows_of_different_lengths(clock):
    storage = WindowStorage(clock=clock)
    for _ in range(3):
        storage.incr("minute", 60)
        storage.incr("hour", 3600)
    clock.now += 61
    assert (storage.get("minute"), storage.get("hour")) == (0, 3)


def test_what_has_ended_goes_away_in_steps(clock):
    storage = WindowStorage(clock=clock)
    for number in range(2000):
        storage.incr(f"flood-{number}", 60)
    clock.now += 61
    storage.incr("a", 60)
    assert len(storage) == 2000 - windows.FORGOTTEN_AT_ONCE + 1
    assert [storage.get(f"flood-{number}") for number in (0, 1999)] == [0, 0]
    assert storage.incr("flood-1999", 60) == 1  # it had not gone away yet
    for _ in range(5):
        storage.incr("a", 60)
    assert len(storage) == 2
    assert storage.get("flood-1999") == 1


def test_the_number_is_bounded_where_asked(clock):
    storage = WindowStorage(clock=clock, most=100)
    storage.incr("long", 3600)
    for number in range(5000):
        clock.now += 0.001
        storage.incr(f"flood-{number}", 60)
        assert len(storage) <= 100
    assert storage.get("flood-4999") == 1
    assert storage.get("flood-0") == 0  # those that end first make room
    assert storage.get("long") == 1


def test_forgetting_by_hand(clock):
    storage = WindowStorage(clock=clock)
    storage.incr("a", 60)
    storage.incr("b", 60)
    storage.clear("a")
    clock.now += 10
    assert (storage.incr("a", 60), storage.get("b")) == (1, 1)
    clock.now += 55  # the first window of "a" would end here
    assert (storage.incr("a", 60), storage.get("b")) == (2, 0)
    assert (storage.reset(), storage.get("a"), storage.check()) == (1, 0, True)
