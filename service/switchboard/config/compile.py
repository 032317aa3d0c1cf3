"""From a checked configuration to the frozen values that requests are held against."""

from collections.abc import Iterable
from typing import Any

from switchboard.calls import MAX_SECONDS
from switchboard.config import schema
from switchboard.config.secrets import Secrets
from switchboard.presets import Between, OneOf, Preset, Rule, TextUpTo, slot_names
from switchboard.ratelimit import minutes, quotas
from switchboard.tenants import Limits, Origins, Tenant

# A person who clicks, not a program that loops; a tenant of thousands of them.
DEFAULT_USER = ["10/minute", "100/day"]
DEFAULT_TENANT = ["1000/minute"]


def tenants_of(config: schema.Config, secrets: Secrets) -> dict[str, Tenant]:
    """The tenants by name.

    Raises:
        SecretMissing: an MCP tool refers to a secret that is not there.
    """
    return {name: tenant_of(name, tenant, secrets) for name, tenant in config.tenants.items()}


def all_origins(tenants: Iterable[Tenant]) -> Origins:
    """The origins of all tenants together."""
    every = [tenant.origins for tenant in tenants]
    listed = frozenset(origin for origins in every for origin in origins.listed)
    return Origins(listed, any(origins.everyone for origins in every))


def tenant_of(name: str, tenant: schema.Tenant, secrets: Secrets) -> Tenant:
    """One tenant.

    Raises:
        SecretMissing: an MCP tool refers to a secret that is not there.
    """
    origins = Origins(everyone=True) if tenant.origins == "any" else Origins(frozenset(tenant.origins))
    return Tenant(
        name=name,
        provider=tenant.provider,
        origins=origins,
        presets={preset_name: _preset(preset_name, preset, secrets) for preset_name, preset in tenant.presets.items()},
        default_preset=tenant.default_preset,
        suspended=tenant.suspended,
        calls_without_register=tenant.calls_without_register == "allow",
        limits=limits_of(tenant.limits),
        limits_claim=tenant.limits_by.claim if tenant.limits_by else None,
        limits_by_value={
            value: limits_of(merged(tenant.limits, changes)) for value, changes in tenant.limits_by.values.items()
        }
        if tenant.limits_by
        else {},
        claims_in_use=_claims_in_use(tenant),
    )


def _preset(name: str, preset: schema.Preset, secrets: Secrets) -> Preset:
    return Preset(
        name=name,
        delivery=preset.delivery,
        session=secrets.fill(preset.session),
        token_ttl=preset.token_ttl,
        requires={path: tuple(values) for path, values in preset.requires.items()},
        overrides={path: _rule(rule) for path, rule in preset.overrides.items()},
        extra=preset.extra,
        beta=preset.beta,
        hide_instructions=preset.hide_instructions,
        unleashed=preset.unleashed == "allow",
    )


def _rule(rule: list[Any] | schema.Range | schema.Length) -> Rule:
    match rule:
        case schema.Range():
            return Between(rule.min, rule.max)
        case schema.Length():
            return TextUpTo(rule.max_length)
        case _:
            return OneOf(tuple(rule))


def limits_of(written: schema.Limits) -> Limits:
    """The limits that a tenant has, with our defaults where it sets none."""
    user = DEFAULT_USER if written.user is None else written.user
    tenant = DEFAULT_TENANT if written.tenant is None else written.tenant
    time, calls = written.minutes or schema.Minutes(), written.open_calls or schema.OpenCalls()
    return Limits(
        quotas("user", user) + quotas("tenant", tenant),
        shadow=written.mode == "shadow",
        minutes=minutes("user", time.user) + minutes("tenant", time.tenant),
        user_calls=calls.user,
        tenant_calls=calls.tenant,
        replace=written.when_user_full != "refuse",
        call_seconds=written.call_seconds or MAX_SECONDS,
        idle_seconds=written.idle_seconds,
    )


def merged(limits: schema.Limits, changes: schema.Limits) -> schema.Limits:
    """The limits with some of their fields replaced."""
    return limits.model_copy(update={name: getattr(changes, name) for name in changes.model_fields_set})


def _claims_in_use(tenant: schema.Tenant) -> frozenset[str]:
    paths: set[str] = {tenant.limits_by.claim} if tenant.limits_by else set()
    for preset in tenant.presets.values():
        paths |= preset.requires.keys() | slot_names(str(preset.session.get("instructions", "")))
    # A dotted path may be a claim's own name, or begin with one.
    return frozenset(paths | {path.partition(".")[0] for path in paths})
