"""What is put on record: one decision, and who asked for it as the border saw them."""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, TypeAlias

from switchboard.ratelimit import Standing
from switchboard.values import light_dataclass

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


@light_dataclass(frozen=True, slots=True)
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
        known = zip(RECORDED, _recorded(self), strict=True)
        return {name: bounded(value) for name, value in known if value is not None and value != ()}


RECORDED = tuple(field.name for field in fields(Event) if field.name not in ("undo", "standing"))
_recorded = attrgetter(*RECORDED)


def bounded(value: Any) -> Any:
    """The value, or as much of it as a record holds."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, list | tuple):
        return [bounded(one) for one in value[:MAX_TEXT]]
    return value


def utc_text(moment: datetime | None = None) -> str:
    """A moment (by default: now) as records have it: ISO 8601 in UTC with milliseconds, so that text sorts by time."""
    if moment is not None:
        return f"{moment.astimezone(UTC).isoformat(timespec='milliseconds')[: -len('+00:00')]}Z"
    milliseconds = time.time_ns() // 1_000_000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """Made once a second, and not for each record."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def new_id() -> str:
    """24 hex characters that are given to one record, or one chain, only."""
    return os.urandom(12).hex()
