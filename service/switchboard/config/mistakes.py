"""Mistakes in a policy file, in words: where, what was found, and what would be right."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic_core import ErrorDetails

from switchboard.sessions import SECRET_FIELDS, path_text

Place: TypeAlias = tuple[str | int, ...]
MAX_SHOWN = 80
SECRET_PLACES = (*SECRET_FIELDS, "keys", "secret", "public_key")
"""Where a secret may have been pasted instead of its reference."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake. `found` is None where something is missing."""

    path: Place
    found: str | None
    right: str

    def __str__(self) -> str:
        where = path_text(self.path) or "(the whole file)"
        return f"{where}: {'missing' if self.found is None else f'found {self.found}'}; right would be {self.right}"


def shown(path: Sequence[str | int], value: object) -> str:
    """A value as an operator wrote it, shortened; never a secret's."""
    if any(part in SECRET_PLACES for part in path):
        return "a secret"
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that a typo most likely meant."""
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_name(name: object, known: Sequence[str]) -> str:
    """What would be right instead of an unknown name."""
    likely = nearest(name, known)
    if likely is not None:
        return f"`{likely}`"
    return "no such key; known are " + ", ".join(f"`{one}`" for one in known)


# By pydantic's name of an error: what would be right, with the error's own context filled in.
_RIGHT = {
    "missing": "a value; this is required",
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "model_attributes_type": "a mapping of names to values",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "string_pattern_mismatch": "a text like {pattern}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "mistake": "{right}",
}


def right_for(error: ErrorDetails) -> str:
    """What would be right, from a pydantic error."""
    template = _RIGHT.get(error["type"])
    if template is None:
        return error["msg"]
    text = template.format(**error.get("ctx", {}))
    # pydantic quotes the values of a list of choices; ours are marked as code.
    return text.replace("'", "`") if error["type"] == "literal_error" else text
