from hypothesis import given, settings
from hypothesis import strategies as st

from switchboard.ledger.agenda import Agenda


def taken(agenda: Agenda[str], now: float) -> list[str]:
    return list(iter(lambda: agenda.take(now), None))


def test_items_are_taken_once_in_the_order_of_their_times():
    agenda = Agenda[str]()
    for item, at in (("c", 3.0), ("a", 1.0), ("d", 4.0), ("b", 2.0)):
        agenda.set(item, at)
    assert [item in agenda for item in "abcde"] == [True, True, True, True, False]
    assert taken(agenda, 0.9) == []
    assert taken(agenda, 3.0) == ["a", "b", "c"]
    assert [item in agenda for item in "abcd"] == [False, False, False, True]
    agenda.discard("d")
    agenda.discard("e")
    assert taken(agenda, 9.0) == []


def test_an_item_moves_both_ways():
    agenda = Agenda[str]()
    for at in (5.0, 9.0, 7.0):
        agenda.set("a", at)
    assert taken(agenda, 6.9) == []
    assert taken(agenda, 7.0) == ["a"]
    for at in (9.0, 8.0):
        agenda.set("a", at)
    assert taken(agenda, 8.0) == ["a"]
    assert taken(agenda, 99.0) == []
    agenda.set("a", 9.0)
    assert taken(agenda, 99.0) == ["a"]


def test_to_put_an_item_off_costs_no_memory():
    """Heartbeats put a call off thousands of times."""
    agenda = Agenda[str]()
    for number in range(10_000):
        agenda.set("a", 60.0 + number)
    assert len(agenda._queue) == 1
    assert taken(agenda, 60.0) == []
    assert len(agenda._queue) == 1
    assert taken(agenda, 60.0 + 9999) == ["a"]
    assert (agenda._queue, agenda._queued, agenda._times) == ([], {}, {})


STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "set", "set", "discard", "wait"]), st.sampled_from("abc"), st.integers(0, 9)),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_it_agrees_with_a_dictionary(steps):
    agenda, model, now = Agenda[str](), dict[str, float](), 0.0
    for step, item, number in steps:
        if step == "set":
            agenda.set(item, now + number)
            model[item] = now + number
        elif step == "discard":
            agenda.discard(item)
            model.pop(item, None)
        else:
            now += number
            assert sorted(taken(agenda, now)) == sorted(one for one, at in model.items() if at <= now)
            model = {one: at for one, at in model.items() if at > now}
        assert [one in agenda for one in "abc"] == [one in model for one in "abc"]
    assert sorted(taken(agenda, now + 9)) == sorted(model)
    taken(agenda, 10_000.0)
    assert (agenda._queue, agenda._queued, agenda._times) == ([], {}, {})
