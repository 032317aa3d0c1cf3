"""The one way in for business code: a block, in which a decision is made, that ends with its record."""

import time
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

import orjson

from switchboard.audit.event import UNDECIDED, Action, Caller, Event, new_id, utc_text
from switchboard.audit.sinks import Sink
from switchboard.errors import AuditUnavailable, CallerGone, ProviderError, Refusal

RETRY_SECONDS = 5
# What takes something away is not put off because it cannot be recorded beforehand.
ENDINGS: frozenset[Action] = frozenset({"call.end", "admin.hang_up", "admin.suspend"})


class Audit:
    """Records decisions, then shows them to observers (metrics, say).

    Args:
        sink: where records go.
        observers: are shown each event when it is recorded, or could not be.
        shown_address: what a record shows of a client's address.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        observers: Sequence[Callable[[Event], None]] = (),
        shown_address: Callable[[str], str | None] = str,
    ) -> None:
        self._sink = sink
        self._observers = observers
        self._shown_address = shown_address

    def record(self, action: Action, caller: Caller) -> AbstractAsyncContextManager[Event]:
        """One decision: what happens inside the block is recorded when the block ends, however it ends.

        Raises:
            AuditUnavailable: nothing can be written, and the block has not begun, unless it ends something; or its
                record could not be written, and what was done has been undone.
        """
        return _Decision(self, action, caller)

    def begin(self, action: Action, caller: Caller) -> Event:
        """A decision of which nothing is known yet."""
        return Event(
            time=utc_text(),
            id=new_id(),
            request_id=caller.request_id,
            action=action,
            origin=caller.origin,
            client_ip=caller.client_ip and self._shown_address(caller.client_ip),
            user_agent=caller.user_agent,
        )

    async def check(self, event: Event) -> None:
        """Whether a decision could be recorded.

        Raises:
            AuditUnavailable: it could not.
        """
        try:
            await self._sink.ready()
        except OSError as error:
            self._observe(event, recorded=False)
            raise AuditUnavailable(retry_after=RETRY_SECONDS) from error

    async def write(self, event: Event) -> None:
        """Record a decision, and show it to observers.

        Raises:
            AuditUnavailable: it is not on record.
        """
        try:
            await self._sink.write(orjson.dumps(event.record()))
        except OSError as error:
            self._observe(event, recorded=False)
            raise AuditUnavailable(retry_after=RETRY_SECONDS) from error
        self._observe(event, recorded=True)

    def _observe(self, event: Event, *, recorded: bool) -> None:
        if not recorded:
            event.outcome, event.reason = "error", AuditUnavailable.code
        for observe in self._observers:
            observe(event)


class _Decision:
    """The block of `Audit.record`. No generator: it stands around every decision."""

    __slots__ = ("_audit", "_event", "_started")

    def __init__(self, audit: Audit, action: Action, caller: Caller) -> None:
        self._audit = audit
        self._event = audit.begin(action, caller)

    async def __aenter__(self) -> Event:
        if self._event.action not in ENDINGS:
            await self._audit.check(self._event)
        self._started = time.perf_counter()
        return self._event

    async def __aexit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        event = self._event
        match error:
            case None:
                event.outcome = "allowed"
                event.reason = "ok" if event.reason == UNDECIDED else event.reason
            case Refusal():
                event.outcome, event.reason = _verdict(error)
                if isinstance(error, ProviderError):
                    event.provider_request_id = error.provider_request_id
                    event.call_id = error.call_id or event.call_id
            case CallerGone():
                event.reason = "caller_gone"
            case CancelledError():
                event.reason = "cancelled"
        event.duration_ms = round((time.perf_counter() - self._started) * 1000, 3)
        stands = False
        try:
            await self._audit.write(event)
            stands = error is None
        finally:
            undo, event.undo = event.undo, None  # it holds its event: a circle, which only the collector would free
            if not stands and undo is not None:
                await undo()


def _verdict(refusal: Refusal) -> tuple[Literal["denied", "error"], str]:
    """Our "no" is a denial; what kept us from deciding or doing it is an error."""
    return ("denied" if refusal.status < 500 else "error"), refusal.code
