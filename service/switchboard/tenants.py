"""Tenants: whose presets, origins and limits apply to a caller."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from switchboard.calls import MAX_SECONDS
from switchboard.errors import OriginNotAllowed, UnknownPreset
from switchboard.identity import claim_at
from switchboard.presets import Preset
from switchboard.ratelimit import Quota

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Origins:
    """Web origins (RFC 6454) that browsers may call from."""

    listed: frozenset[str] = frozenset()
    everyone: bool = False

    def allow(self, origin: str) -> bool:
        return self.everyone or origin.lower() in self.listed


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant's users may use. `shadow` counts and reports, and refuses nothing.

    Caps of open calls that are None are none. `minutes` are quotas in seconds of calls.
    """

    quotas: tuple[Quota, ...] = ()
    shadow: bool = False
    minutes: tuple[Quota, ...] = ()
    user_calls: int | None = None
    tenant_calls: int | None = None
    replace: bool = True
    """Whether a user's oldest call makes room for the next, or the next is refused."""
    call_seconds: int = MAX_SECONDS
    idle_seconds: int | None = None

    @property
    def leashed(self) -> bool:
        """Whether something about a call has to be kept after it was opened."""
        caps = (self.user_calls, self.tenant_calls, self.idle_seconds)
        return bool(self.minutes) or self.call_seconds < MAX_SECONDS or any(cap is not None for cap in caps)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer or product, with everything that is decided for its users."""

    name: str
    provider: str
    origins: Origins
    presets: Mapping[str, Preset]
    default_preset: str
    suspended: bool = False
    calls_without_register: bool = False
    """Whether calls that are leashed may begin while the shared register is away."""
    limits: Limits = Limits()
    limits_claim: str | None = None
    limits_by_value: Mapping[str, Limits] = field(default_factory=dict)
    """Other limits, by the value of `limits_claim` in the caller's token."""
    claims_in_use: frozenset[str] = frozenset()
    """Claims that some preset refers to: all that a grant has to carry along."""

    def check_origin(self, origin: str | None) -> None:
        """Refuse a browser on a page that is not the tenant's. No Origin header means no browser (RFC 6454).

        Raises:
            OriginNotAllowed: the origin is not on this tenant's list.
        """
        if origin is not None and not self.origins.allow(origin):
            raise OriginNotAllowed

    def limits_for(self, claims: Mapping[str, Any]) -> Limits:
        """The limits of a caller with these claims."""
        value = None if self.limits_claim is None else claim_at(claims, self.limits_claim)
        return self.limits_by_value.get(value, self.limits) if isinstance(value, str) else self.limits

    def preset(self, name: str | None) -> Preset:
        """The preset of that name, or the default one.

        Raises:
            UnknownPreset: there is none of that name.
        """
        preset = self.presets.get(self.default_preset if name is None else name)
        if preset is None:
            raise UnknownPreset
        return preset


def is_tenant_name(text: str) -> bool:
    """Whether a text can be a tenant's name at all; only such a text is ever put into a key of Redis."""
    return _NAME.fullmatch(text) is not None
