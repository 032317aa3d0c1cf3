"""The provider's sample pages, those of its retired beta included: on another origin, with real WebRTC, to the end."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.wire import Wire
from tests.support.leaks import LEAKS

TALK = """async ([url, token, ...rest]) => {
  window.events = [];
  const onEvent = (event) => events.push(event);
  const made = await example.talk(url, token, ...rest, document.getElementById("speaker"), onEvent);
  Object.assign(window, made instanceof RTCPeerConnection ? { peer: made } : made);
  while (!events.length || peer.connectionState !== "connected") await new Promise((done) => setTimeout(done, 10));
}"""
HEARD = """async () => [...(await peer.getStats()).values()]
  .some((it) => it.type === "inbound-rtp" && it.totalAudioEnergy > 0)"""
FLAT = {
    "model": "gpt-4o-realtime-preview",
    "voice": "cedar",
    "modalities": ["audio", "text"],
    "input_audio_format": "pcm16",
    "temperature": 0.8,
}

pytestmark = pytest.mark.browser


@dataclass(frozen=True)
class Sample:
    """A page, whose user it is, and the requests that it makes here."""

    client: str
    path: str
    tenant: str
    rest: tuple[Any, ...]
    requests: tuple[tuple[str, str, int], ...]
    voice: str = "marin"


TOKEN, SESSIONS = ("GET", "/token", 200), ("POST", "/v1/realtime/sessions", 200)
SECRETS = ("POST", "/v1/realtime/client_secrets", 200)
SAMPLES = {
    "direct": Sample("OpenAI's sample, /token", "direct", "widgets", ("concierge",), (TOKEN,), "coral"),
    "relay": Sample("OpenAI's sample, /token", "relay", "acme", ("support",), (TOKEN, ("POST", "/sdp", 201))),
    "session": Sample("OpenAI's sample, /session", "relay", "acme", ("support",), (("POST", "/session", 201),)),
    "litellm": Sample(
        "LiteLLM's sample", "relay", "acme", ("support",), (SECRETS, ("POST", "/v1/realtime/calls", 201))
    ),
    "console": Sample("the beta's console", "relay", "acme", (), (TOKEN, ("POST", "/v1/realtime", 201))),
    "sessions": Sample(
        "the beta's sessions", "relay", "acme", (FLAT,), (SESSIONS, ("POST", "/v1/realtime", 201)), "cedar"
    ),
}
FILES = {
    "direct": "sample/token.js",
    "relay": "sample/token.js",
    "session": "sample/session.js",
    "litellm": "litellm/talk.js",
    "console": "beta/console.js",
    "sessions": "beta/sessions.js",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_page_connects(name, visit, server_of_site, client):
    sample, server = SAMPLES[name], server_of_site
    watched = visit(FILES[name])
    page, wire = watched.page, Wire(watched.page, server.url)
    subject = f"sampling-samuel-{name}"
    LEAKS.plant("subject", subject)
    token = server.token(sample.tenant, subject)
    with client(sample.client, sample.path):
        page.evaluate(TALK, [server.url, token, *sample.rest])
    page.wait_for_function(HEARD)
    created = page.evaluate("events[0]")
    assert (created["type"], created["session"]["audio"]["output"]["voice"]) == ("session.created", sample.voice)
    assert [(one.method, one.path, one.status) for one in wire.requests] == list(sample.requests)
    if sample.path == "direct":
        return
    opened = wire.requests[-1]
    call_id = opened.answered["location"].rpartition("/")[2]
    assert server.call(call_id, token)["state"] == "open"
    record = server.record(action="call.open", call_id=call_id)
    if name == "console":
        assert (opened.answered["switchboard-dropped"], record["dropped"]) == ("model", ["model"])
    if name == "sessions":
        assert set(page.evaluate("dropped").split(", ")) == {
            "model",
            "output_modalities",
            "audio.input.format.type",
            "temperature",
        }
        assert opened.asked["openai-beta"] == "realtime=v1"


def test_a_page_of_the_beta_is_told_what_it_may_not_choose(visit, server_of_site):
    watched, server = visit("beta/sessions.js"), server_of_site
    watched.foresee(400, "/v1/realtime/sessions")
    token = server.token("acme", "choosing-charlotte-46")
    said = watched.page.evaluate(
        """async ([url, token]) => example.talk(url, token, { instructions: "Say anything." }, null, () => {})
          .catch((error) => error.message)""",
        [server.url, token],
    )
    assert said == "The preset does not let a caller set `instructions`."
