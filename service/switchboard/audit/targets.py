"""Where the bytes of records go: a file that rotates, or a stream such as standard output. Blocking, for a thread."""

import fcntl
import os
import select
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from errno import ENOSPC, EPIPE, ETIMEDOUT, EWOULDBLOCK
from pathlib import Path
from typing import Protocol

READER_SECONDS = 1.0  # a reader that takes nothing for so long is away
SPARE_BYTES = 1024 * 1024  # room for the records of all requests that may be under way when the disk fills up
TAIL_BYTES = 64 * 1024  # read at a time, from the end, to find out whether a line was torn
FILE_MODE = 0o640


class Target(Protocol):
    """A place for bytes. Every step raises OSError if it fails."""

    def open(self) -> int:
        """Begin; gives the length of a line that a crash has left unfinished there, 0 if there is none."""

    def turn(self, length: int) -> None:
        """Go on elsewhere if `length` more bytes would be too many here. A failure is told, and is none."""

    def reopen(self) -> bool:
        """Go on under the same name if what is there now is another file; gives whether it is one.

        A failure is told, and is none.
        """

    def write(self, data: memoryview) -> int:
        """Write some of it, or all; gives how many bytes were taken."""

    def sync(self) -> None:
        """Wait until what was written is on disk."""

    def check(self, *, now: bool = False) -> None:
        """Raise if the next write can be expected to fail, or, if it is for now, to wait."""

    def close(self) -> None:
        """End."""


class StreamTarget:
    """An open descriptor that belongs to somebody else: standard output, as containers want it.

    A pipe that nobody reads is waited for with `poll`: the descriptor is not made non-blocking, because other processes
    may share it. Whole lines are written up to the size that a pipe takes in one piece.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()

    def open(self) -> int:
        """See `Target.open`."""
        self._poll.register(self._descriptor, select.POLLOUT)
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        if not self._is_file:
            return 0
        # The descriptor itself may be for writing only.
        readable = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _unfinished(readable)
        finally:
            os.close(readable)

    def turn(self, length: int) -> None:
        """Whoever reads the stream keeps it."""

    def reopen(self) -> bool:
        """Whoever reads the stream keeps it."""
        return False

    def write(self, data: memoryview) -> int:
        """See `Target.write`; waits for the reader."""
        if not self._poll.poll(READER_SECONDS * 1000):
            raise _unread()
        if self._is_file or len(data) <= select.PIPE_BUF:
            return os.write(self._descriptor, data)
        whole_lines = bytes(data[: select.PIPE_BUF]).rfind(b"\n") + 1
        return os.write(self._descriptor, data[: whole_lines or select.PIPE_BUF])

    def sync(self) -> None:
        """See `Target.sync`."""
        os.fsync(self._descriptor)

    def check(self, *, now: bool = False) -> None:
        """See `Target.check`: a reader that has gone away does not come back."""
        polled = self._poll.poll(0)
        if now and not polled:
            raise _unread()
        for _, events in polled:
            if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                raise BrokenPipeError(EPIPE, "its reader is gone")

    def close(self) -> None:
        """The descriptor stays open."""


class FileTarget:
    """A file of one process, which grows to `rotate_bytes` and then goes on in a new one.

    Args:
        path: the file; what is rotated lies beside it, with the moment after its name.
        rotate_bytes: how large it may grow; 0 for no bound.
        on_problem: hears, in that thread, why a new file could not be begun; records go on into the old one then.
        durable: whether a new file's name has to be on disk as well.
    """

    def __init__(self, path: Path, *, rotate_bytes: int, on_problem: Callable[[str], None], durable: bool) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._on_problem = on_problem
        self._durable = durable

    def open(self) -> int:
        """See `Target.open`. The file is locked while the process lives: each process needs a file of its own."""
        self._descriptor = self._opened()
        return _unfinished(self._descriptor)

    def turn(self, length: int) -> None:
        """See `Target.turn`."""
        size = os.fstat(self._descriptor).st_size
        if not self._rotate_bytes or not size or size + length <= self._rotate_bytes:
            return
        moved = self._path.with_name(f"{self._path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        try:
            self._turn_to_new(moved)
        except OSError as error:
            self._on_problem(f"{self._path} cannot be rotated: {error.strerror}")
            # Not again with each record.
            self._rotate_bytes = size + length + self._rotate_bytes

    def reopen(self) -> bool:
        """See `Target.reopen`."""
        try:
            if self._is_current():
                return False
            self._replace(self._opened())
        except OSError as error:
            self._on_problem(f"{self._path} cannot be opened anew: {error.strerror}")
            return False
        return True

    def write(self, data: memoryview) -> int:
        """See `Target.write`."""
        return os.write(self._descriptor, data)

    def sync(self) -> None:
        """See `Target.sync`."""
        os.fsync(self._descriptor)

    def check(self, *, now: bool = False) -> None:  # noqa: ARG002 - a file never waits for a reader
        """See `Target.check`; a file that was deleted is begun anew, one that was moved is kept."""
        if os.fstat(self._descriptor).st_nlink == 0:
            self._replace(self._opened())
        left = os.fstatvfs(self._descriptor)
        if left.f_blocks and left.f_bavail * left.f_frsize < SPARE_BYTES:
            raise OSError(ENOSPC, f"less than {SPARE_BYTES // 1024} KiB are left on the device")

    def close(self) -> None:
        """See `Target.close`."""
        os.close(self._descriptor)

    def _turn_to_new(self, moved: Path) -> None:
        is_current = self._is_current()
        if is_current:
            self._path.rename(moved)
        try:
            opened = self._opened()
        except OSError:
            if is_current:
                moved.rename(self._path)
            raise
        self._replace(opened)

    def _opened(self) -> int:
        # Readable, to see how it ended. Without waiting, because a pipe may stand in the place of a file.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, FILE_MODE)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                _lock(descriptor)
            if self._durable:
                _sync_folder(self._path.parent)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _replace(self, descriptor: int) -> None:
        old, self._descriptor = self._descriptor, descriptor
        os.close(old)

    def _is_current(self) -> bool:
        """Whether the name still leads to the file that is open."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def is_written_to(path: Path) -> bool:
    """Whether a process holds the file as its own, to write records to it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _unread() -> TimeoutError:
    return TimeoutError(ETIMEDOUT, "nobody reads it")


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks; they can do without, two writers cannot.
        if error.errno == EWOULDBLOCK:
            raise OSError(EWOULDBLOCK, "another process writes to it; give each its own file") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unfinished(descriptor: int) -> int:
    """The bytes after the last line end of a file."""
    end = os.fstat(descriptor).st_size
    begin = end
    while begin > 0:
        length = min(TAIL_BYTES, begin)
        begin -= length
        line_end = os.pread(descriptor, length, begin).rfind(b"\n")
        if line_end >= 0:
            return end - (begin + line_end + 1)
    return end
