"""One contract, two ledgers: in memory and in a real Redis."""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from switchboard.calls import Call
from switchboard.errors import GrantUsed, TenantSuspended
from switchboard.ledger import Ending, Full, Ledger, Reservation, Reserved
from switchboard.ledger import redis as redis_ledger
from switchboard.ledger import register as memory_register
from switchboard.ledger.connection import connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import LANES, RedisLedger
from switchboard.ratelimit import UNLIMITED, Quota, Standing, Window
from tests.support.ledgers import OTHER, USER, a_slot, about, an_opening, asked, bound, offered, slot_of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]

MINUTE, DAY, ALL = Quota("user", 3, 60), Quota("user", 4, 86400), Quota("tenant", 5, 60)
SECOND = Quota("user", 2, 1)
MINUTES = Quota("user", 1800, 86400, "seconds of calls")
TENANT_MINUTES = Quota("tenant", 3000, 3600, "seconds of calls")
NOW = about(time.time(), 600)


@pytest.fixture(params=["memory", "redis"])
async def ledger(request):
    if request.param == "memory":
        yield MemoryLedger()
        return
    client = connect(request.getfixturevalue("redis").url)
    yield RedisLedger(client, wait=10)
    await client.aclose()


@pytest.fixture
def quick(monkeypatch):
    """Claims and records are waited for briefly."""
    for module in (redis_ledger, memory_register):
        monkeypatch.setattr(module, "CLAIM_SECONDS", 0.3)
        monkeypatch.setattr(module, "RECORD_SECONDS", 0.3)


def shape(standing: Standing):
    """A standing without the milliseconds that have passed."""
    return (
        [(window.quota.name, window.remaining, round(window.resets_in)) for window in standing.windows],
        [window.quota.name for window in standing.exceeded],
    )


async def reserved(ledger: Ledger, *quotas: Quota, **changes: Any) -> Standing:
    return (await ledger.reserve(asked(*quotas, **changes))).standing


async def due(ledger: Ledger, most: int = 100) -> dict[str, Call]:
    return {call.id: call for call in (await ledger.sweep(most)).due}


async def finished(ledger: Ledger, call: Call, seconds: float | None = None) -> Call:
    """Ended and on record, if so many seconds after its start."""
    told = call if seconds is None else replace(call, ended_at=call.started_at + seconds)
    ending = await ledger.end(told, by="owner")
    await ledger.confirm(ending.call)
    return ending.call


# Quotas and grants


async def test_windows_are_charged_together_or_not_at_all(ledger):
    for remaining in (2, 1, 0):
        standing = await reserved(ledger, MINUTE, DAY)
        assert shape(standing) == ([("user-minute", remaining, 60), ("user-day", remaining + 1, 86400)], [])
    for _ in range(3):
        refused = await reserved(ledger, MINUTE, DAY)
        assert shape(refused) == ([("user-minute", 0, 60), ("user-day", 1, 86400)], ["user-minute"])


async def test_two_exceeded_windows_are_both_named(ledger):
    both = replace(DAY, limit=3)
    for _ in range(3):
        await reserved(ledger, MINUTE, both)
    assert shape(await reserved(ledger, MINUTE, both))[1] == ["user-minute", "user-day"]


async def test_users_share_the_tenants_window_and_nothing_else(ledger):
    for number in range(5):
        standing = await reserved(ledger, MINUTE, ALL, user=f"u{number}")
        assert [window.remaining for window in standing.windows] == [2, 4 - number]
    assert shape(await reserved(ledger, MINUTE, ALL, user="u9"))[1] == ["tenant-minute"]
    assert not (await reserved(ledger, ALL, tenant="widgets")).exceeded


async def test_a_window_ends(ledger):
    for _ in range(2):
        assert not (await reserved(ledger, SECOND)).exceeded
    refused = await reserved(ledger, SECOND)
    assert refused.exceeded
    await asyncio.sleep(refused.exceeded[0].resets_in + 0.02)
    assert shape(await reserved(ledger, SECOND)) == ([("user-second", 1, 1)], [])


async def test_shadow_mode_charges_what_fits_and_says_what_does_not(ledger):
    for _ in range(3):
        await reserved(ledger, MINUTE, enforce=False)
    standing = await reserved(ledger, MINUTE, enforce=False, grant_id="g-1")
    assert shape(standing) == ([("user-minute", 0, 60)], ["user-minute"])
    # It is let through: its grant is used.
    with pytest.raises(GrantUsed):
        await reserved(ledger, grant_id="g-1")


async def test_a_grant_is_used_once_whoever_asks(ledger):
    results = await asyncio.gather(*(ledger.reserve(asked(grant_id="g-1")) for _ in range(50)), return_exceptions=True)
    assert Counter(type(one) for one in results) == {Reserved: 1, GrantUsed: 49}


async def test_a_used_grant_charges_nothing(ledger):
    await reserved(ledger, grant_id="g-1")
    with pytest.raises(GrantUsed):
        await ledger.reserve(asked(MINUTE, grant_id="g-1", slot=a_slot()))
    assert (await reserved(ledger, MINUTE)).windows[0].remaining == 2
    assert await ledger.count(["acme"]) == [0]


async def test_a_refused_request_keeps_its_grant(ledger):
    for _ in range(3):
        await reserved(ledger, MINUTE)
    assert (await reserved(ledger, MINUTE, grant_id="g-1")).exceeded
    await bound(ledger, offered(user_calls=1))
    assert (await ledger.reserve(asked(grant_id="g-1", slot=a_slot(user_calls=1)))).full
    assert await reserved(ledger, grant_id="g-1") == UNLIMITED


async def test_a_grant_can_be_used_again_only_if_the_provider_was_not_tried(ledger):
    await reserved(ledger, grant_id="g-1")
    await ledger.release(asked(grant_id="g-1"), untried=True)
    await ledger.release(asked(), untried=True)
    await reserved(ledger, grant_id="g-1")
    await ledger.release(asked(grant_id="g-1"), untried=False)
    with pytest.raises(GrantUsed):
        await reserved(ledger, grant_id="g-1")


async def test_nothing_asked_is_nothing_charged(ledger):
    assert await ledger.reserve(asked()) == Reserved(UNLIMITED)


# A call from its begin to its end


async def test_a_call_from_its_begin_to_its_end(ledger):
    reservation = asked(grant_id="g-1", slot=a_slot(idle_seconds=60))
    assert await ledger.reserve(reservation) == Reserved(UNLIMITED, call_seconds=900.0)
    assert await ledger.count(["widgets", "acme"]) == [0, 1]
    assert await ledger.open_calls("acme") == []

    call = await ledger.bind(reservation, an_opening("rtc_1"), 900.0)
    assert call == Call(
        id="rtc_1",
        tenant="acme",
        issuer="https://login.acme.example/",
        user_key=USER,
        preset="support",
        provider="openai",
        key_name="env:K",
        started_at=call.started_at,
        deadline=call.deadline,
        grant_id="g-1",
        idle_seconds=60,
    )
    assert (call.started_at, call.deadline - call.started_at) == (NOW, about(900, 0.0015))
    assert await ledger.find("acme", "rtc_1") == call
    assert await ledger.find("widgets", "rtc_1") is None
    for whose in (("acme", USER), ("acme", None), (None, None)):
        assert await ledger.open_calls(*whose) == [call]
    for whose in (("acme", OTHER), ("widgets", None), ("widgets", USER)):
        assert await ledger.open_calls(*whose) == []
    assert (await ledger.tenant_of("rtc_1"), await ledger.tenant_of(slot_of(reservation).id)) == ("acme", None)
    assert await ledger.count(["widgets", "acme"]) == [0, 1]
    assert await due(ledger) == {}

    ending = await ledger.end(call, by="owner")
    assert ending == Ending(replace(call, ended_at=ending.call.ended_at, ended_by="owner"), is_ours=True)
    assert ending.call.ended_at == NOW
    assert await ledger.end(call, by="admin") == Ending(ending.call, is_ours=False)
    assert await ledger.find("acme", "rtc_1") == ending.call
    for whose in (("acme", USER), ("acme", None), (None, None)):
        assert await ledger.open_calls(*whose) == []
    assert await ledger.tenant_of("rtc_1") is None
    assert await ledger.count(["acme"]) == [0]


async def test_one_of_many_ends_a_call(ledger):
    call = await bound(ledger, offered())
    endings = await asyncio.gather(*(ledger.end(call, by="owner") for _ in range(20)))
    assert sum(one.is_ours for one in endings) == 1
    assert len({one.call for one in endings}) == 1


async def test_a_users_calls_are_listed_in_the_order_of_their_start(ledger):
    calls = []
    for seconds in (800, 900, 100, 500):
        calls.append(await bound(ledger, offered(), seconds=seconds))
        await asyncio.sleep(0.002)
    assert await ledger.open_calls("acme", USER) == calls


async def test_a_call_that_is_not_known_is_entered_with_its_end(ledger):
    call = await bound(ledger, offered())
    unknown = replace(call, id="rtc_unknown")
    ending = await ledger.end(unknown, by="provider")
    assert ending == Ending(replace(unknown, ended_at=ending.call.ended_at, ended_by="provider"), is_ours=True)
    assert await ledger.open_calls("acme") == [call]


async def test_a_call_ends_when_it_is_told_to_have_and_never_before_it_began(ledger):
    for told, seconds in ((12.5, 12.5), (-5.0, 0.0)):
        call = await bound(ledger, offered())
        ending = await ledger.end(replace(call, ended_at=call.started_at + told), by="owner")
        assert ending.call.ended_at == about(call.started_at + seconds, 0.0015)
        assert ending.call.seconds == seconds


async def test_a_call_that_was_given_up_before_it_was_bound_stays_so(ledger):
    """A bind that comes late, after its caller has stopped to wait and had the call ended."""
    reservation = asked(slot=a_slot(user_calls=1, minutes=(MINUTES,)))
    await ledger.reserve(reservation)
    call = Call("rtc_1", "acme", "i", USER, "support", "openai", "env:K", time.time(), time.time())
    given_up = (await ledger.end(call, by="admin")).call
    assert await ledger.bind(reservation, an_opening("rtc_1"), 900.0) == given_up
    await ledger.confirm(given_up)
    assert await ledger.count(["acme"]) == [0]
    assert await ledger.open_calls() == []
    assert await due(ledger) == {}
    assert await ledger.reserve(asked(slot=a_slot(user_calls=1, call_seconds=1800, minutes=(MINUTES,)))) == Reserved(
        UNLIMITED, call_seconds=1800.0
    )


# Slots


async def test_one_of_200_offers_at_once_gets_the_slot(ledger):
    """`when_user_full: refuse`, a cap of one; the rest hear when it frees."""
    lanes = asyncio.Semaphore(LANES)  # as in front of Redis

    async def offer():
        async with lanes:
            return await ledger.reserve(offered(user_calls=1))

    answers = await asyncio.gather(*(offer() for _ in range(200)))
    assert sum(one == Reserved(UNLIMITED, call_seconds=900.0) for one in answers) == 1
    full = Reserved(UNLIMITED, full=Full("user", about(60)))
    assert sum(one == full for one in answers) == 199
    assert await ledger.count(["acme"]) == [1]


async def test_a_cap_says_when_a_slot_frees(ledger):
    await bound(ledger, offered(user_calls=2), seconds=500)
    assert (await ledger.reserve(offered(user_calls=1))).full == Full("user", about(500))
    await ledger.reserve(offered(user_calls=2, lease_seconds=40))
    assert (await ledger.reserve(offered(user_calls=2))).full == Full("user", about(40))


async def test_a_tenants_cap_counts_all_users_and_says_when_the_first_slot_frees(ledger):
    for number, seconds in enumerate((700, 300, 800)):
        await bound(ledger, offered(user=f"u{number}", tenant_calls=3), seconds=seconds)
    refused = await ledger.reserve(offered(user="u9", tenant_calls=3, replace=True))
    assert refused == Reserved(UNLIMITED, full=Full("tenant", about(300)))
    assert not (await ledger.reserve(offered(user="u9", tenant="widgets", tenant_calls=3))).full


async def test_the_oldest_bound_call_makes_room(ledger):
    first = await bound(ledger, offered(user_calls=2, replace=True))
    await asyncio.sleep(0.002)
    second = await bound(ledger, offered(user_calls=2, replace=True))
    third = offered(user_calls=2, replace=True)
    for _ in range(2):
        assert await ledger.reserve(third) == Reserved(UNLIMITED, replace=first)
    assert await ledger.open_calls("acme", USER) == [first, second]
    await finished(ledger, first)
    assert await ledger.reserve(third) == Reserved(UNLIMITED, call_seconds=900.0)


async def test_a_pending_reservation_is_not_replaceable(ledger):
    await ledger.reserve(offered(user_calls=1, replace=True))
    pending = Reserved(UNLIMITED, full=Full("user", about(60)))
    assert await ledger.reserve(offered(user_calls=1, replace=True)) == pending
    # Nor is another user's call.
    assert await ledger.reserve(offered(user=OTHER, user_calls=1, replace=True)) == Reserved(
        UNLIMITED, call_seconds=900.0
    )


async def test_never_more_than_one_is_open_whoever_replaces_whom(ledger):
    """As the broker does it: reserve, hang up what has to make room, reserve again, ask the provider, bind."""
    most, bound_calls = 0, 0

    async def offer() -> None:
        nonlocal most, bound_calls
        reservation = offered(user_calls=1, replace=True)
        answer = await ledger.reserve(reservation)
        for _ in range(3):
            if answer.replace is not None:
                await finished(ledger, answer.replace)
                answer = await ledger.reserve(reservation)
        if answer.replace is None and answer.full is None:
            await asyncio.sleep(0.001)
            await ledger.bind(reservation, an_opening(), answer.call_seconds)
            bound_calls += 1
        most = max(most, len(await ledger.open_calls("acme", USER)), *await ledger.count(["acme"]))

    for _ in range(4):
        await asyncio.gather(*(offer() for _ in range(50)))
    assert most == 1
    assert bound_calls >= 4


async def test_the_same_offer_replaces_the_call_it_opened(ledger):
    again = {"offer_digest": "d" * 64}
    first = offered(**again)
    await ledger.reserve(first)
    opening = Reserved(UNLIMITED, full=Full("offer", about(60)))
    # Whatever the mode: two calls of one offer are never meant.
    for enforce in (True, False):
        assert await ledger.reserve(offered(enforce=enforce, **again)) == opening
    call = await ledger.bind(first, an_opening(), 900.0)
    for enforce in (True, False):
        assert await ledger.reserve(offered(enforce=enforce, **again)) == Reserved(UNLIMITED, replace=call)
    # Another user's offer is another offer, and so is one to another tenant.
    for other in (offered(user=OTHER, **again), offered(tenant="widgets", **again)):
        assert await ledger.reserve(other) == Reserved(UNLIMITED, call_seconds=900.0)
    await finished(ledger, call)
    assert await ledger.reserve(offered(**again)) == Reserved(UNLIMITED, call_seconds=900.0)


async def test_a_released_slot_and_its_offer_are_free(ledger):
    reservation = offered(user_calls=1, minutes=(MINUTES,))
    for _ in range(3):
        assert (await ledger.reserve(reservation)).call_seconds == 900.0
        await ledger.release(reservation, untried=False)
    assert await ledger.count(["acme"]) == [0]
    assert await due(ledger) == {}


async def test_a_slot_that_nobody_bound_lapses_with_its_lease(ledger):
    """A replica was killed between reserving and binding: what is left is that it was held for 0.05 s."""
    lapsing = offered(
        user_calls=1, tenant_calls=1, lease_seconds=0.05, call_seconds=1800, minutes=(MINUTES,), offer_digest="d" * 64
    )
    await ledger.reserve(lapsing)
    await asyncio.sleep(0.06)
    assert await due(ledger) == {}
    assert await ledger.count(["acme"]) == [0]
    again = offered(user_calls=1, tenant_calls=1, call_seconds=1800, minutes=(MINUTES,), offer_digest="d" * 64)
    assert await ledger.reserve(again) == Reserved(UNLIMITED, call_seconds=1799.95)


async def test_a_lease_that_is_over_is_seen_before_a_sweeper_comes(ledger):
    lapsing = offered(user_calls=1, lease_seconds=0.05, call_seconds=1800, minutes=(MINUTES,), offer_digest="d" * 64)
    await ledger.reserve(lapsing)
    await asyncio.sleep(0.06)
    again = offered(user_calls=1, call_seconds=1800, minutes=(MINUTES,), offer_digest="d" * 64)
    assert await ledger.reserve(again) == Reserved(UNLIMITED, call_seconds=1799.95)


@pytest.mark.parametrize("swept", [True, False])
async def test_a_call_that_comes_after_its_lease_must_not_stand(ledger, quick, swept):
    """Its slot may be somebody else's; who bound it hangs it up, or a sweeper does."""
    late = offered(user_calls=1, lease_seconds=0.05, minutes=(MINUTES,), offer_digest="d" * 64)
    await ledger.reserve(late)
    await asyncio.sleep(0.06)
    if swept:
        await ledger.sweep(0 if isinstance(ledger, MemoryLedger) else 10)
    call = await ledger.bind(late, an_opening("rtc_late"), 900.0)
    assert call == replace(call, id="rtc_late", ending="replaced", attempts=0, ended_at=None)
    # Its offer may be sent again, and its minutes are free.
    again = offered(call_seconds=1800, minutes=(MINUTES,), offer_digest="d" * 64)
    assert await ledger.reserve(again) == Reserved(UNLIMITED, call_seconds=1799.95)
    assert await due(ledger) == {}
    await asyncio.sleep(0.31)
    assert await due(ledger) == {"rtc_late": replace(call, attempts=1)}


async def test_caps_that_were_lowered_hold_at_once(ledger):
    calls = []
    for _ in range(4):
        calls.append(await bound(ledger, offered(user_calls=5)))
        await asyncio.sleep(0.002)
    assert (await ledger.reserve(offered(user_calls=2))).full == Full("user", about(900))
    one = offered(user_calls=2, replace=True)
    for call in calls[:3]:
        assert await ledger.reserve(one) == Reserved(UNLIMITED, replace=call)
        await finished(ledger, call)
    assert await ledger.reserve(one) == Reserved(UNLIMITED, call_seconds=900.0)
    assert await ledger.count(["acme"]) == [2]


async def test_shadow_mode_refuses_no_call_and_says_what_would_have_been_refused(ledger):
    left = Quota("user", 905, 86400, "seconds of calls")
    shadow = {"enforce": False, "user_calls": 1, "replace": True, "minutes": (left,)}
    await bound(ledger, offered(**shadow))
    over = offered(**shadow)
    assert await ledger.reserve(over) == Reserved(
        Standing((), (Window(left, 0, about(86400)),)),
        call_seconds=900.0,
        full=Full("user", about(900)),
    )
    await ledger.bind(over, an_opening(), 900.0)
    everybody = await ledger.reserve(offered(enforce=False, user=OTHER, tenant_calls=2))
    assert everybody == Reserved(UNLIMITED, call_seconds=900.0, full=Full("tenant", about(900)))
    assert await ledger.count(["acme"]) == [3]


async def test_what_does_not_fit_in_shadow_mode_is_said_with_a_call_to_be_replaced(ledger):
    for _ in range(3):
        await reserved(ledger, MINUTE)
    call = await bound(ledger, offered(offer_digest="d" * 64))
    answer = await ledger.reserve(asked(MINUTE, enforce=False, slot=a_slot(offer_digest="d" * 64)))
    assert (shape(answer.standing), answer.replace) == (([("user-minute", 0, 60)], ["user-minute"]), call)


# Minutes


async def test_what_is_left_of_the_minutes_shortens_a_call(ledger):
    """Reserved at the start, for the user and for the tenant; what was not used is given back at the end."""
    both = {"call_seconds": 1200, "minutes": (MINUTES, TENANT_MINUTES)}
    first = await bound(ledger, offered(**both))
    assert first.deadline - first.started_at == about(1200, 0.0015)
    second = await bound(ledger, offered(**both))
    assert second.deadline - second.started_at == about(600, 0.0015), "the rest of the user's 30 minutes"
    assert await ledger.reserve(offered(**both)) == Reserved(Standing((), (Window(MINUTES, 0, about(86400)),)))
    others = offered(user=OTHER, **both)
    assert await ledger.reserve(others) == Reserved(UNLIMITED, call_seconds=1200.0), "the rest of the tenant's 50"
    assert await ledger.reserve(offered(user="w", **both)) == Reserved(
        Standing((), (Window(TENANT_MINUTES, 0, about(3600)),))
    )
    await finished(ledger, first, seconds=200)
    await finished(ledger, second, seconds=700)  # longer than it might: what was reserved is used up, and no more
    await ledger.release(others, untried=True)
    assert (await ledger.reserve(offered(**both))).call_seconds == 1000.0
    assert (await ledger.reserve(offered(user=OTHER, **both))).call_seconds == 1200.0


async def test_a_call_is_not_begun_for_a_few_seconds(ledger):
    minutes = Quota("user", 909, 86400, "seconds of calls")
    await bound(ledger, offered(minutes=(minutes,)))
    assert (await ledger.reserve(offered(minutes=(minutes,)))).standing.exceeded == (Window(minutes, 0, about(86400)),)
    more = replace(minutes, limit=910)
    assert (await ledger.reserve(offered(minutes=(more,)))).call_seconds == 10.0


async def test_milliseconds_of_minutes_are_not_lost(ledger):
    minutes = Quota("user", 100, 86400, "seconds of calls")
    for used in (0.001, 0.029, 0.57, 1.009, 33.333):
        await finished(ledger, await bound(ledger, offered(call_seconds=90, minutes=(minutes,))), seconds=used)
    assert (await ledger.reserve(offered(call_seconds=90, minutes=(minutes,)))).call_seconds == 65.058


async def test_a_request_that_is_refused_charges_no_minutes(ledger):
    for _ in range(3):
        await reserved(ledger, MINUTE)
    await bound(ledger, offered(user=OTHER))
    minutes = {"minutes": (MINUTES, TENANT_MINUTES), "call_seconds": 1800}
    assert (await ledger.reserve(asked(MINUTE, slot=a_slot(**minutes)))).standing.exceeded
    assert (await ledger.reserve(offered(tenant_calls=1, **minutes))).full
    small = replace(TENANT_MINUTES, limit=5)
    assert (await ledger.reserve(offered(call_seconds=1800, minutes=(MINUTES, small)))).standing.exceeded
    assert (await ledger.reserve(offered(**minutes))).call_seconds == 1800.0


async def test_a_window_of_minutes_that_has_begun_anew_owes_no_refund(ledger):
    minutes = Quota("user", 100, 1, "seconds of calls")
    begun_before = await bound(ledger, offered(call_seconds=60, minutes=(minutes,)))
    await asyncio.sleep(1.02)
    assert (await ledger.reserve(offered(call_seconds=60, minutes=(minutes,)))).call_seconds == 60.0
    await finished(ledger, begun_before, seconds=1)
    assert (await ledger.reserve(offered(call_seconds=60, minutes=(minutes,)))).call_seconds == 40.0


# What is due


async def test_a_call_is_due_at_its_deadline_once(ledger, quick):
    call = await bound(ledger, offered(), seconds=0.3)
    later = await bound(ledger, offered())
    assert await due(ledger) == {}
    await asyncio.sleep(0.31)
    claimed = replace(call, ending="deadline", attempts=1)
    assert await due(ledger) == {call.id: claimed}
    assert await due(ledger) == {}
    assert await ledger.find("acme", call.id) == claimed
    assert await ledger.open_calls("acme", USER) == [claimed, later], (
        "it is open until the provider says that it is over"
    )
    await asyncio.sleep(0.31)
    assert await due(ledger) == {call.id: replace(claimed, attempts=2)}, "who claimed it has died"
    await finished(ledger, call)
    await asyncio.sleep(0.31)
    assert await due(ledger) == {}


async def test_only_so_many_are_claimed_at_a_time(ledger):
    for number in range(7):
        await bound(ledger, offered(user=f"u{number}", tenant=f"t{number}"), seconds=0.0)
    await asyncio.sleep(0.002)
    found = [len(await due(ledger, most)) for most in (0, 3, 3, 3, 3)]
    assert found == [0, 3, 3, 1, 0]


async def test_heartbeats_that_stop_end_a_call(ledger):
    """Only of a call that sent some, and of none without `idle_seconds`."""
    beating, stopped, silent = [await bound(ledger, offered(idle_seconds=1)) for _ in range(3)]
    without = await bound(ledger, offered())
    for call in (beating, stopped, without):
        await ledger.heard("acme", call.id)
    await asyncio.sleep(0.6)
    assert await due(ledger) == {}
    await ledger.heard("acme", beating.id)
    await asyncio.sleep(0.45)
    claimed = await due(ledger)
    assert claimed == {stopped.id: replace(stopped, heard_at=claimed[stopped.id].heard_at, ending="idle", attempts=1)}
    assert claimed[stopped.id].heard_at == about(stopped.started_at, 0.3)
    # What is being ended is not saved by a heartbeat.
    await ledger.heard("acme", stopped.id)
    await ledger.heard("acme", "rtc_unknown")
    assert await ledger.find("acme", stopped.id) == claimed[stopped.id]
    assert (await ledger.find("acme", silent.id)).heard_at is None


async def test_a_hang_up_that_failed_is_tried_again(ledger, quick):
    call = await bound(ledger, offered())
    await ledger.put_off(call, by="owner", seconds=0.3)
    assert await due(ledger) == {}
    assert await ledger.find("acme", call.id) == replace(call, ending="owner")
    await asyncio.sleep(0.31)
    assert await due(ledger) == {call.id: replace(call, ending="owner", attempts=1)}
    # The first reason stays.
    await ledger.put_off(call, by="admin", seconds=0)
    assert await due(ledger) == {call.id: replace(call, ending="owner", attempts=2)}
    ended = await finished(ledger, call)
    await ledger.put_off(call, by="admin", seconds=0)
    assert await due(ledger) == {}
    assert await ledger.find("acme", call.id) == ended


async def test_a_call_that_is_not_known_is_put_off_too(ledger):
    now = round(time.time(), 3)
    call = Call("rtc_1", "acme", "i", USER, "support", "openai", "env:K", now, now, "g-1")
    await ledger.put_off(call, by="admin", seconds=0)
    assert await ledger.count(["acme"]) == [1]
    assert await due(ledger) == {"rtc_1": replace(call, ending="admin", attempts=1)}


async def test_an_end_that_nobody_puts_on_record_is_found(ledger, quick):
    call = await bound(ledger, offered())
    ended = (await ledger.end(call, by="owner")).call
    await ledger.confirm(await bound(ledger, offered()))  # nothing: it is open
    assert await due(ledger) == {}
    await asyncio.sleep(0.31)
    assert await due(ledger) == {call.id: ended}
    assert await due(ledger) == {}
    await asyncio.sleep(0.31)
    assert await due(ledger) == {call.id: ended}
    await ledger.confirm(ended)
    await asyncio.sleep(0.31)
    assert await due(ledger) == {}


# The kill switch


async def test_a_suspended_tenant_is_refused_and_its_calls_are_due(ledger, quick):
    calls = {call.id: call for call in [await bound(ledger, offered(user=f"u{number}")) for number in range(3)]}
    ending = await bound(ledger, offered())
    await ledger.put_off(ending, by="owner", seconds=500)
    widgets = await bound(ledger, offered(tenant="widgets"))
    between = offered()
    await ledger.reserve(between)

    await ledger.suspend("acme", suspended=True)
    for refused in (asked(), asked(MINUTE, enforce=False), offered(), asked(grant_id="g-1")):
        with pytest.raises(TenantSuspended):
            await ledger.reserve(refused)
    in_between = await ledger.bind(between, an_opening("rtc_between"), 900.0)
    assert in_between == replace(in_between, id="rtc_between", ending="suspended", attempts=0)
    sweep = await ledger.sweep(100)
    assert sweep.suspended == {"acme"}
    assert {call.id: call for call in sweep.due} == {
        call.id: replace(call, ending="suspended", attempts=1) for call in calls.values()
    }
    await asyncio.sleep(0.31)
    assert "rtc_between" in await due(ledger), "whoever bound it hangs it up; else a sweeper does"

    await ledger.suspend("acme", suspended=False)
    sweep = await ledger.sweep(0)
    assert sweep.suspended == frozenset()
    assert await ledger.reserve(offered()) == Reserved(UNLIMITED, call_seconds=900.0)
    assert await ledger.find("widgets", widgets.id) == widgets


async def test_calls_that_were_to_be_hung_up_still_are_after_the_tenant_was_resumed(ledger, quick):
    call = await bound(ledger, offered())
    await ledger.suspend("acme", suspended=True)
    await ledger.sweep(0)
    await ledger.suspend("acme", suspended=False)
    assert await due(ledger) == {call.id: replace(call, ending="suspended", attempts=1)}


async def test_nothing_is_left_behind(ledger, quick):
    """A day's mixture; then everybody has left."""
    held = [offered(user=f"u{number % 3}", minutes=(MINUTES, TENANT_MINUTES)) for number in range(6)]
    reservations: list[Reservation] = [*held, offered(lease_seconds=0.01)]
    for reservation in reservations:
        await ledger.reserve(reservation)
    calls = [await ledger.bind(one, an_opening(), 100.0) for one in held[:4]]
    for one in held[4:]:
        await ledger.release(one, untried=True)
    await ledger.heard("acme", calls[0].id)
    await ledger.put_off(calls[1], by="owner", seconds=500)
    await asyncio.sleep(0.02)
    await ledger.sweep(10)
    for call in calls:
        await finished(ledger, call, seconds=10)
    assert await ledger.count(["acme"]) == [0]
    await asyncio.sleep(0.31)
    assert await due(ledger) == {}
    left = await ledger.reserve(offered(user="u0", call_seconds=1800, minutes=(MINUTES, TENANT_MINUTES)))
    assert left.call_seconds == 1780.0


def test_a_window_is_told_in_whole_seconds():
    assert Window(MINUTE, 0, 0.2).seconds == 1
    assert Window(MINUTE, 0, 59.01).seconds == 60
