"""The emulator over WebSocket, as the SDKs and pages meet the provider there."""

import json
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from switchboard.emulator import Options, create_app
from tests.emulator.conftest import Clock
from tests.support.servers import serving

pytestmark = pytest.mark.anyio
KEY = {"authorization": "Bearer sk-acme"}
TEXT = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}


class Line:
    """An emulator behind a real server, and sockets to it."""

    def __init__(self, url, clock):
        self.http = httpx.AsyncClient(base_url=f"{url}/v1", trust_env=False)
        self.clock = clock
        self._url = url.replace("http", "ws", 1)

    def connect(self, query="?model=gpt-realtime-2.1", headers=None, protocols=None):
        return connect(
            f"{self._url}/v1/realtime{query}", additional_headers=headers, subprotocols=protocols, proxy=None
        )

    async def secret(self, **session):
        body = {"session": {"type": "realtime", **session}, "expires_after": {"anchor": "created_at", "seconds": 10}}
        return (await self.http.post("/realtime/client_secrets", json=body, headers=KEY)).json()


@pytest.fixture
async def line():
    clock = Clock()
    app = create_app(Options(media=False), clock=clock)
    async with serving(app) as url:
        made = Line(url, clock)
        yield made
        await made.http.aclose()


async def told(socket, kind):
    """Events up to the first of this kind, which is the last one given."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(await socket.recv()))
    return events


async def say(socket, **event):
    await socket.send(json.dumps(event))


async def test_a_standard_key_begins_with_the_model_of_the_query(line):
    async with line.connect(headers=KEY) as socket:
        [created] = await told(socket, "session.created")
    assert created["session"]["model"] == "gpt-realtime-2.1"
    assert created["session"]["expires_at"] == int(line.clock.now) + 3600


async def test_a_secret_by_subprotocol_has_its_session(line):
    minted = await line.secret(model="gpt-realtime-2", instructions="Be brief.")
    protocols = ["realtime", f"openai-insecure-api-key.{minted['value']}"]
    async with line.connect(protocols=protocols) as socket:
        [created] = await told(socket, "session.created")
        assert socket.subprotocol == "realtime"
    session = created["session"]
    assert (session["id"], session["model"]) == (minted["session"]["id"], "gpt-realtime-2")
    assert session["instructions"] == "Be brief."
    async with line.connect(protocols=protocols) as socket:  # a secret is good until it expires
        [again] = await told(socket, "session.created")
    assert again["session"]["id"] != session["id"]


@asynccontextmanager
async def _texting(line):
    async with line.connect(headers=KEY) as socket:
        await told(socket, "session.created")
        await say(socket, **TEXT)
        [updated] = await told(socket, "session.updated")
        assert updated["session"]["output_modalities"] == ["text"]
        yield socket


async def test_a_response_in_text_is_told_with_its_usage(line):
    async with _texting(line) as socket:
        content = [{"type": "input_text", "text": "Hi"}]
        await say(socket, type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await say(socket, type="response.create")
        *_, done = await told(socket, "response.done")
    assert done["response"]["status"] == "completed"
    assert done["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "Hello from the emulator. All is well."}
    ]
    usage = done["response"]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


async def test_what_is_spoken_has_a_transcript_and_no_sound(line):
    async with line.connect(headers=KEY) as socket:
        await say(socket, type="response.create")
        kinds = [event["type"] for event in await told(socket, "response.done")]
    assert "response.output_audio_transcript.done" in kinds
    assert "output_audio_buffer.started" not in kinds


async def test_a_response_is_cancelled(line):
    async with _texting(line) as socket:
        await say(socket, type="response.create")
        await told(socket, "response.created")
        await say(socket, type="response.cancel")
        *_, done = await told(socket, "response.done")
    assert done["response"]["status"] == "cancelled"


async def test_an_unknown_key_is_refused_as_on_the_data_channel(line):
    async with line.connect(headers=KEY) as socket:
        await told(socket, "session.created")
        update = {"type": "realtime", "temperature": 0.8}
        await say(socket, type="session.update", event_id="mine", session=update)
        [error] = await told(socket, "error")
        assert (error["error"]["code"], error["error"]["param"]) == ("unknown_parameter", "session.temperature")
        assert error["error"]["event_id"] == "mine"
        await socket.send("not JSON")
        assert (await told(socket, "error"))[-1]["error"]["code"] == "invalid_json"
        await socket.send(json.dumps(TEXT).encode())  # and it goes on, in binary frames as well
        await told(socket, "session.updated")


@pytest.mark.parametrize(
    ("asked", "code", "closed"),
    [
        (("?model=x", {"authorization": "Bearer nonsense"}, None), "invalid_api_key", 3000),
        (("?model=x", {"authorization": "Bearer ek_nonsense"}, None), "invalid_api_key", 3000),
        (("?model=x", None, ["realtime", "openai-insecure-api-key.ek_nonsense"]), "invalid_api_key", 3000),
        (("?model=x", None, None), None, 3000),
        (("", KEY, None), "missing_model", 4000),
        (("?model=x", {**KEY, "openai-beta": "realtime=v1"}, None), "beta_api_shape_disabled", 4000),
        (("?model=x", KEY, ["realtime", "openai-beta.realtime-v1"]), "beta_api_shape_disabled", 4000),
        (("?model=gpt-live-1", KEY, None), "model_not_found", 4004),
    ],
)
async def test_a_refusal_comes_after_the_upgrade(line, asked, code, closed):
    async with line.connect(*asked) as socket:
        [error] = await told(socket, "error")
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
    assert (error["error"]["code"], caught.value.rcvd and caught.value.rcvd.code) == (code, closed)


async def test_a_secret_that_has_expired_is_refused(line):
    minted = await line.secret()
    line.clock.now += 11
    async with line.connect(headers={"authorization": f"Bearer {minted['value']}"}) as socket:
        [error] = await told(socket, "error")
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
    assert (error["error"]["code"], caught.value.rcvd and caught.value.rcvd.code) == ("invalid_api_key", 3000)


async def test_there_is_no_sideband(line):
    with pytest.raises(InvalidStatus) as caught:
        await line.connect("?call_id=rtc_1", KEY)
    assert caught.value.response.status_code == 404
