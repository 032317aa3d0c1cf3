"""Real files and pipes: rotation, locks, readers that do not read, disks without room."""

import errno
import os
import re
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from switchboard.audit import targets
from switchboard.audit.targets import FileTarget, StreamTarget, is_written_to

ROTATED = re.compile(r"audit\.jsonl\.\d{8}T\d{6}\.\d{6}Z")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "audit.jsonl"


class Opening:
    """Opens targets on the same file; what they complain of is in `problems`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened: list[FileTarget] = []
        self.problems: list[str] = []

    def __call__(self, *, rotate_bytes: int = 0, durable: bool = False) -> FileTarget:
        target = FileTarget(self._file, rotate_bytes=rotate_bytes, on_problem=self.problems.append, durable=durable)
        target.open()
        self._opened.append(target)
        return target

    def close(self) -> None:
        for target in self._opened:
            target.close()


@pytest.fixture
def opened(file):
    opening = Opening(file)
    yield opening
    opening.close()


def put(target, text: bytes) -> None:
    target.turn(len(text))
    assert target.write(memoryview(text)) == len(text)


def test_a_file_is_for_the_owner_and_the_group(file, opened):
    put(opened(), b"one\n")
    assert stat.S_IMODE(file.stat().st_mode) & 0o027 == 0
    assert file.read_bytes() == b"one\n"


def test_what_is_there_stays(file, opened):
    file.write_bytes(b"old\n")
    put(opened(), b"new\n")
    assert file.read_bytes() == b"old\nnew\n"


@pytest.mark.parametrize(
    ("content", "unfinished"),
    [
        (b"", 0),
        (b"one\n", 0),
        (b"one\ntwo", 3),
        (b"torn", 4),
        (b"one\n" + b"x" * 200_000, 200_000),
        (b"x" * 65_536, 65_536),
        (b"one\n" + b"x" * 65_536, 65_536),
        (b"one\n" + b"x" * 65_532, 65_532),
    ],
)
def test_an_unfinished_line_is_found(file, content, unfinished):
    file.write_bytes(content)
    target = FileTarget(file, rotate_bytes=0, on_problem=print, durable=False)
    assert target.open() == unfinished
    target.close()
    with file.open("ab") as stream:
        assert StreamTarget(stream.fileno()).open() == unfinished


@pytest.mark.parametrize("durable", [False, True])
def test_rotation_by_size(file, opened, durable):
    target = opened(rotate_bytes=10, durable=durable)
    for text in (b"12345\n", b"789\n", b"a\n", b"much-longer-than-the-bound\n", b"b\n"):
        put(target, text)
    old = sorted(file.parent.glob("audit.jsonl.*"))
    assert all(ROTATED.fullmatch(one.name) for one in old)
    contents = [one.read_bytes() for one in old]
    assert contents == [b"12345\n789\n", b"a\n", b"much-longer-than-the-bound\n"]
    assert file.read_bytes() == b"b\n"


def test_without_a_bound_there_is_no_rotation(file, opened):
    target = opened()
    for _ in range(100):
        put(target, b"x" * 10_000)
    assert list(file.parent.iterdir()) == [file]


def test_a_rotation_that_fails_loses_nothing(file, opened, monkeypatch):
    target = opened(rotate_bytes=10)
    put(target, b"12345678\n")

    def cannot():
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(target, "_opened", cannot)
        put(target, b"more\n")
        put(target, b"and more\n")
    assert [problem.rpartition(": ")[2] for problem in opened.problems] == ["Too many open files"]
    assert file.read_bytes() == b"12345678\nmore\nand more\n"
    assert list(file.parent.iterdir()) == [file]
    put(target, b"much more, so that it is tried again\n")
    assert len(list(file.parent.iterdir())) == 2


def test_reopening_after_the_file_was_moved(file, opened):
    target = opened()
    put(target, b"one\n")
    moved = file.rename(file.with_suffix(".1"))
    put(target, b"two\n")
    assert target.reopen()
    put(target, b"three\n")
    assert not target.reopen()
    put(target, b"four\n")
    assert moved.read_bytes() == b"one\ntwo\n"
    assert file.read_bytes() == b"three\nfour\n"


def test_reopening_that_fails_loses_nothing(file, opened):
    target = opened()
    moved = file.rename(file.with_suffix(".1"))
    file.mkdir()
    assert not target.reopen()
    put(target, b"one\n")
    assert moved.read_bytes() == b"one\n"
    assert opened.problems == [f"{file} cannot be opened anew: Is a directory"]


def test_rotation_leaves_a_file_alone_that_somebody_else_put_there(file, opened):
    target = opened(rotate_bytes=10)
    put(target, b"12345678\n")
    file.rename(file.with_suffix(".1"))
    file.write_bytes(b"theirs\n")
    put(target, b"more\n")
    assert file.read_bytes() == b"theirs\nmore\n"


def test_one_file_has_one_writer(file, opened):
    opened()
    assert is_written_to(file)
    with pytest.raises(OSError, match="another process writes to it"):
        opened()


def test_the_lock_goes_with_the_process(file):
    script = (
        "import sys, time; from pathlib import Path; from switchboard.audit.targets import FileTarget;"
        "FileTarget(Path(sys.argv[1]), rotate_bytes=0, on_problem=print, durable=False).open();"
        "print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"open\n"
        assert is_written_to(file)
        process.kill()
        process.wait()
    assert not is_written_to(file)


def test_a_deleted_file_is_begun_anew(file, opened):
    target = opened()
    put(target, b"one\n")
    target.check()
    file.unlink()
    target.check()
    put(target, b"two\n")
    assert file.read_bytes() == b"two\n"


def test_a_disk_that_is_nearly_full_counts_as_full(opened, monkeypatch):
    target = opened()
    target.check()
    monkeypatch.setattr(targets, "SPARE_BYTES", 2**60)
    with pytest.raises(OSError, match="are left on the device") as refused:
        target.check()
    assert refused.value.errno == errno.ENOSPC


def test_places_that_are_no_files(tmp_path):
    for path, error in ((tmp_path / "no" / "folder", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error):
            FileTarget(path, rotate_bytes=0, on_problem=print, durable=True).open()
    null = FileTarget(Path("/dev/null"), rotate_bytes=10, on_problem=print, durable=False)
    assert null.open() == 0
    for _ in range(5):
        put(null, b"x" * 100)
    null.check()
    null.close()


def test_a_named_pipe_in_place_of_a_file(tmp_path):
    """Full, it says so at once; its reader finds whole lines."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    target = FileTarget(path, rotate_bytes=0, on_problem=print, durable=False)
    target.open()
    line = b"x" * 999 + b"\n"
    lines = 0
    with suppress(BlockingIOError):
        while True:
            target.write(memoryview(line))
            lines += 1
    with path.open("rb", buffering=0) as reader:
        assert reader.read(1_000_000) == line * lines
    put(target, line)
    target.close()


# Streams


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end is not None:
            os.close(end)


def test_a_reader_that_does_not_read(pipe, monkeypatch):
    monkeypatch.setattr(targets, "READER_SECONDS", 0.05)
    reading, writing = pipe
    target = StreamTarget(writing)
    assert target.open() == 0
    lines = memoryview(b"".join(b"%0999d\n" % number for number in range(1000)))
    done = 0
    begin = time.monotonic()
    with suppress(TimeoutError):
        while True:
            done += target.write(lines[done:])
    assert 0.05 <= time.monotonic() - begin < 1
    assert done % 1000 == 0  # no line is torn
    assert os.read(reading, 1_000_000) == lines[:done]
    assert target.write(lines[done : done + 1000]) == 1000
    assert os.get_blocking(writing)


def test_a_line_that_is_longer_than_a_pipe_takes_at_once(pipe):
    reading, writing = pipe
    target = StreamTarget(writing)
    target.open()
    line = memoryview(b"x" * 10_000 + b"\n")
    done = 0
    while done < len(line):
        done += target.write(line[done:])
    assert os.read(reading, 20_000) == line


def test_a_reader_that_is_gone(pipe):
    target = StreamTarget(pipe[1])
    target.open()
    target.check()
    os.close(pipe[0])
    pipe[0] = None
    with pytest.raises(BrokenPipeError):
        target.check()
    with pytest.raises(BrokenPipeError):
        target.write(memoryview(b"x\n"))


def test_a_stream_that_is_a_file_takes_everything_at_once(file):
    with file.open("ab", buffering=0) as stream:
        target = StreamTarget(stream.fileno())
        target.open()
        assert target.write(memoryview(b"x" * 100_000)) == 100_000
        target.sync()
        target.turn(10**9)
        target.reopen()
        target.close()
        stream.write(b"still open")
