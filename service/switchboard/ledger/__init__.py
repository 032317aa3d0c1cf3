"""The ledger: the state that all replicas share. In memory for one process, in Redis for several; one shape.

Quotas, single use of grants, and the register of calls live together, because one step decides on all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from switchboard.calls import Call, EndedBy, Opening
from switchboard.ratelimit import Quota, Standing
from switchboard.values import light_dataclass

__all__ = ["Ending", "Full", "Ledger", "LedgerAway", "Reservation", "Reserved", "Slot", "Sweep"]

MIN_CALL_SECONDS = 10
KEPT_SECONDS = (
    3660  # that an ended call can still be asked about: longer than any lasts, so whoever opened it hears of it
)
CLAIM_SECONDS = 3.0  # that one sweeper has a due call for itself; another takes it on if the first one died
RECORD_SECONDS = 5.0  # after which a sweeper puts on record what has ended, if who ended it has not
LISTED = 1000  # calls in one answer, at most


@light_dataclass(frozen=True, slots=True)
class Slot:
    """What an offer asks of the register.

    `minutes` are quotas in seconds of calls; what is left of them shortens the call. Caps of None are none.
    """

    id: str
    offer_digest: str
    """The same offer sent twice replaces the call that it opened."""
    lease_seconds: float
    """How long the slot is held before a call is bound to it: longer than the provider can take."""
    call_seconds: int
    idle_seconds: int | None = None
    minutes: tuple[Quota, ...] = ()
    user_calls: int | None = None
    tenant_calls: int | None = None
    replace: bool = False
    """Whether the user's oldest call makes room."""
    needs_register: bool = False
    """Whether no call may be opened while the shared register is away."""

    @property
    def shortest_seconds(self) -> int:
        """A call that would have to end sooner is not begun."""
        return min(MIN_CALL_SECONDS, self.call_seconds)


@light_dataclass(frozen=True, slots=True)
class Reservation:
    """What is asked of the ledger before the provider is asked.

    `quotas` are charged together or not at all; `enforce` false (shadow mode) lets a request through that did not fit,
    uncharged. A grant is used up, and a slot is held, unless the reservation is released.
    """

    tenant: str
    user_key: str
    quotas: tuple[Quota, ...] = ()
    enforce: bool = True
    grant_id: str | None = None
    grant_seconds: float = 0.0
    """How long the grant can still be presented, with a margin for clocks that differ."""
    slot: Slot | None = None


@light_dataclass(frozen=True, slots=True)
class Full:
    """No slot: which cap is reached (`offer`: this very offer is being opened), and when one frees, in seconds."""

    which: Literal["user", "tenant", "offer"]
    frees_in: float


@light_dataclass(frozen=True, slots=True)
class Reserved:
    """What became of a reservation.

    `standing` with `exceeded` windows, `full` or `replace`: nothing was charged and nothing is held. In shadow mode
    `full` and `exceeded` only say what would have been refused.
    """

    standing: Standing
    call_seconds: float = 0.0
    """How long the call may last."""
    full: Full | None = None
    replace: Call | None = None
    """A call that has to be ended before the same reservation is tried again."""


@light_dataclass(frozen=True, slots=True)
class Ending:
    """A call as it stands after it was to be ended, and whether this step, not an earlier one, ended it."""

    call: Call
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweeper has to do: `due` calls are its own for `CLAIM_SECONDS`.

    `now` is the register's time; None where that is the process's own.

    A due call that has ended already is one whose end nobody has put on record.
    """

    now: float | None = None
    due: tuple[Call, ...] = ()
    suspended: frozenset[str] = frozenset()


class LedgerAway(Exception):
    """The place where the ledger is kept did not answer, or not as it should. The message holds no data."""


class Ledger(Protocol):
    """Quotas, single use of grants and the register of calls; each step is atomic and one wait.

    Failure policy: `LedgerAway`; see `resilient` for what becomes of it.
    """

    async def reserve(self, reservation: Reservation) -> Reserved:
        """Charge the quotas, use up the grant and hold a slot, before the provider is asked.

        Raises:
            GrantUsed: the reservation's grant has opened a call, or is about to.
            TenantSuspended: by the kill switch.
        """

    async def release(self, reservation: Reservation, *, untried: bool) -> None:
        """Give the slot back: no call came of it. The grant only if it was `untried`; what a quota counted stays."""

    async def bind(self, reservation: Reservation, opening: Opening, call_seconds: float) -> Call:
        """Enter the call that came of a reservation. If it is `ending`, it must not stand: it is to be hung up."""

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """The tenant's call with this id, open or lately ended."""

    async def heard(self, tenant: str, call_id: str) -> None:
        """A heartbeat of an open call."""

    async def end(self, call: Call, *, by: EndedBy, seen: bool = True) -> Ending:
        """Mark a call as ended; the first end stays, whoever comes later. A call that is not known is entered so.

        Args:
            call: as it was found; with its end, if that was earlier.
            by: what ended it.
            seen: whether the provider ended it just now; else it says that it was over before.
        """

    async def confirm(self, call: Call) -> None:
        """The end of this call is on record."""

    async def put_off(self, call: Call, *, by: EndedBy, seconds: float) -> None:
        """A hang-up failed: a sweeper is to try again. A call that is not known is entered."""

    async def sweep(self, most: int) -> Sweep:
        """Claim up to so many calls that are due."""

    async def open_calls(self, tenant: str | None = None, user_key: str | None = None) -> Sequence[Call]:
        """Open calls of a user, of a tenant or of all, the first `LISTED`."""

    async def tenant_of(self, call_id: str) -> str | None:
        """Whose open call this is."""

    async def count(self, tenants: Sequence[str]) -> Sequence[int]:
        """How many calls, and reserved slots, each tenant has."""

    async def suspend(self, tenant: str, *, suspended: bool) -> None:
        """Flip the kill switch of a tenant."""
