"""Writes records to a target as lines of a chain, and knows at any moment what is written and what is not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from switchboard.audit.chain import CLOSING, OPENING, REOPENING, RESUMING, Chain, Link, own_record
from switchboard.audit.targets import Target


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of records that were to be written.

    A record is void if its writing failed after a part of it was there already: it stays on record, but nobody got
    what it speaks of.
    """

    link: Link
    first: int = 0
    """The number of the first of them."""
    written: int = 0
    """How many of them, from the first, are on record."""
    void: tuple[int, ...] = ()
    error: OSError | None = None
    """Why not all are, or why more cannot be expected to be."""


class Appender:
    """Blocking, and used by one thread at a time.

    The chain goes on from what is written: what could not be leaves no gap. A line that was cut off in the middle is
    completed before anything else is written.

    Args:
        target: a place for bytes.
        chain: None leaves the records as they are.
        sync: whether a record counts as written only when it is on disk.
    """

    def __init__(self, target: Target, chain: Chain | None, *, sync: bool) -> None:
        self._target = target
        self._chain = chain
        self._sync = sync
        self._link = Link()
        self._rest = b""  # of a line that is there in part
        self._owed: tuple[bytes, ...] = ()  # records of our own that have to come before any other
        self._moved = False

    def open(self, details: Mapping[str, Any]) -> Appended:
        """Begin, with an opening record if there is a chain.

        Args:
            details: more that it says.

        Raises:
            OSError: there is no such place. What cannot be written there for now is not raised but told.
        """
        unfinished = self._target.open()
        if unfinished:
            self._rest = b"\n"
            details = {**details, "torn": unfinished}
        if self._chain is not None:
            self._owed = (own_record(OPENING, **details),)
        return self.append(())

    def append(self, records: Sequence[bytes] = ()) -> Appended:
        """Write records, JSON objects, in one piece if the target takes them so; without any, see whether one could."""
        self._reopen_if_moved()
        owed = len(self._owed)
        lines, links = self._sealed((*self._owed, *records))
        data, done = memoryview(self._rest + b"".join(lines)), 0
        try:
            if not self._rest:
                self._target.turn(len(data))
            while done < len(data):
                done += self._target.write(data[done:])
            if self._sync and done:
                self._target.sync()
        except OSError as error:
            return self._interrupted(error, done - len(self._rest), lines, links)
        self._rest, self._owed, self._link = b"", (), links[-1]
        first = links[owed].seq + 1
        try:
            self._target.check()
        except OSError as error:
            return Appended(self._link, first, len(records), error=error)
        return Appended(self._link, first, len(records))

    def resume(self, told: Callable[[], Mapping[str, Any]]) -> Appended:
        """Try to write again, beginning with a record of our own.

        Args:
            told: gives what it says of the time in between; called when it can be written.
        """
        try:
            self._target.check(now=True)  # these tries must not use up the little room that is left
        except OSError as error:
            return Appended(self._link, error=error)
        return self.append((own_record(RESUMING, **told()),))

    def reopen(self) -> Appended:
        """Go on in a new file if the old one has been moved away; a line that is there in part is finished first.

        The new file begins with a record of our own, so that it shows whose it is before there is a decision.
        """
        self._moved = True
        return self.append()

    def close(self, told: Mapping[str, Any] | None) -> Appended:
        """End, with a closing record if there is a chain.

        Args:
            told: what a record of `resume` would say, if writing had failed and was not resumed.
        """
        ending = [own_record(RESUMING, **told)] if told else []
        if self._chain is not None:
            ending.append(own_record(CLOSING))
        closed = self.append(ending)
        self._target.close()
        return closed

    def _sealed(self, records: Sequence[bytes]) -> tuple[list[bytes], list[Link]]:
        """The lines, and where the chain stands before and after each of them."""
        lines, links = [], [self._link]
        for record in records:
            line, link = (
                self._chain.seal(record, links[-1]) if self._chain else (record + b"\n", Link(links[-1].seq + 1))
            )
            lines.append(line)
            links.append(link)
        return lines, links

    def _reopen_if_moved(self) -> None:
        if not self._moved or self._rest:
            return
        self._moved = False
        if self._target.reopen() and self._chain is not None:
            self._owed = (own_record(REOPENING), *self._owed)

    def _interrupted(self, error: OSError, done: int, lines: Sequence[bytes], links: Sequence[Link]) -> Appended:
        """Take note of what is there after `done` bytes of the lines; less than 0: of the rest of an older one."""
        if done < 0:
            self._rest = self._rest[done:]
            return Appended(self._link, error=error)
        whole = 0
        while whole < len(lines) and done >= len(lines[whole]):
            done -= len(lines[whole])
            whole += 1
        self._rest = lines[whole][done:] if done else b""
        begun = whole + bool(done)
        owed = len(self._owed)
        # What is not on disk yet does not count if it has to be there.
        written = 0 if self._sync else max(0, whole - owed)
        void = tuple(link.seq for link in links[owed + written + 1 : begun + 1])
        self._owed, self._link = self._owed[begun:], links[begun]
        return Appended(self._link, links[owed].seq + 1, written, void, error)
