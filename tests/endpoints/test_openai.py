"""POST /v1/realtime/client_secrets: what /token does, in the provider's own form."""

import hashlib
import time

import orjson
import pytest

from tests.support.contract import check
from tests.support.world import API_KEY, ORIGIN

PATH = "/v1/realtime/client_secrets"

pytestmark = pytest.mark.anyio


async def test_a_preset_named_as_model_gives_a_grant_that_opens_a_call_here(world):
    session = {"type": "realtime", "model": "support", "audio": {"output": {"voice": "cedar"}}}
    asked = {"expires_after": {"anchor": "created_at", "seconds": 20}, "session": session}
    answer = await world.mint(path=PATH, **asked)
    body = answer.json()
    assert answer.status_code == 200
    assert body == {
        "value": body["value"],
        "expires_at": body["expires_at"],
        "session": {"type": "realtime", "model": "gpt-realtime-2.1", "audio": {"output": {"voice": "cedar"}}},
    }
    assert body["value"].startswith("ek_swb_")
    assert body["expires_at"] == pytest.approx(time.time() + 20, abs=2)
    assert not world.emulator.requests

    opened = await world.relay(body["value"], "/v1/realtime/calls")
    assert opened.status_code == 201
    (call,) = world.emulator.calls
    assert opened.headers["location"] == f"/v1/realtime/calls/{call.id}"
    assert call.session["audio"]["output"]["voice"] == "cedar"
    issued, _ = world.records
    assert (issued["action"], issued["outcome"], issued["preset"]) == ("grant.issue", "allowed", "support")
    assert issued["overrides"] == ["audio.output.voice"]
    assert issued["credential_sha256"] == hashlib.sha256(body["value"].encode()).hexdigest()


async def test_a_direct_preset_gives_the_providers_own_secret(world):
    answer = await world.mint(
        world.widgets_token(), f"{PATH}?preset=concierge", expires_after={"seconds": 15.0}
    )  # whole, as JSON has it
    body = answer.json()
    (minted,) = world.emulator.requests
    assert (minted.path, minted.headers["authorization"]) == (PATH, f"Bearer {API_KEY}")
    assert orjson.loads(minted.body)["expires_after"] == {"anchor": "created_at", "seconds": 15}
    assert body.keys() == {"value", "expires_at", "session"}
    assert body["value"] == next(iter(world.emulator._secrets))
    assert body["session"]["id"].startswith("sess_")
    (record,) = world.records
    assert (record["action"], record["outcome"], record["provider"]) == ("token.mint", "allowed", "openai")


@pytest.mark.parametrize(
    "asked", [{}, {"expires_after": {"anchor": "created_at"}}, {"expires_after": {"seconds": 7200}}]
)
async def test_left_out_the_lifetime_is_the_presets(world, asked):
    for path in (PATH, "/token"):
        answer = await world.mint(path=path, **asked)
        assert answer.json()["expires_at"] == pytest.approx(time.time() + 60, abs=2)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"preset": "support"}, "preset"),  # the provider's API has no such field
        ({"expires_after": None}, "expires_after"),
        ({"expires_after": {"anchor": "now", "seconds": 20}}, "expires_after.anchor"),
        ({"expires_after": {"seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"seconds": "20"}}, "expires_after.seconds"),
        ({"session": []}, "session"),
    ],
)
async def test_what_the_provider_would_not_take_is_refused_by_name(world, body, param):
    answer = await world.mint(path=PATH, **body)
    check("POST", PATH, answer)
    told = answer.json()
    assert (answer.status_code, told["code"], told["error"]["param"]) == (400, "invalid_request", param)
    assert not world.records  # nobody has been asked who it is


async def test_one_quota_for_both_paths(world):
    token = world.token()
    for path in (PATH, "/token") * 5:
        assert (await world.mint(token, path)).status_code == 200
    for path in (PATH, "/token"):
        refused = await world.mint(token, path)
        assert (refused.status_code, refused.json()["violated-policies"]) == (429, ["user-minute"])
        assert int(refused.headers["retry-after"]) <= 60
        assert "x-should-retry" not in refused.headers  # another mint does no harm


async def test_a_page_may_ask_and_is_counted_under_its_path(world):
    answer = await world.client.post(PATH, headers=world.auth(origin=ORIGIN))
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["cache-control"] == "no-store"
    assert '"user-minute";r=9' in answer.headers["ratelimit"]
    labels = {"method": "POST", "route": PATH, "status": "200"}
    assert await world.metric("switchboard_http_request_duration_seconds_count", **labels) == 1
