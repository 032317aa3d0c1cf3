"""Answers: JSON, and refusals as problems."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from switchboard.endpoints import OFFER_PATHS, OFFER_TYPES
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
CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody hears it, metrics show it


def json_answer(
    content: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
) -> Response:
    """An answer that no cache may keep: it is about one caller, and may hold a credential."""
    return Response(orjson.dumps(content), status, {**headers, **NO_STORE}, "application/json")


def nobody_there() -> Response:
    """For a caller who has gone away."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def answer_refusal(request: Request, exception: Exception) -> Response:
    """The one answer for every refusal (RFC 9457)."""
    assert isinstance(exception, Refusal)  # noqa: S101 - registered for nothing else
    if isinstance(exception, OriginNotAllowed):
        request.scope["origin_refused"] = True
    headers = problem_headers(exception)
    if request.method == "POST" and request.scope["path"] in OFFER_PATHS:
        # OpenAI SDKs retry by themselves, and each success would be a billed call. Here nothing was begun.
        headers["x-should-retry"] = "true" if isinstance(exception, Draining) else "false"
        if isinstance(exception, UnsupportedMediaType):
            headers["accept-post"] = OFFER_TYPES
    return Response(encode_problem(exception, request.scope["request_id"]), exception.status, headers)


async def answer_defect(request: Request, _: Exception) -> Response:
    """500 in our form; Starlette raises the exception again afterwards, so that it is logged outside."""
    return await answer_refusal(request, InternalError())


async def answer_http_exception(request: Request, exception: Exception) -> Response:
    """What Starlette's router refuses, in our form."""
    assert isinstance(exception, HTTPException)  # noqa: S101 - registered for nothing else
    known: Mapping[int, type[Refusal]] = {404: NotFound, 405: MethodNotAllowed}
    answer = await answer_refusal(request, known.get(exception.status_code, InternalError)())
    answer.headers.update(exception.headers or {})
    if "allow" in answer.headers:
        answer.headers["allow"] = ", ".join(sorted(answer.headers["allow"].split(", ")))
    return answer
