"""The one endpoint that mints, on whichever path: paths differ in how a wish is read and a credential is shown."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from switchboard.broker import Broker, Credential, Wish
from switchboard.endpoints import Endpoint
from switchboard.endpoints.answering import json_answer, nobody_there, with_dropped
from switchboard.endpoints.reading import Strict, WholeNumber, caller_of
from switchboard.errors import CallerGone

Read = Callable[[Request], Awaitable[Wish]]
Show = Callable[[Credential], Mapping[str, Any]]


class ExpiresAfter(Strict):
    """As OpenAI's `expires_after`: seconds from now. Left out, the longest, which the preset's own lifetime cuts."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[WholeNumber, Field(ge=10, le=7200)] = 7200


def minting(broker: Broker, read: Read, show: Show) -> Endpoint:
    """An endpoint that mints.

    Args:
        broker: mints.
        read: what a request asks for.
        show: the body of the answer.
    """

    async def mint(request: Request) -> Response:
        wish = await read(request)
        try:
            credential = await broker.mint(caller_of(request), wish)
        except CallerGone:
            return nobody_there()
        return json_answer(show(credential), headers=with_dropped(credential.standing.headers(), credential.dropped))

    return mint
