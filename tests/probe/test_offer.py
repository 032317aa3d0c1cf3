"""The offer is one that the service takes, and that real WebRTC answers."""

import re
from typing import Any

import httpx
import pytest

from switchboard.emulator import Options, create_app
from switchboard.probe.offer import new_offer
from switchboard.sdp import check_offer

pytestmark = pytest.mark.anyio


def test_it_is_well_formed():
    offer = new_offer()
    check_offer(offer)
    lines = offer.decode("ascii").split("\r\n")
    assert lines[0] == "v=0"
    assert lines[-1] == ""
    assert all(re.fullmatch(r"[a-z]=\S.*", line) for line in lines[:-1])


def test_ice_is_within_the_letters_and_lengths_of_its_rfc():
    """RFC 8839, section 5.4: 4 to 256 and 22 to 256 of letters, digits, + and /."""
    text = new_offer().decode()
    assert set(re.findall(r"a=ice-ufrag:(.*)\r", text)) == set(
        re.findall(r"a=ice-ufrag:([A-Za-z0-9+/]{4,256})\r", text)
    )
    assert set(re.findall(r"a=ice-pwd:(.*)\r", text)) == set(re.findall(r"a=ice-pwd:([A-Za-z0-9+/]{22,256})\r", text))
    assert re.search(r"a=fingerprint:sha-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}\r", text)


def test_no_two_are_alike():
    secret = re.compile(r"o=- (\d+) |a=ice-ufrag:(.*)|a=ice-pwd:(.*)|a=fingerprint:sha-256 (.*)")
    one, other = ({"".join(found) for found in secret.findall(new_offer().decode())} for _ in range(2))
    assert not one & other
    assert len(one) == 4


async def test_real_webrtc_answers_it():
    app = create_app(Options())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://provider.test") as client,
    ):
        session = '{"type": "realtime", "model": "gpt-realtime-2.1"}'
        parts: Any = {"sdp": (None, new_offer(), "application/sdp"), "session": (None, session, "application/json")}
        headers = {"authorization": "Bearer sk-test-of-the-probe"}
        answer = await client.post("/v1/realtime/calls", files=parts, headers=headers)
        assert answer.status_code == 201
        media = re.findall(r"^m=(\w+) (\d+)", answer.text, re.MULTILINE)
        assert [kind for kind, _ in media] == ["audio", "application"]
        assert all(port != "0" for _, port in media)  # 0 would be a section that is refused
