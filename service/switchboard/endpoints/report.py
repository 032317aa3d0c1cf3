"""POST /sdp/{call_id}/report and POST /report: what the browser saw, bounded in size, number and range."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker
from switchboard.endpoints import resource
from switchboard.endpoints.reading import caller_of, parse_model, read_json
from switchboard.reports import Report

MAX_BYTES = 1024
MAX_MS = 120_000.0
MAX_CALL_SECONDS = 3600.0

Milliseconds = Annotated[float, Field(ge=0, le=MAX_MS, allow_inf_nan=False)]


class ReportRequest(BaseModel):
    """The body of a report; a number that is left out was not measured."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    event: Literal["connected", "failed", "alive", "ended"]
    ms_to_connected: Milliseconds | None = None
    rtt_ms: Milliseconds | None = None
    jitter_ms: Milliseconds | None = None
    loss: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    audio_seconds: Annotated[float, Field(ge=0, le=MAX_CALL_SECONDS, allow_inf_nan=False)] | None = None


def routes(broker: Broker) -> list[Route]:
    """The routes of this module."""

    async def post_report(request: Request) -> Response:
        body = parse_model(ReportRequest, await read_json(request, MAX_BYTES))
        call_id = request.path_params.get("call_id")  # a call by client secret has no id here
        await broker.report(caller_of(request), call_id, Report(**body.model_dump()))
        return Response(status_code=204)

    return [resource("/report", POST=post_report), resource("/sdp/{call_id}/report", POST=post_report)]
