from dataclasses import replace

import pytest

from switchboard.calls import Call, is_call_id
from switchboard.errors import GrantUsed
from switchboard.ledger import Ending, Reservation
from switchboard.ledger.memory import KEPT_SECONDS, MemoryLedger
from switchboard.ratelimit import Quota, Standing, Window

pytestmark = pytest.mark.anyio


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(clock):
    return MemoryLedger(clock=clock, window_clock=clock)


MINUTE, DAY, ALL = Quota("user", 2, 60), Quota("user", 3, 86400), Quota("tenant", 5, 60)


def reservation(grant_id=None, user="u" * 64, **changes) -> Reservation:
    return Reservation(tenant="acme", user_key=user, grant_id=grant_id, grant_seconds=60, **changes)


CALL = Call("rtc_1", "acme", "u" * 64, "support", "openai", "env:K", 1000.0, 4600.0, "g-1")


async def test_windows_are_charged_together_or_not_at_all(ledger, clock):
    asked = reservation(quotas=(MINUTE, DAY))
    first = await ledger.reserve(asked)
    assert first == Standing((Window(MINUTE, 1, 60.0), Window(DAY, 2, 86400.0)))
    clock.now += 10
    await ledger.reserve(asked)
    refused = await ledger.reserve(asked)
    assert refused == Standing((Window(MINUTE, 0, 50.0), Window(DAY, 1, 86390.0)), (Window(MINUTE, 0, 50.0),))
    clock.now += 51
    assert (await ledger.reserve(asked)).windows == (Window(MINUTE, 1, 60.0), Window(DAY, 0, 86339.0))
    clock.now += 61
    # The day is used up now; the minute, which is not, is charged nothing.
    for _ in range(5):
        assert (await ledger.reserve(asked)).windows == (Window(MINUTE, 2, 60.0), Window(DAY, 0, 86278.0))


async def test_users_share_the_tenants_windows_and_nothing_else(ledger):
    for number in range(5):
        standing = await ledger.reserve(reservation(user=f"user-{number}", quotas=(MINUTE, ALL)))
        assert [window.remaining for window in standing.windows] == [1, 4 - number]
    sixth = await ledger.reserve(reservation(user="user-6", quotas=(MINUTE, ALL)))
    assert [window.quota for window in sixth.exceeded] == [ALL]
    other = await ledger.reserve(replace(reservation(quotas=(ALL,)), tenant="widgets"))
    assert not other.exceeded


async def test_a_replica_on_its_own_has_its_share(clock):
    ledger = MemoryLedger(replicas=3, clock=clock, window_clock=clock)
    standing = await ledger.reserve(reservation(quotas=(MINUTE, ALL)))
    assert [window.quota.limit for window in standing.windows] == [1, 1]
    assert (await ledger.reserve(reservation(quotas=(MINUTE, ALL)))).exceeded


async def test_a_grant_is_used_once(ledger):
    await ledger.reserve(reservation("g-1"))
    with pytest.raises(GrantUsed):
        await ledger.reserve(reservation("g-1"))
    await ledger.reserve(reservation("g-2"))
    await ledger.reserve(reservation())
    await ledger.reserve(reservation())


async def test_a_released_grant_can_be_used(ledger):
    await ledger.reserve(reservation("g-1"))
    await ledger.release(reservation("g-1"))
    await ledger.reserve(reservation("g-1"))


async def test_used_grants_are_remembered_as_long_as_they_are_valid(ledger, clock):
    await ledger.reserve(reservation("g-1"))
    clock.now += 59.5
    with pytest.raises(GrantUsed):
        await ledger.reserve(reservation("g-1"))
    clock.now += 1
    await ledger.reserve(reservation("g-2"))
    assert ledger._used_grants == {"g-2"}


async def test_a_call_from_its_begin_to_its_end(ledger, clock):
    assert await ledger.find("acme", "rtc_1") is None
    await ledger.bind(CALL)
    assert await ledger.find("acme", "rtc_1") == CALL
    assert await ledger.find("widgets", "rtc_1") is None
    assert CALL.state == "open"
    clock.now = 1030.0
    ended = await ledger.end("acme", "rtc_1", by="owner")
    assert ended == Ending(replace(CALL, ended_at=1030.0, ended_by="owner"), is_ours=True)
    assert ended.call.state == "ended"
    clock.now = 1040.0
    assert await ledger.end("acme", "rtc_1", by="admin") == Ending(ended.call, is_ours=False)
    assert await ledger.find("acme", "rtc_1") == ended.call
    assert await ledger.end("acme", "rtc_2", by="owner") is None


async def test_a_call_ends_with_the_providers_session(ledger, clock):
    await ledger.bind(CALL)
    clock.now = 5000.0
    assert await ledger.find("acme", "rtc_1") == replace(CALL, ended_at=4600.0, ended_by="provider")


async def test_ended_calls_are_forgotten_after_an_hour(ledger, clock):
    await ledger.bind(CALL)
    clock.now = CALL.deadline + KEPT_SECONDS + 1
    await ledger.reserve(reservation("g-9"))
    assert await ledger.find("acme", "rtc_1") is None


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
    ],
)
async def test_call_ids(text, fits):
    assert is_call_id(text) is fits
