"""That the proof would tell; `make prove-fuzz` runs it, and tests/attacks/test_targets.py its targets in small."""

import pytest

from tests.attacks import targets
from tests.prove import fuzz
from tests.prove.service import Result

GOOD = {
    "inputs": 10,
    "taken": 3,
    "seconds": 1.0,
    "slowest_ms": 2.0,
    "longest_bytes": 60,
    "growth_kb": 100,
    "peak_mb": 80,
}


def proved(monkeypatch, code=0, finding=None, **told) -> Result:
    def drive(say, name, count, folder, seed):
        folder.mkdir()
        (folder / "corpus").mkdir()
        if finding is not None:
            (folder / "crash-1").write_bytes(finding)
        return {**GOOD, **told}, "what libFuzzer said", code

    monkeypatch.setattr(fuzz, "_drive", drive)
    return fuzz.prove_inputs(lambda text: None, runs={"jwt": 10})


def test_all_is_well(monkeypatch):
    result = proved(monkeypatch)
    assert result.broken == []
    assert result.lines[2].startswith("| jwt | 10 | 3 | 0 | 1 s | 2 ms | 60 | +0.1 MB | 80 MB |")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"code": 77, "finding": b"s{}"}, "ended with 77: [b's{}'] what libFuzzer said"),
        ({"finding": b"slow"}, "ended with 0"),
        ({"inputs": 9}, "9 inputs of 10"),
        ({"taken": 0}, "every input was refused"),
        ({"slowest_ms": 1500.0}, "one input took 1500 ms"),
        ({"growth_kb": 40_000}, "grew by 40000 KiB"),
    ],
)
def test_a_broken_bound_is_told(monkeypatch, wrong, told):
    (broken,) = proved(monkeypatch, **wrong).broken
    assert told in broken


def test_it_is_a_million_and_every_target():
    assert sum(fuzz.MILLION.values()) == 1_000_000
    assert fuzz.MILLION.keys() == fuzz.READS.keys() == targets.WORDS.keys() == targets.seeds().keys()
