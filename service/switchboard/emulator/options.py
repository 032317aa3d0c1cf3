"""What an emulator is started with, and the faults it can be told to show."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Operation = Literal["mint", "call", "hangup"]
OPERATIONS: frozenset[Operation] = frozenset({"mint", "call", "hangup"})


@dataclass(frozen=True, slots=True)
class Faults:
    """How answers go wrong. `delay_seconds` adds to any other; of the rest the first one that is set wins.

    `reset`, `redirect` and `status` come instead of the work; the others spoil the answer of work done.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    operations: frozenset[Operation] = OPERATIONS
    key: str | None = None
    """Only for requests with this key; None: with any."""
    times: Annotated[int, Field(ge=1)] | None = None
    """For how many requests; None: until changed."""
    delay_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    reset: bool = False
    """The connection closes without an answer."""
    redirect: str | None = None
    """Where a 307 points."""
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    code: str | None = None
    """The error's code; 429 says `rate_limit_exceeded` unless told, say, `insufficient_quota`."""
    retry_after: Annotated[int, Field(ge=0)] | None = None
    half_answer: bool = False
    """The whole length is promised, half is sent, the connection closes."""
    drip: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Seconds between single bytes of the body."""
    huge: Annotated[int, Field(ge=0, le=10**10)] = 0
    """A body of so many bytes, sent without a length; more than fits counts as endless."""
    not_json: bool = False
    """A page of HTML as the body, under the true status and content type."""
    wrong_type: str | None = None
    """Another content type than the true one."""


@dataclass(frozen=True, slots=True)
class Options:
    """Start-up choices of one emulator."""

    keys: frozenset[str] = frozenset()
    """Accepted standard keys; empty: any that begins with `sk-`, or at Azure any."""
    azure: bool = False
    """Speak as a resource of Azure OpenAI does."""
    call_ids: bool = True
    """Name calls in `Location`; False: as servers do that only speak like the provider."""
    media: bool = True
    """Answer with real WebRTC; False: a well-formed answer that nobody stands behind, and no aiortc."""
    connect_seconds: float = 30.0
    """A peer that has not connected by then is dropped, as the provider does."""
    answer_content_type: str = "text/plain; charset=utf-8"
    """Live servers send this; the published contract says `application/sdp`."""
    faults: Faults = field(default_factory=Faults)
