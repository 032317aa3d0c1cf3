"""HTTP in, HTTP out: an endpoint reads a request, calls the broker once, and writes the answer."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.sdp import MEDIA_TYPE

CLIENT_SECRETS = "/v1/realtime/client_secrets"
OPENAI_CALLS = "/v1/realtime/calls"
OFFER_PATHS = {"/sdp": "/sdp", "/session": "/sdp", OPENAI_CALLS: OPENAI_CALLS}
"""Where a POST offers a call, and below which path the call is then. The provider's sample frontends post to the
second, and its SDKs to the third.
"""

MULTIPART = "multipart/form-data"
OFFER_TYPES = f"{MEDIA_TYPE}, {MULTIPART}"
"""What an offer may come as: the value of `Accept-Post`, which WHIP clients ask for (RFC 9725, section 4.2)."""

Endpoint = Callable[[Request], Awaitable[Response]]


def resource(path: str, **handlers: Endpoint) -> Route:
    """One route for all methods of a path, so that a 405 names every method in `Allow` (RFC 9110, section 15.5.6)."""

    async def dispatch(request: Request) -> Response:
        return await handlers[request.method](request)

    route = Route(path, dispatch, methods=list(handlers))
    # Starlette adds HEAD to GET; a HEAD that mints, or asks a provider, would be a surprise on somebody's bill.
    route.methods = set(handlers)
    return route
