"""The ledger of a single process: what `dev` and a lone replica without Redis use."""

import heapq
import time
from collections.abc import Callable
from dataclasses import replace

from switchboard.calls import Call, EndedBy, Reservation
from switchboard.errors import GrantUsed

KEPT_SECONDS = 3600.0  # how long an ended call can still be asked about


class MemoryLedger:
    """Keeps the ledger in dictionaries; single-threaded, so each method is atomic as long as it does not await."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._used_grants: set[str] = set()
        self._calls: dict[str, Call] = {}
        self._forget_at: list[tuple[float, str, str]] = []

    async def reserve(self, reservation: Reservation) -> None:
        """See `Ledger.reserve`."""
        self._forget()
        if reservation.grant_id is None:
            return
        if reservation.grant_id in self._used_grants:
            raise GrantUsed
        self._used_grants.add(reservation.grant_id)
        heapq.heappush(self._forget_at, (reservation.grant_expires_at + 1, "grant", reservation.grant_id))

    async def release(self, reservation: Reservation) -> None:
        """See `Ledger.release`."""
        if reservation.grant_id is not None:
            self._used_grants.discard(reservation.grant_id)

    async def bind(self, reservation: Reservation, call: Call) -> None:  # noqa: ARG002 - slots come with limits
        """See `Ledger.bind`."""
        self._calls[call.id] = call
        heapq.heappush(self._forget_at, (call.deadline + KEPT_SECONDS, "call", call.id))

    async def find(self, call_id: str) -> Call | None:
        """See `Ledger.find`."""
        call = self._calls.get(call_id)
        if call is not None and call.ended_at is None and call.deadline <= self._clock():
            return await self.end(call_id, by="provider")
        return call

    async def end(self, call_id: str, *, by: EndedBy) -> Call | None:
        """See `Ledger.end`."""
        call = self._calls.get(call_id)
        if call is None or call.ended_at is not None:
            return call
        self._calls[call_id] = replace(call, ended_at=min(self._clock(), call.deadline), ended_by=by)
        return self._calls[call_id]

    def _forget(self) -> None:
        now = self._clock()
        while self._forget_at and self._forget_at[0][0] <= now:
            _, kind, name = heapq.heappop(self._forget_at)
            if kind == "grant":
                self._used_grants.discard(name)
            else:
                self._calls.pop(name, None)
