"""Health on both ports; metrics and details on the ops port alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard import __version__
from switchboard.endpoints.answering import json_answer


@dataclass(slots=True)
class Readiness:
    """Whether this process takes work: the one value that the server changes as it starts and drains."""

    state: str = "starting"
    degraded: dict[str, str] = field(default_factory=dict)
    """What is away, and why; a process that can go on without it stays ready."""
    advice: list[str] = field(default_factory=list)
    """What an operator should look at, for the ops port."""

    def ready(self) -> None:
        """Take work from now on."""
        self.state = "ready"

    def drain(self) -> None:
        """Take no new work; what is in flight finishes."""
        self.state = "draining"


def health_routes(readiness: Readiness, *, details: bool) -> list[Route]:
    """`/healthz`: the process lives. `/readyz`: it takes work; on the ops port with details."""

    async def healthz(_: Request) -> Response:
        return json_answer({"status": "ok"})

    async def readyz(_: Request) -> Response:
        ready = readiness.state == "ready"
        shown: dict[str, Any] = {"status": readiness.state}
        if readiness.degraded:
            shown["degraded"] = readiness.degraded if details else list(readiness.degraded)
        if details:
            shown |= {"version": __version__, "advice": readiness.advice}
        return json_answer(shown, status=200 if ready else 503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def metrics_routes(render: Callable[[], bytes]) -> list[Route]:
    """`/metrics` in the Prometheus text format."""

    async def metrics(_: Request) -> Response:
        return Response(render(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/metrics", metrics)]
