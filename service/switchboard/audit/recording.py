"""The one way in for business code: a block, in which a decision is made, that ends with its record."""

import time
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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

    @asynccontextmanager
    async def record(self, action: Action, caller: Caller) -> AsyncIterator[Event]:
        """One decision: what happens inside the block is recorded when the block ends, however it ends.

        Raises:
            AuditUnavailable: nothing can be written, and the block has not begun, unless it ends something; or its
                record could not be written, and what was done has been undone.
        """
        event = Event(
            time=utc_text(),
            id=new_id(),
            request_id=caller.request_id,
            action=action,
            origin=caller.origin,
            client_ip=caller.client_ip and self._shown_address(caller.client_ip),
            user_agent=caller.user_agent,
        )
        if action not in ENDINGS:
            await self._check(event)
        started = time.perf_counter()
        stands = False
        try:
            try:
                yield event
                event.outcome = "allowed"
                event.reason = "ok" if event.reason == UNDECIDED else event.reason
            except Refusal as refusal:
                event.outcome, event.reason = _verdict(refusal)
                if isinstance(refusal, ProviderError):
                    event.provider_request_id = refusal.provider_request_id
                    event.call_id = refusal.call_id or event.call_id
                raise
            except CallerGone:
                event.reason = "caller_gone"
                raise
            except CancelledError:
                event.reason = "cancelled"
                raise
            finally:
                event.duration_ms = round((time.perf_counter() - started) * 1000, 3)
                await self._write(event)
            stands = True
        finally:
            if not stands and event.undo is not None:
                await event.undo()

    async def _check(self, event: Event) -> None:
        try:
            await self._sink.ready()
        except OSError as error:
            self._observe(event, recorded=False)
            raise AuditUnavailable(retry_after=RETRY_SECONDS) from error

    async def _write(self, event: Event) -> None:
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


def _verdict(refusal: Refusal) -> tuple[Literal["denied", "error"], str]:
    """Our "no" is a denial; what kept us from deciding or doing it is an error."""
    return ("denied" if refusal.status < 500 else "error"), refusal.code
