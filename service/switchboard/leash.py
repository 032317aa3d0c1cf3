"""The leash: every call ends when it has to, whatever becomes of who opened it.

Each replica sweeps: it claims what is due in the register, hangs it up at the provider, marks it as ended and puts the
end on record. A hang-up that fails is tried again until the provider says that the call is over.
"""

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Callable

from switchboard.admission import KillSwitch, Policies
from switchboard.audit import Audit, Caller, Event
from switchboard.calls import Call, EndedBy
from switchboard.clock import SharedClock
from switchboard.errors import AuditUnavailable, Degraded, ProviderError, ProviderTimeout, ProviderUnavailable
from switchboard.ledger import Ending, Ledger

TICK_SECONDS = 0.5  # between two looks at what is due; a suspended tenant is refused after this long
POLICY_SECONDS = 1.0  # between two looks at the open calls of tenants that the policy suspends
AT_ONCE = 64  # hang-ups of one replica
HANGUP_SECONDS = 2.0  # shorter than a claim, after which another replica would try as well
# Between two tries. With a try that takes all of its time, and a look, less than five after the provider is back.
WAIT_SECONDS = 2.0
TRIES_PER_SECOND = 20  # of one replica at one provider: where more calls than that wait, each waits longer
LONGEST_WAIT_SECONDS = 30.0


class Retries:
    """How long hang-ups that failed wait: short, so that none is late when the provider is back, and longer the more
    there are, so that a provider that is down is not asked more often than it can bear.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: defaultdict[str, dict[str, float]] = defaultdict(dict)  # by provider: calls, the latest last

    def wait(self, call: Call) -> float:
        """Seconds until the next try for a call whose hang-up has just failed."""
        now, failing = self._clock(), self._failing[call.provider]
        failing.pop(call.id, None)
        failing[call.id] = now
        while now - failing[oldest := next(iter(failing))] > LONGEST_WAIT_SECONDS:
            del failing[oldest]  # another replica tries, or has ended it
        return min(2.0**call.attempts, max(WAIT_SECONDS, len(failing) / TRIES_PER_SECOND), LONGEST_WAIT_SECONDS)

    def succeeded(self, call: Call) -> None:
        """Nothing is to be tried for it any more."""
        self._failing[call.provider].pop(call.id, None)


class Leash:
    """Ends calls. Collaborators are injected.

    Args:
        policies: today's providers and those of calls that are still open, and whom the policy suspends.
        ledger: the register.
        audit: where ends are recorded.
        clock: is set by the register's.
        kill_switch: is told who is suspended.
        new_request_id: for what nobody asked for.
    """

    def __init__(
        self,
        *,
        policies: Policies,
        ledger: Ledger,
        audit: Audit,
        clock: SharedClock,
        kill_switch: KillSwitch,
        new_request_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._policies = policies
        self._ledger = ledger
        self._audit = audit
        self._clock = clock
        self._kill_switch = kill_switch
        self._new_request_id = new_request_id
        self._retries = Retries()

    async def run(self) -> None:
        """Sweep for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stop_suspended())
            at_work: set[asyncio.Task[None]] = set()
            while True:
                free = AT_ONCE - len(at_work)
                due = await self.look(free)
                for call in due:
                    task = group.create_task(self._finish_due(call))
                    at_work.add(task)
                    task.add_done_callback(at_work.discard)
                if len(due) == free and at_work:  # there may be more
                    await asyncio.wait(at_work, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(TICK_SECONDS)

    async def look(self, most: int) -> tuple[Call, ...]:
        """Claim what is due, and learn the time and who is suspended."""
        sweep = await self._ledger.sweep(most)
        if sweep.now is not None:
            self._clock.adjust(sweep.now)
        self._kill_switch.suspended = sweep.suspended
        return sweep.due

    async def hang_up(self, call: Call, by: EndedBy, *, request_id: str, seconds: float = HANGUP_SECONDS) -> Ending:
        """End an open call at the provider and in the register; its end is not on record yet.

        Raises:
            ProviderError: the provider could not be told within so many seconds; a sweeper will try again.
        """
        provider = self._policies.provider_of(call.provider, call.key_name)
        try:
            if provider is None:
                raise ProviderUnavailable
            async with asyncio.timeout(seconds):
                was_open = await provider.hang_up(call.id, key_name=call.key_name, request_id=request_id)
        except (ProviderError, TimeoutError) as error:
            if not call.is_surely_over(self._clock()):
                await self._ledger.put_off(call, by=by, seconds=self._retries.wait(call))
                if isinstance(error, TimeoutError):
                    raise ProviderTimeout from None
                raise
            was_open = False
        self._retries.succeeded(call)
        # Over at the first try: nobody here ended it. But the owner closes the connection as well, and several offers
        # that want the room of one call hang it up at the same moment: these may be overtaken.
        is_ours = was_open or by in ("owner", "replaced") or call.attempts > 1
        return await self._ledger.end(call, by=by if is_ours else "provider", seen=was_open)

    async def finish(self, call: Call, by: EndedBy, caller: Caller, *, seconds: float = HANGUP_SECONDS) -> Ending:
        """`hang_up`, and put it on record unless somebody else ended it.

        Raises:
            ProviderError: as `hang_up`.
            AuditUnavailable: it has ended and is not on record yet; a sweeper will see to it.
        """
        ending = await self.hang_up(call, by, request_id=caller.request_id, seconds=seconds)
        if ending.is_ours:
            await self._record(ending.call, caller)
        return ending

    async def _stop_suspended(self) -> None:
        """Have calls hung up for ever whose tenant the policy suspends: the register knows only whom operators did.

        Again and again, because a replica that has not read this policy yet may still open some.
        """
        while True:
            with contextlib.suppress(Degraded):
                await self._hasten_suspended()
            await asyncio.sleep(POLICY_SECONDS)

    async def _hasten_suspended(self) -> None:
        tenants = [name for name, tenant in self._policies.current.tenants.items() if tenant.suspended]
        for tenant, count in zip(tenants, await self._ledger.count(tenants), strict=True):
            for call in await self._ledger.open_calls(tenant) if count else ():
                if call.ending is None:
                    await self._ledger.put_off(call, by="suspended", seconds=0)

    async def _finish_due(self, call: Call) -> None:
        caller = Caller(self._new_request_id())
        with contextlib.suppress(ProviderError, AuditUnavailable):
            if call.ended_at is None:
                await self.finish(call, call.ending or "deadline", caller)
            else:
                await self._record(call, caller)

    async def _record(self, call: Call, caller: Caller) -> None:
        async with self._audit.record("call.end", caller) as event:
            describe_end(event, call)
        await self._ledger.confirm(call)


def describe_end(event: Event, call: Call) -> None:
    """Fill in what is known of a call that has ended."""
    describe(event, call)
    event.seconds, event.reason = call.seconds, call.ended_by or "provider"


def describe(event: Event, call: Call) -> None:
    """Fill in which call an event is about."""
    event.tenant, event.issuer, event.user_key = call.tenant, call.issuer, call.user_key
    event.preset, event.provider, event.call_id = call.preset, call.provider, call.id
