"""The provider's own paths, for its SDKs: POST /v1/realtime/client_secrets and /v1/realtime/calls/{call_id}/hangup. An
offer there is as at /sdp.

Sources: openai-python 3.52.0, `resources/realtime/client_secrets.py`, `types/realtime/client_secret_create_params.py`,
`types/realtime/client_secret_create_response.py`, `resources/realtime/calls.py`.
"""

from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker, Wish
from switchboard.endpoints import CLIENT_SECRETS, OPENAI_CALLS, resource
from switchboard.endpoints.answering import json_answer, nobody_there
from switchboard.endpoints.reading import Strict, caller_of, parse_model, read_json, single_query
from switchboard.endpoints.token import ExpiresAfter
from switchboard.errors import CallerGone


class ClientSecretRequest(Strict):
    """The optional body of POST /v1/realtime/client_secrets. A preset stands in `session.model`, or in the query."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = Field(default_factory=dict)


def routes(broker: Broker) -> list[Route]:
    """The routes of this module."""

    async def create_client_secret(request: Request) -> Response:
        body = parse_model(ClientSecretRequest, await read_json(request))
        wish = Wish(
            preset=single_query(request, "preset"),
            session=body.session,
            seconds=body.expires_after.seconds,
            caller_gone=request.is_disconnected,
        )
        try:
            credential = await broker.mint(caller_of(request), wish)
        except CallerGone:
            return nobody_there()
        return json_answer(
            {"value": credential.value, "expires_at": credential.expires_at, "session": credential.session},
            headers=credential.standing.headers(),
        )

    async def hang_up(request: Request) -> Response:
        await broker.hang_up(caller_of(request), request.path_params["call_id"])
        return Response(status_code=200)

    return [
        resource(CLIENT_SECRETS, POST=create_client_secret),
        resource(f"{OPENAI_CALLS}/{{call_id}}/hangup", POST=hang_up),
    ]
