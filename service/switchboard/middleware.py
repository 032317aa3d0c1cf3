"""What wraps the app from outside, so that every answer has it, 500s included: request id, time, log, address, CORS."""

import os
import re
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from switchboard import logcontext
from switchboard.clientaddress import ClientAddress
from switchboard.errors import Draining, InternalError, OriginNotAllowed, Refusal, encode_problem, problem_headers
from switchboard.tenants import Origins

# WHIP clients ask by OPTIONS what there is, and some try a PATCH, with the session's tag in one of two headers. Their
# page has to get as far as its 405; without these it would see a network that fails.
ALLOWED_METHODS = "GET, POST, DELETE, OPTIONS, PATCH"
# Frontends of the retired beta send OpenAI-Beta, which says nothing here and goes nowhere.
ALLOWED_HEADERS = (
    "authorization, content-type, if-match, etag, x-request-id, x-openai-agents-sdk, openai-beta, traceparent"
)
EXPOSED_HEADERS = (
    "Location, Accept-Post, Allow, X-Request-Id, RateLimit, RateLimit-Policy, Retry-After, x-should-retry, "
    "Switchboard-Dropped"
)
PREFLIGHT_SECONDS = "7200"  # the longest that Chromium keeps

FORWARDING = frozenset({b"x-forwarded-for", b"forwarded"})
KNOWN_CLIENTS = 4096  # that are remembered with what proxies write of them: a browser comes several times
MAX_REMEMBERED = 128  # bytes of that; what is longer is read each time

# Asked so often, by so many, that they would hide everything else.
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})

ObserveHttp = Callable[[str, str, int, float, str], None]
"""Hears of each answer: the route's template, method, status, seconds, and the request's id."""

CUT_OFF = "This process ended before it could finish this; nothing of it was handed out. Try again."

UNREPEATED = {"x-should-retry": "false"}  # it may have begun, and SDKs would repeat an offer by themselves

_VARY = (b"vary", b"Origin")
_EXPOSED = (b"access-control-expose-headers", EXPOSED_HEADERS.encode())
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_log = structlog.get_logger("switchboard.http")


def unobserved(*_: object) -> None:
    """Nobody hears of answers."""


def log_request(route: str, method: str, status: int, seconds: float) -> None:
    """The one line of a request; the rest of it is bound by then."""
    log = _log.debug if route in QUIET else _log.info
    log("request", route=route, method=method, status=status, duration_ms=round(seconds * 1000, 3))


class RequestContext:
    """Gives each request its id, times it, writes its line in the log, and answers 500 for what nobody caught.

    The id is the caller's `X-Request-Id` if that is well formed, else a new one; it is in `scope["request_id"]`, and in
    every line that is logged meanwhile.
    """

    def __init__(self, app: ASGIApp, *, observe: ObserveHttp) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _first(scope, b"x-request-id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        scope["request_id"] = request_id
        logcontext.begin(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except CancelledError:
            # At the end of the time that work has when this process ends.
            if status == 0:
                await send_refusal(Draining(CUT_OFF, retry_after=1), request_id, send_with_id, more=UNREPEATED)
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer and the operator a log line
            _log.exception("unhandled error", route=route_of(scope))
            if status == 0:
                await send_refusal(InternalError(), request_id, send_with_id)
        finally:
            route, seconds = route_of(scope), time.perf_counter() - started
            method = method_of(scope)
            self._observe(route, method, status, seconds, request_id)
            log_request(route, method, status, seconds)


class RealClient:
    """Puts the client's own address into `scope["client"]`, whatever proxies stand between: found once, here.

    Args:
        app: what is wrapped.
        addresses: finds it.
        shown: what the log may show of an address.
    """

    def __init__(self, app: ASGIApp, *, addresses: ClientAddress, shown: Callable[[str], str | None] = str) -> None:
        self._app = app
        self._addresses = addresses
        self._shown = shown
        self._warned = False
        self._known = lru_cache(KNOWN_CLIENTS)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = (scope.get("client") or (None,))[0]
            written = tuple([line for line in scope["headers"] if line[0] in FORWARDING])
            is_short = sum([len(value) for _, value in written]) <= MAX_REMEMBERED
            client, shown, is_overlooked = (self._known if is_short else self._find)(peer, written)
            if is_overlooked and not self._warned:
                # Once: it is about the deployment, not about this request.
                self._warned = True
                _log.warning(
                    "a peer speaks for other addresses and is not in SWITCHBOARD_TRUSTED_PROXIES; if it is a proxy of"
                    " yours, all its clients are now counted as one",
                    peer=peer and self._shown(peer),
                )
            scope["client"] = (client, 0)  # its port is the proxy's business
            if shown is not None:
                logcontext.add(client_ip=shown)
        await self._app(scope, receive, send)

    def _find(self, peer: str | None, written: tuple[tuple[bytes, bytes], ...]) -> tuple[str, str | None, bool]:
        """The client's address, what the log may show of it, and whether this peer speaks for others in vain."""
        headers = Headers(raw=list(written))
        client = self._addresses.of(peer, headers)
        return client, self._shown(client), self._addresses.overlooks(peer, headers)


class Cors:
    """Answers preflights for the union of all tenants' origins, and lets allowed pages read answers.

    A request is checked against its own tenant's list in admission; who is refused there may not read that answer.
    """

    def __init__(self, app: ASGIApp, *, origins: Callable[[], Origins]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = _first(scope, b"origin")
        allowed = origin is not None and self._origins().allow(origin)

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), _VARY]
                if allowed and not scope.get("origin_refused"):
                    headers.append((b"access-control-allow-origin", (origin or "").encode("latin-1")))
                    headers.append(_EXPOSED)
                message["headers"] = headers
            await send(message)

        asks_first = scope["method"] == "OPTIONS" and origin is not None
        if asks_first and _first(scope, b"access-control-request-method") is not None:
            await _preflight(scope, send_with_cors, allowed=allowed)
            return
        await self._app(scope, receive, send_with_cors)


async def _preflight(scope: Scope, send: Send, *, allowed: bool) -> None:
    if not allowed:
        detail = "No tenant lists this page's origin in its `origins`."
        await send_refusal(OriginNotAllowed(detail), scope["request_id"], send)
        return
    headers = {
        "access-control-allow-methods": ALLOWED_METHODS,
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-max-age": PREFLIGHT_SECONDS,
        "content-length": "0",
    }
    await _send(200, headers, b"", send)


async def send_refusal(
    refusal: Refusal, request_id: str, send: Send, *, more: Mapping[str, str] = MappingProxyType({})
) -> None:
    """A refusal as an ASGI answer, for where no endpoint is involved; with more headers."""
    body = encode_problem(refusal, request_id)
    await _send(refusal.status, {**problem_headers(refusal), **more, "content-length": str(len(body))}, body, send)


async def _send(status: int, headers: dict[str, str], body: bytes, send: Send) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _first(scope: Scope, name: bytes) -> str | None:
    """A header's first line. `Headers` would decode all of them, for each wrapper anew."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def method_of(scope: Scope) -> str:
    """The request's method, if it is one that HTTP has; a caller may write anything."""
    return scope["method"] if scope["method"] in _METHODS else "other"


def route_of(scope: Scope) -> str:
    """The template of the route that took the request (`/sdp/{call_id}`), never its raw path."""
    return getattr(scope.get("route"), "path", "none")
