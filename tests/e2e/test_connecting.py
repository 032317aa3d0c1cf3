"""Clients without a browser, to connected: with sound and `session.created`, through the running service."""

import asyncio

import pytest
from aiortc import AudioStreamTrack

from tests.e2e import sdks
from tests.e2e.farend import FarEnd, far_end
from tests.support.leaks import LEAKS

EXAMPLE = "aiortc/call.py"
NAMES = {"python": "openai for Python", "node": "openai for Node"}

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=NAMES)
def sdk(request, tmp_path_factory):
    if request.param == "python":
        yield NAMES["python"], sdks.Python()
        return
    with sdks.node(tmp_path_factory.mktemp("node")) as running:
        yield NAMES["node"], running


@pytest.fixture
def server(server_of_site):
    return server_of_site


def user(server, tenant, subject):
    LEAKS.plant("subject", subject)
    return server.token(tenant, subject)


async def ask(sdk, *what, **rest):
    """The packages block; a peer connection must not wait with them."""
    outcome = await asyncio.to_thread(sdk.ask, *what, **rest)
    assert "gave" in outcome, outcome
    return outcome["gave"]


async def test_openai_connects_through_switchboard(sdk, server, client):
    name, package = sdk
    token = user(server, "acme", "packaged-pankratius-19")
    async with far_end() as peer:
        with client(name, "relay"):
            given = await ask(package, "open_by_example", server.url, token, offer=await peer.offer())
            await peer.connect(given["answer"])
        await peer.heard()
        running = server.call(given["call_id"], token)
        assert (running["state"], running["preset"]) == ("open", "support")
        created = await peer.event("session.created")
        assert created["session"]["instructions"] == "You help a customer of Acme with orders. Be brief and kind."
        assert await ask(package, "hang_up_by_example", server.url, token, call_id=given["call_id"]) is None
        assert server.call(given["call_id"], token)["ended_by"] == "owner"


async def test_openai_connects_at_the_provider_by_a_client_secret(sdk, server, client):
    name, package = sdk
    token = user(server, "widgets", "directed-dankmar-20")
    async with far_end() as peer:
        with client(name, "direct"):
            secret = (await ask(package, "create_secret", server.url, token))["value"]
            LEAKS.handed_out("", secret)
            given = await ask(package, "create_call", server.provider_url, secret, body={"sdp": await peer.offer()})
            await peer.connect(given["answer"])
        await peer.heard()
        created = await peer.event("session.created")
        assert created["session"]["model"] == "gpt-realtime-2.1-mini"


async def test_aiortc_connects_and_hangs_up(server, client):
    example = sdks.loaded(EXAMPLE)
    token = user(server, "acme", "pythonic-philippa-21")
    async with far_end() as nobody:  # for what it hears
        with client("aiortc for Python", "relay"):
            peer, address = await example.call(server.url, token, AudioStreamTrack(), nobody.told)
            created = await nobody.event("session.created")
        assert created["session"]["model"] == "gpt-realtime-2.1"
        assert peer.connectionState == "connected"
        await FarEnd(peer).heard()
        call_id = address.removeprefix(f"{server.url}/sdp/")
        assert server.call(call_id, token)["state"] == "open"
        await example.hang_up(address, token, peer)
        assert server.call(call_id, token)["ended_by"] == "owner"
        with pytest.raises(ConnectionError, match="The token is not a signed JWT"):
            await example.call(server.url, "nonsense", AudioStreamTrack(), nobody.told)
