"""Calls on a leash: slots, deadlines, heartbeats, minutes, retries and grants, through the front door.

The emulator stands behind it; in memory here, and in Redis wherever that makes a difference.
"""

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from switchboard import leash, tenants
from tests.support import world as worlds
from tests.support.world import OFFER, ORIGIN

pytestmark = pytest.mark.anyio


def policy(**limits):
    """The example, with other limits for acme, none of which are about time."""
    tree = worlds.example()
    tree["tenants"]["acme"]["limits"] = {"user": [], "tenant": [], **limits}
    del tree["tenants"]["acme"]["limits_by"]
    return tree


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(leash, "TICK_SECONDS", 0.02)


@pytest.fixture(params=["memory", "redis"])
def running(request):
    """Makes a world with these limits for acme."""
    settings = {} if request.param == "memory" else {"redis_url": request.getfixturevalue("redis").url}
    if request.node.get_closest_marker("timing") is None:
        request.getfixturevalue("patient")

    @asynccontextmanager
    async def made(**limits):
        async with worlds.world(policy(**limits), **settings) as world:
            yield world

    return made


async def status(world, location, token=None):
    answer = await world.client.get(location, headers=world.auth(token))
    return answer.json()


async def until_ended(world, location, seconds=5.0, token=None):
    """The call as its owner sees it, as soon as it has ended and, if anything can be recorded, is on record."""
    async with asyncio.timeout(seconds):
        while (shown := await status(world, location, token))["state"] != "ended":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    call_id = shown["id"]
    async with asyncio.timeout(seconds):
        while not world.sink.failing and not any(one.get("call_id") == call_id for one in ends(world)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return shown


async def open_call(world, token=None, **how):
    """Its Location. On a busy machine Redis may look away for a moment, and callers are to try again."""
    for _ in range(20):
        answer = await world.relay(token, **how)
        if answer.status_code != 503:
            break
        await asyncio.sleep(0.1)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def ends(world):
    return [one for one in world.records if one["action"] == "call.end"]


def hangups(world):
    return [one.path for one in world.emulator.requests if one.path.endswith("/hangup")]


def now_open(world):
    return [one.id for one in world.emulator.calls if one.state == "open"]


@pytest.fixture
def short(monkeypatch):
    """Lets calls be shorter than a policy may say."""

    def shorten(**fields):
        made = tenants.Limits
        monkeypatch.setattr("switchboard.config.compile.Limits", lambda *a, **k: made(*a, **{**k, **fields}))

    return shorten


async def test_a_call_ends_at_its_deadline(running, short):
    short(call_seconds=0.6)
    async with running() as world:
        began = time.time()
        location = await open_call(world)
        shown = await until_ended(world, location)
        assert shown["ended_by"] == "deadline"
        assert 0.6 <= shown["ended_at"] - shown["started_at"] < 2.6
        assert time.time() - began < 2.6
        assert shown["deadline"] == pytest.approx(shown["started_at"] + 0.6, abs=0.002)
        assert now_open(world) == []
        assert len(hangups(world)) == 1
        await asyncio.sleep(0.2)
        (record,) = ends(world)
        opened = world.records[0]
        assert record == {
            "time": record["time"],
            "id": record["id"],
            "request_id": record["request_id"],
            "action": "call.end",
            "outcome": "allowed",
            "reason": "deadline",
            "tenant": "acme",
            "issuer": opened["issuer"],
            "user_key": opened["user_key"],
            "preset": "support",
            "provider": "openai",
            "call_id": opened["call_id"],
            "seconds": round(shown["ended_at"] - shown["started_at"], 3),
            "duration_ms": record["duration_ms"],
        }
        assert await world.metric("switchboard_calls_ended_total", tenant="acme", by="deadline") == 1
        assert await world.metric("switchboard_call_duration_seconds_count", tenant="acme") == 1


@pytest.mark.timing  # so many at once, in the time that Redis has for each
async def test_one_offer_of_200_at_once_opens_a_call(running):
    async with running(open_calls={"user": 1}, when_user_full="refuse", call_seconds=900) as world:
        answers = await asyncio.gather(*(world.relay() for _ in range(200)))
        assert Counter(one.status_code for one in answers) == {201: 1, 429: 199}
        refused = [one for one in answers if one.status_code == 429]
        assert {one.json()["code"] for one in refused} == {"too_many_calls"}
        assert all(0 < int(one.headers["retry-after"]) <= 900 for one in refused)
        assert {one.headers["x-should-retry"] for one in refused} == {"false"}
        assert len(now_open(world)) == len(world.emulator.calls) == 1
        # Once it has ended there is room again.
        location = next(one for one in answers if one.status_code == 201).headers["location"]
        later = await world.relay()
        assert later.status_code == 429
        assert int(later.headers["retry-after"]) > 890
        await world.client.delete(location, headers=world.auth())
        await open_call(world)


async def test_the_oldest_call_makes_room(running):
    async with running(open_calls={"user": 2}) as world:
        first, second, third = [await open_call(world) for _ in range(3)]
        shown = await status(world, first)
        assert (shown["state"], shown["ended_by"]) == ("ended", "replaced")
        assert [(await status(world, one))["state"] for one in (second, third)] == ["open", "open"]
        (record,) = ends(world)
        assert (record["reason"], record["call_id"]) == ("replaced", shown["id"])
        listed = await world.client.get("/calls", headers=world.auth())
        assert listed.json() == {"calls": [await status(world, second), await status(world, third)]}


@pytest.mark.timing
async def test_a_call_that_is_over_already_makes_room_as_well(running):
    """Nobody can tell this from a call that another one, at another replica, has hung up a moment ago."""
    async with running(open_calls={"user": 1}) as world:
        first = await open_call(world)
        world.emulator.end(first.removeprefix("/sdp/"))
        await open_call(world)
        assert (await status(world, first))["ended_by"] == "replaced"
        assert [one["reason"] for one in ends(world)] == ["replaced"]


async def test_many_replacements_at_once_never_leave_two(running):
    async with running(open_calls={"user": 1}) as world:
        await open_call(world)
        answers = await asyncio.gather(*(world.relay() for _ in range(30)))
        assert {one.status_code for one in answers} <= {201, 429}
        assert len(now_open(world)) == 1
        await asyncio.sleep(0.1)
        assert len(ends(world)) == len(world.emulator.calls) - 1


async def test_a_reservation_is_not_replaced(running):
    async with running(open_calls={"user": 1}) as world:
        await world.faults(delay_seconds=0.5, operations=["call"], times=1)
        opening = asyncio.create_task(world.relay())
        while not world.emulator.requests:  # noqa: ASYNC110 - the emulator has no event for it
            await asyncio.sleep(0.01)
        refused = await world.relay()
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_calls")
        assert (await opening).status_code == 201


@pytest.mark.parametrize("fault", [{"status": 500}, {"delay_seconds": 5}])
async def test_a_call_that_cannot_be_ended_makes_no_room(running, fault):
    async with running(open_calls={"user": 1}) as world:
        first = await open_call(world)
        await world.faults(**fault, operations=["hangup"])
        began = time.monotonic()
        answer = await world.relay()
        assert time.monotonic() - began < 2.5
        assert (answer.status_code, answer.json()["code"]) == (503, "degraded")
        assert int(answer.headers["retry-after"]) > 0
        assert len(world.emulator.calls) == 1
        # It is wanted gone: a sweeper goes on until the provider says that it is.
        await world.faults()
        assert (await until_ended(world, first))["ended_by"] == "replaced"
        await open_call(world)


async def test_tenants_have_a_cap_as_well(running):
    async with running(open_calls={"tenant": 2}) as world:
        for user in ("a", "b"):
            await open_call(world, world.token(sub=user))
        refused = await world.relay(world.token(sub="c"))
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_calls")
        assert "tenant" in refused.json()["detail"]


async def test_the_same_offer_replaces_its_call(running):
    async with running() as world:
        first = await open_call(world, offer=OFFER)
        second = await open_call(world, offer=OFFER)
        assert (await status(world, first))["ended_by"] == "replaced"
        assert (await status(world, second))["state"] == "open"
        # Somebody else's equal offer is none of its business.
        await open_call(world, world.token(sub="somebody-else"), offer=OFFER)
        assert len(now_open(world)) == 2


@pytest.mark.timing
async def test_the_same_offer_at_once_opens_one_call(running):
    async with running() as world:
        answers = await asyncio.gather(*(world.relay(offer=OFFER) for _ in range(20)))
        assert Counter(one.status_code for one in answers)[201] >= 1
        assert len(now_open(world)) == 1


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 400, "code": "invalid_offer"}, {"reset": True}, {"not_json": True}]
)
async def test_a_refused_offer_leaves_its_slot(running, fault):
    async with running(open_calls={"user": 1}, when_user_full="refuse", minutes={"user": "10/day"}) as world:
        await world.faults(**fault, operations=["call"], times=1)
        assert (await world.relay()).status_code >= 400
        location = await open_call(world)
        shown = await status(world, location)
        assert shown["deadline"] - shown["started_at"] == pytest.approx(600, abs=0.01)


async def test_a_hangup_that_fails_is_tried_until_the_provider_says_so(running, short, monkeypatch):
    short(call_seconds=0.3)
    monkeypatch.setattr(leash, "LONGEST_WAIT_SECONDS", 0.1)
    async with running() as world:
        location = await open_call(world)
        await world.faults(status=500, operations=["hangup"], times=3)
        shown = await until_ended(world, location)
        assert shown["ended_by"] == "deadline"
        assert len(hangups(world)) == 4
        assert [one["reason"] for one in ends(world)] == ["deadline"]


async def test_a_hangup_of_the_owner_that_fails_is_not_forgotten(running):
    async with running() as world:
        location = await open_call(world)
        await world.faults(status=500, operations=["hangup"], times=1)
        refused = await world.client.delete(location, headers=world.auth())
        assert (refused.status_code, refused.json()["code"]) == (502, "provider_unavailable")
        assert (await until_ended(world, location))["ended_by"] == "owner"
        assert [(one["outcome"], one["reason"]) for one in ends(world)] == [
            ("error", "provider_unavailable"),
            ("allowed", "owner"),
        ]


async def test_what_the_provider_ended_is_learned_at_the_deadline(running, short):
    short(call_seconds=0.3)
    async with running() as world:
        location = await open_call(world)
        world.emulator.end(location.removeprefix("/sdp/"))
        shown = await until_ended(world, location)
        assert shown["ended_by"] == "provider"
        assert [one["reason"] for one in ends(world)] == ["provider"]


async def heartbeat(world, location, token=None):
    answer = await world.client.post(f"{location}/report", headers=world.auth(token), json={"event": "alive"})
    assert answer.status_code == 204


async def test_heartbeats_that_stop_end_the_call(running, short):
    short(idle_seconds=1)
    async with running() as world:
        silent, beating = await open_call(world), await open_call(world)
        for _ in range(4):
            await heartbeat(world, beating)
            await asyncio.sleep(0.5)
        assert (await status(world, beating))["state"] == "open"
        shown = await until_ended(world, beating)
        assert shown["ended_by"] == "idle"
        assert 2.4 < shown["ended_at"] - shown["started_at"] < 5
        assert (await status(world, silent))["state"] == "open", "it never sent any"
        assert [one["reason"] for one in ends(world)] == ["idle"]


async def test_only_alive_is_a_heartbeat(running, short):
    short(idle_seconds=1)
    async with running() as world:
        location = await open_call(world)
        for event in ("connected", "ended"):
            await world.client.post(f"{location}/report", headers=world.auth(), json={"event": event})
        await asyncio.sleep(1.3)
        assert (await status(world, location))["state"] == "open"


async def deadline_of(world, location, token=None):
    shown = await status(world, location, token)
    return round(shown["deadline"] - shown["started_at"])


async def test_minutes_shorten_a_call_and_are_given_back(running):
    async with running(minutes={"user": "10/day"}, call_seconds=420) as world:
        first, second = await open_call(world), await open_call(world)
        assert [await deadline_of(world, one) for one in (first, second)] == [420, 180]
        refused = await world.relay()
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.json()["violated-policies"] == ["user-minutes-day"]
        assert "10 minutes of calls per day per user" in refused.json()["detail"]
        assert 86390 < int(refused.headers["retry-after"]) <= 86400
        assert len(world.emulator.calls) == 2
        await world.client.delete(first, headers=world.auth())
        # All of it but what was used, to the second.
        third = await open_call(world)
        assert 415 < await deadline_of(world, third) <= 420


async def test_minutes_of_a_tenant_are_shared_by_its_users(running):
    async with running(minutes={"user": "10/day", "tenant": "15/hour"}) as world:
        users = [world.token(sub=name) for name in ("a", "b", "c")]
        calls = [await open_call(world, token) for token in users[:2]]
        assert [await deadline_of(world, *pair) for pair in zip(calls, users, strict=False)] == [600, 300]
        refused = await world.relay(users[2])
        assert refused.json()["violated-policies"] == ["tenant-minutes-hour"]


async def test_shadow_mode_refuses_nothing_and_says_what_it_would(running):
    limits = {"mode": "shadow", "open_calls": {"user": 1}, "minutes": {"user": "1/day"}, "call_seconds": 60}
    async with running(**limits) as world:
        locations = [await open_call(world) for _ in range(3)]
        assert [await deadline_of(world, one) for one in locations] == [60, 60, 60]
        assert len(now_open(world)) == 3
        assert [one.get("shadow") for one in world.records] == [
            None,
            ["user-minutes-day", "user-open-calls"],
            ["user-minutes-day", "user-open-calls"],
        ]


async def test_grants_of_one_call_stay_good_for_it_and_no_longer(running, monkeypatch):
    async with running() as world:
        grant = (await world.mint()).json()["value"]
        location = await open_call(world, grant)
        for later in (0, 59, 61):
            monkeypatch.setattr("switchboard.broker.GRANT_KEPT", 60 - later)
            if later == 0:
                assert (await status(world, location, grant))["state"] == "open"
                await heartbeat(world, location, grant)
                await world.client.delete(location, headers=world.auth(grant))
            elif later == 59:
                assert (await status(world, location, grant))["ended_by"] == "owner"
            else:
                for method in ("GET", "DELETE"):
                    answer = await world.client.request(method, location, headers=world.auth(grant))
                    assert (answer.status_code, answer.json()["code"]) == (401, "grant_expired")
        # Whose call it was may still ask.
        assert (await status(world, location))["ended_by"] == "owner"
        answer = await world.client.get("/calls", headers=world.auth(grant))
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_a_grant_is_good_for_the_page_it_was_minted_for():
    tree = policy()
    tree["tenants"]["acme"]["origins"] = [ORIGIN, "https://other.acme.example"]
    async with worlds.world(tree) as world:
        answer = await world.client.get("/token", headers=world.auth(origin=ORIGIN))
        grant = answer.json()["value"]
        elsewhere: list[dict[str, str]] = [{}, {"origin": "https://other.acme.example"}]
        for headers in elsewhere:
            refused = await world.relay(grant, offer=None, **headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "origin_not_allowed")
        assert not world.emulator.requests
        opened = await world.relay(grant, origin=ORIGIN)
        assert opened.status_code == 201
        # Of its own origin a browser sends no Origin with a GET.
        for headers, code in (({}, 200), ({"origin": ORIGIN}, 200), ({"origin": "https://other.acme.example"}, 403)):
            read = await world.client.get(opened.headers["location"], headers=world.auth(grant, **headers))
            assert read.status_code == code
        # A grant of a backend is for whoever it hands it to.
        grant = (await world.mint()).json()["value"]
        assert (await world.relay(grant, origin=ORIGIN)).status_code == 201


@pytest.mark.timing
async def test_a_grant_opens_a_call_at_either_path_once(running):
    async with running() as world:
        grant = (await world.mint()).json()["value"]
        paths = ("/sdp", "/v1/realtime/calls", "/session") * 5
        answers = await asyncio.gather(*(world.relay(grant, path) for path in paths))
        opened = [one for one in answers if one.status_code == 201]
        assert len(opened) == 1
        assert {one.json()["code"] for one in answers if one not in opened} == {"grant_used"}
        assert len(world.emulator.calls) == 1


async def test_the_paths_of_the_providers_sdks(running):
    async with running() as world:
        location = await open_call(world, path="/v1/realtime/calls")
        assert location.startswith("/v1/realtime/calls/rtc_")
        for _ in range(2):
            answer = await world.client.post(f"{location}/hangup", headers=world.auth())
            assert (answer.status_code, answer.content) == (200, b"")
        shown = await status(world, location.replace("/v1/realtime/calls", "/sdp"))
        assert (shown["state"], shown["ended_by"]) == ("ended", "owner")
        stranger = world.auth(world.token(sub="somebody-else"))
        assert (await world.client.post(f"{location}/hangup", headers=stranger)).json()["code"] == "call_not_found"


async def test_open_calls_are_listed_for_their_owner(running):
    async with running() as world:
        assert (await world.client.get("/calls", headers=world.auth())).json() == {"calls": []}
        mine = [await open_call(world) for _ in range(2)]
        await open_call(world, world.token(sub="somebody-else"))
        await open_call(world, world.widgets_token())
        answer = await world.client.get("/calls", headers=world.auth())
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {"calls": [await status(world, one) for one in mine]}
        await world.client.delete(mine[0], headers=world.auth())
        answer = await world.client.get("/calls", headers=world.auth())
        assert answer.json() == {"calls": [await status(world, mine[1])]}


async def test_an_end_that_cannot_be_recorded_is_recorded_later(running, short, monkeypatch):
    short(call_seconds=0.3)
    for module in ("memory", "register", "redis"):
        for name in ("RECORD_SECONDS", "CLAIM_SECONDS"):
            monkeypatch.setattr(f"switchboard.ledger.{module}.{name}", 0.1, raising=False)
    async with running() as world:
        location = await open_call(world)
        world.sink.failing = True
        await until_ended(world, location)
        assert ends(world) == []
        world.sink.failing = False
        async with asyncio.timeout(5):
            while not ends(world):  # noqa: ASYNC110 - the record has no event
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert [one["reason"] for one in ends(world)] == ["deadline"]
        assert await world.metric("switchboard_calls_ended_total", tenant="acme") == 1


async def test_open_calls_are_shown(running, monkeypatch):
    monkeypatch.setattr("switchboard.app.OPEN_CALLS_SECONDS", 0.02)
    async with running() as world:
        await open_call(world)
        await open_call(world, world.token(sub="somebody-else"))
        async with asyncio.timeout(5):
            while await world.metric("switchboard_open_calls", tenant="acme") != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await world.metric("switchboard_open_calls", tenant="widgets") == 0
