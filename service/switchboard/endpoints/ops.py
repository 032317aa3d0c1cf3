"""Health on both ports; metrics and details on the ops port alone."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard import __version__
from switchboard.endpoints.answering import json_answer

Render: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Makes what a scraper gets, and its content type, from what it accepts."""


@dataclass(slots=True)
class Readiness:
    """Whether this process takes work: the one value that the server changes as it starts and drains."""

    state: str = "starting"
    degraded: dict[str, str] = field(default_factory=dict)
    """What is away, and why; a process that can go on without it stays ready."""
    advice: list[str] = field(default_factory=list)
    """What an operator should look at, for the ops port."""
    workers: Sequence[Mapping[str, Any]] = ()
    """What each worker has told, if there are any; then it is they who take work."""

    def ready(self) -> None:
        """Take work from now on."""
        self.state = "ready"

    def drain(self) -> None:
        """Take no new work; what is in flight finishes."""
        self.state = "draining"

    def hear(self, workers: Sequence[Mapping[str, Any]]) -> None:
        """Take work as long as one of the workers does."""
        self.workers = workers
        ready = sum(worker["status"] == "ready" for worker in workers)
        if self.state != "draining":
            self.state = "ready" if ready else "starting"
        self.degraded.pop("workers", None)
        if ready < len(workers):
            self.degraded["workers"] = f"{ready} of {len(workers)} are ready"

    def shown(self, *, details: bool) -> dict[str, Any]:
        """As JSON has it."""
        shown: dict[str, Any] = {"status": self.state}
        if self.degraded:
            shown["degraded"] = self.degraded if details else list(self.degraded)
        if details:
            shown |= {"version": __version__, "advice": self.advice}
        if self.workers:
            shown["workers"] = self.workers
        return shown


def health_routes(readiness: Readiness, *, details: bool) -> list[Route]:
    """`/healthz`: the process lives. `/readyz`: it takes work; on the ops port with details."""

    async def healthz(_: Request) -> Response:
        return json_answer({"status": "ok"})

    async def readyz(_: Request) -> Response:
        return json_answer(readiness.shown(details=details), status=200 if readiness.state == "ready" else 503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def metrics_routes(render: Render) -> list[Route]:
    """`/metrics`."""

    async def metrics(request: Request) -> Response:
        body, content_type = await render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "vary": "accept"})

    return [Route("/metrics", metrics)]
