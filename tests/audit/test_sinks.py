"""Requests that record at the same time, and what they meet when the place of records is full, closed, or hangs."""

import asyncio
import errno
import json
import os
import threading
from contextlib import suppress

import pytest

from switchboard.audit import sinks, targets
from switchboard.audit.appender import Appender
from switchboard.audit.chain import Chain
from switchboard.audit.sinks import QueuedSink
from switchboard.audit.targets import FileTarget, StreamTarget, Target
from tests.audit.test_appender import no_file_larger_than
from tests.support.chains import KEY, decision, found, verified
from tests.support.faults import STALL_MS, Stalls, until

pytestmark = pytest.mark.anyio


class Opening:
    """Opens sinks, and closes at the end of a test those that it has not closed; hears of their health."""

    def __init__(self) -> None:
        self.health: list[str | None] = []
        self._opened: list[QueuedSink] = []

    async def __call__(self, target: Target, *, chained: bool = True) -> QueuedSink:
        sink = QueuedSink(Appender(target, Chain(KEY) if chained else None, sync=False), on_health=self.health.append)
        await sink.open({})
        self._opened.append(sink)
        return sink

    async def end(self, sink: QueuedSink) -> None:
        self._opened.remove(sink)
        await sink.aclose()

    async def end_all(self) -> None:
        while self._opened:
            await self._opened.pop().aclose()


class Held:
    """A target in memory whose writes can be held up, as by a network file system, or fail."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None
        self.closed = False

    def open(self) -> int:
        return 0

    def turn(self, length: int) -> None: ...
    def reopen(self) -> bool:
        return False

    def sync(self) -> None: ...
    def check(self, *, now: bool = False) -> None: ...

    def write(self, data: memoryview) -> int:
        self.free.wait()
        if self.error:
            raise self.error
        self.pieces.append(bytes(data))
        return len(data)

    def close(self) -> None:
        self.closed = True

    @property
    def records(self):
        return [json.loads(line) for line in b"".join(self.pieces).splitlines()]


@pytest.fixture
def quick(monkeypatch):
    """Times as short as a test."""
    for name, seconds in {"STUCK": 0.2, "SLOW": 0.01, "LOOK": 0.02, "IDLE": 0.05, "CLOSE": 0.3}.items():
        monkeypatch.setattr(sinks, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(targets, "READER_SECONDS", 0.1)


@pytest.fixture
async def sink_on(quick):
    opening = Opening()
    yield opening
    await opening.end_all()


async def refused(sink, number=0) -> str:
    with pytest.raises(OSError, match=r".+") as error:
        await sink.write(decision(number))
    return str(error.value)


async def test_what_comes_together_is_written_together(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.free.clear()
    writing = []
    for first in (0, 30, 60):
        writing += [asyncio.create_task(sink.write(decision(number))) for number in range(first, first + 30)]
        await asyncio.sleep(0.02)
    assert not any(task.done() for task in writing)
    target.free.set()
    await asyncio.gather(*writing)
    assert len(target.pieces) == 3  # the opening record, those of the first turn, all that came meanwhile
    assert [one["seq"] for one in target.records] == list(range(1, 92))
    assert [int(one["id"], 16) for one in target.records[1:]] == list(range(90))
    assert sink.link.seq == 91


async def test_a_record_is_there_when_write_returns(sink_on, tmp_path):
    file = tmp_path / "a"
    sink = await sink_on(FileTarget(file, rotate_bytes=0, on_problem=print, durable=False))

    async def one(number):
        await sink.write(decision(number))
        assert b'"id":"%024x"' % number in file.read_bytes()

    await asyncio.gather(*(one(number) for number in range(200)))
    await sink_on.end(sink)
    assert found(verified(file)) == []


async def test_a_pipe_that_nobody_reads_stops_no_loop_and_heals(sink_on):
    reading, writing = os.pipe()
    sink = await sink_on(StreamTarget(writing))
    stalls = Stalls()
    sampling = asyncio.create_task(stalls.sample())
    written = 0
    while not sink_on.health:
        with suppress(TimeoutError):
            await sink.write(decision(written))
            written += 1
    with pytest.raises(OSError, match="nobody reads it"):
        await sink.ready()
    for number in range(3):
        assert "nobody reads it" in await refused(sink, 900 + number)
    assert len(sink_on.health) == 1
    assert written > 100
    read = os.read(reading, 1_000_000)
    await until(lambda: sink_on.health[-1] is None)
    await sink.ready()
    await sink.write(decision(1000))
    sampling.cancel()
    assert stalls.longest < STALL_MS
    await sink_on.end(sink)
    os.close(writing)
    while piece := os.read(reading, 1_000_000):
        read += piece
    os.close(reading)
    records = [json.loads(line) for line in read.splitlines()]
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))
    told = next(one for one in records if one["action"] == "audit.resume")
    assert told["failure"] == "[Errno 110] nobody reads it"
    assert told["refused"] == 5
    assert "void" not in told
    kept = [int(one["id"], 16) for one in records if one["action"] == "token.mint"]
    assert kept == [*range(written), 1000]


async def test_a_full_disk_refuses_and_heals(sink_on, tmp_path):
    file = tmp_path / "a"
    sink = await sink_on(FileTarget(file, rotate_bytes=0, on_problem=print, durable=False))
    await sink.write(decision(1))
    with no_file_larger_than(file.stat().st_size + 100):
        assert "File too large" in await refused(sink, 2)
        assert "File too large" in await refused(sink, 3)
        with pytest.raises(OSError, match="File too large"):
            await sink.ready()
        await asyncio.sleep(0.1)
        assert len(sink_on.health) == 1
    await until(lambda: sink_on.health[-1] is None)
    await sink.write(decision(4))
    await sink_on.end(sink)
    records = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [one["action"] for one in records] == [
        "audit.open", "token.mint", "token.mint", "audit.resume", "token.mint", "audit.close"
    ]  # fmt: skip
    # The second was there in part when the disk was full: it is completed, and void.
    assert (records[3]["refused"], records[3]["void"]) == (3, [3])
    assert records[3]["since"] <= records[3]["time"]
    assert found(verified(file)) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EDQUOT, errno.EPIPE, errno.ESTALE, errno.EFBIG])
async def test_whatever_keeps_it_from_writing_refuses_and_heals(sink_on, number):
    """A file system that turned read-only, say: the same for all that the kernel can say."""
    target = Held()
    sink = await sink_on(target)
    target.error = OSError(number, os.strerror(number))
    assert os.strerror(number) in await refused(sink)
    target.error = None
    await until(lambda: sink_on.health[-1] is None)
    await sink.write(decision(2))
    assert [one["action"] for one in target.records] == ["audit.open", "audit.resume", "token.mint"]


async def test_trouble_is_seen_before_somebody_needs_to_write(sink_on, tmp_path, monkeypatch):
    sink = await sink_on(FileTarget(tmp_path / "a", rotate_bytes=0, on_problem=print, durable=False))
    await sink.ready()
    with monkeypatch.context() as patch:
        patch.setattr(targets, "SPARE_BYTES", 2**60)
        await until(lambda: len(sink_on.health) == 1)
        with pytest.raises(OSError, match="are left on the device"):
            await sink.ready()
    await until(lambda: sink_on.health[-1] is None)
    await sink.ready()


async def test_a_place_that_is_full_from_the_begin(sink_on, tmp_path):
    file = tmp_path / "a"
    with no_file_larger_than(0):
        sink = await sink_on(FileTarget(file, rotate_bytes=0, on_problem=print, durable=False))
        with pytest.raises(OSError, match="File too large"):
            await sink.ready()
    await until(lambda: sink_on.health[-1] is None)
    await sink.write(decision(1))
    await sink_on.end(sink)
    assert found(verified(file)) == []


async def test_no_such_place(sink_on, tmp_path):
    with pytest.raises(FileNotFoundError):
        await sink_on(FileTarget(tmp_path / "no" / "a", rotate_bytes=0, on_problem=print, durable=False))


async def test_a_write_that_hangs_is_given_up_on_and_told_of(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.free.clear()
    first = asyncio.create_task(sink.write(decision(1)))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(sink.write(decision(2)))
    begin = asyncio.get_running_loop().time()
    answers = await asyncio.gather(first, second, return_exceptions=True)
    assert asyncio.get_running_loop().time() - begin < 1
    assert [str(one) for one in answers] == ["[Errno 110] a write takes too long"] * 2
    assert "a write takes too long" in await refused(sink, 3)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(OSError, match="a write takes too long"):
        await sink.ready()
    assert asyncio.get_running_loop().time() - begin < 0.05
    target.free.set()
    await until(lambda: sink_on.health[-1] is None)
    await sink.write(decision(4))
    assert [(one["action"], one["seq"]) for one in target.records] == [
        ("audit.open", 1), ("token.mint", 2), ("audit.resume", 3), ("token.mint", 4)
    ]  # fmt: skip
    # The first was written after all, the second never was.
    assert (target.records[2]["void"], target.records[2]["refused"]) == ([2], 4)


async def test_whoever_is_about_to_ask_a_provider_waits_for_a_slow_write(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.free.clear()
    writing = asyncio.create_task(sink.write(decision(1)))
    await asyncio.sleep(0.05)
    asking = asyncio.create_task(sink.ready())
    await asyncio.sleep(0.05)
    assert not asking.done()
    target.error = OSError(28, "No space left on device")
    target.free.set()
    for task in (writing, asking):
        with pytest.raises(OSError, match="No space left"):
            await task


async def test_a_caller_who_goes_away_stops_nobody(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.free.clear()
    gone = asyncio.create_task(sink.write(decision(1)))
    stays = asyncio.create_task(sink.write(decision(2)))
    await asyncio.sleep(0.01)
    gone.cancel()
    target.free.set()
    await stays
    assert [one["seq"] for one in target.records] == [1, 2, 3]
    assert sink_on.health == []


async def test_a_defect_hands_nothing_out(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.error = RuntimeError("a defect")
    assert "a defect" in await refused(sink)
    target.error = None
    await until(lambda: sink_on.health[-1] is None)
    await sink.write(decision(2))


async def test_the_end_writes_what_waits_and_refuses_who_comes_later(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.free.clear()
    writing = [asyncio.create_task(sink.write(decision(number))) for number in range(3)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(sink_on.end(sink))
    await asyncio.sleep(0.01)
    target.free.set()
    await asyncio.gather(*writing)
    target.free.clear()  # the closing record is held up
    await asyncio.sleep(0.01)
    assert "the audit is closed" in await refused(sink)
    target.free.set()
    await closing
    assert [one["action"] for one in target.records] == ["audit.open", *["token.mint"] * 3, "audit.close"]
    assert target.closed
    assert "the audit is closed" in await refused(sink)
    with pytest.raises(OSError, match="closed"):
        await sink.ready()


async def test_an_end_that_cannot_be_written_is_told(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.error = OSError(28, "No space left on device")
    await sink_on.end(sink)
    assert sink_on.health == ["[Errno 28] No space left on device"]


async def test_an_end_that_hangs_ends_all_the_same(sink_on):
    target = Held()
    sink = await sink_on(target)
    target.free.clear()
    await asyncio.wait_for(sink_on.end(sink), 2)
    assert sink_on.health == ["[Errno 110] it hangs"]
    target.free.set()


async def test_unchained_records_stay_as_they_are(sink_on):
    target = Held()
    sink = await sink_on(target, chained=False)
    await sink.write(decision(1))
    await sink_on.end(sink)
    assert target.pieces == [decision(1) + b"\n"]


async def test_reopening_between_two_records(sink_on, tmp_path):
    file, moved = tmp_path / "a", tmp_path / "a.1"
    sink = await sink_on(FileTarget(file, rotate_bytes=0, on_problem=print, durable=False))
    await sink.write(decision(1))
    file.rename(moved)
    sink.reopen()
    await sink.write(decision(2))
    await sink_on.end(sink)
    assert [len(one.read_bytes().splitlines()) for one in (moved, file)] == [2, 3]
    assert b'"action":"audit.reopen"' in file.read_bytes().splitlines()[0]
    assert found(verified(moved, file)) == []


async def test_a_new_file_tells_whose_it_is_before_there_is_a_decision(sink_on, tmp_path):
    """Else the chain's end would be in the old file, which nobody holds any more, and look like a crash."""
    file, moved = tmp_path / "a", tmp_path / "a.1"
    sink = await sink_on(FileTarget(file, rotate_bytes=0, on_problem=print, durable=False))
    await sink.write(decision(1))
    file.rename(moved)
    sink.reopen()
    await until(lambda: file.exists() and file.stat().st_size > 0)
    verdict = verified(moved, file)
    assert (found(verdict), verdict.chains[0].state) == ([], "open")
