"""The one seam to the network towards a provider: bounded in time and size, no redirects, no cookies, no retries.

Why it is pyreqwest, and what it lacks: docs/decisions/0003-provider-client.md.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol, Self
from urllib.parse import urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)
from pyreqwest.multipart import FormBuilder, PartBuilder
from pyreqwest.response import Response

from switchboard.values import light_dataclass

CONNECT_SECONDS = 5.0  # TCP and TLS; three lost packets
READ_SECONDS = 10.0  # without a single byte: long before others give up, a provider that hangs is not worth waiting for
IDLE_SECONDS = 60.0  # shorter than what load balancers grant, so that they never close under a request
NOT_CONNECTED = "client error (Connect)"  # among hyper's causes when no connection came about
READ_HEADERS = ("content-type", "location", "retry-after", "retry-after-ms", "x-request-id", "apim-request-id")
MAX_DIGITS = 19  # of a length
MAX_IDLE = 512  # kept connections: a thousand calls a second at 250 ms use half of them
PING_SECONDS, PONG_SECONDS = 10.0, 5.0  # HTTP/2 has one connection for everything: one that is dead has to be noticed
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Unusable(Exception):
    """No client can be made; the message names the variables of the environment that are to blame."""


class TransportError(Exception):
    """No whole answer came. `label` is for metrics; `head` is what had come, if its status line and headers had."""

    label = "broken"

    def __init__(self, reason: str, head: "Reply | None" = None) -> None:
        self.head = head
        super().__init__(reason)


class Unreachable(TransportError):
    """Nothing was sent: the connection could not be made."""

    label = "unreachable"


class TimedOut(TransportError):
    """Sent, and not answered in time."""

    label = "timeout"


class BrokenReply(TransportError):
    """Sent, and the answer was cut off, not HTTP, or larger than allowed."""


@light_dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart/form-data body (RFC 7578): typed, and without a file name."""

    name: str
    media_type: str
    content: bytes


@light_dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer: those of its headers that are read (lower case), and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Posts to a provider."""

    async def post(
        self,
        url: str,
        *,
        operation: str,
        headers: Mapping[str, str],
        body: bytes | Sequence[Part],
        timeout: float,
        max_bytes: int,
        head_first: bool = False,
    ) -> Reply:
        """One POST, sent at most once.

        Args:
            url: complete, with its query.
            operation: what it is for (`mint`, `call`, `hangup`), for those who watch.
            headers: as they are to be sent.
            body: the content, or the parts of a form.
            timeout: seconds until the last byte of the answer.
            max_bytes: of the answer's body.
            head_first: keep the head of an answer whose body fails; costs some speed.

        Raises:
            Unreachable, TimedOut, BrokenReply: no whole answer came.
        """


class PyreqwestTransport:
    """Keeps connections to providers open. Use as an async context manager, inside a running event loop.

    Certificate authorities and proxies are those of the process's environment: SSL_CERT_FILE, SSL_CERT_DIR, or else the
    system's; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY. They are read once, here.

    Args:
        http2: whether HTTP/2 is spoken with providers that offer it: over one connection, however many requests.

    Raises:
        Unusable: there is no authority, or something that is no proxy.
    """

    def __init__(self, *, http2: bool = False) -> None:
        _check_proxies(os.environ)
        builder = (
            ClientBuilder()
            .follow_redirects(enable=False)
            .referer(enable=False)
            # Answers are small and bounded; without decompression no small answer can grow large.
            .gzip(enable=False)
            .brotli(enable=False)
            .zstd(enable=False)
            .deflate(enable=False)
            .connect_timeout(timedelta(seconds=CONNECT_SECONDS))
            .read_timeout(timedelta(seconds=READ_SECONDS))
            .pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
            .pool_max_idle_per_host(MAX_IDLE)
            .http2(http2)
            .http2_keep_alive_interval(timedelta(seconds=PING_SECONDS))
            .http2_keep_alive_timeout(timedelta(seconds=PONG_SECONDS))
        )
        try:
            self._client: Client = builder.build()
        except BuilderError as error:
            raise Unusable(f"SSL_CERT_FILE, SSL_CERT_DIR: {_causes(error)[-1]}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def post(
        self,
        url: str,
        *,
        operation: str,  # noqa: ARG002 - for those who wrap this
        headers: Mapping[str, str],
        body: bytes | Sequence[Part],
        timeout: float,
        max_bytes: int,
        head_first: bool = False,
    ) -> Reply:
        """See `Transport.post`."""
        head: Reply | None = None
        try:
            request = self._client.post(url).headers(headers).timeout(timedelta(seconds=timeout))
            request = request.body_bytes(body) if isinstance(body, bytes) else request.multipart(_form(body))
            if head_first:
                # Without a buffer: a body that fails would otherwise take the head, and a call's id, with it.
                request = request.streamed_read_buffer_limit(0)
            async with request.build_streamed() as response:
                head = Reply(response.status, _headers(response), b"")
                return Reply(head.status, head.headers, await _body(response, max_bytes))
        except PyreqwestError as error:
            raise _translated(error, head) from error
        except BrokenReply as error:
            error.head = head
            raise
        except (ValueError, TypeError) as error:  # a header of ours or of theirs that cannot be written or read
            raise BrokenReply(type(error).__name__, head) from None


class ObservedTransport:
    """Shows each request's operation, status and seconds to an observer; changes nothing else."""

    def __init__(self, transport: Transport, observe: Callable[[str, str, float], None]) -> None:
        self._transport = transport
        self._observe = observe

    async def post(
        self,
        url: str,
        *,
        operation: str,
        headers: Mapping[str, str],
        body: bytes | Sequence[Part],
        timeout: float,
        max_bytes: int,
        head_first: bool = False,
    ) -> Reply:
        """See `Transport.post`."""
        started = time.perf_counter()
        status = "cancelled"
        try:
            reply = await self._transport.post(
                url,
                operation=operation,
                headers=headers,
                body=body,
                timeout=timeout,
                max_bytes=max_bytes,
                head_first=head_first,
            )
            status = str(reply.status)
            return reply
        except TransportError as error:
            status = error.label
            raise
        finally:
            self._observe(operation, status, time.perf_counter() - started)


def _headers(response: Response) -> Mapping[str, str]:
    """The headers that somebody reads; one that is not text is as good as absent."""
    found = {}
    for name in READ_HEADERS:
        try:
            value = response.get_header(name)
        except ValueError:
            continue
        if value is not None:
            found[name] = value
    return found


def _translated(error: PyreqwestError, head: Reply | None) -> TransportError:
    """What happened, in our terms.

    The classes alone do not tell whether anything was sent: ConnectError also stands for a connection that was closed
    before the answer, ConnectTimeoutError for a total timeout after sending. The causes do.
    """
    if isinstance(error, PoolTimeoutError | BuilderError) or NOT_CONNECTED in _causes(error):
        return Unreachable(type(error).__name__)
    if isinstance(error, RequestTimeoutError):
        return TimedOut(type(error).__name__, head)
    return BrokenReply(type(error).__name__, head)


def _causes(error: PyreqwestError) -> list[str]:
    """From the outermost to the innermost."""
    causes = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return [one["message"] for one in causes or ()]


def _check_proxies(environ: Mapping[str, str]) -> None:
    """The client goes past what it cannot use, and that must not be how an operator finds a mistake."""
    for name in PROXIES:
        if value := environ.get(name):
            try:
                proxy = urlsplit(value if "://" in value else f"http://{value}")
                good = proxy.scheme in {"http", "https"} and bool(proxy.hostname) and proxy.port != 0
            except ValueError:
                good = False
            if not good:
                raise Unusable(f"{name}: no address of an HTTP proxy")  # unquoted: it may hold a password


def _form(parts: Sequence[Part]) -> FormBuilder:
    form = FormBuilder()
    for part in parts:
        form = form.part(part.name, PartBuilder.from_bytes(part.content).mime(part.media_type))
    return form


async def _body(response: Response, max_bytes: int) -> bytes:
    if 0 <= _length(response) <= max_bytes:  # there cannot be more, and in one piece it is cheaper
        return bytes(await response.bytes())
    content = bytearray()
    while (chunk := await response.body_reader.read(64 * 1024)) is not None:
        content += chunk
        if len(content) > max_bytes:
            raise BrokenReply(f"more than {max_bytes} bytes")
    return bytes(content)


def _length(response: Response) -> int:
    """What the answer says that it holds; -1 if not by digits and those alone (RFC 9112, section 6.3)."""
    try:
        value = response.get_header("content-length") or ""
        if response.get_header("transfer-encoding") is not None:
            return -1
    except ValueError:
        return -1
    return int(value) if len(value) < MAX_DIGITS and value.isascii() and value.isdigit() else -1
