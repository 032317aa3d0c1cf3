"""uvicorn's protocol with bounded request heads: httptools takes what it is sent, for as long as it is sent."""

import asyncio
import secrets
from typing import Any, cast

import uvicorn
from structlog.contextvars import bound_contextvars
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from switchboard.errors import (
    HeadersTooLarge,
    InvalidRequest,
    Refusal,
    RequestTimeout,
    encode_problem,
    problem_headers,
)
from switchboard.middleware import ObserveHttp, log_request, unobserved

MAX_HEAD_BYTES = 64 * 1024  # of request line and headers; a user's token and a browser's cookies fit many times
HEAD_SECONDS = 10.0  # from the connection, or from a request's first byte, to the end of its head


class ServerState(uvicorn.server.ServerState):
    """What the connections of a server share."""

    leaving = False
    """Whether each answer is to be the last one of its connection."""


class _InOnePiece:
    """A transport that sends an answer's head together with its body, which uvicorn writes one after the other: one
    system call, and one packet, instead of two.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep a head until its body comes, which uvicorn writes also where there is none; 1xx have none."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close, with what has been written."""
        if self._head:
            self.write(b"")
        self._transport.close()


class BoundedHeads(HttpToolsProtocol):
    """Refuses a head that is larger (431) or slower (408) than any browser's, and closes the connection.

    What has been received of a head is at most its bound and one read of the socket. What is refused here never
    reaches the app, so it is observed and logged here.
    """

    def __init__(self, *args: Any, observe: ObserveHttp = unobserved, **options: Any) -> None:
        super().__init__(*args, **options)
        self._observe = observe
        self._began_at = 0.0
        self._in_head = True
        self._has_begun = False
        self._began_now = False
        self._received = 0
        self._parsed = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_in_request(self) -> bool:
        """Whether a request has begun to arrive and has not been answered."""
        return (self._has_begun and self._in_head) or self._unanswered is not None

    @property
    def has_been_asked(self) -> bool:
        """Whether a request has begun to arrive on this connection, now or earlier."""
        return self._has_begun

    def leave(self) -> None:
        """Have the answer that is being made say that it is the last one, unless it has begun."""
        if self._unanswered is not None:
            self._unanswered.keep_alive = False

    def shutdown(self) -> None:
        """Close an idle connection; one on which something arrives is closed with its answer."""
        self.leave()
        if not self.is_in_request:
            self.transport.close()

    @property
    def _unanswered(self) -> RequestResponseCycle | None:
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first request
        return None if cycle is None or cycle.response_complete else cycle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A first head has to come."""
        super().connection_made(cast("asyncio.Transport", _InOnePiece(transport)))
        self._began_at = self.loop.time()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless a head that is still not whole has grown too large."""
        if self.transport.is_closing():
            return
        self._began_now = False
        super().data_received(data)
        # The read in which a head begins may hold the end of a body before it.
        if self._in_head and not self._began_now:
            self._received += len(data)
            if self._received > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(HeadersTooLarge())

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = self._has_begun = self._began_now = True
        self._began_at = self.loop.time()
        self._received = self._parsed = 0
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_url(self, url: bytes) -> None:
        """Part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header."""
        self._count(len(name) + len(value) + 4)  # colon, space and line end
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        if isinstance(self.server_state, ServerState) and self.server_state.leaving:
            self.leave()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text says nothing
        """What the parser refuses, and what `_count` stopped, in the form of all refusals."""
        if self._parsed > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge())
        else:
            self._refuse(InvalidRequest("This is not a request of HTTP/1.1 (RFC 9112)."))

    def _count(self, size: int) -> None:
        self._parsed += size
        if self._parsed > MAX_HEAD_BYTES:
            # Out of the parser: httptools turns it into its own error, which ends in `send_400_response`.
            raise ValueError("head too large")

    def _give_up(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            # A connection on which nothing was asked is answered so as well, and was no request.
            self._refuse(RequestTimeout("The request's head did not arrive in time."), is_told=self._has_begun)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, refusal: Refusal, *, is_told: bool = True) -> None:
        request_id = secrets.token_hex(16)
        body = encode_problem(refusal, request_id)
        headers = {
            **problem_headers(refusal),
            "content-length": str(len(body)),
            "connection": "close",
            "vary": "Origin",
            "x-request-id": request_id,
        }
        lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
        self.transport.write(STATUS_LINE[refusal.status] + b"".join(lines) + b"\r\n" + body)
        self.transport.close()
        if is_told:
            told = "none", "other", refusal.status, self.loop.time() - self._began_at
            self._observe(*told, request_id)
            with bound_contextvars(request_id=request_id):
                log_request(*told)
