"""GET /calls: the caller's open calls; and how a call is shown."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker
from switchboard.calls import Call
from switchboard.endpoints import resource
from switchboard.endpoints.answering import json_answer
from switchboard.endpoints.reading import caller_of

SHOWN = ("id", "state", "preset", "started_at", "deadline", "idle_seconds", "ended_at", "ended_by")


def routes(broker: Broker) -> list[Route]:
    """The route of this module."""

    async def get_calls(request: Request) -> Response:
        return json_answer({"calls": [call_as_json(call) for call in await broker.calls(caller_of(request))]})

    return [resource("/calls", GET=get_calls)]


def call_as_json(call: Call, shown: Sequence[str] = SHOWN) -> dict[str, Any]:
    """A call as it is shown, by default to its owner; times are unix seconds."""
    known = {**asdict(call), "state": call.state}
    return {name: known[name] for name in shown}
