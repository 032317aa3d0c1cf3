import pytest

from switchboard.emulator import Options

pytestmark = pytest.mark.anyio
KEY = {"authorization": "Bearer sk-acme"}
SDP = {"content-type": "application/sdp"}


async def test_a_standard_key_opens_a_call_with_its_session(upstream):
    headers = {**KEY, "openai-safety-identifier": "user-hash"}
    answer = await upstream.call({"type": "realtime", "instructions": "Hi."}, headers=headers)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["access-control-expose-headers"] == "Location, X-Request-Id"
    assert "openai-processing-ms" not in answer.headers
    location = answer.headers["location"]
    assert location.startswith("/v1/realtime/calls/rtc_u1_")
    [call] = await upstream.calls()
    assert call == {
        "id": location.rpartition("/")[2],
        "state": "open",
        "started_at": upstream.clock.now,
        "ended_at": None,
        "session": call["session"],
        "safety_identifier": "user-hash",
        "connected": False,
    }
    assert call["session"]["id"] == "sess_" + call["id"].removeprefix("rtc_")
    assert call["session"]["instructions"] == "Hi."
    assert call["session"]["expires_at"] == int(upstream.clock.now) + 3600


async def test_a_canned_answer_is_well_formed(upstream):
    lines = (await upstream.call()).text.split("\r\n")
    assert lines[0] == "v=0"
    assert lines[-1] == ""
    assert [line.split(" ")[0] for line in lines if line.startswith("m=")] == ["m=audio", "m=application"]
    assert [line for line in lines if line.startswith("a=mid:")] == ["a=mid:0", "a=mid:data"]
    assert "a=group:BUNDLE 0 data" in lines
    assert "a=setup:passive" in lines


async def test_plain_parts_and_files_will_do(upstream, offer):
    body = {"sdp": offer, "session": '{"type":"realtime"}'}
    plain = await upstream.http.post(
        "/realtime/calls", files={name: (None, text) for name, text in body.items()}, headers=KEY
    )
    named = await upstream.http.post(
        "/realtime/calls", files={name: (f"{name}.txt", text) for name, text in body.items()}, headers=KEY
    )
    assert (plain.status_code, named.status_code) == (201, 201)


async def test_raw_sdp_of_a_standard_key_will_do(upstream, offer):
    answer = await upstream.http.post("/realtime/calls?model=x", content=offer, headers={**KEY, **SDP})
    assert answer.status_code == 201


async def test_a_secret_opens_calls_until_it_expires(upstream):
    headers = {**KEY, "openai-safety-identifier": "user-hash"}
    session = {"type": "realtime", "instructions": "Hi.", "audio": {"input": {"turn_detection": None}}}
    minted = (await upstream.mint({"session": session, "expires_after": {"seconds": 10}}, headers=headers)).json()
    assert (await upstream.call_with(minted["value"])).status_code == 201
    upstream.clock.now += 9.9
    assert (await upstream.call_with(minted["value"])).status_code == 201
    upstream.clock.now += 0.1
    late = await upstream.call_with(minted["value"])
    assert (late.status_code, late.json()["error"]["code"]) == (401, "invalid_api_key")
    first, second = await upstream.calls()
    assert first["session"]["id"] == minted["session"]["id"]
    assert second["session"]["id"] == "sess_" + second["id"].removeprefix("rtc_")
    assert {call["safety_identifier"] for call in (first, second)} == {"user-hash"}
    minted["session"]["expires_at"] = first["session"]["expires_at"]
    assert first["session"] == minted["session"]


@pytest.mark.parametrize(
    "broken",
    [
        lambda offer: offer.removesuffix("\r\n"),
        lambda offer: offer.replace("m=audio", "m=video"),
        lambda offer: offer.replace("a=fingerprint", "a=x"),
        lambda offer: offer.replace("v=0", "x=0"),
        lambda offer: "",
        lambda offer: "\xff".encode("latin-1"),
    ],
)
async def test_an_offer_is_whole_or_invalid(upstream, offer, broken):
    secret = (await upstream.mint()).json()["value"]
    for answer in (
        await upstream.call_with(secret, broken(offer)),
        await upstream.call({"type": "realtime"}, broken(offer)),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_offer", None)
        assert "WHIP" in error["message"]
    assert await upstream.calls() == []


async def test_lines_may_end_without_a_carriage_return(upstream, offer):
    assert (await upstream.call(offer=offer.replace("\r\n", "\n"))).status_code == 201


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
async def test_other_content_types_are_refused(upstream, content_type):
    secret = (await upstream.mint()).json()["value"]
    for key in ("sk-acme", secret):
        headers = {"authorization": f"Bearer {key}", "content-type": content_type}
        answer = await upstream.http.post("/realtime/calls", content="{}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_content_type")


@pytest.mark.parametrize(
    ("parts", "code", "param"),
    [
        ({"session": '{"type":"realtime"}'}, "missing_required_parameter", "sdp"),
        ({"sdp": None, "session": '{"type":"realtime","voice":"x"}'}, "unknown_parameter", "session.voice"),
        ({"sdp": None, "session": '{"type":"transcription"}'}, "invalid_value", "session.type"),
        ({"sdp": None, "session": "{"}, None, None),
        ({"sdp": None, "model": "x"}, "unknown_parameter", "model"),
    ],
)
async def test_the_parts_are_checked(upstream, offer, parts, code, param):
    files = {name: (None, offer if text is None else text) for name, text in parts.items()}
    answer = await upstream.http.post("/realtime/calls", files=files, headers=KEY)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
async def test_a_broken_form_is_refused(upstream, content_type):
    headers = {**KEY, "content-type": content_type}
    answer = await upstream.http.post("/realtime/calls", content="--y\r\nnonsense", headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize(("dcid", "status"), [("0", 201), ("65534", 201), ("65535", 400), ("x", 400), ("-1", 400)])
async def test_the_channel_id_is_a_number(upstream, dcid, status):
    assert (await upstream.call(query=f"?dcid={dcid}")).status_code == status


async def test_a_call_is_hung_up_once_and_by_its_owner(upstream):
    location = (await upstream.call()).headers["location"]
    other = {"authorization": "Bearer sk-other"}
    lost = {
        "error": {
            "message": "No session found for the provided call_id",
            "type": "invalid_request_error",
            "param": "",
            "code": "call_id_not_found",
        }
    }
    stranger = await upstream.hang_up(location, other)
    assert (stranger.status_code, stranger.json()) == (404, lost)
    upstream.clock.now += 7.5
    first = await upstream.hang_up(location, {**KEY, "content-type": "application/json"})
    assert (first.status_code, first.content) == (200, b"")
    upstream.clock.now += 1
    second = await upstream.hang_up(location)
    assert (second.status_code, second.json()) == (404, lost)
    [call] = await upstream.calls()
    assert (call["state"], call["ended_at"] - call["started_at"]) == ("ended", 7.5)


async def test_the_key_that_minted_hangs_up_the_calls_of_its_secret(upstream):
    secret = (await upstream.mint()).json()["value"]
    location = (await upstream.call_with(secret)).headers["location"]
    assert (await upstream.hang_up(location, {"authorization": f"Bearer {secret}"})).status_code == 401
    assert (await upstream.hang_up(location)).status_code == 200


async def test_a_call_ends_after_an_hour(upstream):
    location = (await upstream.call()).headers["location"]
    upstream.clock.now += 3601
    [call] = await upstream.calls()
    assert (call["state"], call["ended_at"] - call["started_at"]) == ("ended", 3600)
    assert (await upstream.hang_up(location)).status_code == 404


async def test_the_contracts_content_type_can_be_had(run):
    async with run(Options(media=False, answer_content_type="application/sdp")) as upstream:
        assert (await upstream.call()).headers["content-type"] == "application/sdp"


async def test_a_browser_may_ask_from_anywhere(upstream):
    answer = await upstream.http.options("/realtime/calls")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert allowed == ["authorization", "content-type", "x-openai-agents-sdk"]


async def test_the_provider_may_lose_a_call(upstream):
    await upstream.call()
    [call] = await upstream.calls()
    for _ in range(2):
        lost = await upstream.http.delete(f"http://upstream/_emulator/calls/{call['id']}")
        assert lost.status_code == 204
    assert [one["state"] for one in await upstream.calls()] == ["ended"]
    assert (await upstream.http.delete("http://upstream/_emulator/calls/rtc_nope")).status_code == 404
