"""Bad input, through the front door: each with its own status, and nothing asked of the provider."""

import asyncio

import httpx
import pytest

from tests.support.world import OFFER

pytestmark = pytest.mark.anyio


async def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    body = answer.json()
    request_id = answer.headers["x-request-id"]
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body == {
        "type": f"urn:switchboard:problem:{code}",
        "title": body["title"],
        "status": status,
        "detail": body["detail"],
        "instance": f"urn:switchboard:request:{request_id}",
        "code": code,
        "request_id": request_id,
        "error": {"message": body["detail"], "type": body["error"]["type"], "code": code, "param": param},
    }
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"presett": "support"}, "presett"),
        ({"preset": 7}, "preset"),
        ({"preset": "x" * 200}, "preset"),
        ({"session": []}, "session"),
        ({"expires_after": {"anchor": "created_at", "seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at", "seconds": 7201}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at", "seconds": "60"}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 60}}, "expires_after.anchor"),
        ({"expires_after": 60}, "expires_after"),
    ],
)
async def test_token_bodies(world, body, param):
    await refused(await world.mint(**body), 400, "invalid_request", param)
    assert world.records == []


async def test_a_body_that_is_no_json_object(world):
    headers = world.auth(**{"content-type": "application/json"})
    for content in (b"{", b"[]", b"7", b"\xff", b"null", b"[" * 10_000):
        await refused(await world.client.post("/token", headers=headers, content=content), 400, "invalid_request")


async def test_media_types(world):
    form = await world.client.post("/token", headers=world.auth(), data={"preset": "support"})
    await refused(form, 415, "unsupported_media_type")
    as_json = await world.client.post("/sdp", headers=world.auth(), json={"sdp": OFFER.decode()})
    await refused(as_json, 415, "unsupported_media_type")
    assert as_json.headers["x-should-retry"] == "false"
    none = await world.client.post("/sdp", headers=world.auth(), content=OFFER)
    await refused(none, 415, "unsupported_media_type")
    for media_type in ("application/sdp; charset=utf-8", "Application/SDP", "text/plain"):
        answer = await world.relay(**{"content-type": media_type})
        assert answer.status_code == 201


async def test_an_empty_post_is_a_plain_request(world):
    answer = await world.client.post("/token", headers=world.auth())
    assert answer.status_code == 200


async def test_sizes(world):
    await refused(await world.mint(preset="x" * 70_000), 413, "payload_too_large")
    await refused(await world.relay(offer=OFFER + b"a=x\r\n" * 20_000), 413, "payload_too_large")
    headers = {"content-type": "application/sdp", **world.auth()}

    async def endless():
        while True:
            yield b"x" * 10_000

    await refused(await world.client.post("/sdp", headers=headers, content=endless()), 413, "payload_too_large")


async def test_a_body_that_drips(world, monkeypatch):
    monkeypatch.setattr("switchboard.endpoints.reading.BODY_SECONDS", 0.1)

    async def dripping():
        yield b"v=0\r\n"
        await asyncio.sleep(5)

    headers = {"content-type": "application/sdp", **world.auth()}
    await refused(await world.client.post("/sdp", headers=headers, content=dripping()), 408, "request_timeout")


async def test_presets_in_two_places(world):
    await refused(await world.mint(path="/token?preset=support", preset="expert"), 400, "invalid_request", "preset")
    assert (await world.mint(path="/token?preset=support", preset="support")).status_code == 200
    await refused(await world.mint(path="/token?preset=a&preset=b"), 400, "invalid_request", "preset")


@pytest.mark.parametrize("dcid", ["-1", "65535", "1.5", "x", "", "000001", "٣"])
async def test_dcids(world, dcid):
    await refused(await world.relay(path=f"/sdp?dcid={dcid}"), 400, "invalid_request", "dcid")


@pytest.mark.parametrize(
    "files",
    [
        {"session": (None, b"{}", "application/json")},
        {"sdp": (None, OFFER, "application/sdp"), "extra": (None, b"x")},
        [("sdp", (None, OFFER)), ("sdp", (None, OFFER))],
    ],
)
async def test_multipart_parts(world, files):
    answer = await world.client.post("/sdp", headers=world.auth(), files=files)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("session", [b"", b"[]", b"{", b"\xff"])
async def test_a_session_part_that_is_no_object(world, session):
    files = {"sdp": (None, OFFER, "application/sdp"), "session": (None, session, "application/json")}
    await refused(await world.client.post("/sdp", headers=world.auth(), files=files), 400, "invalid_request", "session")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nnonsense"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nno disposition\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"nothing of the kind"),
        ("multipart/form-data; boundary=" + "b" * 300, b"--b--"),
        (
            "multipart/form-data; boundary=b" + ";" * 1000,
            b'--b\r\nContent-Disposition: form-data; name="sdp"\r\n\r\nx\r\n--b--\r\n',
        ),
    ],
)
async def test_broken_multipart(world, content_type, body):
    answer = await world.client.post("/sdp", headers=world.auth(**{"content-type": content_type}), content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_parts_with_file_names_and_without_types(world):
    """Browsers append plain strings or blobs, SDKs typed parts: all are taken."""
    for files in (
        {"sdp": ("offer.sdp", OFFER, "application/sdp"), "session": ("blob", b"{}", "application/json")},
        {"sdp": (None, OFFER), "session": (None, b"{}")},
    ):
        assert (await world.client.post("/sdp", headers=world.auth(), files=files)).status_code == 201


async def test_an_offer_that_is_none(world):
    answer = await world.relay(offer=b"hello")
    await refused(answer, 400, "invalid_offer")
    assert answer.headers["x-should-retry"] == "false"
    assert world.records[-1]["reason"] == "invalid_offer"
    assert not world.emulator.requests


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token x"])
async def test_no_bearer_token(world, header):
    headers = {} if header is None else {"authorization": header}
    answer = await world.client.get("/token", headers=headers)
    await refused(answer, 401, "missing_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="switchboard"'


async def test_the_scheme_is_of_any_case(world):
    answer = await world.client.get("/token", headers={"authorization": f"bearer {world.token()}"})
    assert answer.status_code == 200


async def test_a_bad_token_says_so_in_www_authenticate(world):
    answer = await world.client.get("/token", headers=world.auth("nonsense"))
    await refused(answer, 401, "invalid_token")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="switchboard", error="invalid_token"')


async def test_paths_and_methods(world):
    await refused(await world.client.get("/nowhere"), 404, "not_found")
    await refused(await world.client.get("/token/"), 404, "not_found")
    put = await world.client.put("/token")
    await refused(put, 405, "method_not_allowed")
    assert set(put.headers["allow"].split(", ")) == {"GET", "POST"}
    patch = await world.client.patch("/sdp/rtc_1")
    await refused(patch, 405, "method_not_allowed")
    assert set(patch.headers["allow"].split(", ")) == {"DELETE", "GET"}


async def test_head_mints_nothing(world):
    answer = await world.client.head("/token", headers=world.auth())
    assert answer.status_code == 405
    assert world.records == []


async def test_the_sample_frontends_alias(world):
    answer = await world.relay(path="/session")
    assert (answer.status_code, answer.headers["location"][:5]) == (201, "/sdp/")


async def test_health(world):
    assert (await world.client.get("/healthz")).json() == {"status": "ok"}
    assert (await world.client.get("/readyz")).json() == {"status": "ready"}
    assert (await world.ops.get("/readyz")).json() == {"status": "ready", "version": "0.1.0", "advice": []}
    assert (await world.client.get("/metrics")).status_code == 404
