"""Session presets: what the server decides about a session, and the little that a caller may change."""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from switchboard.errors import InvalidRequest, OverrideNotAllowed, PresetNotAllowed
from switchboard.identity import claim_at
from switchboard.sessions import TYPES, path_text, problems, with_value
from switchboard.values import light_dataclass

Session: TypeAlias = Mapping[str, Any]

MAX_CLAIM_LENGTH = 200  # of one claim's text inside instructions: a name, not a prompt
MAX_OVERRIDES = 64  # leaves in a caller's `session`
MAX_DEPTH = 8  # of a caller's `session`; today's schema has five levels
_SLOT = re.compile(r"\$\{claims\.([A-Za-z0-9_.:/-]+)(?:\|([^{}]*))?\}")


@dataclass(frozen=True, slots=True)
class OneOf:
    """An override that may be one of some values."""

    values: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        return any(_same(value, allowed) for allowed in self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class Between:
    """An override that may be a number within bounds."""

    minimum: float
    maximum: float

    def accepts(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and self.minimum <= value <= self.maximum

    def __str__(self) -> str:
        return f"a number from {self.minimum} to {self.maximum}"


@dataclass(frozen=True, slots=True)
class TextUpTo:
    """An override that may be a text of bounded length, in characters."""

    max_length: int

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and len(value) <= self.max_length

    def __str__(self) -> str:
        return f"a text of at most {self.max_length} characters"


Rule: TypeAlias = OneOf | Between | TextUpTo


@light_dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller asks for: a preset by name, and changes of its session; each may be left out.

    Args:
        preset: its name.
        session: holds the changes.
        types: of sessions that the path is for.
        outdated: paths in `session` with values that mean nothing any more, as older frontends send them.
    """

    preset: str | None = None
    session: Session = field(default_factory=dict)
    types: frozenset[str] = TYPES
    outdated: frozenset[str] = frozenset()


@light_dataclass(frozen=True, slots=True)
class Tailored:
    """A session made for one caller; what in it the caller chose, in the form of a session and by path, and the paths
    of what was asked for in vain.
    """

    session: Session
    chosen: Session = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def beside(self, wanted: Session, outdated: frozenset[str]) -> "Tailored":
        """The same session, asked for once more with what came beside its grant: which may change nothing.

        Raises:
            InvalidRequest: it would change the session, by more than outdated values.
        """
        strays = tuple(path for path, value in _leaves(wanted, {}) if not _is_own(self.session, path, value))
        if not outdated.issuperset(strays):
            raise InvalidRequest("A grant has its preset and session already; send the offer alone.")
        return replace(self, dropped=self.dropped + strays)


@dataclass(frozen=True, slots=True)
class Preset:
    """A named session configuration that the server owns.

    `token_ttl` is in seconds. `requires` maps a claim's path to the values that open the preset.
    """

    name: str
    delivery: Literal["direct", "relay"]
    session: Session
    token_ttl: int = 60
    requires: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    overrides: Mapping[str, Rule] = field(default_factory=dict)
    extra: Literal["refuse", "ignore"] = "refuse"
    beta: Literal["drop", "strict"] = "drop"
    """What happens to outdated values: they are dropped, or held against the overrides as all others."""
    hide_instructions: bool = False
    """Whether the provider keeps the session from the browser."""
    unleashed: bool = False
    """Whether calls may be opened that nobody can end."""

    def check_type(self, types: frozenset[str]) -> None:
        """Let a preset through only where sessions of its type are asked for.

        Raises:
            InvalidRequest: this path is for sessions of other types.
        """
        if self.session["type"] not in types:
            mine, right = self.session["type"], " or ".join(sorted(types))
            raise InvalidRequest(f"The preset is of type {mine}, and this path is for {right}.", param="preset")

    def check_claims(self, claims: Mapping[str, Any]) -> None:
        """Let only callers through that carry what the preset requires.

        Raises:
            PresetNotAllowed: a required claim is missing or has another value.
        """
        for path, allowed in self.requires.items():
            value = claim_at(claims, path)
            carried = value if isinstance(value, list) else [value]
            if not any(_same(one, wanted) for one in carried for wanted in allowed):
                raise PresetNotAllowed(f"The preset needs a token whose claim `{path}` has an accepted value.")

    def session_for(
        self, claims: Mapping[str, Any], wanted: Session, outdated: frozenset[str] = frozenset()
    ) -> Tailored:
        """The session for this caller.

        Args:
            claims: of the verified token; they fill `${claims.…}` in the instructions.
            wanted: the caller's `session`; a value equal to the preset's is no override.
            outdated: paths whose values may be left out instead of being refused.

        Raises:
            OverrideNotAllowed: a field that is not listed, or a value outside its rule.
            InvalidRequest: the wanted session is not of a sane form.
        """
        session = _with_claims(self.session, claims)
        if not wanted:
            return Tailored(session)
        chosen: dict[str, Any] = {}
        dropped: list[str] = []
        for path, value in _leaves(wanted, self.overrides):
            if _is_own(self.session, path, value):
                continue
            rule = self.overrides.get(path)
            if rule is not None and rule.accepts(value):
                chosen[path] = value
            elif path in outdated or (self.extra == "ignore" and rule is None):
                dropped.append(path[:200])
            else:
                _refuse_override(path, rule)
        choices: Session = {}
        for path, value in chosen.items():
            session, choices = with_value(session, path, value), with_value(choices, path, value)
        if chosen:
            _check_whole(session)
        return Tailored(session, choices, tuple(chosen), tuple(dropped))


def excerpt(session: Session) -> dict[str, Any]:
    """The part of a session that a browser may see in our answers: never instructions, tools or secrets."""
    seen: dict[str, Any] = {
        name: session[name] for name in ("id", "type", "model") if isinstance(session.get(name), str)
    }
    output = claim_at(session, "audio.output")
    if not isinstance(output, Mapping):
        return seen
    voice, language = output.get("voice"), output.get("language")
    if isinstance(voice, Mapping):
        voice = {"id": voice.get("id")}  # a custom voice
    if isinstance(voice, str | dict):
        seen["audio"] = {"output": {"voice": voice}}
    if isinstance(language, str):  # of a translation, which has no voice
        seen["audio"] = {"output": {"language": language}}
    return seen


def template_mistake(text: str) -> str | None:
    """What is wrong with the `${…}` in a text, in words; None if nothing is."""
    if "${" in _SLOT.sub("", text):
        return "`${claims.NAME}` or `${claims.NAME|default}`, closed by `}`"
    return None


def slot_names(text: str) -> frozenset[str]:
    """The claims that a text refers to."""
    return frozenset(match.group(1) for match in _SLOT.finditer(text))


def _with_claims(session: Session, claims: Mapping[str, Any]) -> Session:
    instructions = session.get("instructions")
    if not isinstance(instructions, str) or "${" not in instructions:
        return session
    return {**session, "instructions": _SLOT.sub(lambda slot: _claim_text(claims, slot), instructions)}


def _claim_text(claims: Mapping[str, Any], slot: re.Match[str]) -> str:
    value = claim_at(claims, slot.group(1))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return slot.group(2) or ""
    # A claim is somebody's input: without control characters and line ends it cannot pose as further instructions.
    text = str(value)[: 4 * MAX_CLAIM_LENGTH]
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    return " ".join(text.split())[:MAX_CLAIM_LENGTH] or slot.group(2) or ""


def _leaves(wanted: Session, rules: Mapping[str, Rule]) -> Iterator[tuple[str, Any]]:
    found = 0
    stack: list[tuple[str, Any]] = [("", wanted)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, Mapping) and value and path not in rules:
            if path.count(".") >= MAX_DEPTH:
                raise InvalidRequest(f"`session` is nested deeper than {MAX_DEPTH} levels.", param="session")
            # Each of them holds one value at least; thousands below a long name would be as many long paths.
            _check_number(found + len(stack) + len(value))
            stack.extend((f"{path}.{name}" if path else str(name), inner) for name, inner in value.items())
            continue
        found += 1
        yield path, value


def _is_own(session: Session, path: str, value: Any) -> bool:
    """Whether a session has this value already. A mapping of nothing changes nothing of a mapping."""
    own = claim_at(session, path) if path else session
    return _same(value, own) or (value == {} and isinstance(own, Mapping))


def _check_number(values: int) -> None:
    if values > MAX_OVERRIDES:
        raise InvalidRequest(f"`session` holds more than {MAX_OVERRIDES} values.", param="session")


def _refuse_override(path: str, rule: Rule | None) -> None:
    # A path that is none of ours is the caller's text and is not echoed back at length.
    named = path if len(path) <= 200 and path.isprintable() else "session"
    if rule is None:
        raise OverrideNotAllowed(f"The preset does not let a caller set `{named}`.", param=f"session.{named}")
    raise OverrideNotAllowed(f"The preset takes {rule} for `{named}`.", param=f"session.{named}")


def _check_whole(session: Session) -> None:
    for problem in problems(session):
        param = "session." + path_text(problem.path)
        raise InvalidRequest(
            f"With this override the session is not valid: `{param}` takes {problem.right}.", param=param
        )


def _same(one: Any, other: Any) -> bool:
    # `True == 1` in Python, but not in JSON.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
