import asyncio
import subprocess
import sys

import pytest
from aiortc.mediastreams import MediaStreamError

from switchboard.emulator import Options
from tests.support.webrtc import SECONDS, calling

pytestmark = pytest.mark.anyio


@pytest.fixture
async def live(run, anyio_backend):
    async with run(Options()) as upstream:
        yield upstream


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110 - what is watched is another program's state
            await asyncio.sleep(0.01)


async def state(upstream):
    [call] = await upstream.calls()
    return call["state"], call["connected"]


async def test_a_call_from_offer_to_hang_up(live):
    async with calling() as caller:
        session = {"type": "realtime", "instructions": "Hi.", "audio": {"output": {"voice": "marin"}}}
        answer = await live.call(session, await caller.offer())
        await caller.accept(answer.text)
        created, before = await caller.hear("session.created")
        [call] = await live.calls()
        assert before == []
        assert created["session"] == call["session"]
        assert created["session"]["expires_at"] == int(live.clock.now) + 3600
        assert (call["state"], call["connected"]) == ("open", True)
        assert await caller.loudness() > 2000

        caller.tell(type="response.create")
        done, before = await caller.hear("response.done")
        assert before[0] == "response.created"
        assert before.count("response.output_audio_transcript.delta") > 3
        assert done["response"]["usage"]["total_tokens"] > 0

        caller.tell(type="session.update", session={"type": "realtime", "voice": "x"})
        wrong, _ = await caller.hear("error")
        assert (wrong["error"]["code"], wrong["error"]["param"]) == ("unknown_parameter", "session.voice")

        assert (await live.hang_up(answer.headers["location"])).status_code == 200
        await until(lambda: _is(caller.connection, "closed"))
        assert await state(live) == ("ended", False)
        with pytest.raises(MediaStreamError):
            await caller.loudness(500)
        assert (await live.hang_up(answer.headers["location"])).status_code == 404


async def _is(connection, state):
    return connection.connectionState == state


async def test_a_secret_carries_its_session_to_the_call(live):
    minted = (await live.mint({"session": {"type": "realtime", "instructions": "Secretly."}})).json()
    async with calling() as caller:
        answer = await live.call_with(minted["value"], await caller.offer())
        await caller.accept(answer.text)
        created, _ = await caller.hear("session.created")
        assert created["session"]["instructions"] == "Secretly."
        assert created["session"]["id"] == minted["session"]["id"]


async def test_a_translation_ends_when_it_is_told_to(live):
    order = {"session": {"model": "gpt-realtime-translate", "audio": {"output": {"language": "es"}}}}
    key = {"authorization": "Bearer sk-acme"}
    minted = (await live.http.post("/realtime/translations/client_secrets", json=order, headers=key)).json()
    async with calling() as caller:
        headers = {"authorization": f"Bearer {minted['value']}", "content-type": "application/sdp"}
        offer = await caller.offer()
        answer = await live.http.post("/realtime/translations/calls", content=offer, headers=headers)
        await caller.accept(answer.text)
        created, _ = await caller.hear("session.created")
        assert (created["session"]["type"], created["session"]["id"]) == ("translation", minted["session"]["id"])
        assert await caller.loudness() > 2000
        caller.tell(type="session.close")
        await caller.hear("session.closed")
        await until(lambda: _ended(live))


async def test_a_channel_that_both_sides_know_by_number(live):
    async with calling(channel_id=7) as caller:
        await caller.accept((await live.call(offer=await caller.offer(), query="?dcid=7")).text)
        await caller.hear("session.created")
        caller.tell(type="response.create", response={"output_modalities": ["text"]})
        await caller.hear("response.output_text.done")


async def test_a_response_can_be_cut_short(live):
    async with calling() as caller:
        await caller.accept((await live.call(offer=await caller.offer())).text)
        await caller.hear("session.created")
        caller.tell(type="response.create")
        await caller.hear("response.output_audio_transcript.delta")
        caller.tell(type="response.cancel")
        done, _ = await caller.hear("response.done")
        assert done["response"]["status"] == "cancelled"
        caller.tell(type="response.create")
        await caller.hear("response.created")


async def test_a_caller_who_leaves_ends_the_call(live):
    async with calling() as caller:
        await caller.accept((await live.call(offer=await caller.offer())).text)
        await caller.hear("session.created")
    await until(lambda: _ended(live))


async def _ended(upstream):
    return await state(upstream) == ("ended", False)


async def test_a_caller_who_never_comes_is_dropped(run):
    async with run(Options(connect_seconds=0.05)) as upstream, calling() as caller:
        location = (await upstream.call(offer=await caller.offer())).headers["location"]
        await until(lambda: _ended(upstream))
        assert (await upstream.hang_up(location)).status_code == 404


async def test_the_end_of_the_emulator_ends_its_calls(run):
    async with calling() as caller:
        async with run(Options()) as upstream:
            await caller.accept((await upstream.call(offer=await caller.offer())).text)
            await caller.hear("session.created")
        assert [call.state for call in upstream.emulator.calls] == ["ended"]
        await until(lambda: _is(caller.connection, "closed"))


async def test_an_offer_that_only_looks_like_one_is_invalid(live, offer):
    nonsense = offer.replace("a=rtpmap:111 opus/48000/2", "a=rtpmap:111 song/1")
    answer = await live.call(offer=nonsense)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_offer")
    assert await state(live) == ("ended", False)


def test_without_aiortc_only_media_is_missing():
    code = """
import sys
sys.modules["aiortc"] = None
from switchboard.emulator import MediaUnavailableError, Options, create_app
create_app(Options(media=False))
try:
    create_app(Options())
except MediaUnavailableError as error:
    assert "--no-media" in str(error) and "emulator" in str(error), error
else:
    raise SystemExit("media without aiortc")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)
