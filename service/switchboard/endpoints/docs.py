"""The contract, served: /openapi.yaml as it is in the repository, /openapi.json for tools, /docs for people."""

import orjson
import ryaml
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard import data
from switchboard.endpoints import static

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'"
)


def routes() -> list[Route]:
    """The routes of this module."""
    contract = data.text("openapi.yaml")
    as_json = orjson.dumps(ryaml.loads(contract))

    async def openapi_yaml(_: Request) -> Response:
        return Response(contract, media_type="application/yaml")

    async def openapi_json(_: Request) -> Response:
        return Response(as_json, media_type="application/json")

    return [
        Route("/openapi.yaml", openapi_yaml),
        Route("/openapi.json", openapi_json),
        *static.page("/docs", "docs.html", ("docs.css", "docs.js", "favicon.svg", "tokens.css"), policy=POLICY),
    ]
