"""WHIP (RFC 9725) by a client that is not ours: the published package, a page on another origin, and real WebRTC."""

from urllib.parse import urlsplit

import pytest

from tests.e2e.wire import Wire
from tests.support.leaks import LEAKS

START = "async ([url, token]) => { window.client = await example.publish(url, token); window.peer = client.peer; }"
TALK = """async ([url, token]) => {
  window.events = [];
  const speaker = document.getElementById("speaker");
  window.client = await example.talk(url, token, speaker, (event) => events.push(event));
  window.peer = client.peer;
}"""
GRANT = """async ([url, token]) => {
  const headers = { Authorization: `Bearer ${token}` };
  return (await (await fetch(`${url}/token?preset=support`, { headers })).json()).value;
}"""
COUNTED = "async ([type, name]) => [...(await peer.getStats()).values()].some((it) => it.type === type && it[name] > 0)"
# A proxy that answers CORS for all its services alike, and exposes all that it says.
SAY_THAT_PATCH_IS_ALLOWED = """() => {
  const straight = window.fetch;
  window.fetch = async (url, how) => {
    const answer = await straight(url, how);
    if (how.method !== "OPTIONS") return answer;
    const headers = { ...Object.fromEntries(answer.headers), "access-control-allow-methods": "DELETE, PATCH" };
    return new Response(null, { headers });
  };
}"""

pytestmark = pytest.mark.browser


@pytest.fixture
def server(server_of_site):
    return server_of_site


def user(server, subject):
    LEAKS.plant("subject", subject)
    return server.token("acme", subject)


def connected(page):
    """Waits until sound can flow; the address of the call, as the client knows it."""
    page.wait_for_function("client.resource")  # `getResourceUrl` has no time-out
    address = page.evaluate("client.getResourceUrl()")
    page.wait_for_function("peer.connectionState === 'connected'")
    return str(address)


def heads(exchanges):
    return [(exchange.method, exchange.path, exchange.status) for exchange in exchanges]


def test_the_package_publishes_a_microphone_and_hangs_up(visit, server, site, client):
    watched = visit("whip/publish.js")
    watched.foresee_unread("OPTIONS", "DELETE")  # of whose answers the package wants the head alone
    page, wire = watched.page, Wire(watched.page, server.url)
    token = user(server, "publishing-perpetua-414")
    with client("@eyevinn/whip-web-client", "relay"):
        page.evaluate(START, [server.url, token])
        address = connected(page)
    page.wait_for_function(COUNTED, arg=["outbound-rtp", "packetsSent"])

    # It asks for ICE servers, then whether candidates may follow, and holds the offer back until it has them all.
    assert heads(wire.requests) == [("OPTIONS", "/sdp", 200), ("OPTIONS", "/sdp", 200), ("POST", "/sdp", 201)]
    *asked, opened = wire.requests
    for exchange in asked:
        assert exchange.asked["authorization"] == f"Bearer {token}"
        assert exchange.answered["accept-post"] == "application/sdp, multipart/form-data"
        assert exchange.answered["allow"] == "OPTIONS, POST"
        assert {"link", "access-control-allow-methods"}.isdisjoint(exchange.answered)
    assert page.evaluate("[client.supportTrickleIce(), peer.getConfiguration().iceServers]") == [False, []]
    [posted] = watched.answers("POST", "/sdp")
    offer = posted.request.post_data
    assert "\r\na=candidate:" in offer
    assert "\r\na=sendonly\r\n" in offer
    last = watched.answers("OPTIONS", "/sdp")[-1]
    assert posted.request.timing["startTime"] - last.request.timing["startTime"] >= 2000  # however soon it has them

    call_id = urlsplit(address).path.removeprefix("/sdp/")
    assert address == f"{server.url}/sdp/{call_id}"
    assert opened.asked["content-type"] == "application/sdp"
    assert opened.answered["content-type"] == "application/sdp"
    assert opened.answered["location"] == f"/sdp/{call_id}"
    assert opened.answered["access-control-allow-origin"] == site.url
    assert page.evaluate("[client.eTag, client.extensions]") == [None, []]
    assert "\r\na=candidate:" in posted.text()
    assert "\r\na=recvonly\r\n" in posted.text()
    assert page.evaluate("peer.getTransceivers().map((one) => one.currentDirection)") == ["sendonly"]
    running = server.call(call_id, token)
    assert (running["state"], running["preset"], running["ended_by"]) == ("open", "support", None)

    page.evaluate("client.destroy()")
    *_, ended = wire.requests
    assert heads([ended]) == [("DELETE", f"/sdp/{call_id}", 200)]
    assert ended.asked["authorization"] == f"Bearer {token}"
    assert page.evaluate("[peer.connectionState, client.peer]") == ["closed", None]
    over = server.call(call_id, token)
    assert over == running | {"state": "ended", "ended_at": over["ended_at"], "ended_by": "owner"}

    # The browser asked before each kind of request, on each address.
    preflights = {(one.path, one.asked["access-control-request-method"]) for one in wire.preflights}
    assert preflights >= {("/sdp", "OPTIONS"), (f"/sdp/{call_id}", "DELETE")}
    assert {(one.status, one.answered["access-control-allow-origin"]) for one in wire.preflights} == {(200, site.url)}
    records = [record for record in server.records if record.get("call_id") == call_id]
    told = ("action", "outcome", "reason", "tenant", "preset", "origin", "request_id")
    assert [tuple(record[name] for name in told) for record in records] == [
        ("call.open", "allowed", "ok", "acme", "support", site.url, opened.answered["x-request-id"]),
        ("call.end", "allowed", "owner", "acme", "support", site.url, ended.answered["x-request-id"]),
    ]
    assert records[0]["user_key"] == records[1]["user_key"]


def test_with_a_peer_connection_of_its_own_an_app_hears_the_answer(visit, server):
    watched = visit("whip/talk.js")
    watched.foresee_unread("DELETE")
    page = watched.page
    grant = page.evaluate(GRANT, [server.url, user(server, "talking-theodolinde-27")])
    wire = Wire(page, server.url)
    page.evaluate(TALK, [server.url, grant])
    call_id = urlsplit(connected(page)).path.removeprefix("/sdp/")
    page.wait_for_function("events.some((event) => event.type === 'session.created')")
    page.wait_for_function(COUNTED, arg=["inbound-rtp", "totalAudioEnergy"])
    assert page.evaluate("peer.getTransceivers().map((one) => one.currentDirection)") == ["sendrecv"]
    page.evaluate("client.destroy()")
    # Nothing is asked beforehand: the offer is the first request.
    assert heads(wire.requests) == [("POST", "/sdp", 201), ("DELETE", f"/sdp/{call_id}", 200)]
    assert server.record(action="call.end", call_id=call_id)["outcome"] == "allowed"


def test_a_client_that_was_told_that_it_may_patch_connects_all_the_same(visit, server):
    watched = visit("whip/publish.js")
    watched.foresee_unread("OPTIONS", "PATCH", "DELETE")
    watched.foresee(405, r"/sdp/[\w-]+")
    # The package loses the id of an offer's first section, which is 0, and says so for each candidate.
    watched.foresee_words("WHIPClient Missing local SDP meta data")
    page = watched.page
    page.evaluate(SAY_THAT_PATCH_IS_ALLOWED)
    wire = Wire(page, server.url)
    page.evaluate(START, [server.url, user(server, "trickling-thusnelda-96")])
    call_id = urlsplit(connected(page)).path.removeprefix("/sdp/")
    page.wait_for_function("!client.supportTrickleIce()")  # after one refusal it tries no more
    patches = [exchange for exchange in wire.requests if exchange.method == "PATCH"]
    assert set(heads(patches)) == {("PATCH", f"/sdp/{call_id}", 405)}
    assert {(one.asked["content-type"], one.answered["allow"]) for one in patches} == {
        ("application/trickle-ice-sdpfrag", "DELETE, GET")
    }
    page.evaluate("client.destroy()")
    assert server.record(action="call.end", call_id=call_id)["outcome"] == "allowed"


def test_a_refusal_is_on_the_console_alone(visit, server):
    watched = visit("whip/publish.js")
    watched.foresee_unread("OPTIONS")
    watched.foresee(401, "/sdp")
    watched.foresee_words("WHIPClient IceCandidate Failed to setup stream connection")
    page = watched.page
    with page.expect_console_message(lambda message: "Failed to setup" in message.text):
        page.evaluate(START, [server.url, "nonsense"])  # which does not throw
    [refusal] = [line for line in watched.said if "Failed to setup" in line]
    assert '"code":"invalid_token"' in refusal
    assert page.evaluate("peer.connectionState") == "new"
    later = "new Promise((resolve) => setTimeout(resolve, 300, 'still waiting'))"
    assert page.evaluate(f"Promise.race([client.getResourceUrl(), {later}])") == "still waiting"
