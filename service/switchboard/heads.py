"""uvicorn's protocol with bounded request heads: httptools takes what it is sent, for as long as it is sent."""

import asyncio
import resource
import secrets
from itertools import islice
from typing import Any, cast

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from switchboard import logcontext
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
LINGER_SECONDS = 10.0  # for the rest of a body whose request has its answer already: closed at once, it would be lost
MAX_LEFT_BYTES = 1024 * 1024  # of such a rest
MAX_CONNECTIONS = 10_000  # of a process; 10 KB each while they idle
OTHER_FILES = 256  # that a process may have open beside them: Redis, providers, key sets, audit
LOOKED_AT = 100  # connections, for one that may be closed
WARN_SECONDS = 60.0
# RFC 9110, section 5.3: of these there is one. Of two, we would read another one than the proxy in front of us.
SINGLE = frozenset({b"host", b"authorization", b"content-type", b"origin"})
_log = structlog.get_logger("switchboard.heads")


class ServerState(uvicorn.server.ServerState):
    """What the connections of a server share."""

    leaving = False
    """Whether each answer is to be the last one of its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.most_connections = min(
            MAX_CONNECTIONS, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OTHER_FILES)
        )
        """Beyond it, each new one closes one that idles."""
        self.warned_at = float("-inf")


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
    """Refuses a head that is larger (431) or slower (408) than any browser's, or ambiguous (400); the connection ends.

    What has been received of a head is at most its bound and one read of the socket. What is refused here never
    reaches the app, so it is observed and logged here. Connections that idle, or send on after their answer, end too.
    """

    def __init__(self, *args: Any, observe: ObserveHttp = unobserved, **options: Any) -> None:
        super().__init__(*args, **options)
        self._observe = observe
        self._began_at = 0.0
        self._in_head = True
        self._has_begun = False
        self._began_now = False
        self._in_body = False
        self._received = 0
        self._parsed = 0
        self._left = 0
        self._singles: set[bytes] = set()
        self._timer: asyncio.TimerHandle | None = None
        """Of a head, or of the rest of a body."""

    @property
    def is_in_request(self) -> bool:
        """Whether a request has begun to arrive and has not been answered."""
        return (self._has_begun and self._in_head) or self._unanswered is not None

    @property
    def has_been_asked(self) -> bool:
        """Whether a request has begun to arrive on this connection, now or earlier."""
        return self._has_begun

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss the connection: it is between two requests, or had a second for its first one."""
        if self._has_begun:
            return self._is_between
        return self.loop.time() - self._began_at > 1

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
    def _is_between(self) -> bool:
        return not (self._in_head or self._in_body or self._unanswered or self.pipeline)

    @property
    def _unanswered(self) -> RequestResponseCycle | None:
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first request
        return None if cycle is None or cycle.response_complete else cycle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A first head has to come."""
        super().connection_made(cast("asyncio.Transport", _InOnePiece(transport)))
        self._began_at = self.loop.time()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)
        if isinstance(self.server_state, ServerState) and len(self.connections) > self.server_state.most_connections:
            self._make_room(self.server_state)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless a head that is still not whole has grown too large."""
        if self.transport.is_closing():
            return
        self._began_now = False
        was_between = self._is_between
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._timer is None and (self._in_head or (was_between and not self._began_now)):
            # Not before: a head that comes in one piece, as nearly all do, needs no clock. Between two requests as
            # well: empty lines before a head end the time of an idle connection, and begin no other.
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)
        # The read in which a head begins may hold the end of a body before it.
        if self._in_head and not self._began_now:
            self._received += len(data)
            if self._received > MAX_HEAD_BYTES:
                self._refuse(HeadersTooLarge())

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = self._has_begun = self._began_now = True
        self._began_at = self.loop.time()
        self._received = self._parsed = self._left = 0
        self._singles.clear()

    def on_url(self, url: bytes) -> None:
        """Part of the request line."""
        self._parsed += len(url)
        if self._parsed > MAX_HEAD_BYTES:
            # Out of the parser: httptools turns it into its own error, which ends in `send_400_response`.
            raise ValueError("head too large")
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header."""
        self._parsed += len(name) + len(value) + 4  # colon, space and line end
        if self._parsed > MAX_HEAD_BYTES:
            raise ValueError("head too large")
        if not self._in_head:
            return  # a trailer: uvicorn would put it among the headers, behind the back of whoever checked those
        lowered = name.lower()
        if lowered in SINGLE:
            if lowered in self._singles:
                raise ValueError("a header that may stand once stands twice")
            self._singles.add(lowered)
        elif lowered == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise ValueError("a coding that nobody here undoes")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if b"host" not in self._singles and self.parser.get_http_version() == "1.1":
            raise ValueError("no Host (RFC 9112, section 3.2)")
        self._in_head, self._in_body = False, True
        self._stop_timer()
        super().on_headers_complete()
        if isinstance(self.server_state, ServerState) and self.server_state.leaving:
            self.leave()

    def on_body(self, body: bytes) -> None:
        """Part of a body; what comes after its request's answer is thrown away, up to a bound."""
        if self._unanswered is None:
            self._left += len(body)
            if self._left > MAX_LEFT_BYTES:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A body is whole."""
        self._in_body = False
        super().on_message_complete()
        if self._unanswered is None:
            # The rest of a body whose request was answered: uvicorn has stopped the time of the idle connection.
            self._stop_timer()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """An answer is out; if its request's body is not in, that has to come soon."""
        super().on_response_complete()
        if self._in_body and self._unanswered is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: who asks for another protocol gets HTTP. uvicorn would advise operators to install one."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text says nothing
        """What the parser refuses, and what has grown too large, in the form of all refusals."""
        if self._parsed > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge())
        else:
            self._refuse(InvalidRequest("This is not a request of HTTP/1.1 (RFC 9112)."))

    def _make_room(self, state: ServerState) -> None:
        """Close one that idles, else this one."""
        found = (one for one in islice(self.connections, LOOKED_AT) if isinstance(one, BoundedHeads) and one.is_idle)
        next(found, self).transport.close()
        if self.loop.time() - state.warned_at > WARN_SECONDS:
            state.warned_at = self.loop.time()
            _log.warning("too many connections; those that idle are closed", most=state.most_connections)

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
            with logcontext.during(request_id=request_id):
                log_request(*told)
