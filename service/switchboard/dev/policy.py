"""A policy made to run on this machine: the dev issuer, the page's origins, and the emulator as provider."""

from collections.abc import Mapping
from typing import Any

from switchboard.config import schema
from switchboard.dev.issuer import DevIssuer

PROVIDER_KEY = "SWITCHBOARD_DEV_PROVIDER_KEY"
USERS = ("alice", "bob", "carol")


def for_this_machine(
    tree: Mapping[str, Any], issuer: DevIssuer, *, origins: list[str], emulators: Mapping[str, str] | None
) -> dict[str, Any]:
    """A policy's tree made to run here: the dev issuer, this machine's origins and, unless live, the emulator.

    Args:
        tree: of a policy file, as parsed.
        issuer: takes the place of the policy's issuers.
        origins: of the demo page, added to every tenant's.
        emulators: base URLs that take the place of providers', by their kind; None leaves them as they are.
    """
    made = {**tree, "issuers": [issuer.as_config()]}
    if emulators is not None:
        made["providers"] = {
            name: {"kind": kind, "base_url": emulators[kind], "keys": [f"env:{PROVIDER_KEY}"]}
            for name, kind in kinds_of(tree).items()
        }
    made["tenants"] = {name: _with_origins(tenant, origins) for name, tenant in tree.get("tenants", {}).items()}
    return made


def kinds_of(tree: Mapping[str, Any]) -> dict[str, str]:
    """The providers' kinds by their names."""
    providers = tree.get("providers")
    return {
        name: "azure" if isinstance(one, dict) and one.get("kind") == "azure" else "openai"
        for name, one in (providers.items() if isinstance(providers, dict) else ())
    }


def shown_on_page(config: schema.Config, *, live: bool, ops_url: str) -> dict[str, Any]:
    """What the demo page offers to choose from."""
    return {
        "tenants": [
            {
                "name": name,
                "default_preset": tenant.default_preset,
                "presets": [_shown_preset(preset_name, preset) for preset_name, preset in tenant.presets.items()],
            }
            for name, tenant in config.tenants.items()
        ],
        "users": list(USERS),
        "live": live,
        "ops_url": ops_url,
    }


def _shown_preset(name: str, preset: schema.Preset) -> dict[str, Any]:
    output = preset.session.get("audio", {}).get("output", {})
    return {
        "name": name,
        "delivery": preset.delivery,
        "model": preset.session.get("model"),
        "voice": output.get("voice"),
        "requires": {path: list(values) for path, values in preset.requires.items()},
    }


def _with_origins(tenant: Any, origins: list[str]) -> Any:
    listed = tenant.get("origins") if isinstance(tenant, dict) else None
    return {**tenant, "origins": [*listed, *origins]} if isinstance(listed, list) else tenant
