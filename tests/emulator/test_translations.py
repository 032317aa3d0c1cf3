"""Translations at the emulator: paths, sessions and events of their own."""

import pytest

from switchboard.emulator.conversation import conversation_of
from switchboard.emulator.echo import filled
from tests.emulator.conftest import KEY, SDP
from tests.emulator.test_conversation import tell

SESSION = {
    "model": "gpt-realtime-translate",
    "audio": {"input": {"noise_reduction": {"type": "far_field"}}, "output": {"language": "es"}},
}
SECRETS, CALLS = "/realtime/translations/client_secrets", "/realtime/translations/calls"


async def mint(upstream, body, path=SECRETS):
    return await upstream.http.post(path, json=body, headers=KEY)


async def call(upstream, key, offer, path=CALLS):
    return await upstream.http.post(path, content=offer, headers={"authorization": f"Bearer {key}", **SDP})


@pytest.mark.anyio
async def test_a_secret_opens_a_call_of_its_session(upstream, offer):
    answer = await mint(upstream, {"session": SESSION, "expires_after": {"anchor": "created_at", "seconds": 60}})
    minted = answer.json()
    assert minted == {
        "value": minted["value"],
        "expires_at": int(upstream.clock.now) + 60,
        "session": {
            "type": "translation",
            "id": minted["session"]["id"],
            "model": "gpt-realtime-translate",
            "expires_at": 0,
            "audio": {
                "input": {"transcription": None, "noise_reduction": {"type": "far_field"}},
                "output": {"language": "es"},
            },
        },
    }
    opened = await call(upstream, minted["value"], offer)
    assert opened.status_code == 201
    [row] = await upstream.calls()
    assert opened.headers["location"] == f"/v1/realtime/calls/{row['id']}"
    assert row["session"] == {**minted["session"], "expires_at": int(upstream.clock.now) + 3600}
    assert (await upstream.hang_up(opened.headers["location"])).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_required_parameter", "session"),
        ({"session": []}, 400, "invalid_type", "session"),
        ({"session": {}}, 400, "missing_required_parameter", "session.model"),
        ({"session": {"type": "translation", **SESSION}}, 400, "unknown_parameter", "session.type"),
        ({"session": {**SESSION, "instructions": "Hi."}}, 400, "unknown_parameter", "session.instructions"),
        (
            {"session": SESSION, "expires_after": {"seconds": 9}},
            400,
            "integer_below_min_value",
            "expires_after.seconds",
        ),
        ({"session": {"model": "gpt-realtime-2.1"}}, 404, "inference_not_found", None),
    ],
)
async def test_what_is_refused(upstream, body, status, code, param):
    answer = await mint(upstream, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


@pytest.mark.anyio
async def test_the_two_families_do_not_mix(upstream, offer):
    talking = (await upstream.mint()).json()["value"]
    translating = (await mint(upstream, {"session": SESSION})).json()["value"]
    for key, path in ((talking, CALLS), (translating, "/realtime/calls")):
        assert (await call(upstream, key, offer, path)).json()["error"]["code"] == "invalid_value"
    assert (
        await mint(upstream, {"session": {"type": "realtime", "model": "gpt-realtime-translate"}})
    ).status_code == 400
    # By a secret alone, and without a model in the query.
    assert (await call(upstream, "sk-acme", offer)).status_code == 401
    assert (await call(upstream, translating, offer, f"{CALLS}?model=gpt-realtime-translate")).status_code == 400
    assert await upstream.calls() == []


@pytest.mark.anyio
@pytest.mark.parametrize(("operation", "path"), [("mint", SECRETS), ("call", CALLS)])
async def test_faults_are_shown_there_as_well(upstream, operation, path):
    await upstream.faults(operations=[operation], status=503)
    assert (await upstream.http.post(path, headers=KEY)).status_code == 503


def test_its_events_are_its_own():
    echo = filled({"type": "translation", **SESSION}, "sess_1", 1_795_000_000)
    conversation = conversation_of(echo)
    assert conversation.opening()["session"] == echo
    update = {"audio": {"output": {"language": "fr"}}}
    [event] = tell(conversation, type="session.update", session=update)
    expected = {**echo, "audio": {**echo["audio"], "output": {"language": "fr"}}}
    assert (event["type"], event["session"]) == ("session.updated", expected)
    assert tell(conversation, type="session.input_audio_buffer.append", audio="AAAA") == []
    for wrong, code, param in (
        ({"type": "response.create"}, "invalid_value", "type"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "session.update", "session": {"model": "x"}}, "unknown_parameter", "session.model"),
        ({"type": "session.update", "session": {"voice": "x"}}, "unknown_parameter", "session.voice"),
    ):
        [error] = tell(conversation, **wrong)
        assert (error["error"]["code"], error["error"]["param"]) == (code, param)
    reply = conversation.receive('{"type": "session.close"}')
    assert ([event["type"] for event in reply.events], reply.ends) == (["session.closed"], True)
