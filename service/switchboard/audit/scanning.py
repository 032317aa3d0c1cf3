"""From lines to runs: stretches of records that fit their key and follow one another. What is left over is foul.

Runs are what makes it quick: a line that continues one costs a hash and a comparison, and is not parsed. Blocks are
scanned independently of each other, by as many processes as there are cores, and their runs joined afterwards.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from switchboard.audit.chain import BODY, END, ENDING, PREV, Mac
from switchboard.audit.reading import Block

_FIELDS = re.compile(
    rb',"chain":"(?P<chain>[0-9a-f]{24})","seq":(?P<seq>[1-9][0-9]{0,17}),"prev":"(?P<prev>[0-9a-f]{64})"'
    rb',"hash":"[0-9a-f]{64}"}\Z'
)
MAX_FOUL = 1000  # kept of a block: with a wrong key every line is foul, and the first ones tell as much
_FIELDS_BYTES = 240  # as much as those can take, and a little more


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one chain that follow one another, line after line."""

    chain: str
    first: int
    last: int
    prev: bytes
    """The hash of the record before the first."""
    hash: bytes
    """The hash of the last."""
    line: int
    """Where the first stands, from 1."""
    head: bytes
    tail: bytes

    @property
    def end(self) -> int:
        """The line after the last."""
        return self.line + self.last - self.first + 1

    def continues(self, other: "Run") -> bool:
        """Whether this run goes on where the other stops."""
        return (self.chain, self.prev, self.first) == (other.chain, other.hash, other.last + 1)


@dataclass(frozen=True, slots=True)
class Foul:
    """A line that is no record, or whose hash does not fit."""

    line: int
    length: int
    ended: bool
    """Whether a line end follows; only the last line of a file can lack it."""
    claims: tuple[str, int] | None = None
    """The chain and number that it gives itself, which may be false."""


Item: TypeAlias = Run | Foul


@dataclass(frozen=True, slots=True)
class Scan:
    """What a block holds; lines are counted from its begin."""

    items: tuple[Item, ...]
    lines: int
    more_foul: int
    """Foul lines beyond the first MAX_FOUL, which are not among the items."""


def scan(block: Block, keys: Sequence[bytes]) -> Scan:
    """Hold each line of a block against the keys; each chain has one of them."""
    macs = [Mac(key) for key in keys]
    *lines, rest = block.read().split(b"\n")
    items: list[Item] = []
    run: Run | None = None
    mac, seq, link = macs[0], 0, b""
    foul = 0
    for index, line in enumerate(lines):
        if run is not None:
            # What names this hash as the one before, and has a hash that fits, is the next record of the chain.
            if line[PREV] == link:
                hashed = mac.of(line[BODY])
                if line[END] == ENDING % hashed:
                    seq, link = seq + 1, hashed
                    continue
            items.append(replace(run, last=seq, hash=link, tail=lines[index - 1]))
        found = _begun(line, index + 1, macs)
        if found is None:
            run = None
            foul += 1
            if foul <= MAX_FOUL:
                items.append(Foul(index + 1, len(line), True, _claims(line)))
        else:
            run, mac = found
            seq, link = run.first, run.hash
    if run is not None:
        items.append(replace(run, last=seq, hash=link, tail=lines[-1]))
    if rest:
        items.append(Foul(len(lines) + 1, len(rest), ended=False))
    return Scan(tuple(items), len(lines), max(0, foul - MAX_FOUL))


def joined(scans: Iterable[Scan]) -> tuple[Item, ...]:
    """The runs and foul lines of a whole file, from those of its blocks in their order."""
    items: list[Item] = []
    before = 0
    for part in scans:
        for item in part.items:
            last = items[-1] if items else None
            if isinstance(item, Run) and isinstance(last, Run) and item.continues(last):
                items[-1] = replace(last, last=item.last, hash=item.hash, tail=item.tail)
            else:
                items.append(replace(item, line=item.line + before))
        before += part.lines
    return tuple(items)


def _begun(line: bytes, number: int, macs: Sequence[Mac]) -> tuple[Run, Mac] | None:
    """A run that begins with this line, and its key; None if it fits no key."""
    fields = _FIELDS.search(line[-_FIELDS_BYTES:])
    if fields is None:
        return None
    for mac in macs:
        hashed = mac.of(line[BODY])
        if line[END] == ENDING % hashed:
            seq = int(fields["seq"])
            return Run(fields["chain"].decode(), seq, seq, fields["prev"], hashed, number, line, line), mac
    return None


def _claims(line: bytes) -> tuple[str, int] | None:
    fields = _FIELDS.search(line[-_FIELDS_BYTES:])
    return fields and (fields["chain"].decode(), int(fields["seq"]))
