"""A ledger that may be away: a breaker in front of it, and what the operator chose for the time being.

`local` goes on in memory with each replica's share of the quotas; `deny` lets nobody in. Either way a request is
decided at once, a dead Redis is not asked on every request, and the way back is found without anybody's help.
No grant opens a call meanwhile, and no call begins that needs the register; each replica still ends those it opened.
"""

import asyncio
import math
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
from switchboard.ledger.patience import Patience

PROBE_SECONDS = 0.25  # between two looks whether the ledger is back; longer than a step may take
LANE_SECONDS = 0.1  # that a step waits for its lane, not counting what this process computes meanwhile
RETRY_AFTER = 1
HEAL_SECONDS = 2.0  # after the way back was found: replicas tell what they know before anybody ends a call
LOST_SECONDS = 60.0  # of what was written last, more than a failover loses
HEALED_AT_ONCE = 4  # few, so that requests go on beside it; thousands of calls take some seconds
CHECKED_AT_ONCE = 16

Answer = TypeVar("Answer")


class _Away(Enum):
    AWAY = "the shared ledger did not answer"


AWAY: Final = _Away.AWAY


class Primary(Ledger, Protocol):
    """A ledger that can be probed, and healed."""

    async def probe(self) -> None:
        """Raises `LedgerAway` if some step would not work now."""

    async def restore(self, call: Call) -> None:
        """Write an open call back that was lost; one that is known stays, but for heartbeats that went unheard."""

    @property
    def lanes(self) -> int | None:
        """How many steps at one time it takes; None: as many as there are."""

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
        self._has_gaps = asyncio.Event()
        self._lanes = None if primary.lanes is None else asyncio.Semaphore(primary.lanes)
        self._ended_since = math.inf
        self._away_since = self._patient_until = 0.0
        self._generation: tuple[bytes, ...] | None = None

    @property
    def degraded(self) -> bool:
        """Whether the shared ledger is away."""
        return self._away.is_set()

    async def run(self) -> None:
        """Look for the way back whenever the shared ledger is away, and heal it then; for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._find_back())
            group.create_task(self._heal())

    async def start(self) -> None:
        """Find out at once, before the first request does."""
        try:
            await self._primary.probe()
        except LedgerAway as error:
            self._degrade(error)

    async def reserve(self, reservation: Reservation) -> Reserved:
        """See `Ledger.reserve`. A grant that was used at this replica stays used, also when Redis has lost its data.

        Raises:
            Degraded: the shared ledger is away, and without it this cannot be decided.
            GrantUsed, TenantSuspended: see `Ledger.reserve`.
        """
        self._local.check_grant(reservation)
        reserved = await self._ask(lambda: self._primary.reserve(reservation))
        if reserved is not AWAY:
            if reserved.call_seconds:
                self._local.use_grant(reservation)
            return reserved
        slot = reservation.slot
        if not self._admits_locally or reservation.grant_id is not None or (slot is not None and slot.needs_register):
            raise Degraded(retry_after=RETRY_AFTER)
        return await self._local.reserve(reservation)

    async def release(self, reservation: Reservation, *, untried: bool) -> None:
        """See `Ledger.release`. What cannot be given back now lapses by itself."""
        await self._local.release(reservation, untried=untried)
        await self._ask(lambda: self._primary.release(reservation, untried=untried))

    async def bind(self, reservation: Reservation, opening: Opening, call_seconds: float) -> Call:
        """See `Ledger.bind`. Each replica remembers the calls that it opened itself.

        Raises:
            Degraded: the shared ledger is away, and the call needs it; it will be hung up.
        """
        slot = reservation.slot
        assert slot is not None  # noqa: S101 - a call comes of a reservation with a slot
        if not self._local.holds(reservation, slot):
            call = await self._ask(lambda: self._primary.bind(reservation, opening, call_seconds))
            if call is not AWAY:
                self._local.remember(call)
                return call
            if slot.needs_register:
                await self._local.bind(reservation, opening, call_seconds)  # without a slot here, so it is to be ended
                raise Degraded(retry_after=RETRY_AFTER)
            self._local.hold(reservation, slot)
        call = await self._local.bind(reservation, opening, call_seconds)
        await self._ask(lambda: self._primary.restore(call))  # it may be back meanwhile
        return call

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`; a call that began while the shared ledger was away is known here alone."""
        found = await self._ask(lambda: self._primary.find(tenant, call_id))
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
        await self._ask(lambda: self._primary.heard(tenant, call_id))

    async def end(self, call: Call, *, by: EndedBy, seen: bool = True) -> Ending:
        """See `Ledger.end`.

        While the shared ledger is away nobody knows whether a call whose end was not seen was ended, and put on
        record, by another replica; it is not ours to record until the ledgers have been brought together.
        """
        ending = await self._ask(lambda: self._primary.end(call, by=by, seen=seen))
        if ending is not AWAY:
            self._local.remember(ending.call)  # also if others opened it: they may not have heard when data are lost
            if not ending.is_ours:
                await self._local.confirm(ending.call)
            return ending
        ending = await self._local.end(call, by=by, seen=seen)
        if ending.is_ours and not seen:
            self._local.leave_to_others(ending.call)
        return replace(ending, is_ours=ending.is_ours and seen)

    async def confirm(self, call: Call) -> None:
        """See `Ledger.confirm`."""
        await self._local.confirm(call)
        await self._ask(lambda: self._primary.confirm(call))

    async def put_off(self, call: Call, *, by: EndedBy, seconds: float) -> None:
        """See `Ledger.put_off`."""
        if await self._ask(lambda: self._primary.put_off(call, by=by, seconds=seconds)) is AWAY:
            await self._local.put_off(call, by=by, seconds=seconds)

    async def sweep(self, most: int) -> Sweep:
        """See `Ledger.sweep`. While the shared ledger is away, what this replica opened itself."""
        claims = time.monotonic() >= self._patient_until
        sweep = await self._ask(lambda: self._primary.sweep(most if claims else 0))
        if sweep is AWAY:
            return await self._local.sweep(most)
        self._local.suspended = sweep.suspended
        generation, self._generation = self._generation, self._primary.generation
        if generation not in (None, self._generation):
            self._begin_healing(ended_since=0.0)
        for call in self._local.overdue(CHECKED_AT_ONCE):
            await self._check(call)
        return sweep

    async def open_calls(self, tenant: str | None = None, user_key: str | None = None) -> Sequence[Call]:
        """See `Ledger.open_calls`."""
        return self._unless_away(await self._ask(lambda: self._primary.open_calls(tenant, user_key)))

    async def tenant_of(self, call_id: str) -> str | None:
        """See `Ledger.tenant_of`."""
        return self._unless_away(await self._ask(lambda: self._primary.tenant_of(call_id)))

    async def count(self, tenants: Sequence[str]) -> Sequence[int]:
        """See `Ledger.count`."""
        return self._unless_away(await self._ask(lambda: self._primary.count(tenants)))

    async def suspend(self, tenant: str, *, suspended: bool) -> None:
        """See `Ledger.suspend`. What only one replica would know is refused."""
        self._unless_away(await self._ask(lambda: self._primary.suspend(tenant, suspended=suspended)))

    async def _find_back(self) -> None:
        while True:
            await self._away.wait()
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._primary.probe()
            except LedgerAway as error:
                self._on_error(str(error))
            else:
                self._begin_healing(ended_since=self._away_since - LOST_SECONDS)
                self._away.clear()
                self._on_switch(False, "")

    def _begin_healing(self, *, ended_since: float) -> None:
        self._patient_until = time.monotonic() + HEAL_SECONDS
        self._ended_since = min(self._ended_since, ended_since)
        self._has_gaps.set()

    async def _heal(self) -> None:
        """Tell the shared ledger what this replica knows: calls that it lost, or that began or ended without it."""
        while True:
            await self._has_gaps.wait()
            self._has_gaps.clear()
            since, self._ended_since = self._ended_since, math.inf
            calls = [call for call in self._local.remembered() if call.ended_at is None or call.ended_at >= since]
            # What has ended first: it would be ended again, while what is open has time.
            calls.sort(key=lambda call: call.ended_at is None)
            for first in range(0, len(calls), HEALED_AT_ONCE):
                told = await asyncio.gather(*(self._tell(call) for call in calls[first : first + HEALED_AT_ONCE]))
                if AWAY in told:
                    self._ended_since = min(self._ended_since, since)
                    break  # until the way back is found again

    async def _tell(self, call: Call) -> _Away | None:
        if call.ended_at is not None:
            step = partial(self._tell_end, call)
        elif call.ending is not None:
            step = partial(self._primary.put_off, call, by=call.ending, seconds=0)
        else:
            step = partial(self._primary.restore, call)
        return await self._ask(step)

    async def _tell_end(self, call: Call) -> None:
        await self._primary.end(call, by=call.ended_by or "provider")
        if self._local.is_confirmed(call):
            await self._primary.confirm(call)
        else:
            await self._local.confirm(call)  # from now on the shared ledger has it put on record

    async def _check(self, call: Call) -> None:
        """Learn what has become of a call whose time is over here; as a rule, that others have ended it."""
        found = await self._ask(lambda: self._primary.find(call.tenant, call.id))
        if found is None:
            await self._tell(call)
        elif found is not AWAY:
            self._local.remember(found)
            if found.ended_at is not None:
                await self._local.confirm(found)

    def _unless_away(self, answer: Answer | _Away) -> Answer:
        if answer is AWAY:
            raise Degraded(retry_after=RETRY_AFTER)
        return answer

    async def _ask(self, step: Callable[[], Awaitable[Answer]]) -> Answer | _Away:
        """What the shared ledger answers; `AWAY` if it does not."""
        if not self.degraded:
            try:
                if self._lanes is None:
                    return await step()
                async with self._lane(self._lanes):
                    if not self.degraded:  # it may have been found away while this step waited for its lane
                        return await step()
            except LedgerAway as error:
                self._degrade(error)
        return AWAY

    @asynccontextmanager
    async def _lane(self, lanes: asyncio.Semaphore) -> AsyncIterator[None]:
        if lanes.locked():
            try:
                async with Patience(LANE_SECONDS):
                    await lanes.acquire()
            except TimeoutError:
                raise LedgerAway("TooSlow") from None
        else:
            await lanes.acquire()
        try:
            yield
        finally:
            lanes.release()

    def _degrade(self, error: LedgerAway) -> None:
        self._on_error(str(error))
        if not self.degraded:
            self._away_since = self._local.now
            self._away.set()
            self._on_switch(True, str(error))
