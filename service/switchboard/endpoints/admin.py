"""/admin on the ops port: what operators do, by their token."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.endpoints import resource
from switchboard.endpoints.answering import json_answer
from switchboard.endpoints.calls import call_as_json
from switchboard.endpoints.reading import caller_of, single_query
from switchboard.operators import Operators

SHOWN = (
    "id", "state", "tenant", "issuer", "user_key", "preset", "provider", "key_name", "started_at", "deadline",
    "idle_seconds", "heard_at", "ending", "attempts", "ended_at", "ended_by",
)  # fmt: skip


def routes(operators: Operators) -> list[Route]:
    """The routes of this module."""

    async def get_calls(request: Request) -> Response:
        listing = await operators.list_calls(caller_of(request), single_query(request, "tenant"))
        return json_answer(
            {
                "now": listing.now,
                "calls": [call_as_json(call, SHOWN) for call in listing.calls],
                "open_calls": listing.open_calls,
                "cut": listing.cut,
                "suspended": [asdict(state) for state in listing.suspended],
            }
        )

    async def delete_call(request: Request) -> Response:
        call_id, tenant = request.path_params["call_id"], single_query(request, "tenant")
        return json_answer(call_as_json(await operators.hang_up(caller_of(request), call_id, tenant), SHOWN))

    async def suspend(request: Request) -> Response:
        return json_answer(asdict(await operators.suspend(caller_of(request), request.path_params["tenant"])))

    async def resume(request: Request) -> Response:
        return json_answer(asdict(await operators.resume(caller_of(request), request.path_params["tenant"])))

    return [
        resource("/admin/calls", GET=get_calls),
        resource("/admin/calls/{call_id}", DELETE=delete_call),
        resource("/admin/tenants/{tenant}/suspend", POST=suspend),
        resource("/admin/tenants/{tenant}/resume", POST=resume),
    ]
