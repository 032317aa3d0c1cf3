"""Translations: presets of their own type, the provider's paths for them, and what is refused between the families."""

from typing import Any

import httpx
import orjson
import pytest

from tests.support import world as worlds
from tests.support.contract import check
from tests.support.world import PUBLIC_URL

SECRETS = "/v1/realtime/translations/client_secrets"
CALLS = "/v1/realtime/translations/calls"
SPEECH_SECRETS, SPEECH_CALLS = "/v1/realtime/client_secrets", "/v1/realtime/calls"
SESSION: dict[str, Any] = {
    "type": "translation",
    "model": "gpt-realtime-translate",
    "audio": {
        "input": {"transcription": {"model": "gpt-transcribe"}, "noise_reduction": {"type": "near_field"}},
        "output": {"language": "es"},
    },
}
EXCERPT = {"type": "translation", "model": "gpt-realtime-translate", "audio": {"output": {"language": "es"}}}

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(anyio_backend):
    policy = worlds.example()
    languages = {"audio.output.language": ["es", "fr"]}
    for tenant, delivery in (("acme", "relay"), ("widgets", "direct")):
        preset = {"delivery": delivery, "session": SESSION, "overrides": languages}
        policy["tenants"][tenant]["presets"]["interpreter"] = preset
    async with worlds.world(policy) as made:
        yield made


def refused(answer, code, param):
    assert (answer.status_code, answer.json()["code"], answer.json()["error"]["param"]) == (400, code, param)


async def test_a_grant_at_the_providers_path_opens_a_translation(world):
    minted = await world.mint(path=SECRETS, session={"model": "interpreter", "audio": {"output": {"language": "fr"}}})
    check("POST", SECRETS, minted)
    body = minted.json()
    assert body == {
        "value": body["value"],
        "expires_at": body["expires_at"],
        "session": {**EXCERPT, "audio": {"output": {"language": "fr"}}},
    }
    opened = await world.relay(body["value"], CALLS)
    check("POST", CALLS, opened)
    assert opened.status_code == 201
    (call,) = world.emulator.calls
    assert opened.headers["location"] == f"/v1/realtime/calls/{call.id}"
    assert call.session == {
        **SESSION,
        "id": call.session["id"],
        "expires_at": call.session["expires_at"],
        "audio": {**SESSION["audio"], "output": {"language": "fr"}},
    }
    hung_up = await world.client.post(f"{opened.headers['location']}/hangup", headers=world.auth())
    assert hung_up.status_code == 200
    assert [(one["action"], one["outcome"], one["preset"]) for one in world.records] == [
        ("grant.issue", "allowed", "interpreter"),
        ("call.open", "allowed", "interpreter"),
        ("call.end", "allowed", "interpreter"),
    ]


async def test_a_direct_secret_is_minted_and_used_at_the_providers_path(world):
    answer = await world.mint(world.widgets_token(), "/token?preset=interpreter")
    body = answer.json()
    assert body["session"] == {**EXCERPT, "id": body["session"]["id"]}
    assert body["calls_url"] == f"{world.emulator_url}{CALLS}"
    (asked,) = world.emulator.requests
    sent = orjson.loads(asked.body)["session"]
    assert (asked.path, sent) == (SECRETS, {name: value for name, value in SESSION.items() if name != "type"})
    async with httpx.AsyncClient() as browser:
        headers = {"authorization": f"Bearer {body['value']}", "content-type": "application/sdp"}
        opened = await browser.post(body["calls_url"], headers=headers, content=worlds.OFFER)
    assert opened.status_code == 201
    assert world.emulator.calls[0].session["id"] == body["session"]["id"]


@pytest.mark.parametrize("path", ["/sdp", "/session", CALLS])
async def test_an_offer_by_the_users_token(world, path):
    opened = await world.relay(path=f"{path}?preset=interpreter")
    assert opened.status_code == 201
    assert world.emulator.calls[0].session["type"] == "translation"


async def test_a_grant_from_token_is_for_all_paths_that_take_translations(world):
    for path in ("/sdp", "/session", CALLS):
        minted = (await world.mint(preset="interpreter")).json()
        assert (minted["calls_url"], minted["session"]) == (f"{PUBLIC_URL}/sdp", EXCERPT)
        assert (await world.relay(minted["value"], path)).status_code == 201


async def test_the_families_do_not_mix(world):
    refused(await world.mint(path=SECRETS), "invalid_request", "preset")  # the default one talks
    refused(await world.mint(path=SPEECH_SECRETS, session={"model": "interpreter"}), "invalid_request", "preset")
    refused(await world.relay(path=f"{SPEECH_CALLS}?preset=interpreter"), "invalid_request", "preset")
    answer = await world.relay(path=f"{CALLS}?preset=support")
    refused(answer, "invalid_request", "preset")
    assert answer.json()["detail"] == "The preset is of type realtime, and this path is for translation."
    talking, translating = [(await world.mint(preset=name)).json()["value"] for name in ("support", "interpreter")]
    refused(await world.relay(talking, CALLS), "invalid_request", "preset")
    refused(await world.relay(translating, SPEECH_CALLS), "invalid_request", "preset")
    refused(await world.relay(translating, "/v1/realtime"), "invalid_request", "preset")
    assert world.emulator.calls == ()
    # None of these was a try.
    for grant, path in ((talking, SPEECH_CALLS), (translating, CALLS)):
        assert (await world.relay(grant, path)).status_code == 201


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"audio": {"output": {"language": "de"}}}, "session.audio.output.language"),
        ({"instructions": "Be kind."}, "session.instructions"),
        ({"model": "gpt-realtime-2.1"}, "session.model"),
        ({"type": "realtime"}, "session.type"),
    ],
)
async def test_what_is_not_open_is_refused(world, session, param):
    refused(await world.mint(path=f"{SECRETS}?preset=interpreter", session=session), "override_not_allowed", param)
