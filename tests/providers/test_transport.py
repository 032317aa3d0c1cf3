"""The seam to the provider over real sockets: bounded in time and size, nothing followed, nothing sent twice."""

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import time
from email.parser import BytesParser
from email.policy import HTTP

import httpx
import pytest

from switchboard import emulator
from switchboard.app.providers import transport_of
from switchboard.providers.transport import (
    PROXIES,
    BrokenReply,
    ObservedTransport,
    Part,
    PyreqwestTransport,
    TimedOut,
    TransportError,
    Unreachable,
    Unusable,
)
from switchboard.settings import Settings
from tests.deploy import nginx
from tests.support.identity import certificates
from tests.support.process import free_ports
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
    "said",
    [
        b"Content-Length: " + b"0" * 24 + b"300000\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: gzip\r\n",
    ],
    ids=["of-many-digits", "beside-chunks", "beside-a-coding"],
)
@pytest.mark.parametrize("head_first", [False, True])
async def test_a_length_that_is_not_the_bodys_lifts_no_bound(transport, said, head_first):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = b"x" * 300_000
        writer.write(b"HTTP/1.1 200 OK\r\n" + said + b"\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if b"chunked" in said else body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(BrokenReply, match="more than 100000 bytes"):
            await post(transport, url, head_first=head_first)


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


async def test_observers_see_operation_status_and_time(transport, upstream):
    seen = []
    observed = ObservedTransport(transport, lambda *one: seen.append(one))
    await post(observed, upstream.url)
    await upstream.faults(delay_seconds=3)
    with pytest.raises(TimedOut):
        await post(observed, upstream.url, timeout=0.2, operation="call")
    assert [one[:2] for one in seen] == [("mint", "200"), ("call", "timeout")]
    assert seen[1][2] == pytest.approx(0.2, abs=0.15)


@contextlib.asynccontextmanager
async def listening(answer, **options):
    """A server on a port of its own; gives the port. It does not outlive the block, nor do its connections."""
    tasks, writers = [], []

    async def answered(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await answer(reader, writer)

    def connected(reader, writer):
        writers.append(writer)
        tasks.append(asyncio.create_task(answered(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, **options)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in writers:
                writer.transport.abort()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


class Keeper:
    """An HTTP/1.1 server that keeps connections: how many it was asked over, and which of them are open."""

    def __init__(self, *, together=1):
        self.requests = []
        self.open = set()
        self.ended = asyncio.Event()
        self._barrier = asyncio.Barrier(together)

    async def answer(self, reader, writer):
        port = writer.get_extra_info("peername")[1]
        self.open.add(port)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                self.requests.append(port)
                await self._barrier.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError:
            self.open.remove(port)
            self.ended.set()


async def test_connections_are_kept_and_used_again(transport):
    keeper = Keeper()
    async with listening(keeper.answer) as port:
        for _ in range(3):
            await post(transport, f"http://127.0.0.1:{port}/", body=b"{}")
        assert len(set(keeper.requests)) == 1
        assert len(keeper.open) == 1


async def test_as_many_connections_as_requests_and_no_more_are_kept_than_allowed(monkeypatch):
    monkeypatch.setattr("switchboard.providers.transport.MAX_IDLE", 2)
    keeper = Keeper(together=5)
    async with listening(keeper.answer) as port, PyreqwestTransport() as transport:
        await asyncio.gather(*(post(transport, f"http://127.0.0.1:{port}/", body=b"{}") for _ in range(5)))
        assert len(set(keeper.requests)) == 5
        async with asyncio.timeout(2):
            while len(keeper.open) > 2:  # noqa: ASYNC110 - closed by the client, one after the other
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert len(keeper.open) == 2


async def test_a_connection_that_is_idle_for_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr("switchboard.providers.transport.IDLE_SECONDS", 0.05)
    keeper = Keeper()
    async with listening(keeper.answer) as port, PyreqwestTransport() as transport:
        await post(transport, f"http://127.0.0.1:{port}/", body=b"{}")
        await asyncio.sleep(0.1)
        await post(transport, f"http://127.0.0.1:{port}/", body=b"{}")
        assert len(set(keeper.requests)) == 2
        async with asyncio.timeout(2):
            await keeper.ended.wait()


async def test_an_answer_that_stalls_is_given_up_before_the_whole_time_is_over(monkeypatch):
    monkeypatch.setattr("switchboard.providers.transport.READ_SECONDS", 0.1)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await reader.read()

    async with listening(answer) as port, PyreqwestTransport() as hasty:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimedOut):
            await post(hasty, f"http://127.0.0.1:{port}/", timeout=5)
        assert asyncio.get_running_loop().time() - began < 2


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"])
async def test_who_leaves_is_free_at_once_and_the_connection_by_the_time_out(transport, head):
    """pyreqwest lets a request go on that nobody waits for; what bounds it is the request's own time-out."""
    asked, left = asyncio.Event(), asyncio.Event()
    clock = asyncio.get_running_loop().time

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(head)
        asked.set()
        assert await reader.read() == b""
        left.set()

    async with listening(answer) as port, asyncio.timeout(2):
        began = clock()
        task = asyncio.create_task(post(transport, f"http://127.0.0.1:{port}/", body=b"{}", timeout=0.3))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert clock() - began < 0.25
        await left.wait()
        assert clock() - began < 1


async def test_who_leaves_while_the_body_comes_ends_the_connection(transport):
    asked, left = asyncio.Event(), asyncio.Event()

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok")
        await writer.drain()
        await asyncio.sleep(0.05)  # until it is read
        asked.set()
        assert await reader.read() == b""
        left.set()

    async with listening(answer) as port, asyncio.timeout(2):
        url = f"http://127.0.0.1:{port}/"
        task = asyncio.create_task(post(transport, url, body=b"{}", timeout=60, head_first=True))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left.wait()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Certificate, key, and the file of who vouches for it."""
    return certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def environment(monkeypatch):
    """Of this machine, nothing about authorities and proxies."""
    for name in (*PROXIES, "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@contextlib.asynccontextmanager
async def over_tls(authority):
    """A provider whose certificate is for `localhost`; its port, and what it was sent."""
    certificate, key, _ = authority
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    heads = []

    async def answer(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with listening(answer, ssl=context) as port:
        yield port, heads


@pytest.mark.parametrize("way", ["file", "folder"])
async def test_authorities_of_the_environment_are_believed(authority, environment, tmp_path, way):
    if way == "file":
        environment.setenv("SSL_CERT_FILE", str(authority[2]))
    else:
        (tmp_path / "ours.pem").write_bytes(authority[2].read_bytes())
        environment.setenv("SSL_CERT_DIR", str(tmp_path))
    async with over_tls(authority) as (port, heads), PyreqwestTransport() as transport:
        assert (await post(transport, f"https://localhost:{port}/")).status == 200
        assert len(heads) == 1


@pytest.mark.parametrize(("host", "ours"), [("localhost", False), ("127.0.0.1", True)])
async def test_a_certificate_that_is_not_to_be_believed_has_nothing_sent(authority, environment, host, ours):
    """Of an authority that the system does not know; for another name."""
    if ours:
        environment.setenv("SSL_CERT_FILE", str(authority[2]))
    async with over_tls(authority) as (port, heads), PyreqwestTransport() as transport:
        with pytest.raises(Unreachable):
            await post(transport, f"https://{host}:{port}/")
        assert heads == []


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SSL_CERT_FILE", "/nowhere/at/all.pem", "SSL_CERT_FILE, SSL_CERT_DIR: .*No CA certificates"),
        ("HTTPS_PROXY", "http://:secret@", "^HTTPS_PROXY: no address of an HTTP proxy$"),
        ("https_proxy", "http://proxy:https/", "^https_proxy: no address of an HTTP proxy$"),
        ("ALL_PROXY", "socks5://proxy:1080", "^ALL_PROXY: no address of an HTTP proxy$"),
    ],
)
async def test_an_environment_that_would_not_be_heeded_is_refused(environment, variable, value, message):
    environment.setenv(variable, value)
    with pytest.raises(Unusable, match=message):
        PyreqwestTransport()


class Proxy:
    """Takes CONNECT, or answers it otherwise."""

    def __init__(self, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
        self.heads = []
        self._answer = answer

    async def serve(self, reader, writer):
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answer)
        if b" 200 " not in self._answer:
            return await writer.drain()
        port = int(self.heads[-1].split()[1].rpartition(b":")[2])
        upstream, sink = await asyncio.open_connection("127.0.0.1", port)
        return await asyncio.gather(self._pump(reader, sink), self._pump(upstream, writer))

    async def _pump(self, reader, writer):
        with contextlib.closing(writer):
            while chunk := await reader.read(65536):
                writer.write(chunk)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_proxies_of_the_environment_are_used(authority, environment, name):
    proxy = Proxy()
    environment.setenv("SSL_CERT_FILE", str(authority[2]))
    async with over_tls(authority) as (port, heads), listening(proxy.serve) as proxy_port:
        environment.setenv(name, f"http://gate:opens@127.0.0.1:{proxy_port}")
        async with PyreqwestTransport() as transport:
            assert (await post(transport, f"https://localhost:{port}/")).status == 200
    ((line, *fields),) = [head.decode().split("\r\n") for head in proxy.heads]
    assert line == f"CONNECT localhost:{port} HTTP/1.1"
    assert "proxy-authorization: basic z2f0ztpvcgvucw==" in [field.lower() for field in fields]
    assert b"sk-x" in heads[0]  # inside the tunnel, and nowhere else
    assert b"sk-x" not in proxy.heads[0]
    assert b"roxy-" not in heads[0]


@pytest.mark.parametrize("excepted", ["localhost", "*", "example.com, localhost"])
async def test_no_proxy_for_what_is_excepted(authority, environment, excepted):
    environment.setenv("SSL_CERT_FILE", str(authority[2]))
    environment.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    environment.setenv("NO_PROXY", excepted)
    async with over_tls(authority) as (port, _), PyreqwestTransport() as transport:
        assert (await post(transport, f"https://localhost:{port}/")).status == 200


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 407 Who?\r\n\r\n", b"", None])
async def test_a_proxy_that_does_not_let_through_has_sent_nothing(authority, environment, answer):
    proxy = Proxy(answer)
    environment.setenv("SSL_CERT_FILE", str(authority[2]))
    async with over_tls(authority) as (port, heads), listening(proxy.serve) as proxy_port:
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{9 if answer is None else proxy_port}")
        async with PyreqwestTransport() as transport:
            with pytest.raises(Unreachable):
                await post(transport, f"https://localhost:{port}/")
    assert heads == []


@pytest.fixture(scope="module")
def both_versions(authority, tmp_path_factory):
    """nginx with TLS that offers HTTP/2; its process and URL. It tells the version and the connection's number."""
    folder, (port,) = tmp_path_factory.mktemp("nginx"), free_ports(1)
    certificate, key, _ = authority
    temporary = "".join(
        f"{one}_temp_path {folder}/{one};" for one in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; events {{}} http {{ access_log off; {temporary} server {{"
        f"listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};"
        "location / { return 200 '$server_protocol $connection'; } } }"
    )
    command = [nginx.binary(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, (folder / "errors").read_text()
                time.sleep(0.01)
        yield process, f"https://localhost:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("http2", "version"), [(True, b"HTTP/2.0"), (False, b"HTTP/1.1")])
async def test_http_2_where_it_is_offered_and_wanted(authority, environment, both_versions, http2, version):
    environment.setenv("SSL_CERT_FILE", str(authority[2]))
    async with transport_of(Settings(provider_http2=http2)) as transport:
        replies = [await post(transport, f"{both_versions[1]}/") for _ in range(2)]
        several = await asyncio.gather(*(post(transport, f"{both_versions[1]}/") for _ in range(8)))
    told = [reply.body.split() for reply in (*replies, *several)]
    assert {one[0] for one in told} == {version}
    if http2:  # one connection for all, from the first that is made
        assert len({one[1] for one in told}) == 1


async def test_http_1_where_nothing_else_is_offered(authority, environment):
    environment.setenv("SSL_CERT_FILE", str(authority[2]))
    async with over_tls(authority) as (port, heads), PyreqwestTransport(http2=True) as transport:
        assert (await post(transport, f"https://localhost:{port}/")).status == 200
    assert b" HTTP/1.1\r\n" in heads[0]


async def test_a_connection_of_http_2_that_is_dead_is_noticed(authority, environment, both_versions):
    """It would have every request wait until its time is over."""
    environment.setenv("SSL_CERT_FILE", str(authority[2]))
    environment.setattr("switchboard.providers.transport.PING_SECONDS", 0.1)
    environment.setattr("switchboard.providers.transport.PONG_SECONDS", 0.1)
    process, url = both_versions
    async with PyreqwestTransport(http2=True) as transport:
        before = (await post(transport, f"{url}/")).body
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(TransportError):
                await asyncio.wait_for(post(transport, f"{url}/", timeout=30), 2)
        finally:
            process.send_signal(signal.SIGCONT)
        after = (await post(transport, f"{url}/")).body
    assert (before.split()[0], after.split()[0]) == (b"HTTP/2.0", b"HTTP/2.0")
    assert before != after  # another connection
