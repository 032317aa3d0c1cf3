"""Starlette and a client, and nothing else: what the service is held against.

`python -m tests.bench.bare CLIENT PORT PROVIDER`; CLIENT is `ours`, as the service has it, or `httpx`.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.providers.transport import PyreqwestTransport

Post = Callable[[], Awaitable[bytes]]
BODY = orjson.dumps(
    {"session": {"type": "realtime", "model": "gpt-realtime-2.1", "audio": {"output": {"voice": "marin"}}}}
)
MAX_BYTES = 512 * 1024
TIMEOUT = 15.0


@contextlib.asynccontextmanager
async def ours(url: str, headers: dict[str, str]) -> AsyncIterator[Post]:
    async with PyreqwestTransport() as transport:

        async def post() -> bytes:
            reply = await transport.post(
                url, operation="mint", headers=headers, body=BODY, timeout=TIMEOUT, max_bytes=MAX_BYTES
            )
            return reply.body

        yield post


@contextlib.asynccontextmanager
async def by_httpx(url: str, headers: dict[str, str]) -> AsyncIterator[Post]:
    bounds = httpx.Limits(max_connections=None, max_keepalive_connections=512)
    async with httpx.AsyncClient(limits=bounds, timeout=TIMEOUT, trust_env=False) as client:

        async def post() -> bytes:
            return (await client.post(url, headers=headers, content=BODY)).content

        yield post


def app(client: str, provider: str) -> Starlette:
    """One route that asks the provider, and one that says that it lives."""
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "content-type": "application/json"}
    kinds: dict[str, Any] = {"ours": ours, "httpx": by_httpx}

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Post]]:
        async with kinds[client](f"{provider}/v1/realtime/client_secrets", headers) as post:
            yield {"post": post}

    async def token(request: Request) -> Response:
        return Response(await request.state.post(), media_type="application/json")

    async def healthz(_: Request) -> Response:
        return Response(b"ok")

    return Starlette(routes=[Route("/token", token), Route("/healthz", healthz)], lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(
        app(sys.argv[1], sys.argv[3]),
        port=int(sys.argv[2]),
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
