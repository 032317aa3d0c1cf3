"""GET and POST /token: a credential for one call."""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.routing import Route

from switchboard.broker import Broker, Credential, Wish
from switchboard.endpoints import resource
from switchboard.endpoints.minting import ExpiresAfter, minting
from switchboard.endpoints.reading import Strict, gone, parse_model, read_json, single_query
from switchboard.errors import InvalidRequest


class TokenRequest(Strict):
    """The optional body of POST /token."""

    preset: Annotated[str, Field(max_length=128)] | None = None
    session: dict[str, Any] = Field(default_factory=dict)
    expires_after: ExpiresAfter | None = None


def routes(broker: Broker) -> list[Route]:
    """The route of this module."""
    return [resource("/token", GET=minting(broker, _of_query, _shown), POST=minting(broker, _of_body, _shown))]


def one_preset(in_query: str | None, in_body: str | None) -> str | None:
    """The preset that is asked for, wherever it stands.

    Raises:
        InvalidRequest: query and body name different ones.
    """
    if in_query is not None and in_body is not None and in_query != in_body:
        raise InvalidRequest("`preset` in the query and in the body differ; send one.", param="preset")
    return in_query if in_query is not None else in_body


async def _of_query(request: Request) -> Wish:
    return Wish(preset=single_query(request, "preset"), caller_gone=gone(request))


async def _of_body(request: Request) -> Wish:
    body = parse_model(TokenRequest, await read_json(request))
    return Wish(
        preset=one_preset(single_query(request, "preset"), body.preset),
        session=body.session,
        seconds=body.expires_after.seconds if body.expires_after else None,
        caller_gone=gone(request),
    )


def _shown(credential: Credential) -> dict[str, Any]:
    return {
        "value": credential.value,
        "expires_at": credential.expires_at,
        "session": credential.session,
        "calls_url": credential.calls_url,
        # Where the retired beta had it, and many frontends still look.
        "client_secret": {"value": credential.value, "expires_at": credential.expires_at},
    }
