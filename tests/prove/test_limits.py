"""The proof in small, so that it still runs when it is wanted. `make prove-limits` runs it in full."""

import pytest

from tests.prove import limits
from tests.prove.service import Result
from tests.support.faults import FAULTS

pytestmark = pytest.mark.long

TRIES = 3  # milliseconds, on a machine that may have other things to do


@pytest.fixture
def say():
    return lambda text: None


def test_two_replicas_let_exactly_the_quota_through(say):
    result = limits.prove_exactness(say, rounds=3)
    assert result.broken == []
    assert [line.count("| 3 |") for line in result.lines[2:]] == [1, 1]


def test_the_table_of_failures(say, monkeypatch):
    chosen = {name: FAULTS[name] for name in ("connections refused", "scripts evicted")}
    monkeypatch.setattr(limits, "FAULTS", chosen)
    for _ in range(TRIES):
        result = limits.prove_failures(say, modes=["local"], seconds=0.3)
        if not result.broken:
            break
    assert result.broken == []
    assert len(result.lines) == 2 + 3


def test_the_quiet_beside_the_loud(say, monkeypatch):
    """That it works, and that the flood is refused; a second is too short to hold a p99 to half as much again."""
    monkeypatch.setattr(limits, "RATIO", 10)
    result = limits.prove_fairness(say, rounds=1, seconds=1)
    assert result.broken == []
    for line in result.lines[3:]:
        through, refused = (int(cell) for cell in line.split("|")[-3:-1])
        assert refused > 3 * through


def test_a_broken_bound_is_told():
    result = Result()
    result.bound(True, "kept")
    result.bound(False, "broken")
    assert result.broken == ["broken"]
    page = limits._page({"a": result, "b": result, "c": result}, rounds=3)
    assert page.startswith("# Proof: limits\n")
    assert "/" not in page.split("## When Redis fails")[0].replace("](../limits.md)", "")
