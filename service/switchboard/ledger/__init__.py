"""The ledger: the state that all replicas share. In memory for one process; every way to keep it has this shape."""

from typing import Protocol

from switchboard.calls import Call, EndedBy, Reservation

__all__ = ["Ledger"]


class Ledger(Protocol):
    """Single use of grants and the register of calls, each step atomic.

    Failure policy: a ledger that cannot answer raises `Degraded`; nobody is let in on trust.
    """

    async def reserve(self, reservation: Reservation) -> None:
        """Take a place before the provider is asked; a grant is used up by it.

        Raises:
            GrantUsed: the reservation's grant has opened a call, or is about to.
        """

    async def release(self, reservation: Reservation) -> None:
        """Give the place back, and the grant with it: no call came of it."""

    async def bind(self, reservation: Reservation, call: Call) -> None:
        """Enter the call that came of a reservation."""

    async def find(self, call_id: str) -> Call | None:
        """The call with this id, open or lately ended."""

    async def end(self, call_id: str, *, by: EndedBy) -> Call | None:
        """Mark a call as ended; the first end stays. Returns the call as it stands afterwards."""
