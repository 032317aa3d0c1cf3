"""What clients see of the limits: headers that agree with what the next request really gets, and plain refusals."""

import asyncio
import re

import pytest

from tests.support import world as worlds
from tests.support.contract import check
from tests.support.world import ORIGIN

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]


def policy(**limits):
    tree = worlds.example()
    tree["tenants"]["acme"]["limits"] = limits
    tree["tenants"]["acme"].pop("limits_by", None)
    return tree


@pytest.fixture(params=["memory", "redis"])
def where(request):
    """The settings that keep the ledger in one place or the other."""
    return {} if request.param == "memory" else {"redis_url": request.getfixturevalue("redis").url}


def read(answer):
    """`RateLimit` and `RateLimit-Policy` as dictionaries."""

    def items(text):
        found = {}
        for name, parameters in re.findall(r'"([a-z0-9-]+)"((?:;[a-z]+=\d+)*)', text):
            found[name] = {key: int(value) for key, value in re.findall(r";([a-z]+)=(\d+)", parameters)}
        return found

    return items(answer.headers.get("ratelimit", "")), items(answer.headers.get("ratelimit-policy", ""))


async def test_a_window_walked_to_its_end(where):
    async with worlds.world(policy(user=["3 per 2 second"], tenant=["100/minute"]), **where) as world:
        token = world.token()
        for left in (2, 1, 0):
            answer = await world.mint(token)
            assert answer.status_code == 200
            now, policies = read(answer)
            assert policies == {"user-2s": {"q": 3, "w": 2}}
            assert now["user-2s"]["r"] == left
            assert 1 <= now["user-2s"]["t"] <= 2
        refused = await world.mint(token)
        check("POST", "/token", answer)
        check("POST", "/token", refused)
        body, now = refused.json(), read(refused)[0]
        assert refused.status_code == 429
        assert body == {
            "violated-policies": ["user-2s"],
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Too many requests",
            "status": 429,
            "detail": f"The limit of 3 per 2 seconds per user is used up; try again in {now['user-2s']['t']} s.",
            "instance": body["instance"],
            "code": "rate_limited",
            "request_id": refused.headers["x-request-id"],
            "error": {
                "message": body["detail"],
                "type": "rate_limit_error",
                "code": "rate_limited",
                "param": None,
            },
        }
        assert now["user-2s"]["r"] == 0
        assert int(refused.headers["retry-after"]) == now["user-2s"]["t"]
        await asyncio.sleep(int(refused.headers["retry-after"]))
        again = await world.mint(token)
        assert (again.status_code, read(again)[0]["user-2s"]["r"]) == (200, 2)
        assert [(one["outcome"], one["reason"]) for one in world.records[2:5]] == [
            ("allowed", "ok"),
            ("denied", "rate_limited"),
            ("allowed", "ok"),
        ]


async def test_several_windows_and_the_tenants_only_where_it_binds(where):
    async with worlds.world(policy(user=["3/minute", "10/day"], tenant=["4/hour"]), **where) as world:
        alice, bob = world.token(), world.token(sub="user-bob-33aa")
        first = await world.mint(alice)
        assert read(first)[1] == {"user-minute": {"q": 3, "w": 60}, "user-day": {"q": 10, "w": 86400}}
        await world.mint(bob)
        await world.mint(bob)
        third = await world.mint(bob)
        # Bob has used up his minute, and the tenant its hour: both bind, the user's is told.
        assert {name: one["r"] for name, one in read(third)[0].items()} == {
            "user-minute": 0,
            "user-day": 7,
            "tenant-hour": 0,
        }
        refused = await world.mint(alice)
        assert refused.status_code == 429
        assert refused.json()["violated-policies"] == ["tenant-hour"]
        assert "4 per hour for the whole tenant" in refused.json()["detail"]
        assert read(refused)[0]["tenant-hour"]["r"] == 0
        assert 3500 < int(refused.headers["retry-after"]) <= 3600


async def test_token_and_sdp_share_the_quota_and_a_grant_pays_once(where):
    async with worlds.world(policy(user=["3/minute"]), **where) as world:
        token = world.token()
        grant = (await world.mint(token)).json()["value"]
        opened = await world.relay(grant)
        assert opened.status_code == 201
        assert "ratelimit" not in opened.headers
        relayed = await world.relay(token)
        assert (relayed.status_code, read(relayed)[0]["user-minute"]["r"]) == (201, 1)
        assert (await world.relay(token)).status_code == 201
        refused = await world.relay(token)
        check("POST", "/sdp", relayed)
        check("POST", "/sdp", refused)
        assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
        assert len(world.emulator.requests) == 3


async def test_what_is_refused_before_is_not_charged(where):
    async with worlds.world(policy(user=["1/minute"]), **where) as world:
        token = world.token()
        for _ in range(3):
            assert (await world.mint(token, path="/token?preset=expert")).status_code == 403
            assert (await world.mint(token, session={"instructions": "x"})).status_code == 400
            assert (await world.relay(token, offer=b"v=0\r\n")).status_code == 400
        assert (await world.mint(token)).status_code == 200


async def test_a_refusal_of_the_provider_tells_what_is_left(where):
    async with worlds.world(policy(user=["5/minute"]), **where) as world:
        await world.faults(status=503)
        answer = await world.relay()
        assert answer.status_code == 502
        check("POST", "/sdp", answer)
        assert read(answer)[0]["user-minute"]["r"] == 4


async def test_a_plan_chooses_other_limits(where):
    tree = policy(user=["1/minute"], tenant=["5/minute"])
    tree["tenants"]["acme"]["limits_by"] = {
        "claim": "plan.name",
        "values": {"pro": {"user": ["3/minute"]}, "max": {"user": ["9/minute"], "tenant": ["2/minute"]}},
    }
    async with worlds.world(tree, **where) as world:
        limits = {}
        for plan in ("none", "max", "pro"):
            token = world.token(sub=f"user-{plan}-0123", plan={"name": plan})
            limits[plan] = read(await world.mint(token))[1]["user-minute"]["q"]
        assert limits == {"none": 1, "pro": 3, "max": 9}
        # Field by field: only `max` has another limit for the tenant, whose count all share.
        refused = await world.mint(world.token(sub="user-max-0123", plan={"name": "max"}))
        assert refused.json()["violated-policies"] == ["tenant-minute"]
        assert (await world.mint(world.token(sub="user-pro-0123", plan={"name": "pro"}))).status_code == 200


async def test_shadow_mode_refuses_nothing_and_reports_everything(where):
    async with worlds.world(policy(user=["2/minute"], tenant=["3/minute"], mode="shadow"), **where) as world:
        token = world.token()
        answers = [await world.mint(token) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert not any("ratelimit" in answer.headers for answer in answers)
        assert [one.get("shadow") for one in world.records] == [None, None, ["user-minute"], ["user-minute"]]
        assert all((one["outcome"], one["reason"]) == ("allowed", "ok") for one in world.records)
        seen = await world.metric("switchboard_shadow_refusals_total", tenant="acme", policy="user-minute")
        assert seen == 2


async def test_defaults_apply_where_a_tenant_sets_none(where):
    async with worlds.world(**where) as world:
        answer = await world.mint(world.widgets_token())
        assert read(answer)[1] == {"user-minute": {"q": 10, "w": 60}, "user-day": {"q": 100, "w": 86400}}


async def test_a_browser_may_read_all_of_it(where):
    async with worlds.world(policy(user=["1/minute"]), **where) as world:
        token = world.token()
        for status in (200, 429):
            answer = await world.client.get("/token", headers=world.auth(token, origin=ORIGIN))
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_the_ratio_of_the_tenants_fullest_window(where):
    async with worlds.world(policy(user=["9/minute"], tenant=["4/minute", "10/hour"]), **where) as world:
        for _ in range(3):
            await world.mint()
        assert await world.metric("switchboard_quota_used_ratio", tenant="acme") == 0.75


async def test_windows_survive_a_restart(redis):
    limits = policy(user=["2/minute"])
    for left in (1, 0):
        async with worlds.world(limits, redis_url=redis.url) as world:
            assert read(await world.mint())[0]["user-minute"]["r"] == left
    async with worlds.world(limits, redis_url=redis.url) as world:
        assert (await world.mint()).status_code == 429


async def test_replicas_share_grants_and_calls(redis):
    """A token from one replica, an offer to the other, a hang-up at the first."""
    async with worlds.world(redis_url=redis.url) as one, worlds.world(redis_url=redis.url) as other:
        grant = (await one.mint()).json()["value"]
        opened = await other.relay(grant)
        assert opened.status_code == 201
        assert (await one.relay(grant)).json()["code"] == "grant_used"
        seen = await one.client.get(opened.headers["location"], headers=one.auth())
        assert seen.json()["state"] == "open"
