"""What `switchboard check` says, for people and for machines."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click
import orjson

from switchboard.config.compile import limits_of, merged
from switchboard.config.mistakes import Mistake
from switchboard.config.reading import Checked
from switchboard.config.schema import Config, Preset
from switchboard.config.secrets import SecretMissing, Secrets
from switchboard.sessions import SECRET_FIELDS, path_text
from switchboard.tenants import Limits

MASK = "••••"


def as_json(checked: Checked) -> dict[str, Any]:
    """The findings, and the effective presets if there are no mistakes."""
    return {
        "ok": not checked.mistakes,
        "mistakes": [_mistake_json(mistake) for mistake in checked.mistakes],
        "advice": [_mistake_json(mistake) for mistake in checked.advice],
        "tenants": _effective(checked.config) if checked.config else None,
    }


def as_text(checked: Checked, name: str, *, environ: Mapping[str, str]) -> str:
    """The findings as lines; colour is taken away by click where there is no terminal."""
    if checked.config is None:
        lines = [click.style(f"{name}: {_count(len(checked.mistakes), 'mistake')}", fg="red", bold=True), ""]
        for mistake in checked.mistakes:
            lines += [*_mistake_lines(mistake), ""]
        return "\n".join(lines)
    lines = [click.style(f"{name}: no mistakes", fg="green", bold=True), ""]
    for advice in checked.advice:
        lines += [click.style("note: ", fg="yellow") + str(advice), ""]
    for problem in _unset_secrets(checked.config, environ):
        lines += [click.style("here: ", fg="yellow") + problem, ""]
    for tenant_name, tenant in _effective(checked.config).items():
        lines.append(click.style(f"tenant {tenant_name}", bold=True))
        lines.append(f"  limits: {', '.join(tenant['limits'])}")
        lines += [f"  limits with {claim}: {', '.join(shown)}" for claim, shown in tenant["limits_by"].items()]
        lines += [f"  preset {preset}: {orjson.dumps(shown).decode()}" for preset, shown in tenant["presets"].items()]
        lines.append("")
    return "\n".join(lines)


def _mistake_lines(mistake: Mistake) -> list[str]:
    return [
        click.style(path_text(mistake.path) or "(the whole file)", bold=True),
        f"  found:  {mistake.found if mistake.found is not None else 'nothing'}",
        f"  right:  {mistake.right}",
    ]


def _mistake_json(mistake: Mistake) -> dict[str, Any]:
    return {"path": path_text(mistake.path), "found": mistake.found, "right": mistake.right}


def _effective(config: Config) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "limits": _limits(limits_of(tenant.limits)),
            "limits_by": {
                f"{tenant.limits_by.claim}={value}": _limits(limits_of(merged(tenant.limits, changes)))
                for value, changes in tenant.limits_by.values.items()
            }
            if tenant.limits_by
            else {},
            "presets": {
                preset_name: {
                    "delivery": preset.delivery,
                    "token_ttl": preset.token_ttl,
                    "requires": preset.requires,
                    "session": _masked(preset.session),
                    **_exceptions(preset),
                }
                for preset_name, preset in tenant.presets.items()
            },
        }
        for name, tenant in config.tenants.items()
    }


def _exceptions(preset: Preset) -> dict[str, Any]:
    """What few presets say."""
    return {
        **({"hide_instructions": True} if preset.hide_instructions else {}),
        **({"unleashed": "allow"} if preset.unleashed == "allow" else {}),
    }


def _limits(limits: Limits) -> list[str]:
    return [
        *(str(quota) for quota in (*limits.quotas, *limits.minutes)),
        *([f"{_count(limits.user_calls, 'open call')} per user"] if limits.user_calls else []),
        *([f"{_count(limits.tenant_calls, 'open call')} for the whole tenant"] if limits.tenant_calls else []),
        *([f"a full user {'replaces the oldest' if limits.replace else 'is refused'}"] if limits.user_calls else []),
        f"{limits.call_seconds} s per call",
        *([f"hung up {limits.idle_seconds} s after its last heartbeat"] if limits.idle_seconds else []),
        *(["in shadow mode: nothing is refused"] if limits.shadow else []),
    ]


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: MASK if name in SECRET_FIELDS else _masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return value


def _unset_secrets(config: Config, environ: Mapping[str, str]) -> list[str]:
    """References that lead to nothing on this machine: wrong only where the service is to run."""
    secrets = Secrets(environ)
    references = [key for provider in config.providers.values() for key in provider.keys]
    references += [one for issuer in config.issuers for one in (issuer.secret, issuer.public_key) if one is not None]
    sessions = [preset.session for tenant in config.tenants.values() for preset in tenant.presets.values()]
    attempts: list[Callable[[], object]] = [partial(secrets.resolve, one) for one in references]
    attempts += [partial(secrets.fill, one) for one in sessions]
    found = []
    for attempt in attempts:
        try:
            attempt()
        except SecretMissing as error:
            found.append(f"{error}; `serve` will need it")
    return list(dict.fromkeys(found))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
