"""What happens to an account at a provider, for those who watch (metrics, log). Keys are named, never shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class AccountListed:
    """A policy lists this account. `is_down`: it is not asked at present."""

    is_down: bool


@dataclass(frozen=True, slots=True)
class AccountDropped:
    """The policy lists it no more. It still ends the calls that it opened."""


@dataclass(frozen=True, slots=True)
class KeyListed:
    """A policy lists this key."""

    key: str
    is_set_aside: bool


@dataclass(frozen=True, slots=True)
class KeyDropped:
    """The policy lists it no more. It still ends the calls that it opened."""

    key: str


@dataclass(frozen=True, slots=True)
class KeySetAside:
    """The provider refused a key (`why`: 401, 403, insufficient_quota). Others are used for so many seconds.

    Or `no_token`: it has no value until another comes.
    """

    key: str
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class KeyBack:
    """The provider takes a key again that was set aside."""

    key: str


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """There is another value behind a key's name. It is tried at once, also if the former one was set aside."""

    key: str


@dataclass(frozen=True, slots=True)
class BreakerOpened:
    """The provider is down: for so many seconds it is not asked, then once. `again`: it did not answer that either."""

    why: str
    seconds: float
    again: bool


@dataclass(frozen=True, slots=True)
class BreakerClosed:
    """The provider answers again, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TriedAgain:
    """The same request is sent once more; `why` is what came before, as the metric of requests words it."""

    operation: str
    why: str


Happening: TypeAlias = (
    AccountListed
    | AccountDropped
    | KeyListed
    | KeyDropped
    | KeySetAside
    | KeyBack
    | KeyChanged
    | BreakerOpened
    | BreakerClosed
    | TriedAgain
)
Observe: TypeAlias = Callable[[Happening], None]
