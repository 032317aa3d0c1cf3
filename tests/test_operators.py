"""Operators at work: whole records, what a stop stops, and what is said when it cannot be."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from switchboard.operators import AdminToken
from tests.support import world as worlds
from tests.support.redis import redis_server
from tests.support.world import ADMIN_TOKEN

pytestmark = pytest.mark.anyio

BY_OPERATOR = {"client_ip": "127.0.0.1", "user_agent": "an operator"}


@pytest.fixture
async def world(anyio_backend):
    async with at_night() as made:
        yield made


@asynccontextmanager
async def at_night(policy=None, **changes):
    """A world whose operators have a token; by day they sleep."""
    async with worlds.world(policy, admin_token=ADMIN_TOKEN, **changes) as made:
        yield made


async def ask(world, method, path, token=ADMIN_TOKEN):
    headers = {"user-agent": "an operator"} | ({"authorization": f"Bearer {token}"} if token else {})
    return await world.ops.request(method, f"/admin/{path}", headers=headers)


async def opened(world, token=None):
    """The id of a new call."""
    answer = await world.relay(token)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"].removeprefix("/sdp/")


async def until(holds, seconds=5):
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - neither emulator nor sink has an event for it
            await asyncio.sleep(0.01)


def record_of(world, action):
    (record,) = [one for one in world.records if one["action"] == action]
    return record


def by_chance(record):
    """What differs each time."""
    return {name: record[name] for name in ("time", "id", "request_id", "duration_ms")}


async def test_a_listing_and_its_record(world):
    call_id = await opened(world)
    answer = await ask(world, "GET", "calls?tenant=acme")
    opening = record_of(world, "call.open")
    (call,) = answer.json()["calls"]
    assert answer.json() == {
        "now": pytest.approx(time.time(), abs=2),
        "calls": [
            {
                "id": call_id,
                "state": "open",
                "tenant": "acme",
                "issuer": "https://login.acme.example/",
                "user_key": opening["user_key"],
                "preset": "support",
                "provider": "openai",
                "key_name": "env:OPENAI_API_KEY",
                "started_at": pytest.approx(time.time(), abs=2),
                "deadline": pytest.approx(call["started_at"] + 900, abs=0.01),
                "idle_seconds": 60,
                "heard_at": None,
                "ending": None,
                "attempts": 0,
                "ended_at": None,
                "ended_by": None,
            }
        ],
        "open_calls": 1,
        "cut": False,
        "suspended": [],
    }
    record = record_of(world, "admin.calls")
    assert record == {
        **by_chance(record),
        **BY_OPERATOR,
        "request_id": answer.headers["x-request-id"],
        "action": "admin.calls",
        "outcome": "allowed",
        "reason": "ok",
        "tenant": "acme",
    }


async def test_a_listing_of_all_tenants(world):
    assert (await ask(world, "GET", "calls")).json()["calls"] == []
    ids = {await opened(world), await opened(world, world.widgets_token())}
    listing = (await ask(world, "GET", "calls")).json()
    assert {call["id"] for call in listing["calls"]} == ids
    assert listing["open_calls"] == 2
    assert "tenant" not in world.records[-1]


async def test_a_listing_says_what_it_leaves_out(world, monkeypatch):
    monkeypatch.setattr("switchboard.operators.LISTED", 2)
    monkeypatch.setattr("switchboard.ledger.register.LISTED", 2)
    for number in range(3):
        await opened(world, world.widgets_token(sub=f"user-many-{number}"))
        listing = (await ask(world, "GET", "calls?tenant=widgets")).json()
        assert (len(listing["calls"]), listing["open_calls"], listing["cut"]) == (
            min(number + 1, 2),
            number + 1,
            number == 2,
        )


async def test_a_hang_up_and_its_records(world):
    call_id = await opened(world)
    opening = record_of(world, "call.open")
    answer = await ask(world, "DELETE", f"calls/{call_id}")
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["id"], shown["state"], shown["ended_by"]) == (call_id, "ended", "admin")
    assert [call.state for call in world.emulator.calls] == ["ended"]
    about = {name: opening[name] for name in ("tenant", "issuer", "user_key", "preset", "provider", "call_id")}
    for action, result in (
        ("admin.hang_up", {"reason": "ok"}),
        ("call.end", {"reason": "admin", "seconds": round(shown["ended_at"] - shown["started_at"], 3)}),
    ):
        record = record_of(world, action)
        assert record == {
            **by_chance(record),
            **about,
            **BY_OPERATOR,
            **result,
            "request_id": answer.headers["x-request-id"],
            "action": action,
            "outcome": "allowed",
        }
    owners = await world.client.get(f"/sdp/{call_id}", headers=world.auth())
    assert (owners.json()["state"], owners.json()["ended_by"]) == ("ended", "admin")
    assert (await ask(world, "GET", "calls")).json()["calls"] == []


@pytest.mark.parametrize("query", ["", "?tenant=acme"])
async def test_a_call_that_is_over_stays_as_it_ended(world, query):
    call_id = await opened(world)
    await world.client.delete(f"/sdp/{call_id}", headers=world.auth())
    asked = len(world.emulator.requests)
    answer = await ask(world, "DELETE", f"calls/{call_id}{query}")
    assert (answer.status_code, answer.json()["ended_by"]) == (200, "owner")
    assert len(world.emulator.requests) == asked
    record = world.records[-1]
    assert (record["action"], record["outcome"], record["reason"]) == ("admin.hang_up", "allowed", "already_ended")
    assert (record["call_id"], record["tenant"]) == (call_id, "acme")
    assert len([one for one in world.records if one["action"] == "call.end"]) == 1


@pytest.mark.parametrize("path", ["rtc_never", "a%20b", "rtc_never?tenant=acme", "rtc_never?tenant=a:b", "x" * 200])
async def test_a_call_that_never_was(world, path):
    answer = await ask(world, "DELETE", f"calls/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "call_not_found")
    record = world.records[-1]
    assert record == {
        **by_chance(record),
        **BY_OPERATOR,
        "action": "admin.hang_up",
        "outcome": "denied",
        "reason": "call_not_found",
    }


async def test_two_operators_at_once(world):
    call_id = await opened(world)
    await world.faults(delay_seconds=0.2, operations=["hangup"])
    both = await asyncio.gather(*(ask(world, "DELETE", f"calls/{call_id}") for _ in range(2)))
    assert both[0].json() == both[1].json()
    reasons = [one["reason"] for one in world.records if one["action"] == "admin.hang_up"]
    assert sorted(reasons) == ["already_ended", "ok"]
    assert record_of(world, "call.end")["reason"] == both[0].json()["ended_by"]


async def test_a_call_that_is_over_at_the_provider(world):
    call_id = await opened(world)
    world.emulator.end(call_id)
    answer = await ask(world, "DELETE", f"calls/{call_id}")
    assert (answer.status_code, answer.json()["state"], answer.json()["ended_by"]) == (200, "ended", "provider")
    assert record_of(world, "call.end")["reason"] == "provider"


async def test_a_call_of_another_tenant_than_said(world):
    call_id = await opened(world)
    assert (await ask(world, "DELETE", f"calls/{call_id}?tenant=widgets")).json()["code"] == "call_not_found"
    assert [call.state for call in world.emulator.calls] == ["open"]


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        ({"status": 500}, 502, "provider_unavailable"),
        ({"status": 403}, 502, "provider_refused"),
        ({"status": 429, "retry_after": 7}, 503, "provider_busy"),
        ({"delay_seconds": 5}, 504, "provider_timeout"),
    ],
)
async def test_a_hang_up_that_is_not_confirmed_is_tried_again(world, faults, status, code):
    call_id = await opened(world)
    await world.faults(**faults, operations=["hangup"], times=1)
    answer = await ask(world, "DELETE", f"calls/{call_id}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"].startswith("The provider did not confirm that the call is over. The service goes on")
    record = record_of(world, "admin.hang_up")
    assert (record["outcome"], record["reason"], record["call_id"]) == ("error", code, call_id)
    await world.faults()
    await until(lambda: world.emulator.calls[0].state == "ended")
    await until(lambda: world.records[-1]["action"] == "call.end")
    assert world.records[-1]["reason"] == "admin"


async def test_what_is_being_tried_shows(world):
    call_id = await opened(world)
    await world.faults(status=500, operations=["hangup"])
    await ask(world, "DELETE", f"calls/{call_id}")
    (call,) = (await ask(world, "GET", "calls")).json()["calls"]
    assert (call["state"], call["ending"]) == ("open", "admin")
    await world.faults()


async def test_a_suspension_and_its_record(world):
    await opened(world)
    answer = await ask(world, "POST", "tenants/acme/suspend")
    assert (answer.status_code, answer.json()) == (
        200,
        {"tenant": "acme", "suspended": True, "suspended_by_policy": False, "open_calls": 1},
    )
    record = record_of(world, "admin.suspend")
    assert record == {
        **by_chance(record),
        **BY_OPERATOR,
        "request_id": answer.headers["x-request-id"],
        "action": "admin.suspend",
        "outcome": "allowed",
        "reason": "ok",
        "tenant": "acme",
    }
    # At once here, and nobody else.
    for refused in (await world.mint(), await world.relay()):
        assert (refused.status_code, refused.json()["code"]) == (403, "tenant_suspended")
    assert (await world.mint(world.widgets_token())).status_code == 200
    await until(lambda: world.emulator.calls[0].state == "ended", 2)
    await until(lambda: world.records[-1]["action"] == "call.end")
    assert world.records[-1]["reason"] == "suspended"
    assert (await ask(world, "GET", "calls")).json()["suspended"] == [{**answer.json(), "open_calls": 0}]


async def test_the_owner_of_a_suspended_tenants_call_can_still_look_and_hang_up(world):
    call_id = await opened(world)
    await world.faults(status=500, operations=["hangup"], times=1)
    await ask(world, "POST", "tenants/acme/suspend")
    assert (await world.client.get(f"/sdp/{call_id}", headers=world.auth())).status_code == 200
    await world.faults()
    assert (await world.client.delete(f"/sdp/{call_id}", headers=world.auth())).status_code == 200


async def test_twice_is_once(world):
    for _ in range(2):
        answer = await ask(world, "POST", "tenants/acme/suspend")
        assert (answer.status_code, answer.json()["suspended"]) == (200, True)
    for _ in range(2):
        answer = await ask(world, "POST", "tenants/acme/resume")
        assert (answer.status_code, answer.json()["suspended"]) == (200, False)
    assert (await world.mint()).status_code == 200


async def test_a_call_that_comes_about_meanwhile_is_hung_up(world):
    await world.faults(delay_seconds=0.4, operations=["call"], times=1)
    offering = asyncio.create_task(world.relay())
    await until(lambda: world.emulator.requests)
    answer = await ask(world, "POST", "tenants/acme/suspend")
    assert answer.json()["open_calls"] == 1, "a call that is being opened counts"
    refused = await offering
    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_suspended")
    assert [call.state for call in world.emulator.calls] == ["ended"]
    told = [(one["action"], one["outcome"], one["reason"]) for one in world.records[-2:]]
    assert told == [("call.open", "denied", "tenant_suspended"), ("call.end", "allowed", "suspended")]


async def test_resuming_and_its_record(world):
    await ask(world, "POST", "tenants/acme/suspend")
    answer = await ask(world, "POST", "tenants/acme/resume")
    assert (answer.status_code, answer.json()) == (
        200,
        {"tenant": "acme", "suspended": False, "suspended_by_policy": False, "open_calls": 0},
    )
    record = record_of(world, "admin.resume")
    assert record == {
        **by_chance(record),
        **BY_OPERATOR,
        "request_id": answer.headers["x-request-id"],
        "action": "admin.resume",
        "outcome": "allowed",
        "reason": "ok",
        "tenant": "acme",
    }
    assert (await world.relay()).status_code == 201
    assert (await ask(world, "GET", "calls")).json()["suspended"] == []


async def test_what_the_policy_suspends_is_not_resumed_at_run_time(anyio_backend):
    policy = worlds.example()
    policy["tenants"]["acme"]["suspended"] = True
    async with at_night(policy) as world:
        refused = await ask(world, "POST", "tenants/acme/resume")
        assert (refused.status_code, refused.json()["code"]) == (403, "tenant_suspended")
        assert "take `suspended: true` out of it" in refused.json()["detail"]
        record = record_of(world, "admin.resume")
        assert (record["outcome"], record["reason"], record["tenant"]) == ("denied", "tenant_suspended", "acme")
        state = {"tenant": "acme", "suspended": True, "suspended_by_policy": True, "open_calls": 0}
        assert (await ask(world, "POST", "tenants/acme/suspend")).json() == state
        assert (await ask(world, "GET", "calls")).json()["suspended"] == [state]


@pytest.mark.parametrize("name", ["acmee", "ACME", "%20", "acme%00", "a:b", "x" * 70])
@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "calls?tenant={}", "admin.calls"),
        ("POST", "tenants/{}/suspend", "admin.suspend"),
        ("POST", "tenants/{}/resume", "admin.resume"),
    ],
)
async def test_a_tenant_that_is_none(world, name, method, path, action):
    answer = await ask(world, method, path.format(name))
    assert (answer.status_code, answer.json()["code"], answer.json()["error"]["param"]) == (404, "not_found", "tenant")
    record = record_of(world, action)
    assert record == {**by_chance(record), **BY_OPERATOR, "action": action, "outcome": "denied", "reason": "not_found"}


@pytest.mark.parametrize("reason", ["missing_token", "invalid_token"])
@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "calls?tenant=acme", "admin.calls"),
        ("DELETE", "calls/rtc_x?tenant=acme", "admin.hang_up"),
        ("POST", "tenants/acme/suspend", "admin.suspend"),
        ("POST", "tenants/acme/resume", "admin.resume"),
    ],
)
async def test_guessing_shows_and_does_nothing(world, method, path, action, reason):
    answer = await ask(world, method, path, None if reason == "missing_token" else ADMIN_TOKEN[:-1] + "?")
    assert (answer.status_code, answer.json()["code"]) == (401, reason)
    (record,) = world.records
    assert record == {
        **by_chance(record),
        **BY_OPERATOR,
        "request_id": answer.headers["x-request-id"],
        "action": action,
        "outcome": "denied",
        "reason": reason,
    }
    assert await world.metric("switchboard_decisions_total", action=action, reason=reason, tenant="") == 1
    assert (await world.mint()).status_code == 200


async def test_a_users_token_is_no_operators(world):
    assert (await ask(world, "GET", "calls", world.token())).json()["code"] == "invalid_token"


async def test_the_token_is_known_by_its_hash():
    knows = AdminToken.of(ADMIN_TOKEN)
    knows.check(ADMIN_TOKEN)
    assert ADMIN_TOKEN not in repr(knows)
    assert knows.digest.hex() not in repr(knows)


async def test_an_ending_that_cannot_be_recorded_is_carried_out_all_the_same(world):
    call_id = await opened(world)
    world.sink.failing = True
    answer = await ask(world, "DELETE", f"calls/{call_id}")
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
    assert answer.json()["detail"].startswith("This could not be put on record. What takes something away is done all")
    assert [call.state for call in world.emulator.calls] == ["ended"]
    answer = await ask(world, "POST", "tenants/acme/suspend")
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
    world.sink.failing = False
    assert (await world.mint()).json()["code"] == "tenant_suspended"
    assert (await ask(world, "POST", "tenants/acme/suspend")).status_code == 200
    await until(lambda: [one["reason"] for one in world.records if one["action"] == "call.end"] == ["admin"], 8)


@pytest.mark.parametrize("trouble", ["ill", "failing"])
async def test_nobody_is_let_in_again_without_a_record(world, trouble):
    await ask(world, "POST", "tenants/acme/suspend")
    setattr(world.sink, trouble, True)
    assert (await ask(world, "GET", "calls")).json()["code"] == "audit_unavailable"
    assert (await ask(world, "POST", "tenants/acme/resume")).json()["code"] == "audit_unavailable"
    setattr(world.sink, trouble, False)
    assert (await world.mint()).json()["code"] == "tenant_suspended"


async def test_who_was_not_suspended_is_not_suspended_for_want_of_a_record(world):
    world.sink.failing = True
    assert (await ask(world, "POST", "tenants/acme/resume")).json()["code"] == "audit_unavailable"
    world.sink.failing = False
    assert (await world.mint()).status_code == 200


async def test_while_redis_is_away_it_says_so(anyio_backend, tmp_path):
    with redis_server(tmp_path) as server:
        async with at_night(redis_url=server.url) as world:
            call_id = await opened(world)
            server.kill()
            for method, path, action in (
                ("GET", "calls", "admin.calls"),
                ("POST", "tenants/acme/suspend", "admin.suspend"),
                ("POST", "tenants/acme/resume", "admin.resume"),
                ("DELETE", "calls/rtc_other", "admin.hang_up"),
                ("DELETE", f"calls/{call_id}", "admin.hang_up"),
            ):
                answer = await ask(world, method, path)
                assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
                    503,
                    "degraded",
                    "1",
                )
                assert "(Redis) does not answer" in answer.json()["detail"]
                told = [world.records[-1][name] for name in ("action", "outcome", "reason")]
                assert told == [action, "error", "degraded"]
            assert (await world.mint()).status_code == 200, "what could not be stored is not in force here either"
            # What this replica opened itself it finds and ends, if it is told whose it is.
            assert (await ask(world, "DELETE", f"calls/{call_id}?tenant=acme")).json()["ended_by"] == "admin"
            assert [call.state for call in world.emulator.calls] == ["ended"]


async def test_calls_of_a_tenant_that_the_policy_suspends_end(anyio_backend, redis):
    policy = worlds.example()
    policy["tenants"]["acme"]["suspended"] = True
    async with at_night(redis_url=redis.url) as before:
        call_id = await opened(before)
        async with at_night(policy, redis_url=redis.url) as after:
            after.emulator._calls.update(before.emulator._calls)  # for there is one provider
            await until(lambda: "call.end" in [one["action"] for one in before.records + after.records], 3)
            (record,) = [one for one in before.records + after.records if one["action"] == "call.end"]
            assert (record["call_id"], record["reason"]) == (call_id, "suspended")


async def test_a_tenant_that_has_left_the_policy_can_be_stopped_while_it_has_calls(anyio_backend, redis):
    without = worlds.example()
    del without["tenants"]["widgets"], without["issuers"][1]
    async with at_night(redis_url=redis.url) as before:
        call_id = await opened(before, before.widgets_token())
        async with at_night(without, redis_url=redis.url) as after:
            listing = (await ask(after, "GET", "calls")).json()
            assert ([call["id"] for call in listing["calls"]], listing["open_calls"]) == ([call_id], 1)
            assert (await ask(after, "POST", "tenants/widgets/suspend")).json()["open_calls"] == 1
            assert [one["tenant"] for one in (await ask(after, "GET", "calls")).json()["suspended"]] == ["widgets"]
            assert (await ask(after, "POST", "tenants/widgets/resume")).status_code == 200


async def test_a_suspension_outlives_a_redis_that_is_lost_in_the_next_moment(anyio_backend, tmp_path):
    with redis_server(tmp_path) as server:
        async with at_night(redis_url=server.url) as world:
            assert (await ask(world, "POST", "tenants/acme/suspend")).status_code == 200
            server.kill()
            end = time.monotonic() + 1.2
            while time.monotonic() < end:
                assert (await world.mint()).json()["code"] == "tenant_suspended"
                await asyncio.sleep(0.05)
