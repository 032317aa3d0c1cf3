"""OpenAI's package for browsers: the published one, a page on another origin, a token from /token, and real WebRTC."""

import pytest

from tests.e2e.wire import Wire
from tests.support.leaks import LEAKS

TALK = """async ([url, token, preset]) => {
  window.events = [];
  const speaker = document.getElementById("speaker");
  window.transport = await example.talk(url, token, preset, speaker, (event) => events.push(event));
  window.peer = transport.connectionState.peerConnection;
}"""
TALK_TO_AGENT = """async ([url, token, preset, instructions]) => {
  window.events = [];
  const speaker = document.getElementById("speaker");
  const onEvent = (event) => events.push(event);
  window.session = await example.talkToAgent(url, token, preset, speaker, instructions ?? undefined, onEvent);
  window.transport = session.transport;
}"""
TALK_AGAIN = """async ([url, token, preset]) => {
  const speaker = document.getElementById("speaker");
  const straight = window.fetch;
  let minted;
  window.fetch = async (...asked) => {
    if (!String(asked[0]).includes("/token")) return straight(...asked);
    minted ??= await (await straight(...asked)).text();
    return new Response(minted);
  };
  const first = await example.talk(url, token, preset, speaker, () => {});
  first.close();
  return example.talk(url, token, preset, speaker, () => {}).then(() => "connected", (error) => error.message);
}"""
# Its 5 s, in less.
HURRY = """() => {
  const straight = window.setTimeout;
  window.hurried = 0;
  window.setTimeout = (what, ms, ...rest) => straight(what, ms === 5000 ? (window.hurried++, 300) : ms, ...rest);
}"""
KINDS = "events.map((event) => event.type)"
SESSION = "(type) => events.find((event) => event.type === type).session"
HEARD = """async () => [...(await peer.getStats()).values()]
  .some((it) => it.type === "inbound-rtp" && it.totalAudioEnergy > 0)"""

pytestmark = pytest.mark.browser


@pytest.fixture
def server(server_of_site):
    return server_of_site


def user(server, tenant, subject):
    LEAKS.plant("subject", subject)
    return server.token(tenant, subject)


def heads(exchanges):
    return [(exchange.method, exchange.path, exchange.status) for exchange in exchanges]


def test_a_grant_connects_here_and_its_call_is_hung_up_by_its_id(visit, server, site, client):
    watched = visit("agents/talk.js")
    page, wire = watched.page, Wire(watched.page, server.url)
    token = user(server, "acme", "agreeing-agathe-58")
    with client("@openai/agents-realtime", "relay"):
        page.evaluate(TALK, [server.url, token, "support"])
    assert page.evaluate("[transport.status, peer.connectionState]") == ["connected", "connected"]
    page.wait_for_function(HEARD)
    call_id = page.evaluate("transport.callId")

    assert heads(wire.requests) == [("GET", "/token", 200), ("POST", "/sdp", 201)]
    _, opened = wire.requests
    assert opened.asked["authorization"].startswith("Bearer ek_swb_")
    assert opened.asked["x-openai-agents-sdk"] == "openai-agents-sdk.0.20.0"
    assert opened.answered["location"] == f"/sdp/{call_id}"
    assert opened.answered["access-control-allow-origin"] == site.url
    assert server.call(call_id, token)["state"] == "open"

    # The provider tells the session of the preset, and then what the package has made of it, past Switchboard.
    assert page.evaluate(KINDS)[:2] == ["session.created", "session.updated"]
    created, updated = (page.evaluate(SESSION, kind) for kind in ("session.created", "session.updated"))
    for told in (created, updated):
        assert told["instructions"] == "You help a customer of Acme with orders. Be brief and kind."
        assert (told["model"], told["audio"]["output"]["voice"]) == ("gpt-realtime-2.1", "marin")
    assert created["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert updated["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
    assert updated["audio"]["input"]["transcription"]["model"] == "gpt-4o-mini-transcribe"

    hung_up = page.evaluate("([url, token]) => example.hangUp(url, token, transport)", [server.url, token])
    assert (hung_up["id"], hung_up["state"], hung_up["ended_by"]) == (call_id, "ended", "owner")
    assert page.evaluate("[transport.status, peer.connectionState]") == ["disconnected", "closed"]
    assert server.record(action="call.end", call_id=call_id)["reason"] == "owner"


def test_a_client_secret_connects_at_the_provider_and_its_call_is_unknown_here(visit, server, client):
    watched = visit("agents/talk.js")
    page, wire = watched.page, Wire(watched.page, server.url)
    token = user(server, "widgets", "direct-dorothea-61")
    with client("@openai/agents-realtime", "direct"):
        page.evaluate(TALK, [server.url, token, "concierge"])
    assert page.evaluate("[transport.status, peer.connectionState]") == ["connected", "connected"]
    page.wait_for_function(HEARD)
    call_id = page.evaluate("transport.callId")
    assert heads(wire.requests) == [("GET", "/token", 200)]
    known = server.provider_calls()[call_id]
    assert (known["state"], known["connected"], known["session"]["model"]) == ("open", True, "gpt-realtime-2.1-mini")
    page.wait_for_function("events.some((event) => event.type === 'session.updated')")
    speeds = [
        page.evaluate(SESSION, kind)["audio"]["output"]["speed"] for kind in ("session.created", "session.updated")
    ]
    assert speeds == [1.1, 1]  # the package's default takes the place of the preset's
    watched.foresee(404, f"/sdp/{call_id}")
    refused = page.evaluate("([url, token]) => example.hangUp(url, token, transport)", [server.url, token])
    assert refused["code"] == "call_not_found"
    for _ in range(100):  # the provider has its own time to notice
        if server.provider_calls()[call_id]["state"] == "ended":
            return
        page.wait_for_timeout(50)
    raise AssertionError("the provider still has the call")


@pytest.mark.parametrize(("sent", "applied"), [("Speak like a pirate.", "Speak like a pirate."), (None, "")])
def test_an_agents_instructions_take_the_place_of_the_presets(visit, server, sent, applied):
    page = visit("agents/agent.js").page
    token = user(server, "acme", "agent-agnes-72")
    page.evaluate(TALK_TO_AGENT, [server.url, token, "support", sent])
    call_id = page.evaluate("transport.callId")
    assert server.call(call_id, token)["preset"] == "support"
    page.wait_for_function("events.some((event) => event.type === 'session.updated')")
    created, updated = (page.evaluate(SESSION, kind) for kind in ("session.created", "session.updated"))
    assert created["instructions"] == "You help a customer of Acme with orders. Be brief and kind."
    assert updated["instructions"] == applied
    page.evaluate("session.close()")
    assert server.record(action="call.open", call_id=call_id)["outcome"] == "allowed"


def test_what_azure_hides_is_waited_for_and_then_the_call_goes_on(visit, server):
    watched = visit("agents/talk.js")
    watched.foresee_words("Timed out waiting for session.updated")
    page = watched.page
    token = user(server, "discreet", "hidden-hannelore-94")
    page.evaluate(HURRY)
    page.evaluate(TALK, [server.url, token, "support"])
    assert page.evaluate("[transport.status, hurried]") == ["connected", 1]
    page.wait_for_function(HEARD)
    page.evaluate("transport.sendEvent({ type: 'response.create' })")
    page.wait_for_function("events.some((event) => event.type === 'response.output_audio_transcript.done')")
    assert not {kind for kind in page.evaluate(KINDS) if kind.startswith("session.")}
    call_id = page.evaluate("transport.callId")
    hung_up = page.evaluate("([url, token]) => example.hangUp(url, token, transport)", [server.url, token])
    assert (hung_up["id"], hung_up["ended_by"]) == (call_id, "owner")


def test_a_refusal_is_thrown_with_its_message(visit, server):
    watched = visit("agents/talk.js")
    watched.foresee(401, "/(token|sdp)")
    page = watched.page
    token = user(server, "acme", "refused-roswitha-83")
    said = page.evaluate(TALK_AGAIN, [server.url, token, "support"])
    assert said == (
        "Realtime call request failed with status 401: This grant has already opened its call; ask /token for another."
    )
