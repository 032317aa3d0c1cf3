"""The browser helper: served by the service, imported by a page on another origin, with real WebRTC."""

import gzip
import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.site import ESBUILD, PACKAGES
from tests.e2e.wire import Wire
from tests.support.leaks import LEAKS

WEB = Path(__file__).parents[2] / "service" / "switchboard" / "web"
HELPER = WEB / "switchboard.js"
EXAMPLE = "helper/talk.js"
# With limits that say what "small" is: without comments, and as most servers send it.
MINIFIED_BYTES, COMPRESSED_BYTES = 6500, 3000

TALK = """async ([url, token, preset]) => {
  Object.assign(window, { events: [], states: [] });
  const speaker = document.getElementById("speaker");
  const onState = (state, why, error) => states.push([state, why, error?.message].filter(Boolean).join(" "));
  window.call = await example.talk(url, () => token, preset, speaker, (event) => events.push(event), onState);
}"""
REFUSED = """async ([url, options]) => {
  const { connect } = await import(`${url}/switchboard.js`);
  const { name, code, status, message, retryAfter, requestId } = await connect({ url, ...options }).catch((it) => it);
  return { name, code, status, message, retryAfter, requestId };
}"""
CREATED = "events.some((event) => event.type === 'session.created')"
HEARD = """async () => !speaker.paused && [...(await call.peer.getStats()).values()]
  .some((it) => it.type === "inbound-rtp" && it.totalAudioEnergy > 0)"""
# A connection that breaks without a word takes Chromium half a minute to notice: its verdict, now.
BREAK = """() => {
  Object.defineProperty(call.peer, "connectionState", { value: "failed" });
  call.peer.dispatchEvent(new Event("connectionstatechange"));
}"""
# What a user's token that has run out in a long call is told.
EXPIRED = """async ([url, preset, ...tokens]) => {
  const asked = [];
  const refused = { status: 401, headers: { "content-type": "application/problem+json" } };
  const { connect } = await import(`${url}/switchboard.js`);
  window.call = await connect({
    url,
    preset,
    token: () => (asked.push("token"), tokens.shift()),
    fetch: async (where, how) => {
      if (!where.includes("/report") || asked.includes("report")) return fetch(where, how);
      asked.push("report");
      return new Response(JSON.stringify({ code: "expired_token", detail: "It has expired." }), refused);
    },
  });
  while (asked.length < 3) await new Promise((resolve) => setTimeout(resolve, 20));
  return asked;
}"""

CHOOSE = """async ([url, token, session]) => {
  const { connect } = await import(`${url}/switchboard.js`);
  const giveUp = new AbortController();
  const voice = await new Promise((resolve, reject) => {
    const onEvent = ({ type, session }) => type === "session.created" && resolve(session.audio.output.voice);
    connect({ url, token, preset: "support", session, onEvent, signal: giveUp.signal }).catch(reject);
  });
  giveUp.abort();
  return voice;
}"""

# A network that lets HTTPS through and no media takes Chromium as long to notice.
BLOCKED = """async ([url, token]) => {
  const { connect } = await import(`${url}/switchboard.js`);
  const states = [];
  const onState = (state, why) => states.push(`${state} ${why}`);
  const onPeer = (peer) => {
    const answered = peer.setRemoteDescription.bind(peer);
    peer.setRemoteDescription = async (answer) => {
      await answered(answer);
      Object.defineProperty(peer, "connectionState", { value: "failed" });
      setTimeout(() => peer.dispatchEvent(new Event("connectionstatechange")));
    };
  };
  const { code, message } = await connect({ url, token, preset: "support", onPeer, onState }).catch((it) => it);
  return [code, message, ...states];
}"""

browser = pytest.mark.browser


@pytest.fixture
def server(server_of_site):
    return server_of_site


def user(server, tenant, subject):
    LEAKS.plant("subject", subject)
    return server.token(tenant, subject)


def heads(wire):
    return [(one.method, one.path, one.status) for one in wire.requests if one.method != "GET"]


@browser
def test_a_relayed_call_from_the_token_to_the_hang_up(visit, server, site, client):
    watched = visit(EXAMPLE)
    page, wire = watched.page, Wire(watched.page, server.url)
    token = user(server, "acme", "helped-hedwig-31")
    with client("switchboard.js, the browser helper", "relay"):
        page.evaluate(TALK, [server.url, token, "support"])
    page.wait_for_function(CREATED)
    page.wait_for_function(HEARD)
    call_id = page.evaluate("call.id")
    assert page.evaluate("[call.url, call.peer.connectionState, call.channel.label]") == [
        f"{server.url}/sdp/{call_id}", "connected", "oai-events",
    ]  # fmt: skip
    page.evaluate("call.send({ type: 'response.create' })")
    page.wait_for_function("events.some((event) => event.type === 'response.done')")
    page.wait_for_function("call.status")
    assert page.evaluate("call.status.deadline") == server.call(call_id, token)["deadline"]

    page.evaluate("call.hangUp()")
    assert page.evaluate("[states, call.peer.connectionState]") == [["connected", "ended owner"], "closed"]
    assert page.evaluate("call.microphone.getTracks().map((track) => track.readyState)") == ["ended"]
    assert server.record(action="call.end", call_id=call_id)["reason"] == "owner"
    page.evaluate("call.hangUp()")  # is no mistake, and nothing is sent
    told = heads(wire)
    assert told[:2] == [("POST", "/token", 200), ("POST", "/sdp", 201)]
    assert sorted(told[2:]) == [
        ("DELETE", f"/sdp/{call_id}", 200),
        *[("POST", f"/sdp/{call_id}/report", 204)] * 3,  # connected, alive, ended
    ]
    (module,) = [one for one in wire.requests if one.path == "/switchboard.js"]
    assert module.answered["access-control-allow-origin"] == site.url
    assert module.answered["content-type"] == "text/javascript; charset=utf-8"


@browser
def test_a_direct_call_is_the_providers(visit, server, client):
    watched = visit(EXAMPLE)
    page, wire = watched.page, Wire(watched.page, server.url)
    token = user(server, "widgets", "helped-helene-32")
    with client("switchboard.js, the browser helper", "direct"):
        page.evaluate(TALK, [server.url, token, "concierge"])
    page.wait_for_function(CREATED)
    page.wait_for_function(HEARD)
    assert page.evaluate("call.url") == ""
    assert server.provider_calls()[page.evaluate("call.id")]["connected"]
    page.evaluate("call.hangUp()")
    told = heads(wire)
    assert told == [("POST", "/token", 200), ("POST", "/report", 204), ("POST", "/report", 204)]
    _, *reports = [one for one in wire.requests if one.method == "POST"]
    # The provider's secret means nothing here: reports go with the user's token.
    assert {one.asked["authorization"] for one in reports} == {f"Bearer {token}"}


@browser
def test_a_page_that_goes_away_hangs_up(visit, server):
    watched = visit(EXAMPLE)
    page = watched.page
    page.evaluate(TALK, [server.url, user(server, "acme", "helped-hortense-33"), "support"])
    page.wait_for_function("call.status")
    call_id = page.evaluate("call.id")
    watched.leave()
    page.goto("about:blank")
    assert server.record(timeout=2, action="call.end", call_id=call_id)["reason"] == "owner"


@browser
def test_a_connection_that_breaks_is_made_anew_once(visit, server):
    page = visit(EXAMPLE).page
    token = user(server, "acme", "helped-hermine-34")
    page.evaluate(TALK, [server.url, token, "support"])
    first = page.evaluate("call.id")
    page.evaluate("events.length = 0")
    lose(server, first)
    page.wait_for_function("states.length === 3")
    assert page.evaluate("states") == ["connected", "reconnecting lost", "connected"]
    page.wait_for_function(CREATED)
    page.wait_for_function(HEARD)
    second = page.evaluate("call.id")
    assert (server.call(first, token)["ended_by"], server.call(second, token)["state"]) == ("owner", "open")
    lose(server, second)
    page.wait_for_function("states.length === 4")
    assert page.evaluate("states[3]") == "ended lost"
    assert server.record(action="call.end", call_id=second)["outcome"] == "allowed"
    assert page.evaluate("call.microphone.getTracks().map((track) => track.readyState)") == ["ended"]


def lose(server, call_id):
    answer = httpx.delete(f"{server.provider_url}/_emulator/calls/{call_id}", trust_env=False)
    assert answer.status_code == 204


@browser
def test_so_is_one_by_a_client_secret_and_what_is_refused_then_is_told(visit, server):
    watched = visit(EXAMPLE)
    page = watched.page
    page.evaluate(TALK, [server.url, user(server, "widgets", "helped-hilaria-35"), "concierge"])
    page.wait_for_function("call.peer.connectionState === 'connected'")
    watched.leave()
    page.route("**/token*", lambda route: route.abort("connectionrefused"))
    page.evaluate(BREAK)
    page.wait_for_function("states.length === 3")
    told = f"ended network_error No answer from {server.url[7:]}."
    assert page.evaluate("states") == ["connected", "reconnecting lost", told]


@browser
def test_a_call_that_never_connects_is_told_and_hung_up(visit, server):
    page = visit(EXAMPLE).page
    wire = Wire(page, server.url)
    token = user(server, "acme", "helped-hella-41")
    with page.expect_response(re.compile("/report$")) as report:
        assert page.evaluate(BLOCKED, [server.url, token]) == [
            "connection_failed", "The call was accepted, but no connection came about.", "ended connection_failed",
        ]  # fmt: skip
    (opened,) = [one for one in wire.requests if (one.method, one.path) == ("POST", "/sdp")]
    call_id = opened.answered["location"].removeprefix("/sdp/")
    assert server.record(action="call.end", call_id=call_id)["reason"] == "owner"
    assert (report.value.status, report.value.request.post_data) == (204, '{"event":"failed"}')
    assert re.search(r'client_connections_total\{outcome="failed",tenant="acme"\} [1-9]', server.metrics())


@browser
def test_a_call_that_was_ended_is_not_made_anew(visit, server):
    page = visit(EXAMPLE).page
    token = user(server, "acme", "helped-hildegard-36")
    page.evaluate(TALK, [server.url, token, "support"])
    ended = server.client.delete(f"/sdp/{page.evaluate('call.id')}", headers={"authorization": f"Bearer {token}"})
    assert ended.status_code == 200
    page.wait_for_function("states.length === 2")
    assert page.evaluate("states") == ["connected", "ended owner"]


@browser
def test_a_page_chooses_what_the_preset_leaves_open(visit, server):
    watched = visit(EXAMPLE)
    token = server.token("acme", "helped-hiltrud-40")
    session = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    assert watched.page.evaluate(CHOOSE, [server.url, token, session]) == "cedar"
    watched.foresee(400, "/token")
    refused_choice = refused(watched.page, server, token=token, session={"type": "realtime", "tools": []})
    assert refused_choice[1:3] == ("override_not_allowed", 400)


@browser
def test_a_token_that_has_expired_is_asked_for_again(visit, server):
    watched = visit(EXAMPLE)
    page, wire = watched.page, Wire(watched.page, server.url)
    tokens = [server.token("widgets", "helped-huberta-37") for _ in range(2)]
    assert page.evaluate(EXPIRED, [server.url, "concierge", *tokens]) == ["token", "report", "token"]
    page.evaluate("call.hangUp()")
    (ended,) = [one for one in wire.requests if one.path == "/report"]
    assert ended.asked["authorization"] == f"Bearer {tokens[1]}"


@browser
def test_refusals_are_plain_words(visit, server):
    watched = visit(EXAMPLE)
    page = watched.page
    token = server.token("acme", "helped-henrike-38")
    watched.foresee(401, "/token")
    watched.foresee(404, "/token")
    assert refused(page, server, token="nonsense") == (
        "SwitchboardError", "invalid_token", 401, "The token is not a signed JWT.", None,
    )  # fmt: skip
    assert refused(page, server, token=token, preset="nope")[1:4] == (
        "unknown_preset", 404, "This tenant has no preset of that name.",
    )  # fmt: skip
    watched.foresee(503, "/token")
    faults = {"operations": ["mint"], "times": 1, "status": 429, "retry_after": 30}
    httpx.put(f"{server.provider_url}/_emulator/faults", json=faults)
    busy = refused(page, server, token=server.token("widgets", "helped-hulda-39"), preset="concierge")
    assert (busy[1], busy[2], busy[4]) == ("provider_busy", 503, 30)
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('Denied'); } }")
    assert refused(page, server, token=token)[1:4] == ("microphone_unavailable", 0, "No microphone: Denied")
    watched.leave()
    page.route("**/token*", lambda route: route.abort("connectionrefused"))
    assert refused(page, server, token=token)[1:4] == ("network_error", 0, f"No answer from {server.url[7:]}.")


def refused(page, server, **options):
    told = page.evaluate(REFUSED, [server.url, options])
    assert bool(told["requestId"]) == bool(told["status"])
    return tuple(told[name] for name in ("name", "code", "status", "message", "retryAfter"))


@pytest.mark.parametrize("body", ["", "<html>", "null", "[]", '"no"', '{"error": null}', '{"error": "no"}'])
def test_an_answer_that_is_nobodys_is_told_by_its_status(body, tmp_path):
    """A proxy in between may say what it likes."""
    (tmp_path / "helper.mjs").write_bytes(HELPER.read_bytes())
    ask = f"""import {{ request }} from {str(tmp_path / "helper.mjs")!r};
    const answer = async () => new Response({json.dumps(body)}, {{ status: 502 }});
    console.log(await request(answer, "http://x/").catch((it) => [it.name, it.code, it.message].join(" ")));"""
    ran = subprocess.run(["node", "--input-type=module", "-e", ask], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "SwitchboardError http_502 The answer was 502.\n"), ran.stderr


def test_it_is_small():
    made = subprocess.run([str(ESBUILD), str(HELPER), "--minify", "--format=esm"], capture_output=True, check=True)
    assert len(made.stdout) < MINIFIED_BYTES
    assert len(gzip.compress(made.stdout)) < COMPRESSED_BYTES


def test_its_types_and_those_of_the_demo_page_are_strict():
    """By TypeScript, out of JSDoc; the page of the contract is not among those."""
    modules = [str(module) for module in sorted(WEB.glob("*.js")) if module.name != "docs.js"]
    strict = ["--noEmit", "--strict", "--checkJs", "--allowJs", "--noUnusedLocals", "--noImplicitReturns"]
    kinds = ["--target", "es2022", "--lib", "es2022,dom,dom.iterable", "--module", "esnext", "--types", ""]
    command = [str(PACKAGES / ".bin" / "tsc"), *strict, *kinds, "--moduleResolution", "bundler", *modules]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stdout) == (0, "")
