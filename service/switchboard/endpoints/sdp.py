"""POST /sdp, and the call that comes of it as a resource: GET and DELETE /sdp/{call_id} (in the manner of RFC 9725)."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker
from switchboard.endpoints import resource
from switchboard.endpoints.answering import json_answer
from switchboard.endpoints.calls import call_as_json
from switchboard.endpoints.offering import describe_offers, offering, read_offer
from switchboard.endpoints.reading import caller_of


def routes(broker: Broker, *, base_path: str = "") -> list[Route]:
    """The routes of this module.

    Args:
        broker: relays offers.
        base_path: where this service's root is below its public host, for `Location`.
    """
    post_offer = offering(broker, read_offer, below=f"{base_path}/sdp")

    async def get_call(request: Request) -> Response:
        return json_answer(call_as_json(await broker.look_up(caller_of(request), request.path_params["call_id"])))

    async def delete_call(request: Request) -> Response:
        return json_answer(call_as_json(await broker.hang_up(caller_of(request), request.path_params["call_id"])))

    return [
        resource("/sdp", POST=post_offer, OPTIONS=describe_offers),
        resource("/session", POST=post_offer, OPTIONS=describe_offers),  # the provider's sample frontends
        resource("/sdp/{call_id}", GET=get_call, DELETE=delete_call),
    ]
