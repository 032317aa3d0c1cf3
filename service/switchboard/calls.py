"""Calls: what a relayed offer started."""

import re
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

EndedBy: TypeAlias = Literal["owner", "deadline", "idle", "replaced", "admin", "suspended", "provider"]

MAX_SECONDS = 3600  # the provider ends every session after this long (OpenAI: `expires_at` of `session.created`)
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a provider opened for us. Times are unix seconds.

    `key_name` names the provider key that opened it and that alone can end it; its value is never kept here.
    """

    id: str
    tenant: str
    user_key: str
    preset: str
    provider: str
    key_name: str
    started_at: float
    deadline: float
    grant_id: str | None = None
    ended_at: float | None = None
    ended_by: EndedBy | None = None

    @property
    def state(self) -> Literal["open", "ended"]:
        return "open" if self.ended_at is None else "ended"

    def at(self, now: float) -> "Call":
        """The call as it stands at a time: the provider ends it at its deadline, whether we hear of it or not."""
        if self.ended_at is not None or now < self.deadline:
            return self
        return replace(self, ended_at=self.deadline, ended_by="provider")


def is_call_id(text: str) -> bool:
    """Whether a text can be a call's id at all; only such a text is ever put into a provider's path."""
    return _ID.fullmatch(text) is not None
