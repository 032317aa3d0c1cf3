import httpx
import pytest

from switchboard.middleware import Cors, RequestContext, route_of
from switchboard.tenants import Origins
from tests.support import world as worlds
from tests.support.world import ORIGIN

pytestmark = pytest.mark.anyio


async def test_a_good_request_id_is_kept(world):
    answer = await world.client.get("/healthz", headers={"x-request-id": "my-id_1.2"})
    assert answer.headers["x-request-id"] == "my-id_1.2"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "a\tb", "é".encode()])
async def test_an_odd_request_id_is_replaced(world, given):
    answer = await world.client.get("/healthz", headers={"x-request-id": given})
    assert len(answer.headers["x-request-id"]) == 32


async def test_a_defect_is_answered_in_our_form_and_logged_without_its_secrets(capsys):
    async def broken(scope, receive, send):
        raise RuntimeError("boom sk-live-abcdefghijkl")

    seen = []
    app = RequestContext(Cors(broken, origins=lambda: Origins(everyone=True)), observe=lambda *one: seen.append(one))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/x", headers={"origin": ORIGIN, "x-request-id": "r-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"] == "r-1"
    assert "boom" not in answer.text
    assert seen[0][:3] == ("none", "GET", 500)


async def test_a_defect_in_an_endpoint_keeps_cors_and_id(monkeypatch):
    async with worlds.world() as world:

        async def broken(*_, **__):
            raise RuntimeError("boom")

        monkeypatch.setattr("switchboard.broker.Broker.mint", broken)
        answer = await world.client.get("/token", headers=world.auth(origin=ORIGIN))
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def preflight(world, origin, path="/sdp"):
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-openai-agents-sdk",
    }
    return await world.client.options(path, headers=headers)


async def test_preflight_for_any_tenants_page(world):
    for origin in (ORIGIN, "https://www.widgets.example"):
        answer = await preflight(world, origin)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS, PATCH"
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        of_whip = {"if-match", "etag"}
        assert set(allowed) == of_whip | {
            "authorization",
            "content-type",
            "x-request-id",
            "x-openai-agents-sdk",
            "openai-beta",
            "traceparent",
        }
        assert answer.headers["access-control-max-age"] == "7200"
        assert "origin" in answer.headers["vary"].lower()
        assert "access-control-allow-credentials" not in answer.headers


async def test_preflight_for_a_strangers_page(world):
    answer = await preflight(world, "https://evil.example")
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


async def test_refusals_before_the_tenant_is_known_are_readable_by_the_union(world):
    answer = await world.client.get("/token", headers={"origin": "https://www.widgets.example"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "https://www.widgets.example"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert set(exposed) == {
        "Location",
        "Accept-Post",
        "Allow",
        "X-Request-Id",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "x-should-retry",
        "Switchboard-Dropped",
    }
    stranger = await world.client.get("/token", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers


async def test_one_tenants_any_does_not_widen_anothers():
    policy = worlds.example()
    policy["tenants"]["widgets"]["origins"] = "any"
    async with worlds.world(policy) as world:
        open_to_all = await world.client.get(
            "/token", headers=world.auth(world.widgets_token(), origin="https://x.example")
        )
        assert open_to_all.status_code == 200
        assert open_to_all.headers["access-control-allow-origin"] == "https://x.example"
        acme = await world.client.get("/token", headers=world.auth(origin="https://x.example"))
        assert (acme.status_code, acme.json()["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in acme.headers


async def test_origins_have_no_case(world):
    answer = await world.client.get("/token", headers=world.auth(origin="HTTPS://APP.ACME.EXAMPLE"))
    assert answer.status_code == 200


async def test_requests_are_timed_by_route_template(world):
    await world.client.get("/sdp/rtc_secret_1", headers=world.auth())
    await world.client.get("/nowhere/at/all")
    await world.client.request("BREW", "/token")
    text = (await world.ops.get("/metrics")).text
    assert 'route="/sdp/{call_id}",status="404"' in text
    assert 'method="GET",route="none",status="404"' in text
    assert 'method="other",route="/token",status="405"' in text
    assert "rtc_secret_1" not in text
    assert "nowhere" not in text


def test_a_route_is_its_template():
    assert route_of({}) == "none"
