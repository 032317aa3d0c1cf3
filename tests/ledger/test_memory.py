from dataclasses import replace

import pytest

from switchboard.calls import Call, is_call_id
from switchboard.errors import GrantUsed
from switchboard.ledger import CLAIM_SECONDS, KEPT_SECONDS, RECORD_SECONDS, Ending, Full, Reserved, Sweep
from switchboard.ledger.memory import BEHIND_SECONDS, MemoryLedger
from switchboard.ratelimit import UNLIMITED, Quota, Standing, Window
from tests.support.ledgers import OTHER, USER, Clock, a_slot, an_opening, asked, bound, offered, slot_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def ledger(clock):
    return MemoryLedger(clock=clock, window_clock=clock)


MINUTE, DAY, ALL = Quota("user", 2, 60), Quota("user", 3, 86400), Quota("tenant", 5, 60)
MINUTES = Quota("user", 1800, 86400, "seconds of calls")
CALL = Call(
    "rtc_1", "acme", "https://login.acme.example/", USER, "support", "openai", "env:K", 1000.0, 4600.0, "g-1"
)  # fmt: skip


async def test_windows_are_charged_together_or_not_at_all(ledger, clock):
    both = asked(MINUTE, DAY)
    first = await ledger.reserve(both)
    assert first == Reserved(Standing((Window(MINUTE, 1, 60.0), Window(DAY, 2, 86400.0))))
    clock.now += 10
    await ledger.reserve(both)
    refused = await ledger.reserve(both)
    assert refused == Reserved(Standing((Window(MINUTE, 0, 50.0), Window(DAY, 1, 86390.0)), (Window(MINUTE, 0, 50.0),)))
    clock.now += 51
    assert (await ledger.reserve(both)).standing.windows == (Window(MINUTE, 1, 60.0), Window(DAY, 0, 86339.0))
    clock.now += 61
    # The day is used up now; the minute, which is not, is charged nothing.
    for _ in range(5):
        assert (await ledger.reserve(both)).standing.windows == (Window(MINUTE, 2, 60.0), Window(DAY, 0, 86278.0))


async def test_users_share_the_tenants_windows_and_nothing_else(ledger):
    for number in range(5):
        standing = (await ledger.reserve(asked(MINUTE, ALL, user=f"user-{number}"))).standing
        assert [window.remaining for window in standing.windows] == [1, 4 - number]
    sixth = await ledger.reserve(asked(MINUTE, ALL, user="user-6"))
    assert [window.quota for window in sixth.standing.exceeded] == [ALL]
    other = await ledger.reserve(asked(ALL, tenant="widgets"))
    assert not other.standing.exceeded


async def test_a_replica_on_its_own_has_its_share(clock):
    """Of quotas, of caps and of minutes; at least 1."""
    ledger = MemoryLedger(replicas=3, clock=clock, window_clock=clock)
    standing = (await ledger.reserve(asked(MINUTE, ALL))).standing
    assert [window.quota.limit for window in standing.windows] == [1, 1]
    assert (await ledger.reserve(asked(MINUTE, ALL))).standing.exceeded
    for _ in range(2):
        assert (await ledger.reserve(offered(user_calls=6))).full is None
    assert (await ledger.reserve(offered(user_calls=6))).full == Full("user", 60.0)
    assert (await ledger.reserve(offered(user_calls=2, user=OTHER))).full is None
    assert (await ledger.reserve(offered(user_calls=2, user=OTHER))).full == Full("user", 60.0)
    assert (await ledger.reserve(offered(tenant="widgets", minutes=(MINUTES,)))).call_seconds == 600.0


async def test_a_grant_is_used_once(ledger):
    await ledger.reserve(asked(grant_id="g-1"))
    with pytest.raises(GrantUsed):
        await ledger.reserve(asked(grant_id="g-1"))
    await ledger.reserve(asked(grant_id="g-2"))
    await ledger.reserve(asked())
    await ledger.reserve(asked())


async def test_a_released_grant_can_be_used(ledger):
    await ledger.reserve(asked(grant_id="g-1"))
    await ledger.release(asked(grant_id="g-1"), untried=True)
    await ledger.reserve(asked(grant_id="g-1"))


async def test_used_grants_are_remembered_as_long_as_they_are_valid(ledger, clock):
    await ledger.reserve(asked(grant_id="g-1"))
    clock.now += 59.5
    with pytest.raises(GrantUsed):
        await ledger.reserve(asked(grant_id="g-1"))
    clock.now += 1
    await ledger.reserve(asked(grant_id="g-2"))
    assert [("acme", grant) in ledger._used_grants for grant in ("g-1", "g-2")] == [False, True]


async def test_a_call_from_its_begin_to_its_end(ledger, clock):
    assert await ledger.find("acme", "rtc_1") is None
    reservation = asked(grant_id="g-1", slot=a_slot())
    await ledger.reserve(reservation)
    assert await ledger.bind(reservation, an_opening("rtc_1"), 3600.0) == CALL
    assert await ledger.find("acme", "rtc_1") == CALL
    assert await ledger.find("widgets", "rtc_1") is None
    assert CALL.state == "open"
    clock.now = 1030.0
    ended = await ledger.end(CALL, by="owner")
    assert ended == Ending(replace(CALL, ended_at=1030.0, ended_by="owner"), is_ours=True)
    assert (ended.call.state, ended.call.seconds) == ("ended", 30.0)
    clock.now = 1040.0
    assert await ledger.end(CALL, by="admin") == Ending(ended.call, is_ours=False)
    assert await ledger.find("acme", "rtc_1") == ended.call


async def test_a_call_is_due_with_its_time_and_not_ended_by_itself(ledger, clock):
    """The provider has to say that it is over."""
    reservation = asked(grant_id="g-1", slot=a_slot())
    await ledger.reserve(reservation)
    await ledger.bind(reservation, an_opening("rtc_1"), 3600.0)
    clock.now = 4599.9
    assert await ledger.sweep(10) == Sweep()
    clock.now = 4600.0
    due = replace(CALL, ending="deadline", attempts=1)
    assert await ledger.sweep(10) == Sweep(due=(due,))
    clock.now += CLAIM_SECONDS - 0.1
    assert await ledger.sweep(10) == Sweep()
    assert await ledger.find("acme", "rtc_1") == due
    clock.now += 0.2
    assert await ledger.sweep(10) == Sweep(due=(replace(due, attempts=2),))


async def test_ended_calls_are_forgotten_after_an_hour(ledger, clock):
    call = await bound(ledger, offered())
    ended = (await ledger.end(call, by="owner")).call
    clock.now += KEPT_SECONDS - 1
    await ledger.reserve(offered())
    assert await ledger.find("acme", call.id) == ended
    clock.now += 2
    await ledger.reserve(offered())
    assert await ledger.find("acme", call.id) is None


async def test_clocks_that_are_set_back(ledger, clock):
    """A deadline is later then; no call takes less than no time, and no minutes come of it."""
    call = await bound(ledger, offered(call_seconds=1800, minutes=(MINUTES,)))
    clock.now -= 100
    ended = (await ledger.end(call, by="owner")).call
    assert (ended.ended_at, ended.seconds) == (1000.0, 0.0)
    assert (await ledger.reserve(offered(call_seconds=3600, minutes=(MINUTES,)))).call_seconds == 1800.0


async def test_what_another_ledger_has_ended_on_time_is_due_here_a_little_later(ledger, clock):
    ledger.remember(CALL)
    assert await ledger.open_calls("acme", USER) == [CALL]
    clock.now = CALL.deadline + BEHIND_SECONDS - 0.1
    assert ledger.overdue(10) == ()
    clock.now += 0.2
    assert ledger.overdue(10) == (CALL,)
    assert ledger.overdue(10) == (), "it is looked at again after a while"
    clock.now += CLAIM_SECONDS
    assert ledger.overdue(10) == (CALL,)
    assert await ledger.find("acme", "rtc_1") == CALL, "to look at it does not mean to end it"


async def test_what_another_ledger_is_ending_is_looked_at_soon(ledger, clock):
    ledger.remember(replace(CALL, ending="suspended"))
    clock.now += BEHIND_SECONDS
    assert ledger.overdue(10) == (replace(CALL, ending="suspended"),)


async def test_what_is_known_of_a_call_is_brought_up_to_date(ledger, clock):
    idle = replace(CALL, idle_seconds=60)
    ledger.remember(idle)
    await ledger.heard("acme", "rtc_1")
    clock.now += 60
    assert ledger.overdue(10) == (replace(idle, heard_at=1000.0),)
    heard_elsewhere = replace(idle, heard_at=1059.0)
    ledger.remember(heard_elsewhere)
    clock.now = 1059.0 + 60
    assert ledger.overdue(10) == ()
    clock.now += BEHIND_SECONDS
    assert ledger.overdue(10) == (heard_elsewhere,)
    ended = replace(heard_elsewhere, ended_at=1119.5, ended_by="idle")
    ledger.remember(ended)
    assert (await ledger.find("acme", "rtc_1"), await ledger.count(["acme"])) == (ended, [0])
    # From then on it stays.
    for told in (heard_elsewhere, replace(ended, ended_by="owner")):
        ledger.remember(told)
        assert await ledger.find("acme", "rtc_1") == ended
    assert ledger.remembered() == (ended,)


async def test_of_several_replicas_none_judges_by_the_heartbeats_that_it_hears(clock):
    """They may go to the others, which cannot tell while the shared ledger is away."""
    ledger = MemoryLedger(replicas=2, clock=clock, window_clock=clock)
    ledger.remember(replace(CALL, idle_seconds=10))
    await ledger.heard("acme", "rtc_1")
    clock.now = CALL.deadline - 1
    assert await ledger.sweep(10) == Sweep()
    clock.now = CALL.deadline + BEHIND_SECONDS
    due = replace(CALL, idle_seconds=10, heard_at=1000.0, ending="deadline", attempts=1)
    assert await ledger.sweep(10) == Sweep(due=(due,))


async def test_an_end_whose_record_is_left_to_others(ledger, clock):
    for call_id in ("rtc_1", "rtc_2"):
        await ledger.end(replace(CALL, id=call_id), by="provider")
    ended = replace(CALL, ended_at=1000.0, ended_by="provider")
    ledger.leave_to_others(ended)
    clock.now += RECORD_SECONDS
    assert await ledger.sweep(10) == Sweep(due=(replace(ended, id="rtc_2"),))
    assert [ledger.is_confirmed(ended), ledger.is_confirmed(replace(ended, id="rtc_2"))] == [False, False]
    await ledger.confirm(ended)
    assert [ledger.is_confirmed(ended), ledger.is_confirmed(replace(ended, id="rtc_2"))] == [True, False]


async def test_a_slot_that_another_ledger_gave(ledger, clock):
    reservation = offered(lease_seconds=20.0)
    assert not ledger.holds(reservation, slot_of(reservation))
    ledger.hold(reservation, slot_of(reservation))
    clock.now += 19.9
    assert ledger.holds(reservation, slot_of(reservation))
    clock.now += 0.2
    assert not ledger.holds(reservation, slot_of(reservation))
    assert await ledger.count(["acme"]) == [0]


async def test_everything_is_forgotten_in_the_end(ledger, clock):
    for number in range(50):
        reservation = asked(
            MINUTE, ALL, user=f"u{number}", grant_id=f"g{number}",
            slot=a_slot(idle_seconds=30, minutes=(MINUTES,), tenant_calls=99), enforce=False,
        )  # fmt: skip
        await ledger.reserve(reservation)
        if number % 5:
            call = await ledger.bind(reservation, an_opening(), 900.0)
            for _ in range(number):
                clock.now += 0.01
                await ledger.heard("acme", call.id)
            if number % 5 != 1:
                await ledger.end(call, by="owner")
                await ledger.confirm(call)
    ledger.remember(replace(CALL, id="rtc_other"))
    while due := (await ledger.sweep(100)).due or await ledger.open_calls():
        for call in due:
            await ledger.end(call, by="deadline")
        clock.now += 60
    clock.now += max(KEPT_SECONDS, 86400) + 1
    await ledger.sweep(1)
    assert await ledger.reserve(asked()) == Reserved(UNLIMITED)
    ledger._windows.incr("last", 1)
    register = ledger._register
    agendas = (register._leases, register._due, register._kept, ledger._used_grants)
    assert [(one._times, one._queued, one._queue) for one in agendas] == [({}, {}, [])] * 4
    dictionaries = ("_held", "_calls", "_open", "_offers", "_offer_of", "_unrecorded")
    assert {name: len(getattr(register, name)) for name in dictionaries} == dict.fromkeys(dictionaries, 0)
    assert (ledger._charges, list(ledger._windows._windows)) == ({}, ["last"])


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("rtc_u1_Ab-9", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a/b", False),
        ("a?b", False),
        ("a\n", False),
        ("~a", False),
    ],
)
async def test_call_ids(text, fits):
    assert is_call_id(text) is fits
