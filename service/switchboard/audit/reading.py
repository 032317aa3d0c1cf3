"""Files of records, as they are read back: in the order in which they were written, in blocks of whole lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

BLOCK_BYTES = 16 * 1024 * 1024  # read at a time: large enough for a disk, small enough for a progress bar
MAX_LINE = 4 * 1024 * 1024  # more than any record can hold; a longer line is read in pieces


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a file that begins with a line and ends with one, or with the file."""

    path: Path
    begin: int
    end: int

    def read(self) -> bytes:
        """Its bytes; fewer if the file has been cut meanwhile."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.end - self.begin)


def blocks_of(path: Path, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """The blocks of a file as it is now, in their order."""
    with path.open("rb") as file:
        end, begin = file.seek(0, 2), 0
        while begin < end:
            file.seek(min(begin + size, end) - 1)
            file.readline(MAX_LINE)
            here = min(file.tell(), end)
            yield Block(path, begin, here)
            begin = here


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Files by the time of their first record, whatever rotation has called them; each file once."""
    found = {(stat.st_dev, stat.st_ino): path for path in paths for stat in [path.stat()]}
    return sorted(found.values(), key=lambda path: (_begin(path), str(path)))


def parsed(line: bytes) -> dict[str, Any]:
    """A record's fields; none if the line is no record."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}


def _begin(path: Path) -> str:
    with path.open("rb") as file:
        return str(parsed(file.readline(MAX_LINE)).get("time", ""))
