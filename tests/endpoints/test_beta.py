"""The retired beta's paths: a flat session, the secret where it stood then, and POST /v1/realtime?model= with it."""

import time
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.support import world as worlds
from tests.support.contract import check
from tests.support.servers import serving
from tests.support.world import API_KEY, ORIGIN, PUBLIC_URL

SESSIONS = "/v1/realtime/sessions"
TRANSCRIPTIONS = "/v1/realtime/transcription_sessions"
CALLS = "/v1/realtime"
OLD = "gpt-4o-realtime-preview-2025-06-03"

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def acme(**changes):
    """A world whose preset `support` is changed."""
    policy = worlds.example()
    policy["tenants"]["acme"]["presets"]["support"] |= changes
    async with worlds.world(policy) as world:
        yield world


async def flat(world, path=SESSIONS, token=None, **body):
    answer = await world.client.post(path, headers=world.auth(token), json=body)
    check("POST", path.partition("?")[0], answer)
    return answer


async def offer(world, token=None, query="", **headers):
    answer = await world.relay(token, f"{CALLS}{query}", **headers)
    check("POST", CALLS, answer)
    return answer


def refused(answer, code, param):
    assert (answer.status_code, answer.json()["code"], answer.json()["error"]["param"]) == (400, code, param)


async def test_what_the_providers_sample_sent_gives_a_secret_that_opens_its_call(world):
    minted = await flat(world, model=OLD, voice="marin")
    body = minted.json()
    assert minted.status_code == 200
    assert body == {
        "object": "realtime.session",
        "model": "gpt-realtime-2.1",
        "voice": "marin",
        "client_secret": {"value": body["value"], "expires_at": body["expires_at"]},
        "value": body["value"],
        "expires_at": pytest.approx(time.time() + 60, abs=2),
        "calls_url": f"{PUBLIC_URL}/sdp",
    }
    assert body["value"].startswith("ek_swb_")
    assert minted.headers["switchboard-dropped"] == "model"

    grant = body["client_secret"]["value"]
    opened = await offer(world, grant, f"?model={OLD}", **{"openai-beta": "realtime=v1"})
    assert (opened.status_code, opened.headers["switchboard-dropped"]) == (201, "model")
    (call,) = world.emulator.calls
    assert opened.headers["location"] == f"/v1/realtime/calls/{call.id}"
    (asked,) = world.emulator.requests
    assert (asked.path, asked.query, asked.headers["authorization"]) == ("/v1/realtime/calls", "", f"Bearer {API_KEY}")
    assert "openai-beta" not in asked.headers
    assert [(one["action"], one["outcome"], one["dropped"]) for one in world.records] == [
        ("grant.issue", "allowed", ["model"]),
        ("call.open", "allowed", ["model"]),
    ]


async def test_choices_are_held_against_the_overrides_as_todays(world):
    body = {"model": "support", "voice": "cedar", "temperature": 0.8, "modalities": ["audio", "text"]}
    answer = await flat(world, **body, client_secret={"expires_after": {"anchor": "created_at", "seconds": 30}})
    assert (answer.status_code, answer.json()["voice"]) == (200, "cedar")
    assert answer.json()["expires_at"] == pytest.approx(time.time() + 30, abs=2)
    assert set(answer.headers["switchboard-dropped"].split(", ")) == {"temperature", "output_modalities"}
    await offer(world, answer.json()["value"], "?model=gpt-realtime-2.1")
    assert world.emulator.calls[0].session["audio"]["output"]["voice"] == "cedar"
    issued, opened = world.records
    assert issued["overrides"] == opened["overrides"] == ["audio.output.voice"]
    assert "dropped" not in opened  # the grant carries what was chosen, and no more

    refused(await flat(world, instructions="Say anything."), "override_not_allowed", "session.instructions")
    refused(await flat(world, voice="alloy"), "override_not_allowed", "session.audio.output.voice")
    refused(await flat(world, model="gpt-realtime"), "override_not_allowed", "session.model")
    refused(await flat(world, nonsense=1), "override_not_allowed", "session.nonsense")


@pytest.mark.parametrize("value", [0.8, None, [], {}, {"value": 0.8, "unit": {"of": "heat"}}])
async def test_a_temperature_of_any_kind_is_left_out_and_named(world, value):
    answer = await flat(world, temperature=value)
    assert (answer.status_code, answer.headers["switchboard-dropped"]) == (200, "temperature")
    assert world.records[-1]["dropped"] == ["temperature"]


@pytest.mark.parametrize(
    ("secret", "param"),
    [
        ({"expires_after": {"anchor": "created_at", "seconds": 9}}, "client_secret.expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "client_secret.expires_after.anchor"),
        ({"value": "ek_1"}, "client_secret.value"),
        ("ek_1", "client_secret"),
    ],
)
async def test_a_lifetime_is_as_strict_as_it_was(world, secret, param):
    refused(await flat(world, client_secret=secret), "invalid_request", param)


async def test_a_strict_preset_refuses_what_is_outdated():
    async with acme(beta="strict") as world:
        refused(await flat(world, temperature=0.8), "override_not_allowed", "session.temperature")
        refused(await flat(world, model=OLD), "override_not_allowed", "session.model")
        refused(await offer(world, query=f"?model={OLD}"), "override_not_allowed", "session.model")
        same = await flat(world, model="gpt-realtime-2.1", voice="marin")
        assert (same.status_code, "switchboard-dropped" in same.headers) == (200, False)
        refused(await offer(world, same.json()["value"], f"?model={OLD}"), "invalid_request", None)
        assert world.emulator.calls == ()


async def test_a_preset_may_have_the_name_of_an_old_model():
    policy = worlds.example()
    presets = policy["tenants"]["acme"]["presets"]
    presets[OLD] = {**presets["support"], "session": {"type": "realtime", "model": "gpt-realtime-2.1-mini"}}
    async with worlds.world(policy) as world:
        answer = await flat(world, model=OLD)
        assert answer.json()["model"] == "gpt-realtime-2.1-mini"
        opened = await offer(world, answer.json()["value"], f"?model={OLD}")
        assert opened.status_code == 201
        assert not {"switchboard-dropped"} & (answer.headers.keys() | opened.headers.keys())
        assert [one["preset"] for one in world.records] == [OLD, OLD]
        refused(await offer(world, answer.json()["value"], "?model=support"), "invalid_request", "preset")


async def test_a_preset_that_ignores_what_it_does_not_open_names_it_too():
    async with acme(extra="ignore") as world:
        answer = await flat(world, instructions="Say anything.", turn_detection={"type": "server_vad"}, **{"a b\n": 1})
        names = {"instructions", "audio.input.turn_detection.type"}
        assert set(answer.headers["switchboard-dropped"].split(", ")) == names
        (record,) = world.records
        assert set(record["dropped"]) == {*names, "a b\n"}
        many = {f"field{number}": 1 for number in range(40)}
        assert len((await flat(world, **many)).headers["switchboard-dropped"].split(", ")) == 16
        as_token = await world.mint(session={"instructions": "Say anything."})
        assert as_token.headers["switchboard-dropped"] == "instructions"


async def test_a_call_by_the_users_token_names_its_preset_as_model(world):
    for query in ("", "?model=support", "?model=gpt-realtime-2.1"):
        opened = await offer(world, query=query)
        assert (opened.status_code, "switchboard-dropped" in opened.headers) == (201, False)
    refused(await offer(world, query="?model=gpt-realtime"), "override_not_allowed", "session.model")
    refused(await offer(world, query="?model=support&model=support"), "invalid_request", "model")


async def test_a_grant_takes_no_other_model(world):
    grant = (await flat(world)).json()["value"]
    refused(await offer(world, grant, "?model=gpt-realtime"), "invalid_request", None)
    refused(await offer(world, grant, "?model=expert"), "invalid_request", "preset")
    assert (await offer(world, grant, "?model=support")).status_code == 201


async def test_transcriptions_have_a_path_of_their_own(world):
    widgets = world.widgets_token()
    lifetime = {"expires_at": {"anchor": "created_at", "seconds": 20}}
    path = f"{TRANSCRIPTIONS}?preset=captions"
    answer = await flat(world, path, widgets, input_audio_format="pcm16", turn_detection=None, client_secret=lifetime)
    body = answer.json()
    assert body == {
        "id": body["id"],
        "object": "realtime.transcription_session",
        "client_secret": {"value": body["value"], "expires_at": body["expires_at"]},
        "value": body["value"],
        "expires_at": pytest.approx(time.time() + 20, abs=2),
        "calls_url": f"{world.emulator_url}/v1/realtime/calls",
    }
    assert answer.headers["switchboard-dropped"] == "audio.input.format.type"
    refused(await flat(world, TRANSCRIPTIONS, widgets), "invalid_request", "preset")  # the default one talks
    refused(await flat(world, f"{SESSIONS}?preset=captions", widgets), "invalid_request", "preset")


async def test_a_server_that_tells_nothing_of_the_session_will_do(monkeypatch):
    async def mint(_: Request) -> JSONResponse:
        return JSONResponse({"value": "ek_of_a_server_of_few_words", "expires_at": 9, "session": {}})

    async with serving(Starlette(routes=[Route("/realtime/client_secrets", mint, methods=["POST"])])) as terse:
        configured = worlds._config
        monkeypatch.setattr(worlds, "_config", lambda tree, key_server, _: configured(tree, key_server, terse))
        async with worlds.world() as world:
            answer = await flat(world, token=world.widgets_token())
    assert answer.json() == {
        "object": "realtime.session",
        "client_secret": {"value": "ek_of_a_server_of_few_words", "expires_at": 9},
        "value": "ek_of_a_server_of_few_words",
        "expires_at": 9,
        "calls_url": f"{terse}/realtime/calls",
    }


async def test_a_page_may_send_the_betas_header_and_read_what_was_dropped(world):
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,openai-beta",
    }
    preflight = await world.client.options(CALLS, headers=headers)
    assert "openai-beta" in preflight.headers["access-control-allow-headers"]
    answer = await world.client.post(SESSIONS, headers=world.auth(origin=ORIGIN), json={"temperature": 1})
    assert answer.headers["switchboard-dropped"] == "temperature"
    assert "Switchboard-Dropped" in answer.headers["access-control-expose-headers"]
