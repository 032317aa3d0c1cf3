"""Metrics of several processes as one: each keeps its values in files, of which the parent shows the sum.

This is prometheus-client's multiprocess mode. A file belongs to a place, not to a process: who takes the place of a
process that died goes on counting in its files, so no counter goes down and no file is left over.
"""

import asyncio
import fcntl
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from switchboard.metrics.exposition import Collected, Page, encoder_for

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
FILES = "*.db"
PREFIX = "switchboard-metrics-"
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it; no disk keeps the event loop waiting
NEW_SECONDS = 60.0  # a folder that is younger may be about to be held
TRIES = 5  # at reading files while one of them is being made


@contextmanager
def folder_for_values(given: str | None) -> Iterator[Path]:
    """An empty folder for the files.

    Args:
        given: a folder to use; it is made if need be, emptied of such files now, and kept. None makes one in memory, if
            there is a place for that, and removes it in the end.

    Raises:
        OSError: it cannot be used.
    """
    if given is not None:
        folder = Path(given)
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob(FILES):
            file.unlink()
        yield folder
        return
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _remove_left_behind(place)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place, ignore_cleanup_errors=True) as made, _held(Path(made)):
        yield Path(made)


def _remove_left_behind(place: Path) -> None:
    """Remove folders of parents that were killed: one that lives holds its own."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError), _held(folder):
            if time.time() - folder.stat().st_mtime > NEW_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder as ours.

    Raises:
        OSError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def keep_values_in(folder: Path, place: str) -> None:
    """Keep the values of metrics that are made from now on in files.

    Args:
        folder: where; the same for all processes.
        place: this process's own, without underscores: no other that lives has the same.
    """
    os.environ[VARIABLE] = str(folder)  # the library looks it up there
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]  # the library leaves it so


def forget_gauges(folder: Path, place: str) -> None:
    """The process in this place is dead: what its gauges say of it is true no more. Its counters stay."""
    mark_process_dead(place, str(folder))  # type: ignore[no-untyped-call]  # the library leaves it so


class SumPage:
    """The sum of all places, read in a thread: this process serves no callers, and big files take their time.

    Without exemplars, which the library does not keep in files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, accept: str) -> Page:
        """See `OwnPage`."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._read, accept)

    def _read(self, accept: str) -> Page:
        encode, content_type = encoder_for(accept)
        return encode(Collected(self._sums())), content_type

    def _sums(self, tries: int = TRIES) -> Sequence[Metric]:
        try:
            return tuple(MultiProcessCollector.merge(map(str, self._folder.glob(FILES))))  # type: ignore[no-untyped-call]  # the library leaves it so
        except (struct.error, FileNotFoundError):  # a process has just begun with a file
            if tries == 1:
                raise
        return self._sums(tries - 1)
