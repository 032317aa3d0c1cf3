"""Dotted paths into a session."""

from collections.abc import Mapping
from typing import Any


def with_value(session: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the session with a value at a dotted path; only what lies on the path is copied."""
    name, _, rest = path.partition(".")
    if not rest:
        return {**session, name: value}
    inner = session.get(name)
    return {**session, name: with_value(inner if isinstance(inner, Mapping) else {}, rest, value)}
