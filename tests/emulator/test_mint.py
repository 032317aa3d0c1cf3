import pytest

from switchboard.emulator import Options

pytestmark = pytest.mark.anyio
KEY = {"authorization": "Bearer sk-acme"}


async def test_the_echo_is_the_recorded_one(upstream):
    asked = {
        "expires_after": {"anchor": "created_at", "seconds": 60},
        "session": {
            "type": "realtime",
            "model": "gpt-realtime",
            "instructions": "Be brief.",
            "output_modalities": ["audio"],
            "tools": [{"type": "function", "name": "a", "parameters": {"type": "object"}}],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "gpt-realtime-whisper"},
                    "turn_detection": {
                        "type": "server_vad",
                        "create_response": True,
                        "interrupt_response": True,
                    },
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"},
            },
        },
    }
    answer = await upstream.mint(asked)
    assert answer.status_code == 200
    minted = answer.json()
    value, session_id = minted["value"], minted["session"]["id"]
    assert value.startswith("ek_")
    assert session_id.startswith("sess_")
    assert minted == {
        "value": value,
        "expires_at": int(upstream.clock.now) + 60,
        "session": {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "instructions": "Be brief.",
            "tools": [{"type": "function", "name": "a", "description": None, "parameters": {"type": "object"}}],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": 0,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "gpt-realtime-whisper", "language": None, "prompt": None},
                    "noise_reduction": None,
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "silence_duration_ms": 200,
                        "idle_timeout_ms": None,
                        "create_response": True,
                        "interrupt_response": True,
                    },
                },
                "output": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "voice": "marin",
                    "speed": 1.0,
                },
            },
            "include": None,
        },
    }


async def test_nothing_has_to_be_asked_for(upstream):
    answer = await upstream.mint({})
    minted = answer.json()
    assert minted["expires_at"] == int(upstream.clock.now) + 600
    assert (minted["session"]["type"], minted["session"]["audio"]["output"]["voice"]) == ("realtime", "alloy")


async def test_a_transcription_session(upstream):
    listening = {"transcription": {"model": "gpt-live-transcribe"}, "turn_detection": None}
    answer = await upstream.mint({"session": {"type": "transcription", "audio": {"input": listening}}})
    session = answer.json()["session"]
    assert session == {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": session["id"],
        "expires_at": 0,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "gpt-live-transcribe", "language": None, "prompt": None},
                "noise_reduction": None,
                "turn_detection": None,
            }
        },
        "include": None,
    }


async def test_semantic_turn_detection_gets_its_own_defaults(upstream):
    listening = {"turn_detection": {"type": "semantic_vad"}}
    answer = await upstream.mint({"session": {"type": "realtime", "audio": {"input": listening}}})
    assert answer.json()["session"]["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"session": {"type": "realtime", "temperature": 1}}, "unknown_parameter", "session.temperature"),
        ({"session": {}}, "missing_required_parameter", "session.type"),
        (
            {"session": {"type": "realtime", "audio": {"output": {"voice": "nova"}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            {"session": {"type": "realtime", "max_output_tokens": 0}},
            "integer_below_min_value",
            "session.max_output_tokens",
        ),
        (
            {"session": {"type": "realtime", "tools": [{"type": "function", "name": "a", "parameters": {}}]}},
            "invalid_function_parameters",
            "session.tools[0].parameters",
        ),
        ({"session": None}, "invalid_type", "session"),
        ({"model": "gpt-realtime"}, "unknown_parameter", "model"),
        ({"expires_after": {"secs": 5}}, "unknown_parameter", "expires_after.secs"),
        ({"expires_after": {"anchor": "now"}}, "invalid_value", "expires_after.anchor"),
        ({"expires_after": {"seconds": 9}}, "integer_below_min_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "integer_above_max_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": True}}, "invalid_type", "expires_after.seconds"),
        ({"expires_after": 60}, "invalid_type", "expires_after"),
    ],
)
async def test_one_mistake_refuses_the_request(upstream, body, code, param):
    answer = await upstream.mint(body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"], error["param"]) == (
        400,
        "invalid_request_error",
        code,
        param,
    )
    assert param in error["message"]


@pytest.mark.parametrize(
    ("model", "code"),
    [("gpt-realtime-translate", "inference_not_found"), ("gpt-live-1", "model_not_found")],
)
async def test_models_of_other_endpoints_are_not_found(upstream, model, code):
    answer = await upstream.mint({"session": {"type": "realtime", "model": model}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, None),
        ({"authorization": "Basic sk-acme"}, None),
        ({"authorization": "Bearer "}, None),
        ({"authorization": "Bearer nonsense"}, "invalid_api_key"),
        ({"authorization": "Bearer ek_1234567890"}, "invalid_api_key"),
    ],
)
async def test_only_a_standard_key_mints(upstream, headers, code):
    answer = await upstream.mint({}, headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)


async def test_only_known_keys_where_some_are_given(run):
    async with run(Options(media=False, keys=frozenset({"sk-one"}))) as upstream:
        assert (await upstream.mint(headers={"authorization": "Bearer sk-one"})).status_code == 200
        assert (await upstream.mint(headers={"authorization": "Bearer sk-two"})).status_code == 401


@pytest.mark.parametrize(
    ("content", "content_type", "code"),
    [
        ("{}", "text/plain", "unsupported_content_type"),
        ("{", "application/json", None),
        ("[]", "application/json", "invalid_type"),
    ],
)
async def test_the_body_is_a_json_object(upstream, content, content_type, code):
    headers = {**KEY, "content-type": content_type}
    answer = await upstream.http.post("/realtime/client_secrets", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_headers_of_the_provider(upstream):
    answer = await upstream.mint()
    assert answer.headers["openai-version"] == "2020-10-01"
    assert answer.headers["openai-processing-ms"].isdecimal()
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"] == "application/json"


async def test_the_beta_is_gone(upstream):
    gone = [
        (await upstream.mint(headers={**KEY, "openai-beta": "realtime=v1"}), 400, "beta_api_shape_disabled"),
        (
            await upstream.http.post("/realtime?model=x", content="v=0", headers=KEY),
            400,
            "beta_api_shape_disabled",
        ),
        (await upstream.http.post("/realtime/sessions", json={}, headers=KEY), 404, None),
        (await upstream.http.post("/realtime/transcription_sessions", json={}, headers=KEY), 404, None),
        (await upstream.http.get("/realtime/client_secrets", headers=KEY), 405, None),
    ]
    for answer, status, code in gone:
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_safety_identifier_is_bounded(upstream):
    answer = await upstream.mint(headers={**KEY, "openai-safety-identifier": "x" * 129})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "safety_identifier")


async def test_what_was_asked_is_on_record(upstream):
    await upstream.http.post("/realtime/client_secrets?a=1", json={"session": {"type": "realtime"}}, headers=KEY)
    [seen] = upstream.emulator.requests
    assert (seen.time, seen.method, seen.path, seen.query, seen.body) == (
        upstream.clock.now,
        "POST",
        "/v1/realtime/client_secrets",
        "a=1",
        b'{"session":{"type":"realtime"}}',
    )
    assert seen.headers["authorization"] == "Bearer sk-acme"


async def test_a_body_is_bounded(upstream):
    headers = {**KEY, "content-type": "application/json"}
    answer = await upstream.http.post("/realtime/client_secrets", content=b" " * (1024 * 1024 + 1), headers=headers)
    assert (answer.status_code, len(upstream.emulator.requests)) == (413, 0)
