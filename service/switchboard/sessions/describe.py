"""Words for what a field takes, read off the models' own JSON Schema so that the two cannot drift apart."""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydantic import TypeAdapter

from switchboard.sessions.session import Session

Path = tuple[str | int, ...]

_ANY_KEY: Final = ".*"  # below a map, whose keys are the user's own
_SCHEMA: Final = TypeAdapter(Session).json_schema()
_BOUND_WORDS: Final = MappingProxyType({"integer": "a whole number", "number": "a number"})
_TYPE_WORDS: Final = MappingProxyType({"string": "a string", "boolean": "true or false", "null": "null"})


def path_text(path: Sequence[str | int]) -> str:
    """The path as people and the provider write it: `tools[0].server_url`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def pattern_of(path: Sequence[str | int]) -> str:
    """The path with every index left out: `tools[].server_url`, as in `KNOWN_PATHS`."""
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _branches(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a union, references resolved; a plain node is its own only branch."""
    if "$ref" in node:
        yield from _branches(_SCHEMA["$defs"][node["$ref"].rpartition("/")[2]])
        return
    options = [*node.get("anyOf", ()), *(node.get("oneOf", ()) if "properties" not in node else ())]
    if not options:
        yield node
    for option in options:
        yield from _branches(option)


def _walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for branch in _branches(node):
        if path:
            yield path, branch
        for name, child in branch.get("properties", {}).items():
            yield from _walk(child, f"{path}.{name}".removeprefix("."))
        if isinstance(branch.get("items"), Mapping):
            yield from _walk(branch["items"], f"{path}[]")
        if isinstance(branch.get("additionalProperties"), Mapping):
            yield from _walk(branch["additionalProperties"], f"{path}{_ANY_KEY}")


def _index() -> Mapping[str, tuple[Mapping[str, Any], ...]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for path, node in _walk(_SCHEMA, ""):
        nodes = found.setdefault(path, [])
        if node not in nodes:
            nodes.append(node)
    return MappingProxyType({path: tuple(nodes) for path, nodes in found.items()})


_NODES: Final = _index()

KNOWN_PATHS: Final = frozenset(path for path in _NODES if _ANY_KEY not in path)
"""Every field of all session types, dotted; an element of a list is `[]`: `tools[].server_url`."""


def is_known(param: str) -> bool:
    """Whether the `param` of a provider error names a field of ours; `session.` and indexes may be in it."""
    return re.sub(r"\[\d*\]", "[]", param.removeprefix("session.")) in KNOWN_PATHS


def members(pattern: str) -> frozenset[str]:
    """The keys that the object at this path takes, whichever type it has."""
    nodes = _NODES.get(pattern, ()) if pattern else tuple(_branches(_SCHEMA))
    return frozenset(name for node in nodes for name in node.get("properties", ()))


def right_words(pattern: str) -> str:
    """What would be right at this path: `one of alloy, ash, … or an object with id`."""
    nodes = _NODES.get(pattern) or _NODES.get(f"{pattern.rpartition('.')[0]}{_ANY_KEY}", ())
    choices = [str(value) for node in nodes for value in _choices(node)]
    parts = [_listed(choices)] if choices else []
    parts += [_words(node) for node in nodes if not _choices(node) and node.get("type") != "null"]
    if any(node.get("type") == "null" for node in nodes):
        parts.append("null")
    return ", or ".join(dict.fromkeys(parts))


def _choices(node: Mapping[str, Any]) -> list[Any]:
    return [node["const"]] if "const" in node else list(node.get("enum", ()))


def _listed(choices: Sequence[str]) -> str:
    unique = list(dict.fromkeys(choices))
    return unique[0] if len(unique) == 1 else f"one of {', '.join(unique)}"


def _words(node: Mapping[str, Any]) -> str:
    kind = str(node.get("type"))
    if kind in _BOUND_WORDS:
        return _number(_BOUND_WORDS[kind], node.get("minimum"), node.get("maximum"))
    if kind == "array":
        return _array(node)
    if kind == "object":
        return _object(node)
    if "pattern" in node:
        return f"a string that matches {node['pattern']}"
    if node.get("format") == "uri":
        return "an http or https URL"
    return _TYPE_WORDS.get(kind, "a value of another type")


def _number(word: str, low: float | None, high: float | None) -> str:
    if low is None:
        return word
    if high is None:
        return f"{word} of at least {low:g}"
    return f"{low:g}" if low == high else f"{word} from {low:g} to {high:g}"


def _array(node: Mapping[str, Any]) -> str:
    items = list(_branches(node.get("items", {})))
    choices = [str(value) for item in items for value in _choices(item)]
    what = f"each {_listed(choices)}" if choices else f"each {_words(items[0])}"
    if node.get("minItems") == node.get("maxItems") == 1:
        return f"a list with exactly {_listed(choices)}"
    return f"a list with at least one item, {what}" if node.get("minItems") else f"a list, {what}"


def _object(node: Mapping[str, Any]) -> str:
    kind = node.get("properties", {}).get("type", {})
    if "const" in kind:
        return f"an object of type {kind['const']}"
    names = list(node.get("properties", ()))
    return f"an object with {', '.join(names)}" if names else "an object"
