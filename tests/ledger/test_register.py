"""The register in memory by itself; what it has in common with Redis is in test_ledgers.py."""

from dataclasses import replace

import pytest

from switchboard.calls import Call
from switchboard.ledger import CLAIM_SECONDS, KEPT_SECONDS, LISTED, RECORD_SECONDS, Ending, Full
from switchboard.ledger.register import Register
from tests.support.ledgers import OTHER, USER, Clock, about, an_opening, offered, slot_of


class Setup:
    """A register, its clock, and who has left it."""

    def __init__(self, **options: bool) -> None:
        self.clock = Clock(1000.0)
        self.left: list[tuple[tuple[str, str], float]] = []
        self.register = Register(self.clock, lambda key, seconds: self.left.append((key, seconds)), **options)

    def open(self, call_id: str, seconds: float = 900.0, **changes) -> Call:
        reservation = offered(**changes)
        self.register.hold(reservation, slot_of(reservation))
        return self.register.bind(reservation, slot_of(reservation), an_opening(call_id), seconds, suspended=False)


@pytest.fixture
def made():
    return Setup()


@pytest.fixture
def register(made):
    return made.register


def key(call: Call) -> tuple[str, str]:
    return call.tenant, call.id


def test_a_slot_is_held_until_its_lease_is_over(made, register):
    reservation = offered(lease_seconds=20.0, user_calls=1)
    slot = slot_of(reservation)
    assert register.room_for(reservation, slot) is None
    register.hold(reservation, slot)
    made.clock.now = 1019.9
    assert register.room_for(reservation, replace(slot, id="s", offer_digest="d")) == Full("user", about(0.1, 1e-6))
    assert (register.holds(("acme", slot.id)), made.left) == (True, [])
    made.clock.now = 1020.0
    assert register.room_for(reservation, slot) is None
    assert (register.holds(("acme", slot.id)), register.count("acme")) == (False, 0)
    assert made.left == [(("acme", slot.id), 20.0)]


def test_a_slot_is_dropped_once(made, register):
    reservation = offered()
    register.hold(reservation, slot_of(reservation))
    for _ in range(2):
        register.drop(("acme", slot_of(reservation).id))
        register.drop(("acme", "no-slot"))
    assert made.left == [(("acme", slot_of(reservation).id), 0.0)]


def test_a_call_takes_its_slots_place_without_leaving(made, register):
    call = made.open("rtc_1", idle_seconds=60)
    assert (register.count("acme"), made.left) == (1, [])
    assert register.find(("acme", "rtc_1")) == call
    made.clock.now += 12.5
    ended = replace(call, ended_at=1012.5, ended_by="owner")
    assert register.end(call, "owner") == Ending(ended, is_ours=True)
    assert register.end(replace(call, ended_at=1.0), "admin") == Ending(ended, is_ours=False)
    assert (register.count("acme"), made.left) == (0, [(("acme", "rtc_1"), 12.5)])


def test_a_call_of_a_suspended_tenant_is_ending_from_the_start(made, register):
    reservation = offered(offer_digest="d")
    register.hold(reservation, slot_of(reservation))
    call = register.bind(reservation, slot_of(reservation), an_opening("rtc_1"), 900.0, suspended=True)
    assert (call.ending, register.claim(9)) == ("suspended", ())
    # Its offer may be sent again when the tenant is back.
    assert register.room_for(reservation, slot_of(reservation)) is None
    made.clock.now += CLAIM_SECONDS
    assert register.claim(9) == (replace(call, attempts=1),)


def test_a_call_that_has_overtaken_its_bind(made, register):
    reservation = offered()
    register.hold(reservation, slot_of(reservation))
    told = Call("rtc_1", "acme", "i", USER, "support", "openai", "env:K", 990.0, 1890.0)
    register.restore(told)
    assert register.bind(reservation, slot_of(reservation), an_opening("rtc_1"), 900.0, suspended=False) == told
    assert (register.count("acme"), made.left) == (1, [(("acme", slot_of(reservation).id), 0.0)])


def test_the_oldest_bound_call_makes_room_but_not_in_shadow_mode(made, register):
    pending = offered(user_calls=3)
    register.hold(pending, slot_of(pending))
    first, _ = made.open("rtc_1"), made.open("rtc_2")
    full = offered(user_calls=3, replace=True)
    assert register.room_for(full, slot_of(full)) == first
    assert register.room_for(replace(full, enforce=False), slot_of(full)) == Full("user", 60.0)
    assert register.room_for(full, replace(slot_of(full), replace=False)) == Full("user", 60.0)
    others = offered(user=OTHER, user_calls=3, tenant_calls=3, replace=True)
    assert register.room_for(others, slot_of(others)) == Full("tenant", 60.0)


def test_an_offer_leads_to_its_call_as_long_as_that_is_open(made, register):
    call = made.open("rtc_1", offer_digest="d")
    again = offered(offer_digest="d")
    assert register.room_for(again, slot_of(again)) == call
    register.end(call, "owner")
    assert register.room_for(again, slot_of(again)) is None
    assert (register._offers, register._offer_of) == ({}, {})


@pytest.mark.parametrize(
    ("hears_all", "due_at", "reason"), [(True, 1090.0, "idle"), (False, 1900.0, "deadline")], ids=["alone", "several"]
)
def test_heartbeats_count_where_all_of_them_are_heard(hears_all, due_at, reason):
    made = Setup(hears_all=hears_all)
    call = made.open("rtc_1", idle_seconds=60)
    for made.clock.now in (1010.0, 1020.0, 1030.0):
        made.register.heard(key(call))
    made.clock.now = due_at - 0.1
    assert made.register.claim(9) == ()
    made.clock.now = due_at
    assert made.register.claim(9) == (replace(call, heard_at=1030.0, ending=reason, attempts=1),)


def test_heartbeats_cost_no_memory(made, register):
    call = made.open("rtc_1", idle_seconds=60)
    without = made.open("rtc_2")
    for _ in range(1000):
        made.clock.now += 0.5
        for one in (call, without):
            register.heard(key(one))
        assert register.claim(9) == ()
    assert len(register._due._queue) == 3  # two deadlines, and a time by which the next heartbeat has to come


def test_calls_that_are_looked_at_stay_as_they_are(made, register):
    call = made.open("rtc_1")
    made.clock.now = 1900.0
    assert register.overdue(0) == ()
    assert register.overdue(9) == (call,)
    assert register.find(key(call)) == call
    made.clock.now += CLAIM_SECONDS
    assert register.claim(9) == (replace(call, ending="deadline", attempts=1),)


def test_an_end_is_due_until_it_is_on_record(made, register):
    call = made.open("rtc_1")
    register.confirm(key(call))
    assert register.is_confirmed(key(call))
    ended = register.end(call, "owner").call
    assert not register.is_confirmed(key(call))
    made.clock.now += RECORD_SECONDS
    assert register.claim(9) == (ended,)
    register.confirm(key(call))
    made.clock.now += RECORD_SECONDS
    assert (register.claim(9), register.is_confirmed(key(call))) == ((), True)


def test_an_end_that_stays_unrecorded_is_forgotten_with_its_call(made, register):
    call = made.open("rtc_1")
    register.end(call, "owner")
    made.clock.now += KEPT_SECONDS
    assert register.claim(9) == ()
    assert (register.find(key(call)), register.is_confirmed(key(call))) == (None, True)


def test_a_suspended_tenants_calls_are_due(made, register):
    mine, ending, _ = made.open("rtc_1"), made.open("rtc_2"), made.open("rtc_3", tenant="widgets")
    pending = offered()
    register.hold(pending, slot_of(pending))
    register.put_off(ending, "owner", 500)
    for _ in range(2):
        register.hasten("acme")
        register.hasten("nobody")
    assert register.claim(9) == (replace(mine, ending="suspended", attempts=1),)


def test_lists(made, register):
    calls = [made.open(f"rtc_{n}", user=USER if n % 2 else OTHER, tenant="ab"[n % 3 == 0]) for n in range(6)]
    register.end(calls[4], "owner")
    pending = offered(tenant="a")
    register.hold(pending, slot_of(pending))

    def ids(*whose: str | None) -> list[str]:
        return [call.id for call in register.open_calls(*whose)]

    assert sorted(ids(None, None)) == ["rtc_0", "rtc_1", "rtc_2", "rtc_3", "rtc_5"]
    assert (ids("a", None), ids("b", None), ids("c", None)) == (["rtc_1", "rtc_2", "rtc_5"], ["rtc_0", "rtc_3"], [])
    assert (ids("a", USER), ids("a", OTHER)) == (["rtc_1", "rtc_5"], ["rtc_2"])
    assert [register.count(tenant) for tenant in "abc"] == [4, 2, 0]
    assert [register.tenant_of(f"rtc_{n}") for n in range(3, 6)] == ["b", None, "a"]
    assert register.tenant_of(slot_of(pending).id) is None
    assert len(register.known()) == 6


def test_a_list_has_an_end(made, register):
    for number in range(LISTED + 5):
        made.open(f"rtc_{number}")
    assert [len(register.open_calls(*whose)) for whose in ((None, None), ("acme", None), ("acme", USER))] == [
        LISTED
    ] * 3
