"""Starlette and a client, and nothing else: what the service is held against.

`python -m tests.bench.bare CLIENT PORT PROVIDER`; CLIENT is `ours`, as the service has it, or one of the others that
could be in its place. Each may open as many connections as there are requests, and takes no proxy from the environment.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
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
CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"  # those that nothing but the bench uses: scripts/setup bench
BODY = orjson.dumps(
    {"session": {"type": "realtime", "model": "gpt-realtime-2.1", "audio": {"output": {"voice": "marin"}}}}
)
MAX_BYTES = 512 * 1024
TIMEOUT = 15.0
MAX_IDLE = 512


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
    bounds = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE)
    async with httpx.AsyncClient(limits=bounds, timeout=TIMEOUT, trust_env=False) as client:

        async def post() -> bytes:
            return (await client.post(url, headers=headers, content=BODY)).content

        yield post


@contextlib.asynccontextmanager
async def by_httpx2(url: str, headers: dict[str, str]) -> AsyncIterator[Post]:
    import httpx2

    bounds = httpx2.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE)
    async with httpx2.AsyncClient(limits=bounds, timeout=TIMEOUT, trust_env=False) as client:

        async def post() -> bytes:
            return (await client.post(url, headers=headers, content=BODY)).content

        yield post


@contextlib.asynccontextmanager
async def by_aiohttp(url: str, headers: dict[str, str]) -> AsyncIterator[Post]:
    import aiohttp

    bound = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=bound) as client:

        async def post() -> bytes:
            async with client.post(url, headers=headers, data=BODY) as response:
                return await response.read()

        yield post


@contextlib.asynccontextmanager
async def by_httpx_over_aiohttp(url: str, headers: dict[str, str]) -> AsyncIterator[Post]:
    """The interface of httpx, and the pool of aiohttp."""
    import aiohttp
    import httpx_aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    transport = httpx_aiohttp.AiohttpTransport(client=session)
    async with session, httpx.AsyncClient(transport=transport, timeout=TIMEOUT, trust_env=False) as client:

        async def post() -> bytes:
            return (await client.post(url, headers=headers, content=BODY)).content

        yield post


@contextlib.asynccontextmanager
async def by_pyqwest(url: str, headers: dict[str, str]) -> AsyncIterator[Post]:
    import pyqwest

    async with pyqwest.HTTPTransport(
        timeout=TIMEOUT, pool_max_idle_per_host=MAX_IDLE, follow_redirects=False, enable_otel=False
    ) as transport:
        client = pyqwest.Client(transport)

        async def post() -> bytes:
            content: bytes = (await client.post(url, headers, BODY)).content
            return content

        yield post


KINDS: dict[str, Any] = {
    "ours": ours,
    "pyqwest": by_pyqwest,
    "aiohttp": by_aiohttp,
    "httpx-aiohttp": by_httpx_over_aiohttp,
    "httpx2": by_httpx2,
    "httpx": by_httpx,
}


def app(client: str, provider: str) -> Starlette:
    """One route that asks the provider, and one that says that it lives."""
    headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "content-type": "application/json"}

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Post]]:
        async with KINDS[client](f"{provider}/v1/realtime/client_secrets", headers) as post:
            yield {"post": post}

    async def token(request: Request) -> Response:
        return Response(await request.state.post(), media_type="application/json")

    async def healthz(_: Request) -> Response:
        return Response(b"ok")

    return Starlette(routes=[Route("/token", token), Route("/healthz", healthz)], lifespan=lifespan)


def find_clients() -> None:
    """Have them found, after all that is installed beside the service: their lock holds the same versions."""
    sys.path.append(str(CLIENTS))


if __name__ == "__main__":
    find_clients()
    uvicorn.run(
        app(sys.argv[1], sys.argv[3]),
        port=int(sys.argv[2]),
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
