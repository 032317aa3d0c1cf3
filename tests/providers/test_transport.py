"""The seam to the provider over real sockets: bounded in time and size, nothing followed, nothing sent twice."""

import asyncio
import contextlib
import socket
from email.parser import BytesParser
from email.policy import HTTP

import httpx
import pytest

from switchboard import emulator
from switchboard.providers.transport import (
    BrokenReply,
    ObservedTransport,
    Part,
    PyreqwestTransport,
    TimedOut,
    Unreachable,
)
from tests.support.servers import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def transport():
    async with PyreqwestTransport() as made:
        yield made


class Upstream:
    def __init__(self, app, url):
        self.requests = app.state.emulator.requests
        self.url = f"{url}/v1/realtime/client_secrets"
        self._base = url

    async def faults(self, **faults):
        async with httpx.AsyncClient() as client:
            assert (await client.put(f"{self._base}/_emulator/faults", json=faults)).status_code == 200


@pytest.fixture
async def upstream():
    app = emulator.create_app(emulator.Options(media=False))
    async with app.router.lifespan_context(app), serving(app) as url:
        yield Upstream(app, url)


def post(transport, url, **changes):
    request = {
        "operation": "mint",
        "headers": {"authorization": "Bearer sk-x", "content-type": "application/json"},
        "body": b'{"session": {"type": "realtime"}}',
        "timeout": 2.0,
        "max_bytes": 100_000,
        **changes,
    }
    return transport.post(url, **request)


async def test_a_whole_answer(transport, upstream):
    reply = await post(transport, upstream.url)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.body.startswith(b"{")
    (seen,) = upstream.requests
    assert seen.body == b'{"session": {"type": "realtime"}}'
    assert "cookie" not in seen.headers
    assert "accept-encoding" not in seen.headers


async def test_a_form_has_typed_parts_without_file_names(transport, upstream):
    parts = (Part("sdp", "application/sdp", b"v=0\r\n\xff\r\n"), Part("session", "application/json", b"{}"))
    await post(transport, upstream.url, body=parts, headers={"authorization": "Bearer sk-x"})
    (seen,) = upstream.requests
    head = f"content-type: {seen.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + seen.body)
    assert [
        (part["content-disposition"], part["content-type"], part.get_payload(decode=True))
        for part in message.iter_parts()
    ] == [
        ('form-data; name="sdp"', "application/sdp", b"v=0\r\n\xff\r\n"),
        ('form-data; name="session"', "application/json", b"{}"),
    ]


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"delay_seconds": 3}, TimedOut),
        ({"drip": 0.2}, TimedOut),
        ({"reset": True}, BrokenReply),
        ({"half_answer": True}, BrokenReply),
        ({"huge": 200_000}, BrokenReply),
    ],
)
async def test_faults(transport, upstream, faults, expected):
    await upstream.faults(**faults)
    with pytest.raises(expected):
        await post(transport, upstream.url, timeout=0.5)
    # Never sent twice.
    assert len(upstream.requests) == 1


async def test_a_header_that_is_no_text_is_as_good_as_absent(transport):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Created\r\nVia: caf\xe9\r\nLocation: /calls/rtc_1\r\nX-Request-Id: \xff\r\n")
        writer.write(b"Content-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reply = await post(transport, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (reply.status, reply.headers, reply.body) == (201, {"location": "/calls/rtc_1"}, b"ok")


@pytest.mark.parametrize(
    ("begin", "line", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1000 + b"\r\n", BrokenReply),  # too large
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", TimedOut),  # too long
    ],
)
async def test_a_head_that_never_ends_is_bounded(transport, begin, line, expected):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(line * 10)
                await writer.drain()
                await asyncio.sleep(0.001)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(expected):
            await post(transport, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout=0.5)
        await asyncio.sleep(0.05)


async def test_an_answer_that_is_cut_off_leaves_its_head(transport, upstream):
    await upstream.faults(half_answer=True)
    with pytest.raises(BrokenReply) as broken:
        await post(transport, upstream.url, head_first=True)
    assert broken.value.head is not None
    assert broken.value.head.status == 200
    assert broken.value.head.headers["x-request-id"].startswith("req_")


async def test_a_header_of_ours_that_cannot_be_sent_is_not_quoted(transport, upstream):
    with pytest.raises(BrokenReply) as broken:
        await post(transport, upstream.url, headers={"authorization": "Bearer sk-secret\r\nx: y"})
    assert "secret" not in repr(broken.value)
    assert broken.value.__cause__ is None


async def test_redirects_are_answers(transport, upstream):
    await upstream.faults(redirect="http://127.0.0.1:9/")
    assert (await post(transport, upstream.url)).status == 307


async def test_nobody_listens(transport):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable):
            await post(transport, f"http://127.0.0.1:{taken.getsockname()[1]}/")


async def test_a_handshake_that_is_never_answered_has_sent_nothing(transport, monkeypatch):
    monkeypatch.setattr("switchboard.providers.transport.CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with PyreqwestTransport() as hasty:
            with pytest.raises(Unreachable):
                await post(hasty, f"https://127.0.0.1:{silent.getsockname()[1]}/", timeout=5)


async def test_a_connection_that_is_never_answered_is_no_proof_that_nothing_was_sent(transport):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimedOut):
        await post(transport, f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.3)


async def test_a_caller_who_leaves_cancels(transport, upstream):
    await upstream.faults(delay_seconds=5)
    task = asyncio.create_task(post(transport, upstream.url))
    while not upstream.requests:  # noqa: ASYNC110 - the emulator has no event for it
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_observers_see_operation_status_and_time(transport, upstream):
    seen = []
    observed = ObservedTransport(transport, lambda *one: seen.append(one))
    await post(observed, upstream.url)
    await upstream.faults(delay_seconds=3)
    with pytest.raises(TimedOut):
        await post(observed, upstream.url, timeout=0.2, operation="call")
    assert [one[:2] for one in seen] == [("mint", "200"), ("call", "timeout")]
    assert seen[1][2] == pytest.approx(0.2, abs=0.15)
