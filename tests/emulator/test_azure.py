"""The emulator as a resource of Azure OpenAI, and as a server that names no calls."""

import re

import pytest

from switchboard.emulator import Options
from tests.support import identity

pytestmark = pytest.mark.anyio

BASE = "http://upstream/openai/v1/realtime"
KEY = {"api-key": "resource-key-1"}
SDP = {"content-type": "application/sdp"}
SPEECH = {"session": {"type": "realtime", "model": "my-deployment"}}


def bearer(value):
    return {"authorization": f"Bearer {value}"}


@pytest.fixture
async def azure(run):
    async with run(Options(media=False, azure=True, keys=frozenset(KEY.values()))) as upstream:
        yield upstream


async def opened(azure, offer, query=""):
    """A call, the way it goes: mint, then post."""
    minted = (await azure.http.post(f"{BASE}/client_secrets", json=SPEECH, headers=KEY)).json()
    return await azure.http.post(f"{BASE}/calls{query}", content=offer, headers={**bearer(minted["value"]), **SDP})


async def test_its_paths_are_below_the_resource(azure):
    assert (await azure.http.post("http://upstream/v1/realtime/client_secrets", headers=KEY)).status_code == 404
    minted = await azure.http.post(f"{BASE}/client_secrets", json=SPEECH, headers=KEY)
    assert minted.status_code == 200
    assert minted.json()["expires_at"] == azure.clock.now + 7200
    assert minted.headers["apim-request-id"]
    assert "x-request-id" not in minted.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (KEY, 200),
        ({"api-key": "another"}, 401),
        ({}, 401),
        (bearer(KEY["api-key"]), 401),
        (bearer("eyJh.bm90LWpzb24.c2ln"), 401),
    ],
)
async def test_who_may_mint_by_key(azure, headers, status):
    answer = await azure.http.post(f"{BASE}/client_secrets", json=SPEECH, headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert {"code", "message", "details", "misalignment"} <= answer.json()["error"].keys()


@pytest.mark.parametrize(
    ("seconds", "audience", "status"),
    [
        (60, "https://ai.azure.com", 200),
        (60, "https://cognitiveservices.azure.com/", 200),
        (60, "https://management.azure.com", 401),
        (-1, "https://ai.azure.com", 401),
    ],
)
async def test_who_may_mint_by_token(azure, seconds, audience, status):
    headers = bearer(identity.token(seconds=seconds, audience=audience, now=azure.clock()))
    assert (await azure.http.post(f"{BASE}/client_secrets", json=SPEECH, headers=headers)).status_code == status


async def test_a_call_takes_an_ephemeral_token_alone(azure, offer):
    for headers in (KEY, bearer(identity.token(now=azure.clock()))):
        form = {"sdp": (None, offer, "application/sdp"), "session": (None, '{"type":"realtime"}', "application/json")}
        for answer in (
            await azure.http.post(f"{BASE}/calls", files=form, headers=headers),
            await azure.http.post(f"{BASE}/calls", content=offer, headers={**headers, **SDP}),
        ):
            assert answer.status_code == 401
            assert "ephemeral" in answer.json()["error"]["message"]
    assert azure.emulator.calls == ()


async def test_a_call_has_an_id_of_hexadecimal_digits_and_no_prefix(azure, offer):
    answer = await opened(azure, offer)
    assert answer.status_code == 201
    assert re.fullmatch(r"/v1/realtime/calls/rtc_[0-9a-f]{32}", answer.headers["location"])
    # Whoever may use the resource may end it.
    hang_up = f"{BASE}/calls/{answer.headers['location'].rpartition('/')[2]}/hangup"
    assert (await azure.http.post(hang_up, headers=bearer(identity.token(now=azure.clock())))).status_code == 200
    gone = await azure.http.post(hang_up, headers=KEY)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "call_id_not_found")


async def test_what_the_browser_hears_is_narrowed_if_the_address_says_so(azure, offer, upstream):
    for query in ("", "?webrtcfilter=off", "?webrtcfilter=on", "?dcid=3&webrtcfilter=on"):
        assert (await opened(azure, offer, query)).status_code == 201
    assert [call.narrowed for call in azure.emulator.calls] == [False, False, True, True]
    # Elsewhere it means nothing.
    secret = (await upstream.mint()).json()["value"]
    headers = {**bearer(secret), **SDP}
    assert (await upstream.http.post("/realtime/calls?webrtcfilter=on", content=offer, headers=headers)).is_success
    assert [call.narrowed for call in upstream.emulator.calls] == [False]


async def test_faults_of_a_key(azure):
    await azure.faults(status=429, key=KEY["api-key"])
    assert (await azure.http.post(f"{BASE}/client_secrets", json=SPEECH, headers=KEY)).status_code == 429


async def test_a_server_that_names_no_calls(run):
    async with run(Options(media=False, call_ids=False)) as upstream:
        answer = await upstream.call()
        assert (answer.status_code, "location" in answer.headers) == (201, False)
