"""Whatever goes wrong in the middle of a write, what is there is whole, in order, and known."""

import json
from contextlib import contextmanager
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit

import pytest

from switchboard.audit.appender import Appender
from switchboard.audit.chain import Chain
from switchboard.audit.targets import FileTarget
from tests.support.chains import KEY, chain_of, decision, found, verified, written


@contextmanager
def no_file_larger_than(size: int):
    """A disk that is full, for this process: a write that crosses the bound is cut off there, the next one fails."""
    setrlimit(RLIMIT_FSIZE, (size, RLIM_INFINITY))
    try:
        yield
    finally:
        setrlimit(RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))


def appender_on(path, *, sync=False, rotate_bytes=0, chained=True, **opening):
    target = FileTarget(path, rotate_bytes=rotate_bytes, on_problem=print, durable=False)
    made = Appender(target, Chain(KEY) if chained else None, sync=sync)
    opened = made.open(opening)
    return made, opened


def records_of(*paths):
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def test_from_begin_to_end(tmp_path):
    file = tmp_path / "a"
    appender, opened = appender_on(file, version="1.2.3")
    assert (opened.link.seq, opened.error) == (1, None)
    appended = appender.append([decision(1), decision(2)])
    assert (appended.first, appended.written, appended.link.seq) == (2, 2, 3)
    appender.append([decision(3)])
    closed = appender.close(None)
    assert closed.link.seq == 5
    assert [one["action"] for one in records_of(file)] == ["audit.open", *["token.mint"] * 3, "audit.close"]
    assert records_of(file)[0]["version"] == "1.2.3"
    assert found(verified(file)) == []


def test_unchained(tmp_path):
    file = tmp_path / "a"
    appender, _ = appender_on(file, chained=False)
    appender.append([decision(1)])
    appender.append([decision(2)])
    appender.close(None)
    assert file.read_bytes() == decision(1) + b"\n" + decision(2) + b"\n"


@pytest.mark.parametrize("sync", [False, True])
def test_a_disk_that_fills_up_at_any_byte(tmp_path, sync):
    """For each place where a write can be cut off: who is told that their record is written finds it; the line that was
    cut off is completed, and told of as void; the chain has no gap.
    """
    lengths = [len(line) for line in whole_lines(tmp_path / "whole")]
    for room in range(0, sum(lengths[1:4]) + 1, 7):
        file = tmp_path / f"{room}"
        appender, _ = appender_on(file, sync=sync, version="0")
        limit = file.stat().st_size + room
        with no_file_larger_than(limit):
            appended = appender.append([decision(1), decision(2), decision(3)])
            assert file.stat().st_size == min(limit, sum(lengths[:4]))
            again = appender.resume(lambda: {"refused": 1}) if appended.error else None
            assert again is None or again.error is not None
        if appended.error is None:
            assert room == sum(lengths[1:4])
            continue
        healed = appender.resume(dict)
        assert healed.error is None
        appender.append([decision(4)])
        appender.close(None)
        assert found(verified(file)) == []
        records = records_of(file)
        ids = [int(one["id"], 16) for one in records if one["action"] == "token.mint"]
        begun = len(ids) - 1
        assert ids == [*range(1, begun + 1), 4]
        assert appended.written == (0 if sync else sum(sum(lengths[1 : 2 + n]) <= room for n in range(3)))
        assert list(appended.void) == list(range(2 + appended.written, 2 + begun))


def whole_lines(path):
    appender, _ = appender_on(path, version="0")
    appender.append([decision(1), decision(2), decision(3)])
    return path.read_bytes().splitlines(keepends=True)


def test_a_torn_record_of_our_own_is_completed(tmp_path):
    file = tmp_path / "a"
    appender, _ = appender_on(file)
    with no_file_larger_than(file.stat().st_size + 10):
        assert appender.append([decision(1)]).error
    for more in (20, 30, 300, 150, 200):
        with no_file_larger_than(file.stat().st_size + more):
            assert appender.resume(lambda: {"refused": 1}).error
    assert appender.resume(lambda: {"refused": 1}).error is None
    appender.close(None)
    assert found(verified(file)) == []


def test_a_chain_that_cannot_even_be_opened(tmp_path):
    for room in (0, 10, 150):
        file = tmp_path / f"{room}"
        with no_file_larger_than(room):
            appender, opened = appender_on(file)
            assert opened.error
            assert appender.append([decision(1)]).written == 0
        assert appender.resume(lambda: {"refused": 1}).error is None
        assert appender.append([decision(2)]).written == 1
        appender.close(None)
        assert found(verified(file)) == []
        assert [one["action"] for one in records_of(file)][:2] == ["audit.open", "audit.resume"]


def test_the_end_of_a_time_of_trouble(tmp_path):
    file = tmp_path / "a"
    appender, _ = appender_on(file)
    with no_file_larger_than(file.stat().st_size):
        assert appender.append([decision(1)]).error
    appender.close({"refused": 7})
    assert [one["action"] for one in records_of(file)] == ["audit.open", "audit.resume", "audit.close"]
    assert records_of(file)[1]["refused"] == 7
    assert found(verified(file)) == []


def test_after_a_crash_the_next_process_ends_the_torn_line(tmp_path):
    file = written(tmp_path / "a", chain_of(3, closed=False)[:3], end=b"\n" + b'{"time":"2026-11')
    appender, _ = appender_on(file)
    appender.append([decision(1)])
    appender.close(None)
    verdict = verified(file)
    assert found(verdict) == [("unclosed", 3, 3)]
    assert [note.partition(": ")[2] for note in verdict.notes] == ["torn by a crash, as the record after it says"]
    lines = file.read_bytes().splitlines()
    assert json.loads(lines[4])["torn"] == len(lines[3]) == 16


def test_rotation_keeps_the_chain(tmp_path):
    file = tmp_path / "audit.jsonl"
    appender, _ = appender_on(file, rotate_bytes=2000)
    for number in range(50):
        appender.append([decision(number)])
    appender.close(None)
    files = [*sorted(tmp_path.glob("audit.jsonl.*")), file]
    assert len(files) > 10
    assert max(one.stat().st_size for one in files) <= 2000
    assert found(verified(*files)) == []
    assert [one["seq"] for one in records_of(*files)] == list(range(1, 53))


def test_a_line_is_finished_in_the_file_that_it_began_in(tmp_path):
    """Moved away in the middle of trouble: what is completed later belongs to the old file."""
    file, moved = tmp_path / "a", tmp_path / "a.1"
    appender, _ = appender_on(file, rotate_bytes=10_000)
    with no_file_larger_than(file.stat().st_size + 100):
        assert appender.append([decision(1)]).error
        file.rename(moved)
        appender.reopen()
        assert not file.exists()
    assert appender.resume(dict).error is None
    appender.append([decision(2)])
    appender.close(None)
    assert moved.read_bytes().endswith(b'"}\n')
    assert found(verified(moved, file)) == []
    assert file.stat().st_size > 0


def test_a_sync_that_fails_makes_the_whole_step_void(tmp_path, monkeypatch):
    file = tmp_path / "a"
    appender, _ = appender_on(file, sync=True)

    def fail(_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        appended = appender.append([decision(1), decision(2)])
    assert (appended.written, appended.void, str(appended.error)) == (0, (2, 3), "[Errno 5] Input/output error")
    assert appender.resume(lambda: {"void": appended.void}).error is None
    appender.close(None)
    assert found(verified(file)) == []


def test_what_is_found_after_the_write_does_not_unwrite_it(tmp_path, monkeypatch):
    file = tmp_path / "a"
    appender, _ = appender_on(file)
    monkeypatch.setattr("switchboard.audit.targets.SPARE_BYTES", 2**60)
    appended = appender.append([decision(1)])
    assert (appended.written, appended.void) == (1, ())
    assert "are left on the device" in str(appended.error)
    before = file.read_bytes()
    assert appender.resume(dict).error
    assert file.read_bytes() == before
