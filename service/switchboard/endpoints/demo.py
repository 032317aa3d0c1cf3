"""The demo page and the login that it plays: routes of `switchboard dev` alone."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from switchboard.endpoints import resource, static
from switchboard.endpoints.answering import json_answer
from switchboard.endpoints.reading import read_json
from switchboard.errors import InvalidRequest, OriginNotAllowed

ASSETS = (
    "attacks.js",
    "attempt.js",
    "demo.css",
    "demo.js",
    "events.js",
    "favicon.svg",
    "meter.js",
    "refusals.js",
    "switchboard.js",
    "timeline.js",
    "tokens.css",
    "transcript.js",
    "wire.js",
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "base-uri 'none'; connect-src 'self' http://127.0.0.1:* http://localhost:* https://api.openai.com"
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

Issue = Callable[[str, str, Mapping[str, Any], int], tuple[str, int]]


class LoginRequest(BaseModel):
    """Who the page wants to be."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tenant: Annotated[str, Field(min_length=1, max_length=128)]
    subject: Annotated[str, Field(min_length=1, max_length=128)]
    claims: dict[str, Any] = {}
    seconds: Annotated[int, Field(ge=-86400, le=86400)] = 3600
    """How long the token is valid; a negative one has expired, which the page shows on purpose."""


def routes(shown: Mapping[str, Any], issue: Issue, sample_offer: str) -> list[Route]:
    """The routes of this module.

    Args:
        shown: what the page offers to choose from.
        issue: makes a JWT for tenant, subject and claims; returns it with its expiry in unix seconds.
        sample_offer: an SDP offer for the curl lines that `dev` prints.
    """

    async def config(request: Request) -> Response:
        _only_from_here(request)
        return json_answer(shown)

    async def login(request: Request) -> Response:
        _only_from_here(request)
        try:
            wanted = LoginRequest.model_validate(await read_json(request))
        except ValidationError:
            raise InvalidRequest('Send {"tenant": …, "subject": …, "claims": {…}}.') from None
        value, expires_at = issue(wanted.tenant, wanted.subject, wanted.claims, wanted.seconds)
        return json_answer({"token": value, "expires_at": expires_at})

    async def offer(_: Request) -> Response:
        return Response(sample_offer, media_type="application/sdp")

    async def home(_: Request) -> Response:
        return RedirectResponse("/demo")

    return [
        Route("/", home),
        *static.page("/demo", "demo.html", ASSETS, policy=POLICY),
        Route("/demo/config", config),
        Route("/demo/offer.sdp", offer),
        resource("/demo/issue", POST=login),
    ]


def _only_from_here(request: Request) -> None:
    """A page elsewhere must not log in here, not even by a DNS name that it points to this machine."""
    host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    origin = request.headers.get("origin")
    if host not in LOOPBACK or (origin is not None and origin.partition("://")[2].rpartition(":")[0] not in LOOPBACK):
        raise OriginNotAllowed("The demo's login is for pages of this machine.")
