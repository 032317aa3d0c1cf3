"""What strangers may write to the public port, over real sockets: each is bounded, and refused or harmless."""

import asyncio
import contextlib
import json
import re
import socket
from urllib.parse import quote

import pytest

from switchboard import heads
from switchboard.endpoints import reading
from tests.attacks.door import open_door
from tests.support import world as worlds
from tests.support.contract import OPERATIONS
from tests.support.leaks import LEAKS
from tests.support.world import OFFER

pytestmark = pytest.mark.anyio

PLAIN = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n"
CHUNKED = b"%x\r\n" % len(OFFER) + OFFER + b"\r\n0\r\n\r\n"
EVIL = "https://evil.example"


@pytest.fixture
async def world(anyio_backend):
    async with worlds.world(edge_exempt="0.0.0.0/0") as made:
        yield made


@pytest.fixture
async def door(world):
    async with open_door(world) as opened:
        yield opened


async def converse(door, *parts: bytes, pause=0.0, seconds=2.0) -> bytes:
    """Write, and read meanwhile until the service closes; `b"…(open)"` if it does not."""
    reader, writer = await asyncio.open_connection(door.host, door.port)
    got: list[bytes] = []

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                got.append(part)

    reading = asyncio.create_task(read())
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    _, late = await asyncio.wait([reading], timeout=seconds)
    if late:
        reading.cancel()
        got.append(b"(open)")
    writer.close()
    answer = b"".join(got)
    LEAKS.saw("a conversation over a socket", answer.decode(errors="replace") if b"/token" not in parts[0] else "")
    return answer


def told(answer: bytes) -> list[tuple[int, str]]:
    """Status and code (or nothing) of each answer in a conversation."""
    found = re.split(rb"(?=HTTP/1\.1 \d{3} )", answer)[1:]
    codes = [re.search(rb'"code":"(\w+)"', one) for one in found]
    return [(int(one[9:12]), code[1].decode() if code else "") for one, code in zip(found, codes, strict=True)]


def offering(world, *headers: bytes, body: bytes = b"") -> bytes:
    bearer: bytes = f"Authorization: Bearer {world.token()}".encode()
    lines = [b"POST /sdp HTTP/1.1", b"Host: x", b"Content-Type: application/sdp", bearer, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# Where one reads two requests, and another one.

SMUGGLED = {
    "a length and chunks": ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], CHUNKED),
    "chunks and a length": ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], CHUNKED),
    "two lengths": ([b"Content-Length: 5", b"Content-Length: 6"], b"hello!"),
    "the same length twice": ([b"Content-Length: 5", b"Content-Length: 5"], b"hello"),
    "a list of lengths": ([b"Content-Length: 5, 5"], b"hello"),
    "a length with a sign": ([b"Content-Length: +5"], b"hello"),
    "a negative length": ([b"Content-Length: -5"], b"hello"),
    "a hexadecimal length": ([b"Content-Length: 0x5"], b"hello"),
    "a length beyond numbers": ([b"Content-Length: 99999999999999999999999"], b"hello"),
    "a space before the colon": ([b"Content-Length : 5"], b"hello"),
    "a coding that is none": ([b"Transfer-Encoding: xchunked"], CHUNKED),
    "chunks inside of another": ([b"Transfer-Encoding: chunked, identity"], CHUNKED),
    "identity": ([b"Transfer-Encoding: identity"], CHUNKED),
    "compressed chunks": ([b"Transfer-Encoding: gzip, chunked"], CHUNKED),
    "chunked twice": ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], CHUNKED),
    "chunked and identity": ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], CHUNKED),
    "a vertical tab": ([b"Transfer-Encoding: \x0bchunked"], CHUNKED),
    "in quotes": ([b'Transfer-Encoding: "chunked"'], CHUNKED),
    "a folded coding": ([b"Transfer-Encoding:\r\n chunked"], CHUNKED),
    "a chunk of no size": ([b"Transfer-Encoding: chunked"], b"zz\r\nhello\r\n0\r\n\r\n"),
    "a chunk of 0x5": ([b"Transfer-Encoding: chunked"], b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk of -1": ([b"Transfer-Encoding: chunked"], b"-1\r\nhello\r\n0\r\n\r\n"),
    "a chunk beyond numbers": ([b"Transfer-Encoding: chunked"], b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "a chunk that is longer": ([b"Transfer-Encoding: chunked"], b"3\r\nhello\r\n0\r\n\r\n"),
    "chunks by bare line feeds": ([b"Transfer-Encoding: chunked"], b"5\nhello\n0\n\n"),
    "a bare line feed in a header": ([b"X-A: b\nContent-Length: 5"], b"hello"),
    "a folded header": ([b"X-A: b\r\n c", b"Content-Length: 5"], b"hello"),
    "a NUL in a header": ([b"X-A: b\0c", b"Content-Length: 5"], b"hello"),
    "a NUL in a header's name": ([b"X\0A: b", b"Content-Length: 5"], b"hello"),
    "a space in a header's name": ([b"X A: b", b"Content-Length: 5"], b"hello"),
    "a header without a name": ([b": b", b"Content-Length: 5"], b"hello"),
    "two hosts": ([b"Host: y", b"Content-Length: 5"], b"hello"),
    "two tokens": ([b"Authorization: Bearer x", b"Content-Length: 5"], b"hello"),
    "two origins": ([b"Origin: " + worlds.ORIGIN.encode(), b"Origin: null", b"Content-Length: 5"], b"hello"),
    "two media types": ([b"content-type: multipart/form-data; boundary=b", b"Content-Length: 5"], b"hello"),
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_a_request_that_can_be_read_in_two_ways(world, door, name):
    """The connection ends with the refusal: what follows is no second request."""
    headers, body = SMUGGLED[name]
    answer = await converse(door, offering(world, *headers, body=body + PLAIN + CLOSE + b"\r\n"))
    assert told(answer) == [(400, "invalid_request")]
    assert world.records == []
    assert not world.emulator.requests


@pytest.mark.parametrize(
    "line",
    [
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"GET /healthz HTTP/1.1\rHost: x\r\r",
        b"GET /healthz HTTP/1.9\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n" + PLAIN + CLOSE + b"\r\n",
        b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET \\healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x80\x2e\x01\x03\x01",
    ],
)
async def test_a_request_line_that_is_none(door, line):
    assert told(await converse(door, line)) == [(400, "invalid_request")]


async def test_what_follows_a_body_is_the_next_request_and_nothing_within_it_is(world, door):
    inner = PLAIN + b"\r\n"
    outer = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner
    assert told(await converse(door, outer + PLAIN + CLOSE + b"\r\n")) == [(200, ""), (200, "")]


@pytest.mark.parametrize(
    "header", [b"Upgrade: h2c", b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
)
async def test_no_protocol_is_changed(door, header):
    answer = await converse(door, PLAIN + b"Connection: Upgrade, close\r\n" + header + b"\r\n\r\n")
    assert told(answer) == [(200, "")]


async def test_no_path_speaks_websocket(door):
    """Under the provider's own paths least of all: a client would send its secret, and believe that it got through."""
    upgrade = [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"]
    offered = b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.ek_1"
    for path in sorted({path.replace("{call_id}", "rtc_1") for _, path in OPERATIONS.values()}):
        first = b"GET %s?model=support HTTP/1.1" % path.encode()
        head = [first, b"Host: x", *upgrade, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", offered, b"", b""]
        reader, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(b"\r\n".join(head))
        status = (await asyncio.wait_for(reader.readline(), 2)).split()[1]
        assert status in (b"200", b"400", b"401", b"404", b"405"), (path, status)
        writer.close()


async def test_trailers_are_no_headers(world, door):
    """A proxy looks at headers; it passes trailers on."""
    lines = [b"POST /sdp HTTP/1.1", b"Host: x", b"Content-Type: application/sdp", b"Transfer-Encoding: chunked"]
    trailers = [
        b"Authorization: Bearer " + world.token().encode(),
        b"X-Forwarded-For: 192.0.2.7",
        b"X-Request-Id: mine",
    ]
    head = b"\r\n".join([*lines, CLOSE, b""]).replace(b"\r\n\r\n\r\n", b"\r\n\r\n")
    body = CHUNKED.removesuffix(b"\r\n") + b"\r\n".join([*trailers, b"", b""])
    answer = await converse(door, head + body)
    assert told(answer) == [(401, "missing_token")]
    assert b"mine" not in answer
    assert world.records[0]["client_ip"] == "127.0.0.1"


async def test_trailers_are_bounded(world, door):
    answer = await converse(
        door, offering(world, b"Transfer-Encoding: chunked", body=CHUNKED[:-2] + b"X: y\r\n" * 15_000)
    )
    assert told(answer) in ([(431, "headers_too_large")], [])  # or reset, since more of them lies unread
    assert not world.emulator.requests


# Paths.


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("//healthz", "not_found"),
        ("/healthz/", "not_found"),
        ("/healthz;x", "not_found"),
        ("/healthz.", "not_found"),
        ("/HEALTHZ", "not_found"),
        ("/..;/healthz", "not_found"),
        ("/./healthz", "not_found"),
        ("/a/../healthz", "not_found"),
        ("/%2e%2e/healthz", "not_found"),
        ("/%2fhealthz", "not_found"),
        ("/healthz%2f", "not_found"),
        ("/healthz%00", "not_found"),
        ("/healthz%20", "not_found"),
        ("/healthz%0d%0aX-A:%20b", "not_found"),
        ("/%c0%af", "not_found"),
        ("/%", "not_found"),
        ("/%u0068", "not_found"),
        ("/docs/../settings.py", "not_found"),
        ("/docs/%2e%2e%2f%2e%2e%2fsettings.py", "not_found"),
        ("/docs/..%5c..%5csettings.py", "not_found"),
        ("/metrics", "not_found"),
        ("/admin/calls", "not_found"),
        ("/sdp/", "not_found"),
        ("/sdp/a/b", "not_found"),
        ("/sdp/a%2fb", "not_found"),
        ("/sdp/..%2f..%2ftoken", "not_found"),
        ("/sdp/%2e%2e", "call_not_found"),
        ("/sdp/%00", "call_not_found"),
        ("/sdp/%0d%0aDEL%20x", "call_not_found"),
        ("/sdp/*", "call_not_found"),
        ("/sdp/%7Bacme%7D:calls", "call_not_found"),
        ("/sdp/%f0%9f%92%a9", "call_not_found"),
        ("/sdp/%ed%a0%80", "call_not_found"),
        ("/sdp/" + "a" * 60_000, "call_not_found"),
    ],
)
async def test_paths_that_lead_nowhere(world, door, path, code):
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.token()}\r\nConnection: close\r\n\r\n"
    answer = await converse(door, request.encode())
    assert told(answer) == [(404, code)]
    assert len(answer) < 2000
    assert not world.emulator.requests


async def test_a_host_in_the_target_changes_nothing(world, door):
    """`calls_url` is built from the configuration, never from what a request says about its host."""
    for target in (f"http://{EVIL.removeprefix('https://')}/token", "/token"):
        headers = f"Host: evil.example\r\nX-Forwarded-Host: evil.example\r\nAuthorization: Bearer {world.token()}\r\n"
        answer = await converse(door, f"GET {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
        assert told(answer)[0][0] == 200
        assert b"evil.example" not in answer
        assert worlds.PUBLIC_URL.encode() in answer


# Unicode and depth, wherever a stranger may write.

ODD = [
    "\0",
    "\x1b[31m",
    "\r\nSet-Cookie: a=b",
    "٣",
    "\u202eabc",
    "😀" * 50,
    "\ufeff",
    "a\u0300" * 30,
    "${claims.sub}",
    "../../x",
]


@pytest.mark.parametrize("text", ODD, ids=ascii)
async def test_unicode_in_every_field(world, text):
    """Each is refused or taken as text: no 500, and no answer header, record or log line that it could break."""
    as_json = {"content-type": "application/json"}
    encoded, latin = quote(text), text.encode("utf-8").decode("latin-1")
    for body in (
        {"preset": text},
        {"session": {text: 1}},
        {"session": {"instructions": text}},
        {"session": {"audio": {"output": {"voice": text}}}},
        {"session": {"model": text}},
        {"expires_after": {"anchor": text, "seconds": 60}},
        {text: text},
    ):
        answer = await world.client.post("/token", headers=world.auth(**as_json), json=body)
        assert answer.status_code in (200, 400, 404), answer.text
    for path in (
        f"/token?preset={encoded}",
        f"/token?{encoded}={encoded}",
        f"/sdp/{encoded}",
        f"/sdp/{encoded}/report",
    ):
        assert (await world.client.get(path, headers=world.auth())).status_code in (200, 404, 405)
    for part in ({"sdp": text}, {text: text}, {"sdp": OFFER.decode(), "session": json.dumps({text: text})}):
        files = {name: (text, value.encode(), "text/plain") for name, value in part.items()}
        assert (await world.client.post("/sdp", headers=world.auth(), files=files)).status_code == 400
    answer = await world.relay(offer=OFFER.replace(b"s=-", b"s=" + text.encode()))
    assert answer.status_code in (201, 400)
    claims = {"sub": "odd-" + text, "name": text, "plan": text, "jti": text}
    assert (await world.mint(world.token(**claims))).status_code == 200
    assert (await world.mint(world.token(org_id=text))).status_code == 403
    if text.isprintable():
        for header in ("user-agent", "origin", "x-request-id", "x-forwarded-for", "forwarded", "traceparent"):
            raw = [(b"authorization", f"Bearer {world.token()}".encode()), (header.encode(), latin.encode("latin-1"))]
            answer = await world.client.get("/token", headers=raw)
            assert answer.status_code in (200, 403)
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["x-request-id"])
    for record in world.records:
        assert not [value for value in record.values() if isinstance(value, str) and len(value) > 256]
    assert "internal_error" not in {record["reason"] for record in world.records}


@pytest.mark.parametrize("opening", ['{"session":', "[", '{"session":{"tools":[', '{"a":'])
async def test_depth(world, opening):
    body = (opening * 9000)[:60_000].encode()
    closed = body + (b"}" if opening.startswith("{") else b"]") * 100
    for content in (body, closed):
        answer = await world.client.post(
            "/token", headers=world.auth(**{"content-type": "application/json"}), content=content
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_depth_that_json_has_and_a_session_has_not(world):
    deep: object = 1
    for _ in range(500):
        deep = {"a": deep}
    answer = await world.mint(session={"audio": deep})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


# Time and size.


async def test_a_body_that_drips_is_given_up_and_its_connection_too(world, door, monkeypatch):
    monkeypatch.setattr(reading, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(heads, "LINGER_SECONDS", 0.2)
    drops = [b"v", b"=", *[b"x"] * 20]
    answer = await converse(door, offering(world, b"Content-Length: 5000"), *drops, pause=0.05)
    assert told(answer) == [(408, "request_timeout")]
    assert not answer.endswith(b"(open)")


@pytest.mark.parametrize("framing", [b"Content-Length: 9000000000", b"Transfer-Encoding: chunked"])
async def test_a_body_without_an_end(world, door, framing):
    """It has its answer soon; the rest is thrown away, a megabyte of it, and then the connection ends."""
    piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n" if framing.startswith(b"T") else b"x" * 0x4000
    answer = await converse(door, offering(world, framing), *[piece] * 200)
    assert told(answer) in ([(413, "payload_too_large")], [])  # or reset, since more of it lies unread
    assert not answer.endswith(b"(open)")


async def test_a_body_that_nobody_waits_for(world, door, monkeypatch):
    """The answer is out at once; whoever goes on sending has so much time for it."""
    monkeypatch.setattr(heads, "LINGER_SECONDS", 0.3)
    started = asyncio.get_running_loop().time()
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    answer = await converse(door, head, *[b"x"] * 20, pause=0.05)
    assert told(answer) == [(200, "")]
    assert not answer.endswith(b"(open)")
    assert asyncio.get_running_loop().time() - started < 1.5


async def test_a_late_body_leaves_an_idle_connection_and_no_eternal_one(door):
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(head)
    await reader.readuntil(b'"ok"}')
    (connection,) = door.state.connections
    connection.timeout_keep_alive = 0.2
    writer.write(b"hello")
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    writer.close()


async def test_empty_lines_keep_no_connection(door, monkeypatch):
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.3)
    answer = await converse(door, PLAIN + b"\r\n", *[b"\r\n"] * 20, pause=0.05)
    assert told(answer) == [(200, ""), (408, "request_timeout")]
    assert not answer.endswith(b"(open)")


async def test_many_idle_connections_make_room(door, caplog):
    """One that idles is closed for each that is too many, and who asks is answered."""
    door.state.most_connections = 50
    idle = [await asyncio.open_connection(door.host, door.port) for _ in range(50)]
    for reader, writer in idle:
        writer.write(PLAIN + b"\r\n")
        await reader.readuntil(b'"ok"}')
    for _ in range(20):
        assert told(await converse(door, PLAIN + CLOSE + b"\r\n")) == [(200, "")]
    fresh = [await asyncio.open_connection(door.host, door.port) for _ in range(200)]
    await asyncio.sleep(0.2)
    assert len(door.state.connections) <= 50
    for _, writer in [*idle, *fresh]:
        writer.close()
    warned = [record for record in caplog.records if record.name == "switchboard.heads"]
    assert [record.msg["most"] for record in warned] == [50]


async def test_a_request_that_is_answered_is_never_one_that_idles(world, door):
    door.state.most_connections = 1
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(offering(world, b"Content-Length: %d" % len(OFFER), b"Connection: close"))
    await asyncio.sleep(0.05)
    assert await converse(door, PLAIN + CLOSE + b"\r\n") == b""  # no room, and nobody to make some
    writer.write(OFFER)
    assert told(await reader.read()) == [(201, "")]
    writer.close()


def test_the_bound_leaves_files_for_the_rest(monkeypatch):
    for soft, most in ((1024, 768), (1_048_576, 10_000), (100, 1)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        assert heads.ServerState().most_connections == most


async def test_a_client_that_reads_nothing(world, door):
    """Its answers wait in its own connection, and no further request of it is read; the others go on."""
    slow = socket.create_connection((door.host, door.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    sent = 0
    for _ in range(100):
        try:
            sent += slow.send(b"GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        except BlockingIOError:
            await asyncio.sleep(0.005)
    assert told(await converse(door, PLAIN + CLOSE + b"\r\n")) == [(200, "")]
    (stuck,) = [one for one in door.state.connections if one.cycle is not None and not one.cycle.response_complete]
    assert stuck.transport.get_write_buffer_size() < 1_000_000
    slow.close()
