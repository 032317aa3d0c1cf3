"""What surrounds every request: the record, the bound on its body, faults, and the provider's headers.

It wraps the app from outside, so that a 500 carries the headers as well.
"""

import re
import secrets
from collections.abc import Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from switchboard.emulator.options import Operation
from switchboard.emulator.refusal import Refusal
from switchboard.emulator.spoil import Spoiler
from switchboard.emulator.state import Emulator, SeenRequest

MOST_BODY_BYTES: Final = 1024 * 1024
_CALLS_PATH: Final = "/realtime/calls"
_OPERATIONS: Final[tuple[tuple[re.Pattern[str], Operation], ...]] = (
    (re.compile(r"/realtime(/translations)?/client_secrets"), "mint"),
    (re.compile(r"/realtime(/translations)?/calls"), "call"),
    (re.compile(r"/realtime/calls/[^/]+/hangup"), "hangup"),
)
_CORS: Final = MappingProxyType(
    {
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "Location, X-Request-Id",
        "timing-allow-origin": "*",
    }
)
_PREFLIGHT: Final = MappingProxyType(
    {
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "authorization, content-type, x-openai-agents-sdk",
        "access-control-max-age": "7200",
    }
)


class Front:
    """The outermost layer of the emulator."""

    def __init__(self, app: ASGIApp, emulator: Emulator) -> None:
        self._app = app
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_emulator/"):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            await Response(headers={**_CORS, **_PREFLIGHT})(scope, receive, send)
            return
        below = scope["path"].removeprefix(self._emulator.flavour.prefix)
        decorated = _Decorated(below, self._emulator.flavour.request_id, send)
        body = await _read(receive)
        if body is None:
            refusal = Refusal(413, f"The body is larger than {MOST_BODY_BYTES} bytes.", code="request_too_large")
            await refusal.response()(scope, receive, decorated)
            return
        seen = _seen(self._emulator.now, scope, body)
        self._emulator.requests.append(seen)
        key = seen.headers.get("api-key") or seen.headers.get("authorization", "").removeprefix("Bearer ")
        faults = self._emulator.take_faults(_operation(scope["method"], below), key)
        app = self._app if faults is None else Spoiler(self._app, faults)
        await app(scope, _again(body, receive), decorated)


class _Decorated:
    """A `send` that adds the provider's headers and still shows the server's transport behind it."""

    def __init__(self, path: str, request_id: str, send: Send) -> None:
        self._path = path
        self._request_id = request_id
        self._send = send
        self._started = perf_counter()
        self.__self__ = getattr(send, "__self__", None)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message["headers"]))
            for name, value in self._headers(message["status"]).items():
                headers.setdefault(name, value)
            message = {**message, "headers": headers.raw}
        await self._send(message)

    def _headers(self, status: int) -> Mapping[str, str]:
        headers = {self._request_id: f"req_{secrets.token_hex(16)}", **_CORS}
        # A recorded 201 of a call carries neither of these.
        if status != 201 and not self._path.startswith(_CALLS_PATH):
            elapsed = int((perf_counter() - self._started) * 1000)
            headers |= {"openai-processing-ms": str(elapsed), "openai-version": "2020-10-01"}
        return headers


def _operation(method: str, path: str) -> Operation | None:
    if method != "POST":
        return None
    return next((name for pattern, name in _OPERATIONS if pattern.fullmatch(path)), None)


def _seen(now: float, scope: Scope, body: bytes) -> SeenRequest:
    query = scope["query_string"].decode("latin-1")
    return SeenRequest(now, scope["method"], scope["path"], query, Headers(scope=scope), body)


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None if it is too large."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MOST_BODY_BYTES:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read a second time, then whatever the server says next."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
