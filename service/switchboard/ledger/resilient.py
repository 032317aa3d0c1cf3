"""A ledger that may be away: a breaker in front of it, and what the operator chose for the time being.

`local` goes on in memory with each replica's share of the quotas; `deny` lets nobody in. Either way a request is
decided at once, a dead Redis is not asked on every request, and the way back is found without anybody's help.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from switchboard.calls import Call, EndedBy
from switchboard.errors import Degraded
from switchboard.ledger import Ending, Ledger, LedgerAway, Reservation
from switchboard.ledger.patience import patience
from switchboard.ratelimit import Standing

PROBE_SECONDS = 0.25  # between two looks whether the ledger is back; longer than a step may take
PROBE_TENANT = "switchboard-probe"  # before a request has said which tenant to look for
LANES = 64  # steps at one time: one takes a fraction of a millisecond, and more would only queue elsewhere
LANE_SECONDS = 0.1  # that a step waits for its lane, not counting what this process computes meanwhile
RETRY_AFTER = 1

Answer = TypeVar("Answer")


class Primary(Ledger, Protocol):
    """A ledger that can be probed."""

    async def probe(self, tenant: str) -> None:
        """Raises `LedgerAway` if admission would not work now for this tenant: a Cluster can be away in part."""


class ResilientLedger:
    """See the module.

    Args:
        primary: the shared ledger.
        fallback: the local one for the time being; None denies.
        on_error: told what went wrong, each time.
        on_switch: told whether the ledger is away, each time that changes.
    """

    def __init__(
        self,
        primary: Primary,
        fallback: Ledger | None,
        *,
        on_error: Callable[[str], None],
        on_switch: Callable[[bool, str], None],
    ) -> None:
        self._primary = primary
        self._fallback = fallback
        self._on_error = on_error
        self._on_switch = on_switch
        self._away = asyncio.Event()
        self._missed_by = PROBE_TENANT
        self._lanes = asyncio.Semaphore(LANES)

    @property
    def degraded(self) -> bool:
        """Whether the shared ledger is away."""
        return self._away.is_set()

    async def run(self) -> None:
        """Look for the way back as long as the ledger is away, for ever."""
        while True:
            await self._away.wait()
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._primary.probe(self._missed_by)
            except LedgerAway as error:
                self._on_error(str(error))
            else:
                self._away.clear()
                self._on_switch(False, "")

    async def start(self) -> None:
        """Find out at once, before the first request does."""
        try:
            await self._primary.probe(self._missed_by)
        except LedgerAway as error:
            self._degrade(error)

    async def reserve(self, reservation: Reservation) -> Standing:
        """See `Ledger.reserve`. A grant that was used in one ledger counts as used in both."""

        async def step(ledger: Ledger) -> Standing:
            standing = await ledger.reserve(reservation)
            if ledger is not self._fallback and not (standing.exceeded and reservation.enforce):
                await self._remember(reservation)
            return standing

        return await self._ask(reservation.tenant, step)

    async def release(self, reservation: Reservation) -> None:
        """See `Ledger.release`."""
        if self._fallback:
            await self._fallback.release(reservation)
        await self._ask(reservation.tenant, lambda ledger: ledger.release(reservation))

    async def bind(self, call: Call) -> None:
        """See `Ledger.bind`."""
        await self._ask(call.tenant, lambda ledger: ledger.bind(call))

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`; a call that began while the shared ledger was away is known here alone."""
        call = await self._ask(tenant, lambda ledger: ledger.find(tenant, call_id))
        if call is None and self._fallback:
            call = await self._fallback.find(tenant, call_id)
        return self._unless_away(call)

    async def end(self, tenant: str, call_id: str, *, by: EndedBy) -> Ending | None:
        """See `Ledger.end`, and `find`."""
        ending = await self._ask(tenant, lambda ledger: ledger.end(tenant, call_id, by=by))
        if ending is None and self._fallback:
            ending = await self._fallback.end(tenant, call_id, by=by)
        return self._unless_away(ending)

    async def _remember(self, reservation: Reservation) -> None:
        if self._fallback and reservation.grant_id is not None:
            await self._fallback.reserve(replace(reservation, quotas=()))

    def _unless_away(self, found: Answer | None) -> Answer | None:
        """Nobody may be told that there is no such call while the place where it would stand cannot be asked."""
        if found is None and self.degraded:
            raise Degraded(retry_after=RETRY_AFTER)
        return found

    async def _ask(self, tenant: str, step: Callable[[Ledger], Awaitable[Answer]]) -> Answer:
        if not self.degraded:
            try:
                async with self._lane():
                    if not self.degraded:  # it may have been found away while this step waited for its lane
                        return await step(self._primary)
            except LedgerAway as error:
                self._degrade(error, tenant)
        if self._fallback is None:
            raise Degraded(retry_after=RETRY_AFTER)
        return await step(self._fallback)

    @asynccontextmanager
    async def _lane(self) -> AsyncIterator[None]:
        if self._lanes.locked():
            try:
                async with patience(LANE_SECONDS):
                    await self._lanes.acquire()
            except TimeoutError:
                raise LedgerAway("TooSlow") from None
        else:
            await self._lanes.acquire()
        try:
            yield
        finally:
            self._lanes.release()

    def _degrade(self, error: LedgerAway, tenant: str = PROBE_TENANT) -> None:
        self._on_error(str(error))
        if not self.degraded:
            self._missed_by = tenant
            self._away.set()
            self._on_switch(True, str(error))
