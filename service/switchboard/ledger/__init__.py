"""The ledger: the state that all replicas share. In memory for one process, in Redis for several; one shape."""

from dataclasses import dataclass
from typing import Protocol

from switchboard.calls import Call, EndedBy
from switchboard.ratelimit import Quota, Standing

__all__ = ["Ending", "Ledger", "LedgerAway", "Reservation"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is asked of the ledger before the provider is asked.

    `quotas` are charged together or not at all; `enforce` false (shadow mode) lets a request through that did not fit,
    uncharged. A grant is used up, unless the reservation is released.
    """

    tenant: str
    user_key: str
    quotas: tuple[Quota, ...] = ()
    enforce: bool = True
    grant_id: str | None = None
    grant_seconds: float = 0.0
    """How long the grant can still be presented, with a margin for clocks that differ."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A call as it stands after it was to be ended, and whether this step, not an earlier one, ended it."""

    call: Call
    is_ours: bool


class LedgerAway(Exception):
    """The place where the ledger is kept did not answer, or not as it should. The message holds no data."""


class Ledger(Protocol):
    """Quotas, single use of grants and the register of calls; each step is atomic and one wait.

    Failure policy: `LedgerAway`; see `resilient` for what becomes of it.
    """

    async def reserve(self, reservation: Reservation) -> Standing:
        """Charge the quotas and use up the grant, before the provider is asked.

        A standing with `exceeded` windows has charged nothing.

        Raises:
            GrantUsed: the reservation's grant has opened a call, or is about to.
        """

    async def release(self, reservation: Reservation) -> None:
        """Give the grant back: no call came of it. What a quota counted stays counted."""

    async def bind(self, call: Call) -> None:
        """Enter the call that came of a reservation."""

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """The tenant's call with this id, open or lately ended."""

    async def end(self, tenant: str, call_id: str, *, by: EndedBy) -> Ending | None:
        """Mark a call as ended; the first end stays, whoever comes later. None: there is no such call."""
