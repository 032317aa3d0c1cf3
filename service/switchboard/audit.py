"""Evidence: one record per decision, written before the answer leaves.

Business code fills the event in as facts become known; whoever received a credential is on record, or received none.
A record never holds a token, a subject, an SDP or an instruction text.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias

import orjson

from switchboard.errors import AuditUnavailable, CallerGone, ProviderError, Refusal
from switchboard.ratelimit import Standing

Action: TypeAlias = Literal[
    "token.mint",
    "grant.issue",
    "call.open",
    "call.end",
    "admin.calls",
    "admin.hang_up",
    "admin.suspend",
    "admin.resume",
]

UNDECIDED = "internal_error"  # what a decision that never came about is recorded as
MAX_TEXT = 256  # of any string in a record: a header may hold kilobytes of anything


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as the border saw it; nothing of it is verified."""

    request_id: str
    unverified_token: str | None = None
    origin: str | None = None
    client_ip: str | None = None
    user_agent: str | None = None


@dataclass(slots=True, kw_only=True)
class Event:
    """One decision in the making; its fields are the audit record's, in the record's order."""

    time: str
    id: str
    request_id: str
    action: Action
    outcome: Literal["allowed", "denied", "error"] = "error"
    reason: str = UNDECIDED
    tenant: str | None = None
    issuer: str | None = None
    user_key: str | None = None
    preset: str | None = None
    overrides: Sequence[str] = ()
    dropped: Sequence[str] = ()
    shadow: Sequence[str] = ()
    """Quotas that would have refused this request, were they enforced."""
    provider: str | None = None
    provider_request_id: str | None = None
    credential_sha256: str | None = None
    call_id: str | None = None
    expires_at: int | None = None
    seconds: float | None = None
    origin: str | None = None
    client_ip: str | None = None
    user_agent: str | None = None
    duration_ms: float = 0.0

    undo: Callable[[], Awaitable[None]] | None = None
    """What takes the deed back if it cannot be finished or recorded; not part of the record."""
    standing: Standing | None = None
    """The quotas as they stood, for observers; not part of the record."""

    def record(self) -> dict[str, Any]:
        """The audit record: every field that is known, every text bounded."""
        return {name: bounded(value) for name in RECORDED if (value := getattr(self, name)) not in (None, ())}


RECORDED = tuple(field.name for field in fields(Event) if field.name not in ("undo", "standing"))


def bounded(value: Any) -> Any:
    """The value, or as much of it as a record holds."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, list | tuple):
        return [bounded(one) for one in value[:MAX_TEXT]]
    return value


class Sink(Protocol):
    """Where records go."""

    async def write(self, line: bytes) -> None:
        """Append one record.

        Raises:
            OSError: it could not be written; the caller hands nothing out.
        """


class FileDescriptorSink:
    """Records to an open file descriptor: standard output, as containers want it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, line: bytes) -> None:
        """See `Sink.write`."""
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class Audit:
    """Records decisions, then shows them to observers (metrics, say)."""

    def __init__(self, sink: Sink, *, observers: Sequence[Callable[[Event], None]] = ()) -> None:
        self._sink = sink
        self._observers = observers

    @asynccontextmanager
    async def record(self, action: Action, caller: Caller) -> AsyncIterator[Event]:
        """One decision: what happens inside the block is recorded when the block ends, however it ends.

        Raises:
            AuditUnavailable: the record could not be written; what was done has been undone.
        """
        event = Event(
            time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            id=os.urandom(12).hex(),
            request_id=caller.request_id,
            action=action,
            origin=caller.origin,
            client_ip=caller.client_ip,
            user_agent=caller.user_agent,
        )
        started = time.perf_counter()
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
        except asyncio.CancelledError:
            event.reason = "cancelled"
            raise
        finally:
            event.duration_ms = round((time.perf_counter() - started) * 1000, 3)
            try:
                await self._write(event)
            finally:
                if event.outcome != "allowed" and event.undo is not None:
                    await event.undo()

    async def _write(self, event: Event) -> None:
        try:
            await self._sink.write(orjson.dumps(event.record()) + b"\n")
        except OSError as error:
            event.outcome, event.reason = "error", AuditUnavailable.code
            raise AuditUnavailable(retry_after=5) from error
        finally:
            for observe in self._observers:
                observe(event)


def _verdict(refusal: Refusal) -> tuple[Literal["denied", "error"], str]:
    """Our "no" is a denial; what kept us from deciding or doing it is an error."""
    return ("denied" if refusal.status < 500 else "error"), refusal.code
