"""HTTP in, HTTP out: an endpoint reads a request, calls the broker once, and writes the answer."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.sdp import MEDIA_TYPE

CLIENT_SECRETS = "/v1/realtime/client_secrets"
TRANSLATION_SECRETS = "/v1/realtime/translations/client_secrets"
OPENAI_CALLS = "/v1/realtime/calls"
TRANSLATION_CALLS = "/v1/realtime/translations/calls"
BETA_CALLS = "/v1/realtime"
OFFER_PATHS = frozenset({"/sdp", "/session", OPENAI_CALLS, TRANSLATION_CALLS, BETA_CALLS})
"""Where a POST offers a call."""

SPEECH = frozenset({"realtime", "transcription"})
TRANSLATION = frozenset({"translation"})
"""Types of sessions, as the provider's own paths divide them."""

MULTIPART = "multipart/form-data"
OFFER_TYPES = f"{MEDIA_TYPE}, {MULTIPART}"
"""What an offer may come as: the value of `Accept-Post`, which WHIP clients ask for (RFC 9725, section 4.2)."""

Endpoint = Callable[[Request], Awaitable[Response]]


def resource(path: str, **handlers: Endpoint) -> Route:
    """One route for all methods of a path, so that a 405 names every method in `Allow` (RFC 9110, section 15.5.6)."""

    # No coroutine of its own, which each request would pay for: `Answering` awaits what this gives.
    def dispatch(request: Request) -> Awaitable[Response]:
        return handlers[request.method](request)

    route = Route(path, dispatch, methods=list(handlers))
    # Starlette adds HEAD to GET; a HEAD that mints, or asks a provider, would be a surprise on somebody's bill.
    route.methods = set(handlers)
    return route
