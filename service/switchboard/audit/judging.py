"""From runs to a verdict: what is missing, twice, out of its place, or not ours, and whether a chain has its end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeAlias

from switchboard.audit.anchors import Anchor
from switchboard.audit.chain import CLOSING
from switchboard.audit.reading import parsed
from switchboard.audit.scanning import Foul, Item, Run

Kind: TypeAlias = Literal[
    "edited", "removed", "reordered", "duplicated", "inserted", "unclosed", "cut", "missing", "empty"
]
State: TypeAlias = Literal["closed", "open", "unclosed"]


@dataclass(frozen=True, slots=True)
class Scanned:
    """A file as it was read."""

    name: str
    items: tuple[Item, ...]
    bytes: int
    is_live: bool
    """Whether a process still writes to it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should not be so, and where: a file and line, a chain and record, as far as known."""

    kind: Kind
    text: str
    file: str | None = None
    line: int | None = None
    chain: str | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Chained:
    """What there is of a chain."""

    chain: str
    first: int
    last: int
    state: State


@dataclass(slots=True)
class Verdict:
    """What was found; without problems, all is well."""

    files: int = 0
    bytes: int = 0
    records: int = 0
    chains: list[Chained] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A run or a foul line, and where it stands: the file's number, and the item's within it."""

    file: int
    index: int
    item: Item


def judge(
    files: Sequence[Scanned], *, anchors: Mapping[str, Anchor] | None = None, since: str | None = None
) -> Verdict:
    """Compare what is there with what has to be there.

    Args:
        files: in the order in which they were written.
        anchors: how far chains have to reach at least, by chain.
        since: a time as records have it; records and chains from before it may be missing.
    """
    return _Judge(files, anchors or {}, since).verdict()


class _Judge:
    """One judgement; its methods are its steps."""

    def __init__(self, files: Sequence[Scanned], anchors: Mapping[str, Anchor], since: str | None) -> None:
        self._files = files
        self._anchors = anchors
        self._since = since
        self._found = Verdict(len(files), sum(file.bytes for file in files))
        self._foul: dict[tuple[int, int], Foul] = {}
        self._chains: dict[str, list[_Placed]] = {}
        ...
