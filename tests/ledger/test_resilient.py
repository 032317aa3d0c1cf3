"""The breaker, with a shared ledger that is away when its script says so."""

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from switchboard.calls import Call
from switchboard.errors import Degraded, GrantUsed
from switchboard.ledger import LedgerAway, Reservation, resilient
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.patience import patience
from switchboard.ledger.resilient import LANES, PROBE_TENANT, ResilientLedger
from switchboard.ratelimit import Quota
from tests.support.faults import until

pytestmark = pytest.mark.anyio

USER = Quota("user", 6, 3600)
CALL = Call("rtc_1", "acme", "u" * 64, "support", "openai", "env:K", time.time(), time.time() + 3600, "g-1")


def asked(*quotas, user="u" * 64, tenant="acme", **changes) -> Reservation:
    return Reservation(tenant=tenant, user_key=user, quotas=quotas, grant_seconds=60, **changes)


class Scripted(MemoryLedger):
    """A shared ledger that is away on demand, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.took = 0.0
        self.steps = 0
        self.probes: list[str] = []
        self.at_once = self.most_at_once = 0

    async def probe(self, tenant: str) -> None:
        self.probes.append(tenant)
        if self.away:
            raise LedgerAway("StillAway")

    async def _step(self) -> None:
        self.steps += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.took)
        self.at_once -= 1
        if self.away:
            raise LedgerAway("Gone")

    async def reserve(self, reservation):
        await self._step()
        return await super().reserve(reservation)

    async def release(self, reservation):
        await self._step()
        await super().release(reservation)

    async def bind(self, call):
        await self._step()
        await super().bind(call)

    async def find(self, tenant, call_id):
        await self._step()
        return await super().find(tenant, call_id)

    # The memory's own `end` begins with `find`: one step as well.


class Setup:
    def __init__(self, mode: str) -> None:
        self.primary = Scripted()
        self.errors: list[str] = []
        self.switches: list[tuple[bool, str]] = []
        self.ledger = ResilientLedger(
            self.primary,
            MemoryLedger(replicas=2) if mode == "local" else None,
            on_error=self.errors.append,
            on_switch=lambda away, reason: self.switches.append((away, reason)),
        )

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.ledger.run())
        yield
        task.cancel()
        await asyncio.wait([task])

    async def until_back(self) -> None:
        await until(lambda: not self.ledger.degraded)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(resilient, "PROBE_SECONDS", 0.01)


@pytest.fixture
def local():
    return Setup("local")


@pytest.fixture
def deny():
    return Setup("deny")


async def test_all_is_well(local):
    await local.ledger.start()
    for remaining in range(5, -1, -1):
        assert (await local.ledger.reserve(asked(USER))).windows[0].remaining == remaining
    assert (await local.ledger.reserve(asked(USER))).exceeded
    assert (local.switches, local.errors, local.primary.probes) == ([], [], [PROBE_TENANT])


async def test_local_goes_on_with_this_replicas_share(local):
    local.primary.away = True
    standings = [await local.ledger.reserve(asked(USER)) for _ in range(5)]
    assert [bool(one.exceeded) for one in standings] == [False, False, False, True, True]
    assert standings[0].windows[0].quota == replace(USER, limit=3)


async def test_deny_refuses_with_a_time_to_come_back(deny):
    deny.primary.away = True
    for _ in range(2):
        with pytest.raises(Degraded) as refusal:
            await deny.ledger.reserve(asked(USER))
        assert refusal.value.retry_after == 1
    with pytest.raises(Degraded):
        await deny.ledger.bind(CALL)
    with pytest.raises(Degraded):
        await deny.ledger.find("acme", "rtc_1")


@pytest.mark.parametrize("mode", ["local", "deny"])
async def test_a_dead_ledger_is_asked_by_the_probe_alone(mode):
    setup = Setup(mode)
    setup.primary.away = True
    for _ in range(50):
        try:
            await setup.ledger.reserve(asked(USER))
        except Degraded:
            assert mode == "deny"
    assert setup.primary.steps == 1
    async with setup.running():
        await asyncio.sleep(0.1)
        assert 2 <= len(setup.primary.probes) <= 12
        assert set(setup.primary.probes) == {"acme"}, "it looks for what was missed"
        assert setup.errors == ["Gone", *["StillAway"] * len(setup.primary.probes)]
    assert setup.primary.steps == 1


@pytest.mark.parametrize("mode", ["local", "deny"])
async def test_each_switch_is_told_once(mode):
    setup = Setup(mode)
    async with setup.running():
        for _ in range(3):
            setup.primary.away, setup.primary.took = True, 0.005
            results = await asyncio.gather(
                *(setup.ledger.reserve(asked(USER, user=str(n))) for n in range(20)), return_exceptions=True
            )
            assert all(isinstance(one, Degraded) for one in results) is (mode == "deny")
            setup.primary.away, setup.primary.took = False, 0.0
            await setup.until_back()
            await setup.ledger.reserve(asked(USER, user="back"))
    assert setup.switches == [(True, "Gone"), (False, "")] * 3


async def test_the_way_back_is_found_and_counts_go_on_where_they_were(local):
    for _ in range(2):
        await local.ledger.reserve(asked(USER))
    async with local.running():
        local.primary.away = True
        for _ in range(4):
            await local.ledger.reserve(asked(USER))
        local.primary.away = False
        await local.until_back()
        assert (await local.ledger.reserve(asked(USER))).windows[0].remaining == 3
        # A second blip within the hour gives no second share.
        local.primary.away = True
        assert (await local.ledger.reserve(asked(USER))).exceeded


async def test_a_start_while_it_is_away(local):
    local.primary.away = True
    await local.ledger.start()
    assert local.switches == [(True, "StillAway")]
    await local.ledger.reserve(asked(USER))
    assert local.primary.steps == 0


async def test_a_grant_is_used_once_across_both_switches(local):
    async with local.running():
        await local.ledger.reserve(asked(grant_id="g-before"))
        local.primary.away = True
        await local.ledger.reserve(asked(grant_id="g-meanwhile"))
        for grant in ("g-before", "g-meanwhile"):
            with pytest.raises(GrantUsed):
                await local.ledger.reserve(asked(grant_id=grant))
        local.primary.away = False
        await local.until_back()
        for grant in ("g-before", "g-meanwhile"):
            with pytest.raises(GrantUsed):
                await local.ledger.reserve(asked(grant_id=grant))


async def test_a_released_grant_is_free_everywhere(local):
    async with local.running():
        await local.ledger.reserve(asked(grant_id="g-1"))
        await local.ledger.release(asked(grant_id="g-1"))
        await local.ledger.reserve(asked(grant_id="g-1"))
        await local.ledger.release(asked(grant_id="g-1"))
        local.primary.away = True
        await local.ledger.reserve(asked(grant_id="g-1"))
        await local.ledger.release(asked(grant_id="g-1"))
        await local.ledger.reserve(asked(grant_id="g-1"))


async def test_a_refused_request_keeps_its_grant(local):
    for _ in range(6):
        await local.ledger.reserve(asked(USER))
    assert (await local.ledger.reserve(asked(USER, grant_id="g-1"))).exceeded
    assert not (await local.ledger.reserve(asked(grant_id="g-1"))).exceeded


async def test_calls_are_found_in_either_ledger(local):
    meanwhile = replace(CALL, id="rtc_2")
    await local.ledger.bind(CALL)
    async with local.running():
        local.primary.away = True
        await local.ledger.bind(meanwhile)
        assert await local.ledger.find("acme", "rtc_2") == meanwhile
        # It may well be in the ledger that cannot be asked: that it does not exist would be a lie.
        for unknown in ("rtc_1", "rtc_3"):
            with pytest.raises(Degraded):
                await local.ledger.find("acme", unknown)
            with pytest.raises(Degraded):
                await local.ledger.end("acme", unknown, by="owner")
        local.primary.away = False
        await local.until_back()
        assert await local.ledger.find("acme", "rtc_1") == CALL
        assert await local.ledger.find("acme", "rtc_3") is None
        ended = await local.ledger.end("acme", "rtc_2", by="owner")
        assert (ended.call.id, ended.call.ended_by, ended.is_ours) == ("rtc_2", "owner", True)
        assert await local.ledger.end("acme", "rtc_3", by="owner") is None


async def test_those_who_wait_for_a_lane_do_not_ask_a_ledger_that_was_found_away(local):
    local.primary.away, local.primary.took = True, 0.03
    await asyncio.gather(*(local.ledger.reserve(asked(user=str(n))) for n in range(500)))
    assert local.primary.steps == local.primary.most_at_once == LANES
    assert local.switches == [(True, "Gone")]


async def test_a_crowd_waits_for_its_turn(local):
    local.primary.took = 0.001
    standings = await asyncio.gather(*(local.ledger.reserve(asked(USER)) for n in range(500)))
    assert sum(not one.exceeded for one in standings) == 6
    assert local.primary.most_at_once == LANES
    assert (local.primary.steps, local.switches) == (500, [])


@pytest.mark.timing
async def test_a_ledger_that_is_too_slow_for_the_crowd_is_away(local):
    local.primary.took = 0.08
    begin = time.monotonic()
    await asyncio.gather(*(local.ledger.reserve(asked(user=str(n))) for n in range(1000)))
    assert time.monotonic() - begin < 1  # one after the other in their lanes it would be 1.25 s
    assert local.switches == [(True, "TooSlow")]


async def test_patience_ends():
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        async with patience(0.05):
            await asyncio.sleep(5)
    assert 0.05 <= time.monotonic() - begin < 1


async def test_patience_does_not_count_what_this_process_computes():
    async def answer() -> str:
        await asyncio.sleep(0.001)  # it is here soon, but nobody looks
        return "here"

    async with patience(0.05):
        waiting = asyncio.create_task(answer())
        await asyncio.sleep(0)
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        assert await waiting == "here"


async def test_patience_has_an_end_on_the_wall_too():
    async def compute() -> None:
        while True:
            end = time.thread_time() + 0.005
            while time.thread_time() < end:
                pass
            await asyncio.sleep(0)

    computing = asyncio.create_task(compute())
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        async with patience(0.1, at_most=0.15):
            await asyncio.sleep(30)
    assert time.monotonic() - begin < 5
    computing.cancel()


async def test_patience_takes_an_answer_that_has_arrived():
    """The loop was away for longer than the time: what came meanwhile is read before the time is up."""
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    there.sendall(b"here\n")
    async with patience(0.02, at_most=0.02):
        time.sleep(0.05)  # noqa: ASYNC251 - the stall is what this is about
        assert await reader.readline() == b"here\n"
    writer.close()
    there.close()
