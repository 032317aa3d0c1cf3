"""From runs to a verdict: what is missing, twice, out of its place, or not ours, and whether a chain has its end."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, Literal, TypeAlias

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
    is_live: bool = False
    """Whether a process still writes to it."""
    more_foul: int = 0
    """Lines that are no records of ours, and not among the items."""


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
    """A run, and where it stands: the file's number, and its own among the file's items."""

    file: int
    index: int
    run: Run

    @property
    def place(self) -> tuple[int, int]:
        """To be compared with another's."""
        return self.file, self.index


def judge(
    files: Sequence[Scanned], *, anchors: Mapping[str, Anchor] | None = None, since: str | None = None
) -> Verdict:
    """Compare what is there with what has to be there.

    Args:
        files: in the order in which they were written.
        anchors: how far chains have to reach at least, by chain.
        since: a time as records have it; what is older may be missing.
    """
    return _Judgement(files, anchors or {}, since).verdict()


class _Judgement:
    """The steps of one judgement, and what they have found so far."""

    def __init__(self, files: Sequence[Scanned], anchors: Mapping[str, Anchor], since: str | None) -> None:
        self._files = files
        self._anchors = anchors
        self._since = since
        self._problems: list[tuple[int, int, Problem]] = []
        self._notes: list[str] = []
        self._runs: dict[str, list[_Placed]] = {}
        self._foul: dict[tuple[int, int], Foul] = {}
        self._torn: list[tuple[int, int, Foul]] = []

    def verdict(self) -> Verdict:
        """All steps in their order."""
        self._sort_out()
        chains = [self._judge_chain(chain, placed) for chain, placed in self._runs.items()]
        self._judge_torn({one.chain for one in chains if one.state == "unclosed"})
        for (number, _), foul in self._foul.items():
            self._tell(number, foul.line, "inserted", "this line is no record of ours: no chain has a place for it")
        self._judge_missing()
        records = sum(one.run.last - one.run.first + 1 for placed in self._runs.values() for one in placed)
        more_foul = sum(file.more_foul for file in self._files)
        if more_foul:
            self._notes.append(f"{more_foul:,} more lines are no records of ours")
        if not records and self._problems:
            self._notes.append("no record fits the key: were they written with another one, or with none?")
        elif not records:
            self._problems.append((len(self._files), 0, Problem("empty", "there is no record in these files")))
        return Verdict(
            files=len(self._files),
            bytes=sum(file.bytes for file in self._files),
            records=records,
            chains=chains,
            problems=[problem for *_, problem in sorted(self._problems, key=lambda one: one[:2])],
            notes=self._notes,
        )

    def _sort_out(self) -> None:
        for number, file in enumerate(self._files):
            for index, (item, after) in enumerate(pairwise((*file.items, None))):
                if isinstance(item, Run):
                    self._runs.setdefault(item.chain, []).append(_Placed(number, index, item))
                elif isinstance(item, Foul) and isinstance(after, Run) and _tells_of(after, item):
                    self._notes.append(f"{file.name}:{item.line}: torn by a crash, as the record after it says")
                elif isinstance(item, Foul) and not item.ended and after is None:
                    self._torn.append((number, index, item))
                elif isinstance(item, Foul):
                    self._foul[number, index] = item

    def _judge_chain(self, chain: str, placed: Sequence[_Placed]) -> Chained:
        kept: list[_Placed] = []
        reached = 0
        for one in _by_number(placed):
            run = one.run
            if run.first <= reached:
                what = _records(run.first, min(run.last, reached))
                self._tell_of(one, "duplicated", f"{what} of chain {chain} once more", run.first)
            elif run.first > reached + 1:
                self._judge_gap(reached + 1, run.first - 1, kept[-1] if kept else None, one)
            elif kept and not run.continues(kept[-1].run):
                self._tell_of(one, "edited", f"record {run.first} of chain {chain} does not follow the one before it")
            if run.last > reached:
                kept.append(one)
                reached = run.last
        self._judge_order(chain, kept)
        state = self._judge_end(chain, kept[-1])
        return Chained(chain, kept[0].run.first, reached, state)

    def _judge_gap(self, first: int, last: int, before: _Placed | None, after: _Placed) -> None:
        chain = after.run.chain
        foul = self._foul_before(after) or self._foul_after(before) or self._foul_claiming(chain, first, last)
        for place in foul[: last - first + 1]:
            self._tell_edited(place, chain, first)
            first += 1
        since = self._since
        # What is older than the first record that is there is older than `since` as well.
        if first > last or (before is None and since is not None and _time(after.run.head) <= since):
            return
        text = f"{_records(first, last)} of chain {chain}, before this line"
        if before is None or before.file != after.file:
            text += "; or the file that holds them was not given"
        self._tell_of(after, "removed", text, first)

    def _judge_order(self, chain: str, kept: Sequence[_Placed]) -> None:
        begins: dict[int, int] = {}
        for one in kept:
            begins.setdefault(one.file, one.run.first)
        as_written = sorted(kept, key=lambda one: (begins[one.file], one.index))
        for here, due in zip(as_written, kept, strict=True):
            if here is not due:
                text = f"record {here.run.first} of chain {chain}, where record {due.run.first} belongs"
                self._tell_of(here, "reordered", text)
                return

    def _judge_end(self, chain: str, end: _Placed) -> State:
        file, run, anchor = self._files[end.file], end.run, self._anchors.get(chain)
        number, line = end.file, run.end - 1
        state: State = "unclosed"
        if parsed(run.tail).get("action") == CLOSING:
            state = "closed"
        elif file.is_live and not any(isinstance(item, Run) for item in file.items[end.index + 1 :]):
            state = "open"
        else:
            foul = self._foul_after(end) or self._foul_claiming(chain, run.last + 1)
            for seq, place in enumerate(foul, run.last + 1):
                number, line = place[0], self._foul[place].line
                self._tell_edited(place, chain, seq)
        known: dict[str, Any] = {"chain": chain, "seq": run.last}
        if anchor is not None and anchor.seq > run.last:
            text = f"{_records(run.last + 1, anchor.seq)} of chain {chain}, which were there at {anchor.time}"
            self._tell(number, line, "cut", text, **known)
        elif anchor is not None and anchor.seq == run.last and anchor.hash.encode() != run.hash:
            text = f"record {run.last} of chain {chain} was another one when it was anchored"
            self._tell(number, line, "edited", text, **known)
        elif state == "unclosed":
            text = f"crash or cut, after record {run.last} of chain {chain}"
            self._tell(number, line, "unclosed", text, **known)
        return state

    def _judge_torn(self, unclosed: Collection[str]) -> None:
        for number, index, foul in self._torn:
            file = self._files[number]
            if file.is_live:
                continue  # it is being written
            before = file.items[index - 1] if index else None
            if isinstance(before, Run) and before.chain in unclosed:
                self._notes.append(f"{file.name}:{foul.line}: torn: the end of the line is missing, as after a crash")
            else:
                text = "crash or cut: the last line has no end, and no chain is open that it belongs to"
                self._tell(number, foul.line, "unclosed", text)

    def _judge_missing(self) -> None:
        for chain, anchor in self._anchors.items():
            if chain in self._runs or (self._since is not None and anchor.time < self._since):
                continue
            text = f"chain {chain} of {anchor.host}, which had {anchor.seq} records at {anchor.time}"
            self._problems.append((len(self._files), 0, Problem("missing", text, chain=chain)))

    def _foul_before(self, one: _Placed) -> list[tuple[int, int]]:
        begin = one.index
        while (one.file, begin - 1) in self._foul:
            begin -= 1
        return [(one.file, index) for index in range(begin, one.index)]

    def _foul_after(self, one: _Placed | None) -> list[tuple[int, int]]:
        if one is None:
            return []
        end = one.index + 1
        while (one.file, end) in self._foul:
            end += 1
        return [(one.file, index) for index in range(one.index + 1, end)]

    def _foul_claiming(self, chain: str, first: int, last: float = math.inf) -> list[tuple[int, int]]:
        """Lines that say that they are these records, wherever they stand."""
        return [
            place
            for place, foul in self._foul.items()
            if foul.claims is not None and foul.claims[0] == chain and first <= foul.claims[1] <= last
        ]

    def _tell_edited(self, place: tuple[int, int], chain: str, seq: int) -> None:
        foul = self._foul.pop(place)
        text = f"record {seq} of chain {chain}: its hash does not fit"
        self._tell(place[0], foul.line, "edited", text, chain=chain, seq=seq)

    def _tell_of(self, one: _Placed, kind: Kind, text: str, seq: int | None = None) -> None:
        self._tell(one.file, one.run.line, kind, text, chain=one.run.chain, seq=seq or one.run.first)

    def _tell(self, file: int, line: int, kind: Kind, text: str, **known: Any) -> None:
        self._problems.append((file, line, Problem(kind, text, file=self._files[file].name, line=line, **known)))


def _by_number(placed: Sequence[_Placed]) -> list[_Placed]:
    """Runs by their first record. Of those that begin with the same one, first what stands behind the record before."""
    found: list[_Placed] = []
    for _, alike in groupby(sorted(placed, key=lambda one: one.run.first), key=lambda one: one.run.first):
        here = found[-1].place if found else (0, 0)
        found += sorted(alike, key=lambda one: (one.place < here, one.place))
    return found


def _tells_of(opening: Run, torn: Foul) -> bool:
    """Whether an opening record says that it found this line unfinished."""
    return opening.first == 1 and parsed(opening.head).get("torn") == torn.length


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _time(record: bytes) -> str:
    return str(parsed(record).get("time", ""))
