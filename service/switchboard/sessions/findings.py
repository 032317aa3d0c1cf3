"""Everything wrong with a session, at once, in the provider's own codes and in document order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from switchboard.sessions import beta, vocabulary
from switchboard.sessions.describe import KNOWN_PATHS, Path, members, pattern_of, right_words
from switchboard.sessions.rules import breaches
from switchboard.sessions.session import TYPES, Session
from switchboard.sessions.strict import is_tag

SECRET_FIELDS: Final = ("authorization", "headers")

_MASK: Final = "***"
_MASK_DEPTH: Final = 20  # far below the depth at which Python gives up, far above any real session
_ADAPTER: Final[TypeAdapter[Any]] = TypeAdapter(Session)
_BOUND_CODES: Final = MappingProxyType({"greater_than_equal": "below_min_value", "less_than_equal": "above_max_value"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where, the provider's code for it, what was there, and what would be right."""

    path: Path
    code: str
    found: object
    right: str


def problems(session: object) -> list[Problem]:
    """Every mistake in a session; an empty list means that the provider's schema takes it."""
    if not isinstance(session, Mapping):
        return [Problem((), "invalid_type", _masked((), session), "an object")]
    found: dict[Path, Problem] = {}
    for problem in (*_of_models(session), *_of_rules(session)):
        found.setdefault(problem.path, problem)
    return sorted(found.values(), key=lambda problem: _place(session, problem.path))


def _of_models(session: Mapping[str, Any]) -> Iterator[Problem]:
    kind = session.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        yield _wrong_kind(("type",), session)
        # The rest is judged as the usual type, so that one run shows every mistake.
        session = {**session, "type": "realtime"}
    try:
        _ADAPTER.validate_python(dict(session))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            yield _translated(session, detail)


def _of_rules(session: Mapping[str, Any]) -> Iterator[Problem]:
    for path, code, found, right in breaches(session):
        yield Problem(path, code, _masked(path, found), right)


def _translated(session: Mapping[str, Any], detail: ErrorDetails) -> Problem:
    path = _untagged(session, detail["loc"])
    error, found = detail["type"], detail["input"]
    right = "a key that is a string" if detail["loc"][-1:] == ("[key]",) else right_words(pattern_of(path))
    if error == "missing":
        return Problem(path, "missing_required_parameter", None, right)
    if error == "extra_forbidden":
        return _unknown(session, path, found)
    if error.startswith("union_tag_") and isinstance(found, Mapping):
        return _wrong_kind((*path, "type"), found)
    return Problem(path, _code(error, found), _masked(path, found), right)


def _code(error: str, found: object) -> str:
    if error in _BOUND_CODES:
        kind = "decimal" if isinstance(found, float) else "integer"
        return f"{kind}_{_BOUND_CODES[error]}"
    mistyped = error.endswith("_type") or error.startswith("union_tag_")
    if mistyped or (error == "literal_error" and not isinstance(found, str)):
        return "invalid_type"
    return "invalid_value"


def _wrong_kind(path: Path, parent: Mapping[str, Any]) -> Problem:
    right = right_words(pattern_of(path))
    if "type" not in parent:
        return Problem(path, "missing_required_parameter", None, right)
    kind = parent["type"]
    return Problem(path, "invalid_value" if isinstance(kind, str) else "invalid_type", kind, right)


def _unknown(session: Mapping[str, Any], path: Path, found: object) -> Problem:
    # A misspelt `authorization` is still a secret, so what stands at an unknown key of a tool is never shown.
    shown = _MASK if path[0] == "tools" else _masked(path, found)
    return Problem(path, "unknown_parameter", shown, _instead(session, path))


def _instead(session: Mapping[str, Any], path: Path) -> str:
    *parents, name = path
    name = str(name)
    if pattern_of(path) in KNOWN_PATHS:
        kind = _at(session, parents).get("type") or session.get("type")
        return f"remove it; type {kind} does not take it"
    if not parents:
        if name in vocabulary.ANSWER_ONLY:
            return "remove it; it is only in answers"
        old = beta.FIELDS.get(name)
        if old is not None and old.path is None:
            return f"remove it; {name} was removed when the beta ended"
        if old is not None and session.get("type") == "realtime":
            return f'remove it; its place is now "{old.path}"'
    return f'remove it; did you mean "{near}"?' if (near := _nearest(parents, name)) else "remove it"


def _nearest(parents: Sequence[str | int], name: str) -> str | None:
    """A sibling with nearly this name; failing that, the one field elsewhere that has exactly this name."""
    siblings = get_close_matches(name, sorted(members(pattern_of(parents))), n=1)
    if siblings:
        return siblings[0]
    elsewhere = [path for path in KNOWN_PATHS if path.rpartition(".")[2] == name and "." in path]
    return elsewhere[0] if len(elsewhere) == 1 else None


def _untagged(session: Mapping[str, Any], loc: Sequence[str | int]) -> Path:
    """The place in the document: pydantic's own without the names of branches."""
    node: Any = session
    path: list[str | int] = []
    for part in loc:
        is_key = isinstance(node, Mapping) and part in node
        if not is_key and (is_tag(part) or part == "[key]"):
            continue
        path.append(part)
        node = node[part] if is_key or (isinstance(node, list) and isinstance(part, int)) else None
    return tuple(path)


def _at(session: Mapping[str, Any], path: Sequence[str | int]) -> Any:
    node: Any = session
    for part in path:
        node = node[part]
    return node


def _place(session: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    """Sorts as the document reads; what is missing comes before its siblings."""
    node: Any = session
    place: list[int] = []
    for part in path:
        if isinstance(node, Mapping):
            place.append(list(node).index(part) if part in node else -1)
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            place.append(part)
            node = node[part]
    return tuple(place)


def _masked(path: Path, found: object) -> object:
    return _MASK if any(part in SECRET_FIELDS for part in path) else _without_secrets(found, _MASK_DEPTH)


def _without_secrets(value: object, depth: int) -> object:
    if depth == 0:
        return _MASK
    if isinstance(value, Mapping):
        return {
            key: _MASK if key in SECRET_FIELDS else _without_secrets(inner, depth - 1) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(inner, depth - 1) for inner in value]
    return value
