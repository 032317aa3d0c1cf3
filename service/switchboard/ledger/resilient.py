"""A ledger that may be away: a breaker in front of it, and what the operator chose for the time being.

`local` goes on in memory with each replica's share of the quotas; `deny` lets nobody in. Either way a request is
decided at once, a dead Redis is not asked on every request, and the way back is found without anybody's help.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from switchboard.calls import Call, EndedBy
from switchboard.errors import Degraded
from switchboard.ledger import Ledger, LedgerAway, Reservation
from switchboard.ratelimit import Standing

PROBE_SECONDS = 0.25  # between two looks whether the ledger is back
RETRY_AFTER = 1

Answer = TypeVar("Answer")


class Primary(Ledger, Protocol):
    """A ledger that can be probed."""

    async def probe(self) -> None:
        """Raises `LedgerAway` if admission would not work now."""


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
                await self._primary.probe()
            except LedgerAway as error:
                self._on_error(str(error))
            else:
                self._away.clear()
                self._on_switch(False, "")

    async def start(self) -> None:
        """Find out at once, before the first request does."""
        try:
            await self._primary.probe()
        except LedgerAway as error:
            self._degrade(error)

    async def reserve(self, reservation: Reservation) -> Standing:
        """See `Ledger.reserve`."""
        return await self._ask(lambda ledger: ledger.reserve(reservation))

    async def release(self, reservation: Reservation) -> None:
        """See `Ledger.release`."""
        await self._ask(lambda ledger: ledger.release(reservation))

    async def bind(self, call: Call) -> None:
        """See `Ledger.bind`."""
        await self._ask(lambda ledger: ledger.bind(call))

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`; a call that began while the shared ledger was away is known here alone."""
        call = await self._ask(lambda ledger: ledger.find(tenant, call_id))
        return call or (await self._fallback.find(tenant, call_id) if self._fallback else None)

    async def end(self, tenant: str, call_id: str, *, by: EndedBy) -> Call | None:
        """See `Ledger.end`, and `find`."""
        call = await self._ask(lambda ledger: ledger.end(tenant, call_id, by=by))
        return call or (await self._fallback.end(tenant, call_id, by=by) if self._fallback else None)

    async def _ask(self, step: Callable[[Ledger], Awaitable[Answer]]) -> Answer:
        if not self.degraded:
            try:
                return await step(self._primary)
            except LedgerAway as error:
                self._degrade(error)
        if self._fallback is None:
            raise Degraded(retry_after=RETRY_AFTER)
        return await step(self._fallback)

    def _degrade(self, error: LedgerAway) -> None:
        self._on_error(str(error))
        if not self.degraded:
            self._away.set()
            self._on_switch(True, str(error))
