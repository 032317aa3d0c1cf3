"""GET and POST /token: a credential for one call."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker, Wish
from switchboard.endpoints import resource
from switchboard.endpoints.answering import json_answer, nobody_there
from switchboard.endpoints.reading import Strict, caller_of, parse_model, read_json, single_query
from switchboard.errors import CallerGone, InvalidRequest


class ExpiresAfter(Strict):
    """As OpenAI's `expires_after`: seconds from now. Left out, the longest, which the preset's own lifetime cuts."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=10, le=7200)] = 7200


class TokenRequest(Strict):
    """The optional body of POST /token."""

    preset: Annotated[str, Field(max_length=128)] | None = None
    session: dict[str, Any] = Field(default_factory=dict)
    expires_after: ExpiresAfter | None = None


NOTHING = TokenRequest()


def routes(broker: Broker) -> list[Route]:
    """The route of this module."""

    async def token(request: Request) -> Response:
        body = parse_model(TokenRequest, await read_json(request)) if request.method == "POST" else NOTHING
        wish = Wish(
            preset=one_preset(single_query(request, "preset"), body.preset),
            session=body.session,
            seconds=body.expires_after.seconds if body.expires_after else None,
            caller_gone=request.is_disconnected,
        )
        try:
            credential = await broker.mint(caller_of(request), wish)
        except CallerGone:
            return nobody_there()
        return json_answer(
            {
                "value": credential.value,
                "expires_at": credential.expires_at,
                "session": credential.session,
                "calls_url": credential.calls_url,
                # Where the retired beta had it, and many frontends still look.
                "client_secret": {"value": credential.value, "expires_at": credential.expires_at},
            },
            headers=credential.standing.headers(),
        )

    return [resource("/token", GET=token, POST=token)]


def one_preset(in_query: str | None, in_body: str | None) -> str | None:
    """The preset that is asked for, wherever it stands.

    Raises:
        InvalidRequest: query and body name different ones.
    """
    if in_query is not None and in_body is not None and in_query != in_body:
        raise InvalidRequest("`preset` in the query and in the body differ; send one.", param="preset")
    return in_query if in_query is not None else in_body
