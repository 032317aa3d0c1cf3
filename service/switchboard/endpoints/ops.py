"""Health on both ports; metrics and details on the ops port alone."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard import __version__
from switchboard.endpoints import Endpoint
from switchboard.endpoints.answering import json_answer
from switchboard.errors import Draining

RETRY_SECONDS = 1  # another process takes work already; one that is started again needs about as long

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
    refuses: bool = False
    """Whether new work is refused; for a time before that, a process that drains still takes it."""

    def ready(self) -> None:
        """Take work from now on."""
        self.state = "ready"

    def drain(self) -> None:
        """Ask for no more work; what comes all the same is taken for a while."""
        self.state = "draining"

    def refuse(self) -> None:
        """Take no new work; what is in flight finishes."""
        self.refuses = True

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


def while_taking_work(readiness: Readiness, routes: Iterable[Route]) -> list[Route]:
    """The same routes, for as long as work is taken.

    Raises:
        Draining: from an endpoint, instead of beginning with anything.
    """
    return [_while_taking_work(readiness, route) for route in routes]


def _while_taking_work(readiness: Readiness, route: Route) -> Route:
    taking = Route(route.path, _refusing(readiness, route.endpoint), name=route.name)
    taking.methods = route.methods
    return taking


def _refusing(readiness: Readiness, endpoint: Endpoint) -> Endpoint:
    def refusing(request: Request) -> Awaitable[Response]:
        # What there is, may be asked to the end.
        if readiness.refuses and request.method != "OPTIONS":
            raise Draining(retry_after=RETRY_SECONDS)
        return endpoint(request)

    return refusing


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
