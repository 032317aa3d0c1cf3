"""The proof in small, so that it still runs when it is wanted. `make prove-calls` runs it in full."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.prove.calls import __main__ as proof
from tests.prove.calls import at_once, away, clocks, hangups, killed, sweeper
from tests.prove.calls.away import Case
from tests.prove.service import Result, say_on_stderr

pytestmark = pytest.mark.long

WAITING = {
    "kills": lambda: killed.prove_kills(say_on_stderr, kills=3),
    "clocks": lambda: clocks.prove_clocks(say_on_stderr, runs=[("+30s", "-30s")], alone=False),
    "Redis": lambda: away.prove_redis(say_on_stderr, cases=[Case("back empty", 7, 12, keeps_data=False)]),
    "hang-ups": lambda: hangups.prove_hang_ups(say_on_stderr, outages=[2]),
}


@pytest.fixture(scope="module")
def waiting():
    """These parts at the same time: each one mostly waits, for the shortest deadline that a policy may set."""
    with ThreadPoolExecutor(len(WAITING)) as pool:
        yield {name: pool.submit(part) for name, part in WAITING.items()}


def test_one_call_of_many_offers_at_once():
    assert at_once.prove_at_once(say_on_stderr, rounds=1).broken == []


def test_a_sweep_costs_what_is_due():
    result = sweeper.prove_sweeper(say_on_stderr, calls=1000)
    assert [line.split("|")[4] for line in result.lines[2:]] == [" 96 ", " 96 "]


@pytest.mark.parametrize("part", WAITING)
def test_calls_end_when_they_have_to(waiting, part):
    result = waiting[part].result()
    assert result.broken == []
    assert len(result.lines) >= 3


def test_the_page():
    titles = ["kill -9 of the opener", "Clocks that are off", "Redis restarted or lost"]
    titles += ["A provider that does not hang up", "Many offers at once", "The sweeper"]
    page = proof.page({title: Result([f"| {title} |"]) for title in titles})
    assert page.startswith("# Proof: calls\n")
    assert all(f"\n## {title}\n" in page and f"\n| {title} |\n" in page for title in titles)
