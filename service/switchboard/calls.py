"""Calls: what a relayed offer started."""

import re
from typing import Literal, TypeAlias

from switchboard.values import light_dataclass

EndedBy: TypeAlias = Literal["owner", "deadline", "idle", "replaced", "admin", "suspended", "provider"]

MAX_SECONDS = 3600  # the provider ends every session after this long (OpenAI: `expires_at` of `session.created`)
GRACE_SECONDS = 60  # later than that no provider's clock can still have it open
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@light_dataclass(frozen=True, slots=True)
class Opening:
    """What a provider opened, and for which preset; `key_name` names the key that alone can end it, never its value."""

    id: str
    issuer: str
    preset: str
    provider: str
    key_name: str


@light_dataclass(frozen=True, slots=True)
class Call:
    """A call in the register. Times are unix seconds of the register's own clock."""

    id: str
    tenant: str
    issuer: str
    user_key: str
    preset: str
    provider: str
    key_name: str
    started_at: float
    deadline: float
    grant_id: str | None = None
    idle_seconds: int | None = None
    """After a heartbeat, the longest that the next may take."""
    heard_at: float | None = None
    """The last heartbeat."""
    ending: EndedBy | None = None
    """Why it is to be ended; it is open until the provider says that it is over."""
    attempts: int = 0
    """Hang-ups that a sweeper has begun."""
    ended_at: float | None = None
    ended_by: EndedBy | None = None

    @property
    def state(self) -> Literal["open", "ended"]:
        return "open" if self.ended_at is None else "ended"

    @property
    def seconds(self) -> float:
        """How long it took, if it has ended."""
        return 0.0 if self.ended_at is None else round(self.ended_at - self.started_at, 3)

    @property
    def due_at(self) -> float:
        """When it is to be hung up, as things stand: at its deadline, or when its heartbeats have stopped."""
        if self.heard_at is None or self.idle_seconds is None:
            return self.deadline
        return min(self.deadline, self.heard_at + self.idle_seconds)

    def reason_at(self, now: float) -> EndedBy:
        """Why it is hung up now."""
        return self.ending or ("deadline" if now >= self.deadline else "idle")

    def is_surely_over(self, now: float) -> bool:
        """Whether the provider has ended it by itself, however long it cannot be asked."""
        return now >= self.started_at + MAX_SECONDS + GRACE_SECONDS


def is_call_id(text: str) -> bool:
    """Whether a text can be a call's id at all; only such a text is ever put into a provider's path."""
    return _ID.fullmatch(text) is not None
