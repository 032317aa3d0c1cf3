"""What a schema cannot say: names that refer to each other, and rules across fields.

They run on the raw tree, so that one mistake in a file does not hide the others.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from switchboard.config.mistakes import Mistake, nearest, shown
from switchboard.presets import template_mistake, with_value
from switchboard.sessions import KNOWN_PATHS, SECRET_FIELDS, problems

Tree = Mapping[str, Any]
_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)")


def across(tree: Tree) -> Iterator[Mistake]:
    """Every mistake that needs more than one field to see."""
    providers, tenants = _mapping(tree.get("providers")), _mapping(tree.get("tenants"))
    issuers = tree.get("issuers")
    provider_of = {name: _mapping(tenant).get("provider") for name, tenant in tenants.items()}
    yield from between(
        {"providers": providers, "tenants": tenants}, issuers if isinstance(issuers, list) else [], provider_of
    )
    yield from within(tenants)


def between(
    names: Mapping[str, Tree], issuers: Sequence[object], provider_of: Mapping[str, object]
) -> Iterator[Mistake]:
    """Mistakes in names that refer to something elsewhere, which may be in another file.

    Args:
        names: of the providers and of the tenants there are.
        issuers: at least their own names and those of tenants.
        provider_of: the provider's name that each tenant writes.
    """
    yield from _issuers(issuers, names["tenants"])
    for name, provider in provider_of.items():
        yield from _refers(("tenants", name, "provider"), provider, names["providers"], "a provider")


def within(tenants: Tree) -> Iterator[Mistake]:
    """Mistakes in tenants that can be seen without knowing anything else."""
    for name, tenant in tenants.items():
        place = ("tenants", name)
        presets = _mapping(_mapping(tenant).get("presets"))
        yield from _refers(
            (*place, "default_preset"),
            _mapping(tenant).get("default_preset"),
            presets,
            "a preset of this tenant",
        )
        for preset_name, preset in presets.items():
            yield from _preset((*place, "presets", preset_name), _mapping(preset))


def _mapping(value: object) -> Tree:
    return value if isinstance(value, Mapping) else {}


def _refers(path: tuple[str | int, ...], name: object, known: Tree, what: str) -> Iterator[Mistake]:
    if not isinstance(name, str) or name in known:
        return
    likely = nearest(name, known)
    yield Mistake(path, shown(path, name), f"`{likely}`" if likely else f"the name of {what}")


def _issuers(issuers: Sequence[object], tenants: Tree) -> Iterator[Mistake]:
    seen: set[str] = set()
    for index, issuer in enumerate(issuers):
        place = ("issuers", index)
        name = _mapping(issuer).get("issuer")
        if isinstance(name, str):
            if name in seen:
                yield Mistake((*place, "issuer"), shown((), name), "an issuer that is listed once")
            seen.add(name)
        yield from _refers((*place, "tenant"), _mapping(issuer).get("tenant"), tenants, "a tenant")
        listed = _mapping(issuer).get("tenants")
        for position, tenant in enumerate(listed if isinstance(listed, list) else []):
            yield from _refers((*place, "tenants", position), tenant, tenants, "a tenant")


def _preset(place: tuple[str | int, ...], preset: Tree) -> Iterator[Mistake]:
    session = preset.get("session")
    if not isinstance(session, dict):
        return
    yield from _templates((*place, "session", "instructions"), session.get("instructions"))
    yield from _mcp_secrets((*place, "session", "tools"), session.get("tools"), preset)
    if session.get("type") == "transcription" and preset.get("delivery") == "relay":
        right = "`direct`: the provider takes transcription sessions only through a client secret"
        yield Mistake((*place, "delivery"), "'relay' for a transcription session", right)
    if not problems(session):
        for path, rule in _mapping(preset.get("overrides")).items():
            yield from _override((*place, "overrides", path), str(path), rule, session)


def _templates(path: tuple[str | int, ...], instructions: object) -> Iterator[Mistake]:
    right = template_mistake(instructions) if isinstance(instructions, str) else None
    if right is not None:
        yield Mistake(path, shown(path, instructions), right)


def _mcp_secrets(path: tuple[str | int, ...], tools: object, preset: Tree) -> Iterator[Mistake]:
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        written = {name: _mapping(tool).get(name) for name in SECRET_FIELDS}
        for name, value in written.items():
            texts = list(value.values()) if isinstance(value, Mapping) else [value]
            if any(isinstance(text, str) and not _REFERENCE.fullmatch(text) for text in texts):
                yield Mistake(
                    (*path, index, name),
                    "a secret",
                    "`env:NAME` or `file:/path`; no secret stands in this file",
                )
        if any(value is not None for value in written.values()) and preset.get("expose_mcp_secrets") is not True:
            yield Mistake(
                (*path, index),
                "a secret that every browser will see in `session.created`",
                "a tool without secrets, or `expose_mcp_secrets: true` beside the session if that is meant",
            )


def _override(place: tuple[str | int, ...], path: str, rule: object, session: Tree) -> Iterator[Mistake]:
    if path not in KNOWN_PATHS or path == "type":
        likely = nearest(path, KNOWN_PATHS - {"type"})
        yield Mistake(place, f"`{path}`", f"`{likely}`" if likely else "the dotted path of a session field")
        return
    for value in _extremes(rule):
        for problem in problems(with_value(session, path, value)):
            yield Mistake(place, shown((), value), problem.right)
            break


def _extremes(rule: object) -> list[Any]:
    """The values that a rule allows at its edges; if they fit the session's schema, all between them do."""
    if isinstance(rule, list):
        return rule
    if isinstance(rule, Mapping) and "max_length" in rule:
        return ["x"]
    bounds = [_mapping(rule).get("min"), _mapping(rule).get("max")]
    return [bound for bound in bounds if isinstance(bound, int | float)]
