"""What an answer's time tells: nothing about a token that is nearly right, or about a call of somebody else.

Samples of both kinds are taken in turn, so that a busy machine slows them alike, and their medians are compared. Each
measure is tried on something that does tell, too: it would notice.
"""

import asyncio
import contextlib
import statistics
import time

import pytest

from switchboard.errors import InvalidToken, Refusal
from switchboard.grants import Grants
from switchboard.identity import Principal
from switchboard.ledger.redis import RedisLedger
from switchboard.operators import AdminToken
from tests.attacks import targets
from tests.support import world as worlds

pytestmark = pytest.mark.timing

LONG = "a" * 100_000  # so that a comparison that stops early would save microseconds
TRIES = 3  # of what must not differ, on a machine that may have other things to do


def gap(one, other, *, samples: int) -> float:
    """How much longer the one takes: the difference of the medians, as a part of the smaller."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(samples):
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            (one, other)[which]()
            times[which].append(time.perf_counter() - began)
    medians = [statistics.median(kind) for kind in times]
    return abs(medians[0] - medians[1]) / min(medians)


def tells(one, other, *, bound: float, samples: int) -> bool:
    """Whether the two differ by more than so much of their time, again and again."""
    return all(gap(one, other, samples=samples) > bound for _ in range(TRIES))


def refused(check, *args):
    def ask() -> None:
        with contextlib.suppress(Refusal):
            check(*args)

    return ask


def test_the_operators_token():
    check = AdminToken.of(LONG).check
    assert not tells(refused(check, "b" + LONG[1:]), refused(check, LONG[:-1] + "b"), bound=0.1, samples=200)


def test_a_comparison_that_stops_early_would_be_noticed():
    def check(unverified: str) -> None:
        if unverified != LONG:
            raise InvalidToken

    assert tells(refused(check, "b" + LONG[1:]), refused(check, LONG[:-1] + "b"), bound=0.1, samples=200)


def test_the_signature_of_a_jwt():
    with asyncio.Runner() as runner:
        drive = targets.targets(runner.get_loop().run_until_complete)["jwt"]
        _, _, good = targets.signed(*targets.seeds()["jwt"][0][1:].split(b"\n")).rpartition(".")
        head = targets.signed(*targets.seeds()["jwt"][0][1:].split(b"\n")).removesuffix(good)
        early, late = (
            ("A" if good[0] != "A" else "B") + good[1:],
            good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1],
        )
        one, other = (b"r" + (head + wrong).encode() for wrong in (early, late))
        assert not drive(one)
        assert not drive(other)
        assert not tells(lambda: drive(one), lambda: drive(other), bound=0.1, samples=500)


def test_the_tag_of_a_grant():
    grants = Grants([targets.SECRET])
    principal = Principal(targets.ISSUER, "user-fuzz", "acme", {"name": "x" * 5000})
    token, _ = grants.issue(principal, preset="support", wanted={}, seconds=60)
    flipped = "A" if token[-12] != "A" else "B"
    early, late = token[:60] + ("A" if token[60] != "A" else "B") + token[61:], token[:-12] + flipped + token[-11:]
    assert not tells(refused(grants.open, early), refused(grants.open, late), bound=0.1, samples=500)


async def _calls(world, strangers: str, samples: int) -> float:
    """How much longer it takes to be refused somebody else's call than one that never was."""
    never = "rtc_u1_" + "x" * (len(strangers) - 7)
    headers = world.auth(world.token(sub="user-mallory-0b1d"))
    times: dict[str, list[float]] = {strangers: [], never: []}
    for number in range(samples):
        for call in sorted(times, reverse=bool(number % 2)):
            began = time.perf_counter()
            answer = await world.client.get(f"/sdp/{call}", headers=headers)
            times[call].append(time.perf_counter() - began)
            assert (answer.status_code, answer.json()["code"]) == (404, "call_not_found")
    medians = [statistics.median(kind) for kind in times.values()]
    return (medians[0] - medians[1]) / medians[1]


@pytest.mark.anyio
@pytest.mark.parametrize("state", ["memory", "redis"])
async def test_a_call_of_somebody_else(redis, state):
    changes = {"redis_url": redis.url} if state == "redis" else {}
    async with worlds.world(edge_limit="1000000/minute", **changes) as world:
        strangers = (await world.relay()).headers["location"].rpartition("/")[2]
        gaps = [abs(await _calls(world, strangers, 150)) for _ in range(TRIES)]
        assert min(gaps) < 0.15


@pytest.mark.anyio
async def test_a_call_that_takes_a_millisecond_more_would_be_noticed(redis, monkeypatch):
    find = RedisLedger.find

    async def slower(self, tenant, call_id):
        found = await find(self, tenant, call_id)
        if found is not None:
            await asyncio.sleep(0.001)
        return found

    monkeypatch.setattr(RedisLedger, "find", slower)
    async with worlds.world(edge_limit="1000000/minute", redis_url=redis.url) as world:
        strangers = (await world.relay()).headers["location"].rpartition("/")[2]
        assert min([await _calls(world, strangers, 50) for _ in range(TRIES)]) > 0.2
