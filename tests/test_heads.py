"""Request heads over real sockets: bounded in size and time, before anything else looks at them."""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from switchboard import heads
from switchboard.heads import MAX_HEAD_BYTES, BoundedHeads
from tests.support.world import OFFER

pytestmark = pytest.mark.anyio


@pytest.fixture
async def address(world):
    """The service behind the protocol that `serve` gives it."""
    config = uvicorn.Config(world.public, http=BoundedHeads, lifespan="off", log_config=None, access_log=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listening = await asyncio.get_running_loop().create_server(
        lambda: BoundedHeads(
            config=config, server_state=server.server_state, app_state={}, observe=world.service.observe
        ),
        "127.0.0.1",
        0,
    )
    yield listening.sockets[0].getsockname()
    listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()


async def converse(address, *parts, pause=0.0) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    for part in parts:
        try:
            writer.write(part)
            await writer.drain()
        except ConnectionError:
            break
        await asyncio.sleep(pause)
    answer = b""
    try:
        async with asyncio.timeout(5):
            answer = await reader.read()
    except ConnectionError:
        pass
    writer.close()
    return answer


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert {b"x-request-id", b"content-type", b"cache-control", b"connection"} <= names
    found: dict[str, Any] = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {found['status']} ".encode())
    assert found["request_id"].encode() in head
    return found


BEGIN = b"GET /token HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        BEGIN + b"X-Big: " + b"x" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n",
        BEGIN + b"".join(b"X-%d: y\r\n" % number for number in range(6_500)) + b"\r\n",
        b"GET /" + b"x" * (MAX_HEAD_BYTES + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["one header", "many headers", "the path"],
)
async def test_a_large_head(address, head):
    found = problem(await converse(address, head))
    assert (found["status"], found["code"]) == (431, "headers_too_large")


async def test_a_head_without_an_end(address):
    """It is refused when it has grown too large, not when it is whole."""
    parts = [b"X-Big: ", *[b"x" * 16_384] * 5]  # what is sent after the refusal would only reset the connection
    found = problem(await converse(address, BEGIN, *parts, pause=0.02))
    assert found["code"] == "headers_too_large"


async def test_a_head_that_is_just_small_enough(address):
    filler = b"x" * (MAX_HEAD_BYTES - 100)
    answer = await converse(address, BEGIN + b"X-Big: " + filler + b"\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_what_is_refused_here_is_counted_and_logged_as_well(address, world, monkeypatch, caplog):
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.2)
    refused = [problem(await converse(address, *parts)) for parts in ([b"NONSENSE\r\n\r\n"], [BEGIN], [b""])]
    told = [record.msg for record in caplog.records if record.name == "switchboard.http"]
    # The last one asked for nothing.
    assert [(line["status"], line["request_id"]) for line in told] == [
        (400, refused[0]["request_id"]),
        (408, refused[1]["request_id"]),
    ]
    assert (told[1]["route"], told[1]["method"], told[1]["duration_ms"]) == (
        "none",
        "other",
        pytest.approx(200, abs=90),
    )
    for status in ("400", "408"):
        name = "switchboard_http_request_duration_seconds_count"
        assert await world.metric(name, route="none", method="other", status=status) == 1


@pytest.mark.parametrize("parts", [[b""], [BEGIN], [BEGIN, b"X-Slow: y\r\n"]], ids=["nothing", "half", "dripping"])
async def test_a_slow_head(address, parts, monkeypatch):
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.2)
    found = problem(await converse(address, *parts, pause=0.05))
    assert (found["status"], found["code"]) == (408, "request_timeout")


async def test_what_is_not_http(address):
    found = problem(await converse(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 nonsense\r\n\r\n"))
    assert (found["status"], found["code"]) == (400, "invalid_request")


async def test_bodies_count_for_themselves(address, world):
    """Two requests on one connection, each with a body larger than what is left of a head's bound."""
    head = (
        f"POST /sdp HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nAuthorization: Bearer {world.token()}\r\n"
    )
    padded = OFFER + b"a=x:" + b"y" * 50_000 + b"\r\n"
    request = head.encode() + f"Content-Length: {len(padded)}\r\n\r\n".encode() + padded
    last = request.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    answer = await converse(address, request + last)
    assert answer.count(b"HTTP/1.1 201 ") == 2


async def test_an_idle_connection_may_stay_between_requests(address, monkeypatch):
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.1)
    healthy = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = healthy.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    answer = await converse(address, healthy, last, pause=0.3)
    assert answer.count(b"HTTP/1.1 200 ") == 2


async def test_a_connection_idles_as_well_after_a_body_that_was_late(address, monkeypatch):
    """Its answer was out before: what comes next is no head that takes its time."""
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.1)
    refused = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await converse(address, refused, b"cd", last, pause=0.3)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"405", b"200"]


@pytest.mark.parametrize("earlier", [[], [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]], ids=["first", "reused"])
async def test_a_websocket_has_no_head_to_wait_for(serving, earlier, monkeypatch):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await PlainTextResponse("well")(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0.3)
        await send({"type": "websocket.send", "text": "still here"})
        await send({"type": "websocket.close"})

    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.1)
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    close = b"\x88\x80\x00\x00\x00\x00"
    answer = await converse(await serving(app), *earlier, upgrade, b"", close, pause=0.25)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200"] * len(earlier) + [b"101"]
    assert b"still here" in answer


@pytest.fixture
async def serving():
    """Any app behind the protocol; gives its address."""
    async with AsyncExitStack() as stack:

        async def serve(app):
            config = uvicorn.Config(app, http=BoundedHeads, lifespan="off", log_config=None, access_log=False)
            config.load()
            server = uvicorn.Server(config)
            listening = await asyncio.get_running_loop().create_server(
                lambda: BoundedHeads(config=config, server_state=server.server_state, app_state={}), "127.0.0.1", 0
            )
            stack.callback(listening.close)
            return listening.sockets[0].getsockname()

        yield serve


CLOSING = b"Host: x\r\nConnection: close\r\n"


async def test_an_answer_comes_in_one_piece(serving):
    address = await serving(PlainTextResponse("hello"))
    reader, writer = await asyncio.open_connection(*address)
    writer.write(BEGIN + b"\r\n")
    assert (await reader.read(65536)).endswith(b"\r\n\r\nhello")
    writer.close()


@pytest.mark.parametrize("app", [Response(status_code=204), Response(b""), PlainTextResponse("hello")])
async def test_an_answer_without_a_body_is_whole(serving, app):
    address = await serving(app)
    answer = await converse(address, b"HEAD / HTTP/1.1\r\n" + CLOSING + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 20")
    assert answer.endswith(b"\r\n\r\n")


async def test_who_waits_to_be_told_to_go_on_is_told(serving):
    async def app(scope, receive, send):
        body = (await receive())["body"]
        await PlainTextResponse(body)(scope, receive, send)

    address = await serving(app)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" + CLOSING + b"\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await reader.read()).endswith(b"\r\n\r\nhello")
    writer.close()


async def test_an_answer_in_parts_comes_in_parts(serving):
    async def parts():
        yield b"one"
        await asyncio.sleep(0.05)
        yield b"HTTP/1.1 200 two\r\n\r\n"

    address = await serving(StreamingResponse(parts(), headers={"content-length": "23"}))
    reader, writer = await asyncio.open_connection(*address)
    writer.write(BEGIN + b"Connection: close\r\n" + b"\r\n")
    assert (await reader.read(65536)).endswith(b"\r\n\r\none")
    assert await reader.read() == b"HTTP/1.1 200 two\r\n\r\n"
    writer.close()


async def test_an_app_that_fails_after_its_head_leaves_a_head_without_a_body(serving, caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        raise RuntimeError("meant")

    answer = await converse(await serving(app), BEGIN + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"content-length: 5\r\n\r\n")
