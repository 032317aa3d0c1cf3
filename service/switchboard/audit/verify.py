"""`switchboard audit verify`: whether the records in some files are those that were written, all of them, in order."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import orjson

from switchboard.audit.anchors import Anchor, newest
from switchboard.audit.judging import Scanned, Verdict, judge
from switchboard.audit.reading import Block, blocks_of, in_order
from switchboard.audit.scanning import Scan, joined, scan
from switchboard.audit.targets import is_written_to

PARALLEL_BYTES = 64 * 1024 * 1024  # from here on it pays to start processes
SHOWN = 20


def verify(
    paths: Iterable[Path],
    keys: Sequence[bytes],
    *,
    anchors: Iterable[Anchor] = (),
    since: str | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Read files of records and judge them.

    Args:
        paths: in any order, rotated ones as well; what a process writes meanwhile is not read.
        keys: at least one; each chain was written with one of them.
        anchors: how far chains have to reach at least.
        since: a time as records have it; what is older may be missing.
        on_progress: hears how many bytes more have been read.

    Raises:
        OSError: a file cannot be read.
    """
    files = in_order(paths)
    is_live = {path: is_written_to(path) for path in files}
    blocks = [block for path in files for block in blocks_of(path)]
    scans: dict[Path, list[Scan]] = {path: [] for path in files}
    for block, found in zip(blocks, _scanned(blocks, keys), strict=True):
        scans[block.path].append(found)
        on_progress(block.end - block.begin)
    sizes = {path: sum(block.end - block.begin for block in blocks if block.path == path) for path in files}
    return judge(
        [
            Scanned(
                name=str(path),
                items=joined(scans[path]),
                bytes=sizes[path],
                is_live=is_live[path],
                more_foul=sum(part.more_foul for part in scans[path]),
            )
            for path in files
        ],
        anchors=newest(anchors),
        since=since,
    )


def as_text(verdict: Verdict) -> str:
    """For people: each problem with its place, the earliest first, then what there is."""
    lines = [
        ":".join([*(str(part) for part in (one.file, one.line) if part is not None), f" {one.kind}: {one.text}"])
        for one in verdict.problems[:SHOWN]
    ]
    if len(verdict.problems) > SHOWN:
        lines.append(f"and {len(verdict.problems) - SHOWN} more problems")
    lines += [f"note: {note}" for note in verdict.notes]
    lines += [
        f"note: chain {chain.chain} is open, and its process is running"
        for chain in verdict.chains
        if chain.state == "open"
    ]
    lines.append(
        f"{_count(len(verdict.problems), 'problem')}: {_count(verdict.records, 'record')}, "
        f"{_count(len(verdict.chains), 'chain')}, {_count(verdict.files, 'file')}, {verdict.bytes / 1e6:,.1f} MB"
    )
    return "\n".join(line.strip() for line in lines) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}" if number < 2 and number != 1 else f"{number:,} {what}{'s' * (number > 1)}"


def as_json(verdict: Verdict) -> bytes:
    """For machines: everything that is known."""
    return orjson.dumps(asdict(verdict), option=orjson.OPT_INDENT_2)


def _scanned(blocks: Sequence[Block], keys: Sequence[bytes]) -> Iterator[Scan]:
    """The scans of the blocks, in their order."""
    work = partial(scan, keys=keys)
    if sum(block.end - block.begin for block in blocks) < PARALLEL_BYTES:
        yield from map(work, blocks)
        return
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(work, blocks)
