"""A ledger that may be away: a breaker in front of it, and what the operator chose for the time being.

`local` goes on in memory with each replica's share of the quotas; `deny` lets nobody in. Either way a request is
decided at once, a dead Redis is not asked on every request, and the way back is found without anybody's help.
No grant opens a call meanwhile, and no call begins that needs the register; each replica still ends those it opened.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Final, Protocol, TypeVar

from switchboard.calls import Call, EndedBy, Opening
from switchboard.errors import Degraded
from switchboard.ledger import Ending, Ledger, LedgerAway, Reservation, Reserved, Sweep
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.patience import patience

PROBE_SECONDS = 0.25  # between two looks whether the ledger is back; longer than a step may take
PROBE_TENANT = "switchboard-probe"  # before a request has said which tenant to look for
LANES = 64  # steps at one time: one takes a fraction of a millisecond, and more would only queue elsewhere
LANE_SECONDS = 0.1  # that a step waits for its lane, not counting what this process computes meanwhile
RETRY_AFTER = 1
HEAL_SECONDS = 2.0  # after the way back was found: replicas tell what they ended before anybody ends it again
FORGOTTEN_AT_ONCE = 50

Answer = TypeVar("Answer")


class _Away(Enum):
    AWAY = "the shared ledger did not answer"


AWAY: Final = _Away.AWAY


class Primary(Ledger, Protocol):
    """A ledger that can be probed."""

    async def probe(self, tenant: str) -> None:
        """Raises `LedgerAway` if admission would not work now for this tenant: a Cluster can be away in part."""

    async def restore(self, call: Call) -> None:
        """Write a call back that was lost; one that is known stays as it is."""

    @property
    def generation(self) -> tuple[bytes, ...]:
        """Changes when data were lost; complete after a sweep."""


class ResilientLedger:
    """See the module.

    Args:
        primary: the shared ledger.
        local: what this replica knows by itself.
        admits_locally: whether it decides for the time being; else nobody is let in.
        on_error: told what went wrong, each time.
        on_switch: told whether the ledger is away, each time that changes.
    """

    def __init__(
        self,
        primary: Primary,
        local: MemoryLedger,
        *,
        admits_locally: bool,
        on_error: Callable[[str], None],
        on_switch: Callable[[bool, str], None],
    ) -> None:
        self._primary = primary
        self._local = local
        self._admits_locally = admits_locally
        self._on_error = on_error
        self._on_switch = on_switch
        self._away = asyncio.Event()
        self._missed_by = PROBE_TENANT
        self._lanes = asyncio.Semaphore(LANES)
        self._patient_until = 0.0
        self._suspended: frozenset[str] = frozenset()
        self._generation: tuple[bytes, ...] | None = None

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
                self._patient_until = time.monotonic() + HEAL_SECONDS
                self._away.clear()
                self._on_switch(False, "")
                await self._heal()

    async def start(self) -> None:
        """Find out at once, before the first request does."""
        try:
            await self._primary.probe(self._missed_by)
        except LedgerAway as error:
            self._degrade(error)

    async def reserve(self, reservation: Reservation) -> Reserved:
        """See `Ledger.reserve`. A grant that was used is known here too, whatever becomes of the shared ledger.

        Raises:
            Degraded: the shared ledger is away, and without it this cannot be decided.
        """
        reserved = await self._ask(reservation.tenant, lambda: self._primary.reserve(reservation))
        if reserved is not AWAY:
            if not reserved.replace and not (reservation.enforce and (reserved.full or reserved.standing.exceeded)):
                self._local.use_grant(reservation)
            return reserved
        slot = reservation.slot
        if not self._admits_locally or reservation.grant_id is not None or (slot is not None and slot.needs_register):
            raise Degraded(retry_after=RETRY_AFTER)
        return await self._local.reserve(reservation)

    async def release(self, reservation: Reservation, *, untried: bool) -> None:
        """See `Ledger.release`. What cannot be given back now lapses by itself."""
        await self._local.release(reservation, untried=untried)
        await self._ask(reservation.tenant, lambda: self._primary.release(reservation, untried=untried))

    async def bind(self, reservation: Reservation, opening: Opening, call_seconds: float) -> Call:
        """See `Ledger.bind`. Each replica remembers the calls that it opened itself.

        Raises:
            Degraded: the shared ledger is away, and the call needs it; it will be hung up.
        """
        call = await self._ask(reservation.tenant, lambda: self._primary.bind(reservation, opening, call_seconds))
        if call is not AWAY:
            self._local.remember(call)
            return call
        slot = reservation.slot
        if slot is not None and slot.needs_register:
            await self._local.bind(reservation, opening, call_seconds)  # without a slot here, so it is to be ended
            raise Degraded(retry_after=RETRY_AFTER)
        self._local.hold(reservation)
        return await self._local.bind(reservation, opening, call_seconds)

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`; a call that began while the shared ledger was away is known here alone."""
        found = await self._ask(tenant, lambda: self._primary.find(tenant, call_id))
        if found is not AWAY and found is not None:
            return found
        known = await self._local.find(tenant, call_id)
        if known is None and found is AWAY:
            # Nobody may be told that there is no such call while the place where it would stand cannot be asked.
            raise Degraded(retry_after=RETRY_AFTER)
        return known

    async def heard(self, tenant: str, call_id: str) -> None:
        """See `Ledger.heard`."""
        await self._local.heard(tenant, call_id)
        await self._ask(tenant, lambda: self._primary.heard(tenant, call_id))

    async def end(self, call: Call, *, by: EndedBy) -> Ending:
        """See `Ledger.end`.

        While the shared ledger is away nobody knows whether a call that the provider calls over was ended, and put on
        record, by another replica; it is not ours to record until the ledgers have been brought together.
        """
        ending = await self._ask(call.tenant, lambda: self._primary.end(call, by=by))
        if ending is not AWAY:
            self._local.learn(ending.call)
            return ending
        ending = await self._local.end(call, by=by)
        return replace(ending, is_ours=ending.is_ours and by != "provider")

    async def confirm(self, call: Call) -> None:
        """See `Ledger.confirm`."""
        await self._local.confirm(call)
        await self._ask(call.tenant, lambda: self._primary.confirm(call))

    async def put_off(self, call: Call, *, by: EndedBy, seconds: float) -> None:
        """See `Ledger.put_off`."""
        if await self._ask(call.tenant, lambda: self._primary.put_off(call, by=by, seconds=seconds)) is AWAY:
            await self._local.put_off(call, by=by, seconds=seconds)

    async def sweep(self, most: int) -> Sweep:
        """See `Ledger.sweep`. While the shared ledger is away, what this replica opened itself."""
        sweep = await self._ask(
            PROBE_TENANT, lambda: self._primary.sweep(most if time.monotonic() >= self._patient_until else 0)
        )
        if sweep is AWAY:
            sweep = await self._local.sweep(most)
            due = tuple(call for call in sweep.due if call.ended_by != "provider")  # see `end`
            return replace(sweep, due=due, suspended=self._suspended)
        self._suspended = sweep.suspended
        generation, self._generation = self._generation, self._primary.generation
        if generation not in (None, self._generation):
            await self._heal()
        else:
            await self._forget_ended()
        return sweep

    async def open_calls(self, tenant: str | None = None, user_key: str | None = None) -> Sequence[Call]:
        """See `Ledger.open_calls`."""
        return self._unless_away(await self._ask(tenant, lambda: self._primary.open_calls(tenant, user_key)))

    async def tenant_of(self, call_id: str) -> str | None:
        """See `Ledger.tenant_of`."""
        return self._unless_away(await self._ask(None, lambda: self._primary.tenant_of(call_id)))

    async def count(self, tenants: Sequence[str]) -> Sequence[int]:
        """See `Ledger.count`."""
        return self._unless_away(await self._ask(None, lambda: self._primary.count(tenants)))

    async def suspend(self, tenant: str, *, suspended: bool) -> None:
        """See `Ledger.suspend`. What only one replica would know is refused."""
        self._unless_away(await self._ask(tenant, lambda: self._primary.suspend(tenant, suspended=suspended)))

    async def _heal(self) -> None:
        """Tell the shared ledger what this replica knows: calls that it lost, or that began or ended without it."""
        for call in self._local.remembered():
            if call.ended_at is not None:
                step = partial(self._bring_together, call)
            elif call.ending is not None:
                step = partial(self._primary.put_off, call, by=call.ending, seconds=0)
            else:
                step = partial(self._primary.restore, call)
            if await self._ask(call.tenant, step) is AWAY:
                return

    async def _bring_together(self, call: Call) -> None:
        await self._primary.end(call, by=call.ended_by or "provider")
        if self._local.is_confirmed(call):
            await self._primary.confirm(call)

    async def _forget_ended(self) -> None:
        """Calls whose time is over here have ended there; as long as they have not, they are kept."""
        for call in (await self._local.sweep(FORGOTTEN_AT_ONCE)).due:
            found = await self._ask(call.tenant, partial(self._primary.find, call.tenant, call.id))
            if found is None:
                await self._ask(call.tenant, partial(self._primary.restore, call))
            elif found is not AWAY and found.ended_at is not None:
                self._local.learn(found)

    def _unless_away(self, answer: Answer | _Away) -> Answer:
        if answer is AWAY:
            raise Degraded(retry_after=RETRY_AFTER)
        return answer

    async def _ask(self, tenant: str | None, step: Callable[[], Awaitable[Answer]]) -> Answer | _Away:
        """What the shared ledger answers; `AWAY` if it does not."""
        if not self.degraded:
            try:
                async with self._lane():
                    if not self.degraded:  # it may have been found away while this step waited for its lane
                        return await step()
            except LedgerAway as error:
                self._degrade(error, tenant or PROBE_TENANT)
        return AWAY

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
