"""The leash over two replicas that share a Redis, and while that is away, empty or back.

Both stand before the same emulator. Ticks and waits are the service's own.
"""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from switchboard import app, tenants
from switchboard.calls import Call
from switchboard.errors import ProviderError
from switchboard.leash import Retries
from switchboard.ledger import RECORD_SECONDS
from tests.support import world as worlds
from tests.support.redis import redis_server
from tests.support.world import OFFER, World, fresh_offer

pytestmark = [pytest.mark.anyio, pytest.mark.timing]

IN_TIME = 2.0  # seconds from when a call is due to its hang-up


def policy(**limits):
    """The example, with other limits for acme, none of which are about requests in time."""
    tree = worlds.example()
    tree["tenants"]["acme"]["limits"] = {"user": [], "tenant": [], **limits}
    del tree["tenants"]["acme"]["limits_by"]
    return tree


@dataclass
class Replica:
    """One process's worth of the service."""

    client: httpx.AsyncClient
    records: list[dict[str, Any]]

    def ends(self) -> list[dict[str, Any]]:
        return [one for one in self.records if one["action"] == "call.end"]


@asynccontextmanager
async def beside(world: World, tree, **settings):
    """Another replica, with the same emulator and the same login."""
    sink = worlds.ListSink()
    async with app.build(
        worlds.settings(**settings),
        worlds._config(tree, world.key_server, f"{world.emulator_url}/v1"),
        sink=sink,
        environ={"OPENAI_API_KEY": worlds.API_KEY, "LEGACY_JWT_SECRET": worlds.LEGACY_SECRET},
    ) as service:
        service.readiness.ready()
        async with worlds._client(service.public, worlds.PUBLIC_URL) as client:
            yield Replica(client, sink.records)


@asynccontextmanager
async def two(redis, tree=None, **settings):
    """A world, as one replica, and the other one."""
    tree = tree or policy()
    async with (
        worlds.world(tree, redis_url=redis.url, **settings) as world,
        beside(world, tree, redis_url=redis.url, **settings) as other,
    ):
        yield world, Replica(world.client, world.records), other


@pytest.fixture
def short(monkeypatch):
    """Lets calls be shorter than a policy may say."""

    def shorten(**fields):
        made = tenants.Limits
        monkeypatch.setattr("switchboard.config.compile.Limits", lambda *a, **k: made(*a, **{**k, **fields}))

    return shorten


@pytest.fixture
def own_redis(tmp_path):
    """A Redis that may be broken."""
    with redis_server(tmp_path) as server:
        yield server


async def opened(world, **how):
    answer = await world.relay(**how)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


async def offered(world, replica, token=None, number=7):
    headers = {"content-type": "application/sdp", **world.auth(token)}
    return await replica.client.post("/sdp", headers=headers, content=fresh_offer(number))


async def decided(world, replica, token=None):
    """An offer's answer; on a busy machine Redis may look slow, and is asked again a moment later."""

    async def answered():
        answer = await offered(world, replica, token)
        return None if answer.status_code == 503 else answer

    return await until(answered)


async def shown(world, replica, location):
    return (await replica.client.get(location, headers=world.auth())).json()


async def until(holds, seconds=10.0):
    """Wait for something that no event tells."""
    async with asyncio.timeout(seconds):
        while not (seen := await holds()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return seen


async def until_ended(world, replica, location):
    async def ended():
        call = await shown(world, replica, location)
        return call if call.get("state") == "ended" else None

    return await until(ended)


async def until_over_at_provider(world):
    async def over():
        return {one.state for one in world.emulator.calls} == {"ended"}

    await until(over)


async def until_calls(world, status, *replicas):
    """Until the register is away (503) or back (200) for all of them."""
    for replica in replicas:

        async def answered(replica=replica):
            return (await replica.client.get("/calls", headers=world.auth())).status_code == status

        await until(answered)


async def heartbeat(world, replica, location):
    answer = await replica.client.post(f"{location}/report", headers=world.auth(), json={"event": "alive"})
    assert answer.status_code == 204


async def test_any_replica_reads_lists_and_ends_a_call(redis):
    async with two(redis) as (world, one, other):
        location = await opened(world)
        call = await shown(world, other, location)
        assert (await other.client.get("/calls", headers=world.auth())).json() == {"calls": [call]}
        ended = (await other.client.delete(location, headers=world.auth())).json()
        assert ended == await shown(world, one, location)
        assert (ended["ended_by"], len(one.ends()), len(other.ends())) == ("owner", 0, 1)


async def test_a_call_of_a_replica_that_is_gone_ends_on_time(redis, short):
    short(call_seconds=2)
    tree = policy()
    async with worlds.world(tree, redis_url=redis.url) as world:
        async with beside(world, tree, redis_url=redis.url) as gone:
            answer = await decided(world, gone)
        location = answer.headers["location"]
        call = await until_ended(world, Replica(world.client, world.records), location)
        assert (call["ended_by"], gone.ends()) == ("deadline", [])
        assert 0 <= call["ended_at"] - call["deadline"] < IN_TIME
        assert [one["reason"] for one in Replica(world.client, world.records).ends()] == ["deadline"]


async def test_a_cap_holds_over_all_replicas(redis):
    tree = policy(open_calls={"user": 1}, when_user_full="refuse")
    async with two(redis, tree) as (world, one, other):
        await until_calls(world, 200, one, other)  # both have the issuer's keys
        asked = [offered(world, (one, other)[number % 2], number=number) for number in range(1, 31)]
        answers = Counter(answer.status_code for answer in await asyncio.gather(*asked))
        assert answers == {201: 1, 429: 29}
        assert len(world.emulator.calls) == 1


async def test_heartbeats_may_go_to_any_replica(redis, short):
    short(idle_seconds=1)
    async with two(redis) as (world, one, other):
        location = await opened(world)
        for replica in (one, other, other, other, other, other):
            await heartbeat(world, replica, location)
            await asyncio.sleep(0.4)
        assert (await shown(world, one, location))["state"] == "open"
        assert (await until_ended(world, one, location))["ended_by"] == "idle"


async def test_a_call_that_has_to_end_ends_once_for_all_replicas(redis, short):
    short(call_seconds=1)
    async with two(redis) as (world, one, other):
        for _ in range(20):
            await opened(world)
        await until_over_at_provider(world)
        await asyncio.sleep(1)
        assert Counter(record["call_id"] for record in (*one.ends(), *other.ends())).most_common(1)[0][1] == 1
        assert len(one.ends()) + len(other.ends()) == 20
        assert len([asked for asked in world.emulator.requests if asked.path.endswith("/hangup")]) == 20


@pytest.mark.parametrize("mode", ["local", "deny"])
async def test_without_redis_no_grant_and_no_limited_call_begins(own_redis, mode):
    tree = policy(call_seconds=900)
    async with two(own_redis, tree, on_redis_down=mode) as (world, one, other):
        grant = (await world.mint()).json()["value"]
        own_redis.freeze()
        await until_calls(world, 503, one, other)
        for token in (None, grant):
            refused = await offered(world, other, token)
            assert (refused.status_code, refused.json()["code"]) == (503, "degraded")
            assert refused.headers["retry-after"] == "1"
        assert not world.emulator.calls
        without_limits = await offered(world, other, world.widgets_token())
        assert without_limits.status_code == (201 if mode == "local" else 503)
        own_redis.thaw()
        await until_calls(world, 200, one, other)
        assert (await decided(world, other, grant)).status_code == 201


async def test_without_redis_limited_calls_begin_if_the_operator_says_so(own_redis):
    tree = policy(open_calls={"user": 2}, when_user_full="refuse", call_seconds=900)
    tree["tenants"]["acme"]["calls_without_register"] = "allow"
    async with two(own_redis, tree, expected_replicas=2) as (world, one, other):
        own_redis.freeze()
        await until_calls(world, 503, one, other)
        assert (await offered(world, one, number=1)).status_code == 201
        refused = await offered(world, one, number=2)  # its share of two is one
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_calls")
        second = await offered(world, other, number=3)
        assert second.status_code == 201
        elsewhere = await one.client.get(second.headers["location"], headers=world.auth())
        assert (elsewhere.status_code, elsewhere.json()["code"]) == (503, "degraded")
        own_redis.thaw()
        await until_calls(world, 200, one, other)

        async def listed():
            return len((await one.client.get("/calls", headers=world.auth())).json()["calls"]) == 2

        await until(listed)
        assert (await shown(world, one, second.headers["location"]))["state"] == "open"


@pytest.mark.parametrize("mode", ["local", "deny"])
async def test_without_redis_who_opened_a_call_ends_it_and_tells_afterwards(own_redis, short, mode):
    short(call_seconds=2)
    async with two(own_redis, on_redis_down=mode) as (world, one, other):
        by_time, by_hand = await opened(world), await opened(world)
        deadline = (await shown(world, other, by_time))["deadline"]
        own_redis.freeze()
        await until_calls(world, 503, one, other)
        assert (await shown(world, one, by_time))["state"] == "open"
        assert (await shown(world, other, by_time))["code"] == "degraded"
        assert (await one.client.delete(by_hand, headers=world.auth())).json()["ended_by"] == "owner"
        await until_over_at_provider(world)
        call = await until_ended(world, one, by_time)
        assert call["ended_by"] == "deadline"
        assert 0 <= call["ended_at"] - deadline < IN_TIME
        own_redis.thaw()
        await until_calls(world, 200, one, other)
        for location, by in ((by_time, "deadline"), (by_hand, "owner")):
            assert (await until_ended(world, other, location))["ended_by"] == by
        await asyncio.sleep(1)
        assert sorted(record["reason"] for record in one.ends()) == ["deadline", "owner"]
        assert other.ends() == []


async def test_a_redis_that_has_lost_its_data_is_told_of_the_calls(own_redis, short):
    short(call_seconds=5)
    tree = policy(open_calls={"user": 1}, when_user_full="refuse")
    async with two(own_redis, tree) as (world, one, other):
        location = await opened(world)
        call = await shown(world, other, location)
        own_redis.kill()
        own_redis.start()

        async def told():
            return await shown(world, other, location) == call

        await until(told)
        refused = await offered(world, other)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_calls")
        ended = await until_ended(world, other, location)
        assert ended["ended_by"] == "deadline"
        assert 0 <= ended["ended_at"] - call["deadline"] < IN_TIME
        await asyncio.sleep(1)
        assert len(one.ends()) + len(other.ends()) == 1


async def test_a_redis_that_restarts_with_its_data_goes_on(own_redis, short):
    short(call_seconds=6)  # after the way back was found, two seconds belong to those who have something to tell
    tree = policy()
    async with worlds.world(tree, redis_url=own_redis.url) as world:
        here = Replica(world.client, world.records)
        async with beside(world, tree, redis_url=own_redis.url) as gone:
            location = (await decided(world, gone)).headers["location"]
        own_redis.do("SAVE")
        own_redis.kill()
        await until_calls(world, 503, here)
        own_redis.start()
        await until_calls(world, 200, here)
        ended = await until_ended(world, here, location)
        assert ended["ended_by"] == "deadline"
        assert 0 <= ended["ended_at"] - ended["deadline"] < IN_TIME


@pytest.fixture(params=["memory", "redis"])
def running(request):
    """Makes a world with these limits for acme."""
    settings = {} if request.param == "memory" else {"redis_url": request.getfixturevalue("redis").url}

    @asynccontextmanager
    async def made(**limits):
        async with worlds.world(policy(**limits), **settings) as world:
            yield world, Replica(world.client, world.records)

    return made


async def test_a_blip_ends_no_call_whose_heartbeats_go_elsewhere(own_redis, short):
    """The replica that opened it has not heard them, and must not take it for idle when it is alone."""
    short(idle_seconds=2)
    async with two(own_redis) as (world, one, other):
        location = await opened(world)
        await heartbeat(world, one, location)
        for _ in range(6):
            await asyncio.sleep(0.5)
            await heartbeat(world, other, location)
        own_redis.freeze()
        await until_calls(world, 503, one)
        own_redis.thaw()
        for _ in range(6):
            await asyncio.sleep(0.5)
            await other.client.post(f"{location}/report", headers=world.auth(), json={"event": "alive"})
        assert (await shown(world, other, location))["state"] == "open"


async def test_a_call_is_on_record_once_though_it_is_hung_up_again_without_redis(own_redis):
    async with two(own_redis) as (world, one, other):
        location = await opened(world)

        async def hung_up():  # on a busy machine Redis may look slow, and is asked again a moment later
            return (await other.client.delete(location, headers=world.auth())).status_code == 200

        await until(hung_up)
        own_redis.freeze()
        await until_calls(world, 503, one)
        again = await one.client.delete(location, headers=world.auth())
        assert (again.status_code, again.json()["ended_by"]) == (200, "owner")
        own_redis.thaw()
        await until_calls(world, 200, one)
        await asyncio.sleep(RECORD_SECONDS + 1)
        reasons = sorted(end["reason"] for end in (*one.ends(), *other.ends()))
        assert [reason for reason in reasons if reason != "degraded"] == ["already_ended", "owner"]


async def test_a_used_grant_stays_used_when_redis_has_lost_its_data(own_redis):
    async with two(own_redis) as (world, one, _):
        grant = (await world.mint()).json()["value"]
        assert (await decided(world, one, grant)).status_code == 201
        own_redis.do("FLUSHALL")
        assert (await offered(world, one, grant, number=8)).json()["code"] == "grant_used"


async def test_shadow_mode_keeps_calls_on_their_leash(running, short):
    short(call_seconds=3, idle_seconds=1)
    async with running(mode="shadow", open_calls={"user": 1}) as (world, here):
        silent, beating = await opened(world), await opened(world)
        await heartbeat(world, here, beating)
        assert (await until_ended(world, here, beating))["ended_by"] == "idle"
        assert (await until_ended(world, here, silent))["ended_by"] == "deadline"


async def test_shadow_mode_refuses_nothing_without_redis(own_redis):
    async with worlds.world(policy(mode="shadow", open_calls={"user": 1}), redis_url=own_redis.url) as world:
        own_redis.kill()
        locations = [await opened(world) for _ in range(2)]
        here = Replica(world.client, world.records)
        assert [(await shown(world, here, one))["state"] for one in locations] == ["open", "open"]


async def test_shadow_mode_replaces_a_call_by_the_same_offer_and_by_no_other(running):
    async with running(mode="shadow", open_calls={"user": 1}) as (world, here):
        first = await opened(world, offer=OFFER)
        another = await opened(world, offer=fresh_offer(1))
        second = await opened(world, offer=OFFER)
        states = [(await shown(world, here, one))["ended_by"] for one in (first, another, second)]
        assert states == ["replaced", None, None]


async def test_an_offer_that_finds_no_room_costs_nothing(running):
    async with running(user=["6/hour"], open_calls={"user": 1}, when_user_full="refuse") as (world, here):
        first = await opened(world)
        grants = [(await world.mint()).json()["value"] for _ in range(2)]
        for token in (None, grants[0], None, None, None, None, grants[1]):
            refused = await decided(world, here, token)
            assert refused.json()["code"] == "too_many_calls"
        await here.client.delete(first, headers=world.auth())
        # Three of six are left, and both grants.
        for token in (*grants, None, None, None):
            location = (await decided(world, here, token)).headers["location"]
            await here.client.delete(location, headers=world.auth())
        assert (await decided(world, here)).json()["code"] == "rate_limited"


async def test_tries_wait_one_second_and_then_two(running):
    async with running() as (world, _):
        location = await opened(world)
        leash, ledger = world.broker._leash, world.broker._ledger
        call: Call = await ledger.find("acme", location.removeprefix("/sdp/"))
        waits = []

        async def put_off(call, *, by, seconds):
            waits.append(seconds)

        ledger.put_off, as_it_was = put_off, ledger.put_off
        await world.faults(status=500, operations=["hangup"])
        for attempts in range(8):
            with pytest.raises(ProviderError):
                await leash.hang_up(replace(call, attempts=attempts), "deadline", request_id="r-1")
        ledger.put_off = as_it_was
        assert waits == [1, 2, 2, 2, 2, 2, 2, 2]
        # However long the provider cannot be asked: after its own hour and a minute the call is over.
        old = replace(call, started_at=call.started_at - 3661)
        assert (await leash.hang_up(old, "deadline", request_id="r-1")).call.ended_at is not None


def test_the_wait_between_tries_grows_with_the_calls_that_fail():
    now = 0.0
    retries = Retries(clock=lambda: now)

    def failing(number, provider="openai"):
        return Call(f"rtc_{number}", "acme", "iss", "user", "support", provider, "env:K", 1000.0, 4600.0, attempts=9)

    def wait(number, provider="openai"):
        return retries.wait(failing(number, provider))

    assert {wait(number) for number in range(40)} == {2.0}
    assert wait(0) == 2.0, "the same once more"
    assert [wait(number) for number in range(40, 1000)][-1] == 30.0
    assert wait(1000, provider="azure") == 2.0
    for number in range(980):
        retries.succeeded(failing(number))
    assert wait(999) == 2.0
    wait_of_many = [wait(number) for number in range(200)][-1]
    now = 31.0
    assert (wait_of_many, wait(0)) == (11.0, 2.0), "those of long ago are others' by now"
