"""When anchors are put, and what becomes of one that cannot be."""

import asyncio

import pytest

from switchboard.app.evidence import _telling
from switchboard.audit import anchors
from switchboard.audit.anchors import Anchor, Anchoring, AnchorsAway, FileAnchors, read_anchors
from switchboard.audit.chain import Chain, Link
from switchboard.metrics import Metrics
from tests.support.chains import KEY
from tests.support.faults import until

pytestmark = pytest.mark.anyio


class Kept:
    """Anchors in memory; away, or slow, on demand."""

    def __init__(self) -> None:
        self.kept: list[Anchor] = []
        self.away = False
        self.seconds = 0.0

    async def put(self, anchor: Anchor) -> None:
        await asyncio.sleep(self.seconds)
        if self.away:
            raise AnchorsAway("Redis: ConnectionError")
        self.kept.append(anchor)


class Moving:
    """A chain that grows."""

    def __init__(self) -> None:
        self.link = Link()

    def grow(self, count: int = 1) -> None:
        self.link = Link(self.link.seq + count, b"%064d" % (self.link.seq + count))


@pytest.fixture
def place():
    return Kept()


@pytest.fixture
def moving():
    return Moving()


@pytest.fixture
def outcomes():
    return []


@pytest.fixture
def anchoring(place, moving, outcomes):
    return Anchoring(place, Chain(KEY), lambda: moving.link, host="h", on_outcome=outcomes.append, seconds=0.01)


async def test_an_anchor_is_put_when_there_is_something_new(anchoring, place, moving, outcomes):
    running = asyncio.create_task(anchoring.run())
    await asyncio.sleep(0.05)
    assert place.kept == []
    for count in (1, 5, 1):
        moving.grow(count)
        await until(lambda: bool(place.kept) and place.kept[-1].seq == moving.link.seq)
    running.cancel()
    assert [one.seq for one in place.kept] == [1, 6, 7]
    assert outcomes == [None] * 3
    assert place.kept[-1].hash == f"{7:064}"
    assert Anchor.from_json(place.kept[-1].as_json()) == place.kept[-1]


async def test_what_could_not_be_put_is_tried_again(anchoring, place, moving, outcomes, monkeypatch):
    place.away = True
    moving.grow()
    await anchoring.put()
    await anchoring.put()
    place.away = False
    moving.grow()
    await anchoring.put()
    await anchoring.put()
    monkeypatch.setattr(anchors, "PUT_SECONDS", 0.01)
    place.seconds = 1
    moving.grow()
    await anchoring.put()
    assert outcomes == ["Redis: ConnectionError", "Redis: ConnectionError", None, "it takes too long"]
    assert [one.seq for one in place.kept] == [2]


async def test_a_file_of_anchors_may_be_moved_away_at_any_time(tmp_path, moving, outcomes):
    file = tmp_path / "anchors"
    anchoring = Anchoring(FileAnchors(file), Chain(KEY), lambda: moving.link, host="h", on_outcome=outcomes.append)
    moving.grow()
    await anchoring.put()
    moved = file.rename(tmp_path / "moved")
    moving.grow()
    await anchoring.put()
    assert [one.seq for one in read_anchors(moved) + read_anchors(file)] == [1, 2]
    file.unlink()
    file.mkdir()
    moving.grow()
    await anchoring.put()
    assert outcomes == [None, None, f"{file}: Is a directory"]


async def test_failures_are_counted_each_and_logged_once(caplog):
    metrics = Metrics()
    tell = _telling(metrics)
    for failure in (None, "away", "away", None, None):
        tell(failure)
    text = (await metrics.render(""))[0].decode()
    assert 'switchboard_audit_anchors_total{outcome="ok"} 3.0' in text
    assert 'switchboard_audit_anchors_total{outcome="failed"} 2.0' in text
    said = [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]
    assert said == ["the audit's chain cannot be anchored", "the audit's chain is anchored again"]
