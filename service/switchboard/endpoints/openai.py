"""The provider's own paths, for its SDKs: POST /v1/realtime/calls/{call_id}/hangup. An offer there is as at /sdp.

Source: openai-python 3.51.0, `resources/realtime/calls.py`.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker
from switchboard.endpoints import OPENAI_CALLS, resource
from switchboard.endpoints.reading import caller_of


def routes(broker: Broker) -> list[Route]:
    """The route of this module."""

    async def hang_up(request: Request) -> Response:
        await broker.hang_up(caller_of(request), request.path_params["call_id"])
        return Response(status_code=200)

    return [resource(f"{OPENAI_CALLS}/{{call_id}}/hangup", POST=hang_up)]
