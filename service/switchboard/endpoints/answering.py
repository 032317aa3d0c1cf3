"""Answers: JSON, and refusals as problems."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from switchboard.endpoints import OFFER_PATHS, OFFER_TYPES, Endpoint
from switchboard.errors import (
    Draining,
    InternalError,
    MethodNotAllowed,
    NotFound,
    OriginNotAllowed,
    Refusal,
    UnsupportedMediaType,
    encode_problem,
    problem_headers,
)

NO_STORE = {"cache-control": "no-store"}
MOST_DROPPED = 16  # names in one header; the audit has them all
CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody hears it, metrics show it

_JSON = [(b"content-type", b"application/json"), *((name.encode(), value.encode()) for name, value in NO_STORE.items())]
_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def json_answer(
    content: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
) -> Response:
    """An answer that no cache may keep: it is about one caller, and may hold a credential."""
    response = Response(orjson.dumps(content), status)
    # Past Starlette's own way of adding them, which looks at each name and value anew.
    response.raw_headers += [*_JSON, *((name.encode(), value.encode("latin-1")) for name, value in headers.items())]
    return response


def with_dropped(headers: Mapping[str, str], dropped: Sequence[str]) -> Mapping[str, str]:
    """The headers of an answer, and one that names what was left out of the request, if anything was: a bounded list of
    tokens (RFC 9651), so without whatever of a caller's names could be more than a name.
    """
    if not dropped:
        return headers
    names = [name for name in dropped if _TOKEN.fullmatch(name)][:MOST_DROPPED]
    return {**headers, "switchboard-dropped": ", ".join(names)} if names else headers


def nobody_there() -> Response:
    """For a caller who has gone away."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


class Answering:
    """The app of some routes, in which every exception becomes an answer.

    Starlette's own does so in two wrappers around the router and one around each route, which every request passes.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = routes
        # A redirect would lose the body of an offer, and names the Host header.
        self._router = Router(routes, redirect_slashes=False)
        for route in routes:
            route.app = _app_of(route.endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # the router then raises what it refuses, instead of answering in plain text
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            await _answer_to(Request(scope, receive), error)(scope, receive, send)


def _app_of(endpoint: Endpoint) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
        except Refusal as refusal:
            response = _answer_refusal(request, refusal)
        except Exception:
            await _answer_refusal(request, InternalError())(scope, receive, send)
            raise  # it is logged outside
        await response(scope, receive, send)

    return app


def _answer_refusal(request: Request, refusal: Refusal) -> Response:
    """The one answer for every refusal (RFC 9457)."""
    if isinstance(refusal, OriginNotAllowed):
        request.scope["origin_refused"] = True
    headers = problem_headers(refusal)
    if request.method == "POST" and request.scope["path"] in OFFER_PATHS:
        # OpenAI SDKs retry by themselves, and each success would be a billed call. Here nothing was begun.
        headers["x-should-retry"] = "true" if isinstance(refusal, Draining) else "false"
        if isinstance(refusal, UnsupportedMediaType):
            headers["accept-post"] = OFFER_TYPES
    return Response(encode_problem(refusal, request.scope["request_id"]), refusal.status, headers)


def _answer_to(request: Request, exception: HTTPException) -> Response:
    """What Starlette's router refuses, in our form."""
    known: Mapping[int, type[Refusal]] = {404: NotFound, 405: MethodNotAllowed}
    answer = _answer_refusal(request, known.get(exception.status_code, InternalError)())
    answer.headers.update(exception.headers or {})
    if "allow" in answer.headers:
        answer.headers["allow"] = ", ".join(sorted(answer.headers["allow"].split(", ")))
    return answer
