"""Quotas: how often a user or a tenant may start, what is left, and how clients are told.

Fixed windows: a window opens with its first request and ends its length later.
`RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-10; `10/minute` is the notation of the
library `limits`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from limits import RateLimitItem, RateLimitItemPerSecond, parse_many

from switchboard.errors import RateLimited, Refusal
from switchboard.values import light_dataclass

Scope: TypeAlias = Literal["user", "tenant"]
Counted: TypeAlias = Literal["requests", "seconds of calls"]

_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}


class _Counted(RateLimitItemPerSecond):
    """A limit whose counter does not depend on the amount: two plans of a tenant share the tenant's count."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "/".join(str(one) for one in (*identifiers, self.get_expiry()))


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests, or seconds of calls, of one user, or of a whole tenant, in a window of so many seconds."""

    scope: Scope
    limit: int
    seconds: int
    of: Counted = "requests"
    name: str = field(init=False, compare=False, repr=False)
    """The policy's name in headers and records: `user-minute`, `tenant-7200s`, `user-minutes-day`."""
    policy: str = field(init=False, compare=False, repr=False)
    """As `RateLimit-Policy` has it. Both are made once, since they are shown with every answer."""

    def __post_init__(self) -> None:
        kind = "" if self.of == "requests" else "minutes-"
        name = f"{self.scope}-{kind}{_UNITS.get(self.seconds, f'{self.seconds}s')}"
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "policy", f'"{name}";q={self.limit};w={self.seconds}')

    @property
    def item(self) -> RateLimitItem:
        """As the library has it."""
        return _Counted(self.limit, self.seconds)

    def __str__(self) -> str:
        whose = "per user" if self.scope == "user" else "for the whole tenant"
        limit = str(self.limit) if self.of == "requests" else f"{self.limit / 60:g} minutes of calls"
        return f"{limit} per {_UNITS.get(self.seconds, f'{self.seconds} seconds')} {whose}"


@light_dataclass(frozen=True, slots=True)
class Window:
    """A quota as it stands: what is left of it, and in how many seconds it begins anew."""

    quota: Quota
    remaining: int
    resets_in: float

    @property
    def seconds(self) -> int:
        """Whole seconds after which waiting has certainly helped."""
        return max(1, math.ceil(self.resets_in))


@light_dataclass(frozen=True, slots=True)
class Standing:
    """All windows that a request was held against, after it was counted; `exceeded` if it did not fit into some."""

    windows: tuple[Window, ...]
    exceeded: tuple[Window, ...] = ()

    @property
    def wait(self) -> int:
        """Seconds until every exceeded window has begun anew."""
        return max((window.seconds for window in self.exceeded), default=0)

    def refusal(self) -> RateLimited:
        """What a caller is told whose request did not fit."""
        named = " and ".join(str(window.quota) for window in self.exceeded)
        refusal = RateLimited(f"The limit of {named} is used up; try again in {self.wait} s.", retry_after=self.wait)
        refusal.violated = [window.quota.name for window in self.exceeded]
        refusal.standing = self
        return refusal

    def shown(self) -> "_Shown":
        """A refusal inside the block (`with`) tells the caller of this standing too: the request has been counted."""
        return _Shown(self)

    def headers(self) -> Mapping[str, str]:
        """`RateLimit-Policy` and `RateLimit`.

        A tenant's windows are shown only where one of them is what the next request will meet: how much a tenant's
        other users talk is otherwise nobody's business.
        """
        own = [window for window in self.windows if window.quota.scope == "user"]
        tightest = min(self.windows, key=lambda window: (window.remaining, -window.resets_in), default=None)
        shown = own if tightest is None or tightest in own else [*own, tightest]
        if not shown:
            return {}
        return {
            "ratelimit-policy": ", ".join(one.quota.policy for one in shown),
            "ratelimit": ", ".join(f'"{one.quota.name}";r={one.remaining};t={one.seconds}' for one in shown),
        }


class _Shown:
    """No generator: it stands around every request."""

    __slots__ = ("_standing",)

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        if isinstance(error, Refusal):
            error.standing = self._standing


UNLIMITED = Standing(())


def minutes(scope: Scope, written: str | None) -> tuple[Quota, ...]:
    """Minutes of calls, written like `30/day`, as quotas in seconds.

    Raises:
        ValueError: the text is not of the notation of `limits`.
    """
    counted = quotas(scope, () if written is None else (written,))
    return tuple(replace(quota, limit=quota.limit * 60, of="seconds of calls") for quota in counted)


def quotas(scope: Scope, written: Iterable[str]) -> tuple[Quota, ...]:
    """The quotas that are written in the notation of `limits`; of two with the same window the smaller counts.

    Raises:
        ValueError: a text is not of that notation.
    """
    smallest: dict[int, int] = {}
    for item in (item for text in written for item in parse_many(text)):
        seconds = item.get_expiry()
        smallest[seconds] = min(item.amount, smallest.get(seconds, item.amount))
    return tuple(Quota(scope, limit, seconds) for seconds, limit in sorted(smallest.items()))


def share(quota: Quota, replicas: int) -> Quota:
    """One replica's part of a quota while the replicas cannot count together; at least 1."""
    return replace(quota, limit=max(1, quota.limit // replicas))
