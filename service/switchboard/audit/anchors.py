"""Checkpoints of a chain in another place: whoever cuts the end off a file cannot cut it off there as well."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import orjson

from switchboard.audit.chain import Chain, Link
from switchboard.audit.event import utc_text

ANCHOR_SECONDS = 5.0  # what is cut off within so short a time after it was written is not noticed
PUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a chain stood at a moment: so far it has to be there."""

    chain: str
    seq: int
    hash: str
    time: str
    host: str
    """The machine (or pod) whose process it is."""

    def as_json(self) -> bytes:
        """One JSON object."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> "Anchor":
        """The opposite of `as_json`.

        Raises:
            ValueError: it is no anchor.
        """
        try:
            return cls(**orjson.loads(text))
        except TypeError:
            raise ValueError("an anchor has chain, seq, hash, time and host") from None


class AnchorsAway(Exception):
    """The place of anchors could not be reached. The message holds no data."""


class Anchors(Protocol):
    """A place of anchors."""

    async def put(self, anchor: Anchor) -> None:
        """Keep the newest anchor of its chain.

        Raises:
            AnchorsAway: it could not be kept.
        """


class FileAnchors:
    """A file to which each anchor is appended as a line; on another disk, or one that is carried elsewhere."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def put(self, anchor: Anchor) -> None:
        """See `Anchors.put`. The file is opened each time, so it may be moved away at any time."""
        try:
            await asyncio.to_thread(self._append, anchor.as_json() + b"\n")
        except OSError as error:
            raise AnchorsAway(f"{self._path}: {error.strerror}") from None

    def _append(self, line: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(line)


def read_anchors(path: Path) -> list[Anchor]:
    """The anchors in a file of them. A line that a crash has torn is left out: the next anchor holds as much.

    Raises:
        AnchorsAway: it cannot be read, or holds something else.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise AnchorsAway(f"{path}: {error.strerror}") from None
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(Anchor.from_json(line))
    if lines and not found:
        raise AnchorsAway(f"{path}: no line of it is an anchor")
    return found


def newest(anchors: Iterable[Anchor]) -> dict[str, Anchor]:
    """The furthest anchor of each chain."""
    found: dict[str, Anchor] = {}
    for anchor in anchors:
        if anchor.chain not in found or found[anchor.chain].seq < anchor.seq:
            found[anchor.chain] = anchor
    return found


class Anchoring:
    """Puts an anchor now and then, and one at the end. One that cannot be put refuses nobody: records are still
    written, and the next anchor holds as much as the lost one.

    Args:
        anchors: where to.
        chain: whose.
        link: gives where it stands on record.
        host: this machine.
        on_outcome: hears of each anchor that was put (None) or could not be (why).
    """

    def __init__(
        self,
        anchors: Anchors,
        chain: Chain,
        link: Callable[[], Link],
        *,
        host: str,
        on_outcome: Callable[[str | None], None],
        seconds: float = ANCHOR_SECONDS,
    ) -> None:
        self._anchors = anchors
        self._chain = chain
        self._link = link
        self._host = host
        self._on_outcome = on_outcome
        self._seconds = seconds
        self._anchored = Link()

    async def run(self) -> None:
        """Put anchors until cancelled."""
        while True:
            await self.put()
            await asyncio.sleep(self._seconds)

    async def put(self) -> None:
        """Put an anchor if there is something new to hold."""
        link = self._link()
        if link == self._anchored:
            return
        anchor = Anchor(self._chain.id, link.seq, link.hash.decode(), utc_text(), self._host)
        try:
            async with asyncio.timeout(PUT_SECONDS):
                await self._anchors.put(anchor)
        except (AnchorsAway, TimeoutError) as error:
            self._on_outcome(str(error) or "it takes too long")
            return
        self._anchored = link
        self._on_outcome(None)
