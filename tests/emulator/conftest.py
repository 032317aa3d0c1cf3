import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.applications import Starlette

from switchboard.emulator import Options, create_app

OFFER = (
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n"
    "a=rtpmap:111 opus/48000/2\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:actpass\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:data\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:actpass\r\na=sctp-port:5000\r\n"
)
KEY = {"authorization": "Bearer sk-acme"}
SDP = {"content-type": "application/sdp"}


@dataclass
class Clock:
    now: float = 1_795_000_000.0

    def __call__(self):
        return self.now


@dataclass
class Upstream:
    """An emulator and a client of it, with the requests that the tests make most."""

    http: httpx.AsyncClient
    app: Starlette
    clock: Clock = field(default_factory=Clock)

    @property
    def emulator(self):
        return self.app.state.emulator

    async def mint(self, body=None, headers=KEY):
        return await self.http.post("/realtime/client_secrets", json=body or {}, headers=headers)

    async def call(self, session=None, offer=OFFER, headers=KEY, query=""):
        parts = {"sdp": (None, offer, "application/sdp")}
        if session is not None:
            parts["session"] = (None, json.dumps(session), "application/json")
        return await self.http.post(f"/realtime/calls{query}", files=parts, headers=headers)

    async def call_with(self, secret, offer=OFFER):
        headers = {"authorization": f"Bearer {secret}", **SDP}
        return await self.http.post("/realtime/calls", content=offer, headers=headers)

    async def hang_up(self, location, headers=KEY):
        return await self.http.post(f"{location.removeprefix('/v1')}/hangup", headers=headers)

    async def calls(self):
        return (await self.http.get("http://upstream/_emulator/calls")).json()["calls"]

    async def faults(self, **faults):
        answer = await self.http.put("http://upstream/_emulator/faults", json=faults)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def running(options):
    clock = Clock()
    app = create_app(options, clock=clock)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://upstream/v1") as http,
    ):
        yield Upstream(http, app, clock)


@pytest.fixture
def run():
    return running


@pytest.fixture
async def upstream(anyio_backend):
    async with running(Options(media=False)) as upstream:
        yield upstream


@pytest.fixture
def offer():
    return OFFER
