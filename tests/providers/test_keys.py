"""Which key is used, by the module's own clock: set aside, probed, back; read anew; known for the calls it opened."""

import asyncio

import pytest

from switchboard.errors import InvalidOffer, ProviderBusy, ProviderRefused, ProviderTimeout, ProviderUnavailable
from switchboard.providers.events import KeyBack, KeyChanged, KeyDropped, KeyListed, KeySetAside
from switchboard.providers.keys import FORMER_SECONDS, MAX_FORMER, KeyRefused, Keys, ProviderKey

A, B = ProviderKey("env:A", "sk-a-0123456789"), ProviderKey("file:/run/b", "sk-b-0123456789")
NAMES = (A.name, B.name)


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
def keys(clock, seen):
    made = Keys(seen.append, clock=clock)
    made.list([A, B])
    assert seen == [KeyListed(A.name, is_set_aside=False), KeyListed(B.name, is_set_aside=False)]
    seen.clear()
    return made


def use(keys, error=None, refused=()):
    """One request: the key that it used."""
    trying = keys.trying(keys.first(NAMES, refused))
    key = trying.__enter__()
    assert not trying.__exit__(type(error) if error else None, error, None)
    return key


def refusal(why="401"):
    return KeyRefused(why, "req_1")


def test_the_first_one_is_used_as_long_as_it_is_taken(keys, seen):
    assert [use(keys) for _ in range(3)] == [A, A, A]
    for error in (ProviderUnavailable(), ProviderTimeout(), ProviderBusy(), ProviderRefused(), InvalidOffer("no")):
        use(keys, error)
    assert use(keys) == A
    assert use(keys, refused=[A.name]) == B
    assert seen == []


@pytest.mark.parametrize("why", ["401", "403", "insufficient_quota"])
def test_one_that_is_refused_is_set_aside(keys, clock, seen, why):
    use(keys, refusal(why))
    assert seen == [KeySetAside(A.name, why, 30.0)]
    assert use(keys) == B
    clock.now += 29.9
    assert use(keys) == B
    clock.now += 0.1
    assert use(keys) == A
    assert seen[1:] == [KeyBack(A.name)]
    assert use(keys) == A


def test_if_all_are_set_aside_nothing_is_sent(keys):
    use(keys, refusal())
    use(keys, refusal("insufficient_quota"))
    with pytest.raises(ProviderUnavailable) as none_left:
        keys.first(NAMES, ())
    assert none_left.value.untried
    assert "sk-" not in str(none_left.value)


def test_one_request_at_a_time_tries_it(keys, clock):
    use(keys, refusal())
    clock.now += 30
    with keys.trying(keys.first(NAMES, ())) as probing:
        assert probing == A
        assert [use(keys) for _ in range(5)] == [B] * 5
    assert use(keys) == A


def test_each_refusal_doubles_the_time_up_to_a_bound(keys, clock, seen):
    use(keys, refusal())
    for seconds in (60, 120, 240, 300, 300):
        clock.now = 10_000 + clock.now
        assert use(keys, refusal("403")) == A
        assert seen[-1] == KeySetAside(A.name, "403", seconds)
        clock.now += seconds - 0.1
        assert use(keys) == B
    clock.now += 1
    use(keys)
    use(keys, refusal())
    assert seen[-2:] == [KeyBack(A.name), KeySetAside(A.name, "401", 30.0)]


def test_requests_that_were_under_way_change_nothing(keys, seen):
    trying, error = keys.trying(keys.first(NAMES, ())), refusal()
    trying.__enter__()
    use(keys, refusal())
    trying.__exit__(type(error), error, None)
    assert seen == [KeySetAside(A.name, "401", 30.0)]


@pytest.mark.parametrize("error", [ProviderUnavailable(), ProviderTimeout(), asyncio.CancelledError(), ValueError()])
def test_a_probe_that_says_nothing_leaves_it_to_the_next(keys, clock, seen, error):
    use(keys, refusal())
    clock.now += 30
    assert use(keys, error) == A
    assert len(seen) == 1
    assert use(keys) == A
    assert seen[1:] == [KeyBack(A.name)]


@pytest.mark.parametrize("error", [ProviderBusy(), ProviderRefused(), InvalidOffer("no")])
def test_a_refusal_of_something_else_is_proof_that_the_key_is_taken(keys, clock, seen, error):
    use(keys, refusal())
    clock.now += 30
    use(keys, error)
    assert seen[1:] == [KeyBack(A.name)]


def test_another_value_is_tried_at_once(keys, seen):
    use(keys, refusal())
    assert use(keys) == B
    new = ProviderKey(A.name, "sk-new-0123456789")
    keys.learn(new)
    keys.learn(new)
    assert use(keys) == new
    assert seen[1:] == [KeyChanged(A.name)]


def test_what_the_former_value_met_is_not_the_new_ones_fault(keys, clock, seen):
    new = ProviderKey(A.name, "sk-new-0123456789")
    trying, error = keys.trying(keys.first(NAMES, ())), refusal()
    trying.__enter__()
    keys.learn(new)
    trying.__exit__(type(error), error, None)
    assert use(keys) == new
    assert seen == [KeyChanged(A.name)]


def test_former_values_are_known_as_long_as_a_call_can_live(keys, clock):
    values = [ProviderKey(A.name, f"sk-{number}-0123456789") for number in range(MAX_FORMER + 3)]
    for value in values[:2]:
        keys.learn(value)
    assert keys.values_of(A.name) == [values[1], values[0], A]
    clock.now += FORMER_SECONDS - 1
    keys.learn(values[2])
    assert keys.values_of(A.name) == [values[2], values[1], values[0], A]
    clock.now += 1
    assert keys.values_of(A.name) == [values[2], values[1]]
    for value in values[3:]:
        keys.learn(value)
    assert len(keys.values_of(A.name)) == 1 + MAX_FORMER
    assert keys.values_of("env:NOBODYS") == ()


def test_what_the_policy_drops_stays_known_and_keeps_its_standing(keys, seen):
    use(keys, refusal())
    keys.list([B])
    assert seen[1:] == [KeyListed(B.name, is_set_aside=False), KeyDropped(A.name)]
    assert keys.values_of(A.name) == [A]
    assert keys.listed == [B.name]
    keys.list([A, B])
    assert seen[3:] == [KeyListed(A.name, is_set_aside=True), KeyListed(B.name, is_set_aside=False)]
    assert use(keys) == B


def test_nothing_shows_a_value(keys):
    use(keys, refusal())
    assert "sk-" not in repr((A, keys.first(NAMES, ()), refusal()))
