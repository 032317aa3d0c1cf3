"""Sessions that write down and sessions that translate, on both ways, to connected: OpenAI's SDKs and a real peer."""

import asyncio
import hashlib
from typing import Any

import httpx
import pytest

from tests.e2e import sdks
from tests.e2e.farend import far_end
from tests.support.leaks import LEAKS

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "transcription": ("create_secret", {"query": {"preset": "captions"}}),
    "translation": ("create_translation", {"body": {"session": {"model": "interpreter"}}}),
}
PRESETS = {"transcription": "captions", "translation": "interpreter"}
TENANTS = {"relay": "acme", "direct": "widgets"}
CALLS = {"transcription": "/v1/realtime/calls", "translation": "/v1/realtime/translations/calls"}

pytestmark = [pytest.mark.anyio, pytest.mark.client]


@pytest.fixture(scope="module", params=["python", "node"])
def sdk(request, tmp_path_factory):
    if request.param == "python":
        yield sdks.Python()
        return
    with sdks.node(tmp_path_factory.mktemp("node")) as running:
        yield running


def user(server, tenant, subject):
    LEAKS.plant("subject", subject)
    return server.token(tenant, subject)


async def post(url, token, offer):
    headers = {"authorization": f"Bearer {token}", "content-type": "application/sdp"}
    async with httpx.AsyncClient(trust_env=False) as page:
        answer = await page.post(url, headers=headers, content=offer)
    assert answer.status_code == 201, answer.text
    return answer


def of(created):
    """What tells one type of session from another."""
    session = created["session"]
    return session["type"], session.get("model"), session["audio"].get("output")


SEEN = {
    "transcription": ("transcription", None, None),
    "translation": ("translation", "gpt-realtime-translate", {"language": "es"}),
}


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("delivery", TENANTS)
async def test_a_secret_by_the_package_opens_its_call(sdk, server_of_site, kind, delivery):
    server, (operation, rest) = server_of_site, ASKED[kind]
    token = user(server, TENANTS[delivery], f"typing-theodor-{kind}-{delivery}")
    outcome = await asyncio.to_thread(sdk.ask, operation, server.url, token, **rest)
    assert "gave" in outcome, outcome
    secret = outcome["gave"]["value"]
    LEAKS.handed_out("", secret)
    assert outcome["gave"]["session"]["type"] == kind
    async with far_end() as peer:
        answer = await post(
            (server.url if delivery == "relay" else server.provider_url) + CALLS[kind], secret, await peer.offer()
        )
        await peer.connect(answer.text)
        assert of(await peer.event("session.created")) == SEEN[kind]
        call_id = answer.headers["location"].rpartition("/")[2]
        if delivery == "relay":
            assert server.call(call_id, token)["state"] == "open"
            hung_up = await asyncio.to_thread(sdk.ask, "hang_up", server.url, token, call_id=call_id)
            assert "gave" in hung_up, hung_up
            assert server.call(call_id, token)["ended_by"] == "owner"
            issued = server.record(action="grant.issue", credential_sha256=hashlib.sha256(secret.encode()).hexdigest())
            assert issued["preset"] == PRESETS[kind]


@pytest.mark.parametrize("kind", CALLS)
async def test_an_offer_by_the_users_token_is_enough(server_of_site, kind):
    """The secret that the provider wants for it is Switchboard's business."""
    server, preset = server_of_site, PRESETS[kind]
    token = user(server, "acme", f"offering-ottilie-{kind}")
    async with far_end() as peer:
        answer = await post(f"{server.url}/sdp?preset={preset}", token, await peer.offer())
        await peer.connect(answer.text)
        assert of(await peer.event("session.created")) == SEEN[kind]
        call_id = answer.headers["location"].removeprefix("/sdp/")
        assert server.provider_calls()[call_id]["connected"]
        async with httpx.AsyncClient(trust_env=False) as page:
            await page.delete(f"{server.url}/sdp/{call_id}", headers={"authorization": f"Bearer {token}"})
    assert server.provider_calls()[call_id]["state"] == "ended"
