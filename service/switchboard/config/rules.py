"""What a schema cannot say: names that refer to each other, and rules across fields.

They run on the raw tree, so that one mistake in a file does not hide the others.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from switchboard.config.mistakes import Mistake, nearest, shown
from switchboard.presets import template_mistake
from switchboard.sessions import KNOWN_PATHS, SECRET_FIELDS, problems, with_value

Tree = Mapping[str, Any]
_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)")


@dataclass(frozen=True, slots=True)
class Head:
    """What of a tenant has to fit to its provider."""

    provider: object
    """Its name, as it is written."""
    hiding: Sequence[str] = ()
    """The presets that hide their instructions."""
    leashed: Sequence[str] = ()
    """The presets whose calls have to be known by an id."""


def head_of(tenant: object) -> Head:
    """See `Head`; of a tenant that nobody has checked."""
    presets = {name: _mapping(preset) for name, preset in _mapping(_mapping(tenant).get("presets")).items()}
    return Head(
        _mapping(tenant).get("provider"),
        hiding=[name for name, preset in presets.items() if preset.get("hide_instructions") is True],
        leashed=[
            name
            for name, preset in presets.items()
            if preset.get("delivery") == "relay" and preset.get("unleashed") != "allow"
        ],
    )


def across(tree: Tree) -> Iterator[Mistake]:
    """Every mistake that needs more than one field to see."""
    tenants, issuers = _mapping(tree.get("tenants")), tree.get("issuers")
    yield from between(
        _mapping(tree.get("providers")),
        issuers if isinstance(issuers, list) else [],
        {name: head_of(tenant) for name, tenant in tenants.items()},
    )
    yield from within(tenants)


def between(providers: Tree, issuers: Sequence[object], tenants: Mapping[str, Head]) -> Iterator[Mistake]:
    """Mistakes in what refers to something elsewhere, which may be in another file.

    Args:
        providers: by their names; of each at least its kind and `call_ids`.
        issuers: at least their own names and those of tenants.
        tenants: what of them has to fit.
    """
    yield from _issuers(issuers, tenants)
    for name, tenant in tenants.items():
        yield from _refers(("tenants", name, "provider"), tenant.provider, providers, "a provider")
        provider = _mapping(providers.get(tenant.provider)) if isinstance(tenant.provider, str) else {}
        yield from _fits(("tenants", name, "presets"), tenant, provider)


def _fits(place: tuple[str | int, ...], tenant: Head, provider: Tree) -> Iterator[Mistake]:
    if provider.get("kind") == "openai":
        for preset in tenant.hiding:
            right = "false: only a provider of `kind: azure` can keep them from the browser"
            yield Mistake((*place, preset, "hide_instructions"), "true", right)
    if provider.get("call_ids") is False:
        for preset in tenant.leashed:
            found = "a provider with `call_ids: false`: nobody can end its calls, and no cap, deadline or operator will"
            yield Mistake((*place, preset, "unleashed"), found, "`allow`, if that is meant")


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
    if preset.get("hide_instructions") is True and preset.get("delivery") == "direct":
        found = "'direct' with `hide_instructions`: who holds a secret chooses the address that hides nothing"
        yield Mistake((*place, "delivery"), found, "`relay`")
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
