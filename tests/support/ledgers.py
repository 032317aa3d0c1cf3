"""What tests ask of a ledger: reservations with and without a slot, and calls that came of them."""

import itertools
from typing import Any

import pytest

from switchboard.calls import Call, Opening
from switchboard.ledger import Ledger, Reservation, Slot

USER, OTHER = "u" * 64, "v" * 64
_numbers = itertools.count(1)


def about(number: float, within: float = 2.0) -> Any:
    """A time or a length of which it is not known how long ago the test measured it."""
    return pytest.approx(number, abs=within)


class Clock:
    """Unix seconds that stand still until a test moves them."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def a_slot(**changes: Any) -> Slot:
    """A slot for a new offer, without caps: a lease of a minute, a call of a quarter of an hour."""
    number = next(_numbers)
    given = {"id": f"{number:016x}", "offer_digest": f"{number:064x}", "lease_seconds": 60.0, "call_seconds": 900}
    return Slot(**{**given, **changes})


def asked(*quotas: Any, user: Any = USER, tenant: Any = "acme", **changes: Any) -> Reservation:
    """A reservation; a slot only if one is given."""
    return Reservation(tenant=tenant, user_key=user, quotas=quotas, **{"grant_seconds": 60.0, **changes})


def offered(user: Any = USER, tenant: Any = "acme", enforce: Any = True, **slot: Any) -> Reservation:
    """A reservation for an offer; changes to its slot as in `a_slot`."""
    return asked(user=user, tenant=tenant, enforce=enforce, slot=a_slot(**slot))


def slot_of(reservation: Reservation) -> Slot:
    """The slot that an offer asks for."""
    assert reservation.slot is not None
    return reservation.slot


def an_opening(call_id: str | None = None) -> Opening:
    """What a provider opened."""
    return Opening(call_id or f"rtc_{next(_numbers):06d}", "https://login.acme.example/", "support", "openai", "env:K")


async def bound(
    ledger: Ledger, reservation: Reservation, *, seconds: float | None = None, call_id: str | None = None
) -> Call:
    """Reserve, for certain, and bind a call to it."""
    reserved = await ledger.reserve(reservation)
    assert reserved.replace is None, reserved
    assert not reservation.enforce or not (reserved.full or reserved.standing.exceeded), reserved
    return await ledger.bind(reservation, an_opening(call_id), reserved.call_seconds if seconds is None else seconds)
