"""The real service with something in front that lets through what it must not, or that keeps an answer back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jwt
from starlette.datastructures import Headers

from switchboard.probe.credentials import OwnIssuer, SigningKey
from tests.support import keys
from tests.support.leaks import LEAKS

ISSUER = "https://login.acme.example/"
SUBJECT = LEAKS.plant("subject", "user-prober-5b1e")
MINE = OwnIssuer(
    issuer=ISSUER,
    audience=keys.AUDIENCE,
    subject=SUBJECT,
    claims={"org_id": "acme"},
    key=SigningKey(keys.private_key("RSA"), "RS256"),
    key_id="rsa-1",
)


@dataclass(frozen=True)
class Request:
    """What of a request can be changed."""

    method: str
    path: str
    bearer: str | None
    origin: str | None


Change = Callable[[Request], Request]


def unchanged(request: Request) -> Request:
    return request


class Front:
    """An ASGI app.

    Args:
        app: the service.
        change: what becomes of a request.
        before: seconds that a request waits, by method and path's first part.
        after: seconds that an answer waits, likewise.
        lost: whose answers break off, likewise.
        failing: whose answers are lost on their way, so that 502 comes in their place, likewise.
        spoilt: what becomes of the messages of an answer, likewise.
    """

    def __init__(
        self,
        app: Any,
        change: Change = unchanged,
        *,
        before: dict[tuple[str, str], float] | None = None,
        after: dict[tuple[str, str], float] | None = None,
        lost: frozenset[tuple[str, str]] = frozenset(),
        failing: frozenset[tuple[str, str]] = frozenset(),
        spoilt: dict[tuple[str, str], Callable[[Any], Any]] | None = None,
    ) -> None:
        self._app = app
        self._change = change
        self._before = before or {}
        self._after = after or {}
        self._lost = lost
        self._failing = failing
        self._spoilt = spoilt or {}
        self.seen: list[Request] = []
        self.ids: list[str] = []
        self.holding = asyncio.Event()
        """Set when a request, or an answer, begins to wait."""

    async def __call__(self, scope, receive, send) -> None:
        headers = Headers(scope=scope)
        bearer = headers.get("authorization", "").removeprefix("Bearer ") or None
        asked = Request(scope["method"], scope["path"], bearer, headers.get("origin"))
        self.seen.append(asked)
        self.ids.append(headers["x-request-id"])
        changed = self._change(asked)
        kind = (asked.method, asked.path.split("/")[1])
        await self._hold(self._before.get(kind))
        body = await _whole(receive)
        waiting = asyncio.Event()
        bodies = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_whole():
            if bodies:
                return bodies.pop()
            await waiting.wait()  # whoever has asked is still there
            raise AssertionError

        answer: list[Any] = []

        async def keep(message):
            answer.append(message)

        kept = {b"content-type", b"x-request-id", b"content-length"}
        raw = [(name, value) for name, value in scope["headers"] if name in kept]
        if changed.bearer is not None:
            raw.append((b"authorization", f"Bearer {changed.bearer}".encode()))
        if changed.origin is not None:
            raw.append((b"origin", changed.origin.encode()))
        inside = {**scope, "method": changed.method, "path": changed.path, "headers": raw}
        await self._app(inside, receive_whole, keep)
        await self._hold(self._after.get(kind))
        if kind in self._spoilt:
            answer = [self._spoilt[kind](message) for message in answer]
        if kind in self._failing:
            answer = [{"type": "http.response.start", "status": 502, "headers": []}, {"type": "http.response.body"}]
        for message in answer:
            if kind in self._lost and message["type"] == "http.response.body":
                raise ConnectionAbortedError
            await send(message)

    async def _hold(self, seconds: float | None) -> None:
        if seconds is not None:
            self.holding.set()
            await asyncio.sleep(seconds)


async def _whole(receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


# What lets through, by the step that has to notice


def _good(request: Request) -> Request:
    return replace(request, bearer=MINE.user())


def _verdict(token: str) -> str:
    """What is wrong with a token."""
    try:
        jwt.decode(token, keys.private_key("RSA").public_key(), ["RS256"], audience=keys.AUDIENCE, issuer=ISSUER)
    except jwt.PyJWTError as error:
        return type(error).__name__
    return ""


def _is_jwt(request: Request) -> bool:
    return request.bearer is not None and not request.bearer.startswith("ek_")


def _of_others(request: Request) -> bool:
    if not _is_jwt(request):
        return False
    claims = jwt.decode(request.bearer or "", options={"verify_signature": False})
    return bool(claims["sub"] != SUBJECT)


def anybody(request: Request) -> Request:
    return _good(request) if request.bearer is None else request


def any_issuer(request: Request) -> Request:
    named = jwt.decode(request.bearer or "", options={"verify_signature": False})["iss"] if _is_jwt(request) else ISSUER
    return request if named == ISSUER else _good(request)


def any_signature(request: Request) -> Request:
    wrong = _is_jwt(request) and _verdict(request.bearer or "") == "InvalidSignatureError"
    return _good(request) if wrong and any_issuer(request) is request else request


def any_time(request: Request) -> Request:
    late = _is_jwt(request) and _verdict(request.bearer or "") == "ExpiredSignatureError"
    return _good(request) if late else request


def any_origin(request: Request) -> Request:
    return replace(request, origin=None)


def anybody_reads(request: Request) -> Request:
    return _good(request) if request.method == "GET" and _of_others(request) else request


def anybody_hangs_up(request: Request) -> Request:
    return _good(request) if request.method == "DELETE" and _of_others(request) else request


def hangs_up_and_denies_it() -> Change:
    """It says no to whom a call does not belong, and ends it all the same."""
    done: list[Request] = []

    def change(request: Request) -> Request:
        if request.method == "DELETE" and _of_others(request):
            done.append(request)
            return request
        if done and request.method == "GET":
            done.clear()
            return replace(request, method="DELETE")
        return request

    return change


def grants_again() -> Change:
    used: set[str | None] = set()

    def change(request: Request) -> Request:
        if (request.method, request.path) != ("POST", "/sdp"):
            return request
        again = request.bearer in used
        used.add(request.bearer)
        return _good(request) if again else request

    return change


def hangs_up_nothing(request: Request) -> Request:
    return replace(request, method="GET") if request.method == "DELETE" else request


def nobody(request: Request) -> Request:
    return replace(request, bearer=None)


def no_calls(request: Request) -> Request:
    return replace(request, path="/nowhere") if request.path == "/sdp" else request


def for_another_reason(request: Request) -> Request:
    late = _is_jwt(request) and _verdict(request.bearer or "") == "ExpiredSignatureError"
    return replace(request, bearer="no.jwt.atall") if late else request
