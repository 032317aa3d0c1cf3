from dataclasses import replace

import pytest

from switchboard.calls import Call, Reservation, is_call_id
from switchboard.errors import GrantUsed
from switchboard.ledger.memory import KEPT_SECONDS, MemoryLedger

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
    return MemoryLedger(clock=clock)


def reservation(grant_id="g-1") -> Reservation:
    return Reservation("r-1", "acme", "u" * 64, grant_id, 1060.0)


CALL = Call("rtc_1", "acme", "u" * 64, "support", "openai", "env:K", 1000.0, 4600.0, "g-1")


async def test_a_grant_is_used_once(ledger):
    await ledger.reserve(reservation())
    with pytest.raises(GrantUsed):
        await ledger.reserve(reservation())
    await ledger.reserve(reservation("g-2"))
    await ledger.reserve(reservation(None))
    await ledger.reserve(reservation(None))


async def test_a_released_grant_can_be_used(ledger):
    await ledger.reserve(reservation())
    await ledger.release(reservation())
    await ledger.reserve(reservation())


async def test_used_grants_are_remembered_as_long_as_they_are_valid(ledger, clock):
    await ledger.reserve(reservation())
    clock.now = 1060.5
    with pytest.raises(GrantUsed):
        await ledger.reserve(reservation())
    clock.now = 1062
    await ledger.reserve(reservation("g-2"))
    assert ledger._used_grants == {"g-2"}


async def test_a_call_from_its_begin_to_its_end(ledger, clock):
    assert await ledger.find("rtc_1") is None
    await ledger.bind(reservation(), CALL)
    assert await ledger.find("rtc_1") == CALL
    assert CALL.state == "open"
    clock.now = 1030.0
    ended = await ledger.end("rtc_1", by="owner")
    assert ended == replace(CALL, ended_at=1030.0, ended_by="owner")
    assert ended.state == "ended"
    clock.now = 1040.0
    assert await ledger.end("rtc_1", by="admin") == ended
    assert await ledger.find("rtc_1") == ended
    assert await ledger.end("rtc_2", by="owner") is None


async def test_a_call_ends_with_the_providers_session(ledger, clock):
    await ledger.bind(reservation(), CALL)
    clock.now = 5000.0
    assert await ledger.find("rtc_1") == replace(CALL, ended_at=4600.0, ended_by="provider")


async def test_ended_calls_are_forgotten_after_an_hour(ledger, clock):
    await ledger.bind(reservation(), CALL)
    clock.now = CALL.deadline + KEPT_SECONDS + 1
    await ledger.reserve(reservation("g-9"))
    assert await ledger.find("rtc_1") is None


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
