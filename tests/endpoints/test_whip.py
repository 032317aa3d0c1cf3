"""What WHIP clients (RFC 9725) ask besides the offer, in plain HTTP; tests/e2e/test_whip.py has a real client."""

import pytest

from tests.support.world import OFFER, ORIGIN

pytestmark = pytest.mark.anyio

OFFER_TYPES = "application/sdp, multipart/form-data"
FRAGMENT = b"a=ice-ufrag:EsAw\r\na=ice-pwd:bP+XJMM09aR8AiX1jdukzR6Y\r\na=end-of-candidates\r\n"
TRICKLE = "application/trickle-ice-sdpfrag"


@pytest.mark.parametrize("path", ["/sdp", "/session", "/sdp?preset=support"])
async def test_options_say_what_an_offer_may_come_as(world, path):
    for headers in (None, world.auth(origin=ORIGIN)):  # some ask with the user's token, some without
        answer = await world.client.options(path, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["accept-post"] == OFFER_TYPES
        assert answer.headers["allow"] == "OPTIONS, POST"
        # Clients that find PATCH there send their candidates later, and to nobody.
        assert "access-control-allow-methods" not in answer.headers
        assert "link" not in answer.headers
    assert world.records == []


async def test_a_get_answers_as_our_contract_says_and_not_with_nothing(world):
    """Section 4.1 wants a 2xx without content; docs/clients.md owns up to both."""
    endpoint = await world.client.get("/sdp", headers=world.auth())
    assert (endpoint.status_code, endpoint.headers["allow"]) == (405, "OPTIONS, POST")
    session = await world.client.get((await world.relay()).headers["location"], headers=world.auth())
    assert (session.status_code, session.headers["content-type"]) == (200, "application/json")


async def test_an_answer_names_the_session_and_promises_no_more(world):
    answer = await world.relay()
    assert (answer.status_code, answer.headers["content-type"]) == (201, "application/sdp")
    assert answer.headers["location"] == f"/sdp/{world.records[-1]['call_id']}"
    # An ETag would offer ICE restarts, an Accept-Patch trickle ICE, a Link an extension or a TURN server.
    assert {"etag", "accept-patch", "link"}.isdisjoint(answer.headers)


async def test_a_candidate_by_patch_is_refused_and_the_call_goes_on(world):
    location = (await world.relay()).headers["location"]
    before = list(world.records)
    for headers in ({"if-match": "*"}, {"if-match": '"xyzzy"'}, {"etag": "null"}, {}):
        answer = await world.client.patch(
            location, headers=world.auth(**headers, **{"content-type": TRICKLE}), content=FRAGMENT
        )
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "DELETE, GET"
    assert world.records == before
    assert (await world.client.get(location, headers=world.auth())).json()["state"] == "open"


async def test_an_entity_tag_does_not_keep_a_call_from_being_hung_up(world):
    """Section 4.3.1: sessions ignore a tag where none has to match."""
    location = (await world.relay()).headers["location"]
    answer = await world.client.delete(location, headers=world.auth(**{"if-match": '"xyzzy"'}))
    assert (answer.status_code, answer.json()["ended_by"]) == (200, "owner")


@pytest.mark.parametrize("path", ["/sdp", "/session"])
async def test_a_wrong_media_type_is_told_the_right_ones(world, path):
    for media_type in (TRICKLE, "application/json", "video/mp4"):
        answer = await world.relay(path=path, **{"content-type": media_type})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert answer.headers["accept-post"] == OFFER_TYPES
    wrong = await world.client.post("/token", headers=world.auth(**{"content-type": TRICKLE}), content=OFFER)
    assert (wrong.status_code, "accept-post" in wrong.headers) == (415, False)


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        ("/sdp", "OPTIONS", "authorization"),
        ("/sdp", "POST", "authorization,content-type"),
        ("/sdp/rtc_1", "DELETE", "authorization"),
        ("/sdp/rtc_1", "PATCH", "authorization,content-type,if-match"),
        ("/sdp/rtc_1", "PATCH", "authorization,content-type,etag"),
    ],
)
async def test_a_page_on_another_origin_may_ask_all_that_a_client_asks(world, path, method, headers):
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }
    answer = await world.client.options(path, headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    assert set(headers.split(",")) <= set(answer.headers["access-control-allow-headers"].split(", "))


async def test_a_page_on_another_origin_may_read_all_that_a_client_reads(world):
    opened = await world.relay(origin=ORIGIN)
    asked = await world.client.options("/sdp", headers=world.auth(origin=ORIGIN))
    patched = await world.client.patch(opened.headers["location"], headers=world.auth(origin=ORIGIN))
    for answer, name in ((opened, "Location"), (asked, "Accept-Post"), (asked, "Allow"), (patched, "Allow")):
        assert name in answer.headers
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert name in answer.headers["access-control-expose-headers"].split(", ")
