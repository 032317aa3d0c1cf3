"""Admission: whether a caller may, as whom, under which preset. Every refusal is a `raise`; what is learned on the way
goes into the event, so that a denial's record says as much as could be known.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from switchboard.audit import Caller, Event
from switchboard.calls import MAX_SECONDS
from switchboard.errors import (
    InvalidRequest,
    InvalidToken,
    MissingToken,
    TenantSuspended,
    UnknownTenant,
)
from switchboard.grants import PREFIX, Grant, Grants
from switchboard.identity import Principal, UserKeys
from switchboard.identity.verifier import Verifier
from switchboard.presets import Asked, Preset, Session, Tailored
from switchboard.providers import Provider
from switchboard.tenants import Origins, Tenant
from switchboard.values import light_dataclass

FORMER_SECONDS = MAX_SECONDS + 300.0  # the longest call, opened by a request in flight, and tries to end it
MOST_FORMER = 64  # providers that were changed within that time: an HTTP address and some keys each


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that a configuration decides, as one value: a request sees one of them from its begin to its end."""

    verifier: Verifier
    tenants: Mapping[str, Tenant]
    providers: Mapping[str, Provider]
    origins: Origins
    """Of all tenants together: who may read a refusal that comes before the tenant is known."""


class Policies:
    """Holds today's policy, which a reload replaces in one step, and what still has to end calls of earlier ones.

    Args:
        policy: the first one.
        clock: seconds, never set back.
    """

    def __init__(self, policy: Policy, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.current = policy
        self._clock = clock
        self._former: deque[_Former] = deque(maxlen=MOST_FORMER)

    def replace(self, policy: Policy) -> None:
        """Hold requests against another policy from now on; those in flight go on under the one they began with."""
        self._forget()
        for name, provider in self.current.providers.items():
            if policy.providers.get(name) is not provider:
                self._former.appendleft(_Former(name, provider, self._clock() + FORMER_SECONDS))
        self.current = policy

    def provider_of(self, name: str, key_name: str) -> Provider | None:
        """Who can end a call: today's provider of this name if it has the key that opened the call, else an earlier
        one that had it. None: the provider is in no policy that this process knows.
        """
        today = self.current.providers.get(name)
        if today is not None and today.has_key(key_name):
            return today
        self._forget()
        former = [one.provider for one in self._former if one.name == name]
        return next((one for one in former if one.has_key(key_name)), today or next(iter(former), None))

    def _forget(self) -> None:
        while self._former and self._former[-1].until < self._clock():
            self._former.pop()


@dataclass(frozen=True, slots=True)
class _Former:
    """A provider that a reload took away or changed, and until when one of its calls may be open."""

    name: str
    provider: Provider
    until: float


class KillSwitch:
    """Whom an operator has suspended at run time, as last heard of the register."""

    def __init__(self) -> None:
        self.suspended: frozenset[str] = frozenset()


@light_dataclass(frozen=True, slots=True)
class Identified:
    """Who the caller is, and the grant if that is how they came."""

    principal: Principal
    tenant: Tenant
    user_key: str
    grant: Grant | None = None


@light_dataclass(frozen=True, slots=True)
class Admitted:
    """A caller who may, with the session made for them."""

    caller: Identified
    preset: Preset
    tailored: Tailored
    provider: Provider


class Admission:
    """Decides who may do what.

    Args:
        grants: opens grants.
        user_keys: makes the key that stands for a user.
        kill_switch: who is suspended.
    """

    def __init__(self, *, grants: Grants, user_keys: UserKeys, kill_switch: KillSwitch) -> None:
        self._kill_switch = kill_switch
        self._grants = grants
        self._user_keys = user_keys

    async def identify(
        self,
        policy: Policy,
        caller: Caller,
        event: Event | None = None,
        *,
        by_grant: Literal["no", "valid", "even expired"],
    ) -> Identified:
        """Who the caller is, from a user's JWT or a grant, and whether their tenant takes requests from there.

        Args:
            policy: of this request.
            caller: as the border saw them.
            event: learns issuer, tenant and user key, also when the caller is refused.
            by_grant: whether a grant will do; past its time, for the call that it opened.

        Raises:
            Unauthorized, Forbidden: why not.
        """
        token = caller.unverified_token
        if token is None:
            raise MissingToken
        if token.startswith(PREFIX):
            if by_grant == "no":
                raise InvalidToken("A grant opens one call at /sdp; here the user's own token is needed.")
            grant = self._grants.open(token, even_expired=by_grant == "even expired")
            principal = grant.principal
        else:
            grant, principal = None, await policy.verifier.verify(token)
        if event is not None:
            event.issuer = principal.issuer
        tenant = policy.tenants.get(principal.tenant)
        if tenant is None:
            raise UnknownTenant
        user_key = self._user_keys.of(principal)
        if event is not None:
            event.tenant, event.user_key = tenant.name, user_key
        tenant.check_origin(caller.origin)
        if grant is not None:
            # Browsers send no Origin with a GET of the page's own origin, which is how it reads its call.
            grant.check_origin(caller.origin, needed=by_grant == "valid")
        return Identified(principal, tenant, user_key, grant)

    async def admit(
        self,
        policy: Policy,
        caller: Caller,
        event: Event,
        asked: Asked,
        *,
        by_grant: Literal["no", "valid"],
    ) -> Admitted:
        """Whether the caller may have a session, and which.

        A grant is held against today's policy, not the one of its birth; what comes beside it may change nothing.

        Raises:
            Refusal: any of the reasons why not.
        """
        identified = await self.identify(policy, caller, event, by_grant=by_grant)
        tenant, grant = identified.tenant, identified.grant
        if tenant.suspended or tenant.name in self._kill_switch.suspended:
            raise TenantSuspended
        preset = _preset(tenant, asked, grant)
        event.preset = preset.name
        if event.action == "token.mint" and preset.delivery == "relay":
            event.action = "grant.issue"
        preset.check_claims(identified.principal.claims)
        preset.check_type(asked.types)
        tailored = _tailored(preset, tenant, identified.principal.claims, asked, grant)
        event.overrides, event.dropped = tailored.overrides, tailored.dropped
        event.provider = tenant.provider
        return Admitted(identified, preset, tailored, policy.providers[tenant.provider])


def _preset(tenant: Tenant, asked: Asked, grant: Grant | None) -> Preset:
    """The grant's; else by name, or by `session.model`, which SDKs can set and which may name one; else the default.

    Raises:
        UnknownPreset: there is none of that name.
        InvalidRequest: several are named.
    """
    name, model = asked.preset, asked.session.get("model")
    if isinstance(model, str) and model in tenant.presets:
        if name not in (None, model):
            raise InvalidRequest("`preset` and `session.model` name different presets; send one.", param="preset")
        name = model
    if grant is None:
        return tenant.preset(name)
    if name not in (None, grant.preset):
        raise InvalidRequest(f"This grant is for the preset `{grant.preset}`; name no other.", param="preset")
    return tenant.preset(grant.preset)


def _tailored(preset: Preset, tenant: Tenant, claims: Mapping[str, Any], asked: Asked, grant: Grant | None) -> Tailored:
    wanted = _without_preset_name(tenant, asked.session)
    outdated = asked.outdated if preset.beta == "drop" else frozenset()
    if grant is None:
        return preset.session_for(claims, wanted, outdated)
    return preset.session_for(claims, grant.wanted).beside(wanted, outdated)


def _without_preset_name(tenant: Tenant, wanted: Session) -> Mapping[str, Any]:
    model = wanted.get("model")
    if isinstance(model, str) and model in tenant.presets:
        return {name: value for name, value in wanted.items() if name != "model"}
    return wanted
