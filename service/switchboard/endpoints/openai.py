"""The provider's own paths, for its SDKs: POST /v1/realtime/client_secrets, /v1/realtime/calls and its hangup, and the
pair of translations.

Sources: openai-python 3.52.0, `resources/realtime/{client_secrets,calls}.py`, `resources/realtime/translations/`,
`types/realtime/client_secret_create_{params,response}.py`.
"""

from functools import partial
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker, Credential, Wish
from switchboard.endpoints import (
    CLIENT_SECRETS,
    OPENAI_CALLS,
    SPEECH,
    TRANSLATION,
    TRANSLATION_CALLS,
    TRANSLATION_SECRETS,
    resource,
)
from switchboard.endpoints.minting import ExpiresAfter, minting
from switchboard.endpoints.offering import describe_offers, offering, read_offer
from switchboard.endpoints.reading import Strict, caller_of, gone, parse_model, read_json, single_query


class ClientSecretRequest(Strict):
    """The optional body of a request for a client secret. A preset stands in `session.model`, or in the query."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = Field(default_factory=dict)


def routes(broker: Broker, *, base_path: str = "") -> list[Route]:
    """The routes of this module.

    Args:
        broker: does the work.
        base_path: where this service's root is below its public host, for `Location`.
    """
    below = f"{base_path}{OPENAI_CALLS}"

    async def hang_up(request: Request) -> Response:
        await broker.hang_up(caller_of(request), request.path_params["call_id"])
        return Response(status_code=200)

    return [
        resource(CLIENT_SECRETS, POST=minting(broker, partial(_wish, types=SPEECH), _shown)),
        resource(TRANSLATION_SECRETS, POST=minting(broker, partial(_wish, types=TRANSLATION), _shown)),
        resource(
            OPENAI_CALLS,
            POST=offering(broker, partial(read_offer, types=SPEECH), below=below),
            OPTIONS=describe_offers,
        ),
        resource(TRANSLATION_CALLS, POST=offering(broker, partial(read_offer, types=TRANSLATION), below=below)),
        resource(f"{OPENAI_CALLS}/{{call_id}}/hangup", POST=hang_up),
    ]


async def _wish(request: Request, *, types: frozenset[str]) -> Wish:
    body = parse_model(ClientSecretRequest, await read_json(request))
    return Wish(
        preset=single_query(request, "preset"),
        session=body.session,
        types=types,
        seconds=body.expires_after.seconds,
        caller_gone=gone(request),
    )


def _shown(credential: Credential) -> dict[str, Any]:
    return {"value": credential.value, "expires_at": credential.expires_at, "session": credential.session}
