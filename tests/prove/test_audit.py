"""The proof in small, so that it still runs when it is wanted. `make prove-audit` runs it in full."""

import pytest

from tests.prove import audit
from tests.prove.service import Result

pytestmark = pytest.mark.long


@pytest.fixture
def say():
    return lambda text: None


def test_what_is_on_record_after_each_kill(say):
    result = audit.prove_kills(say, runs=3)
    assert result.broken == []
    assert [line.split("|")[2].strip() for line in result.lines[2:]] == ["1", "1", "1"]


def test_each_kind_of_tampering_is_named(say):
    assert audit.prove_tampering(say, attempts=20).broken == []


def test_the_table_of_speed(say):
    result = audit.prove_speed(say, size=5_000_000)
    assert result.broken == []
    assert len(result.lines) == 4


def test_a_full_disk(say):
    """Without a mount, which not every machine allows."""
    assert audit.prove_full_disk(say, tmpfs=False, seconds=0.5).broken == []


def test_metrics_and_records_agree(say):
    assert audit.prove_totals(say, requests=1000).broken == []


def test_the_table_of_costs(say, monkeypatch):
    """That it works; a second is too short to hold anything to a ratio."""
    monkeypatch.setattr(audit, "FILE_RATIO", 0.3)
    monkeypatch.setattr(audit, "FSYNC_RATIO", 0.1)
    result = audit.prove_throughput(say, rounds=3, seconds=0.2)
    assert result.broken == []
    assert len(result.lines) == 5


def test_the_page_names_no_place():
    parts = {name: Result(["x"]) for name in "abcdef"}
    page = audit._page(parts)
    assert page.startswith("# Proof: audit\n")
    assert "/" not in page.split("## kill -9")[0].replace("](../audit.md)", "")
