"""Real servers on loopback, in the test's own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI app; gives its base URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    # asyncio does so for sockets that name their protocol, which this one does not: each answer would wait 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # Without its main loop, whose ticks of 0.1 s would make up most of a test.
    await server.startup(sockets=[listening])
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        # Nor with its shutdown, which waits as long.
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        listening.close()


class KeyServer:
    """An identity provider's key set and discovery document, over real HTTP; counts, fails and hangs at will."""

    def __init__(self, *keys: dict[str, Any], issuer: str = "https://login.acme.example/") -> None:
        self.keys = list(keys)
        self.issuer = issuer
        self.jwks_uri: object = ""
        self.fetches = 0
        self.status = 200
        self.body: bytes | None = None
        self.delay = 0.0
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/jwks.json", self._jwks),
                Route("/.well-known/openid-configuration", self._discovery),
            ]
        )

    async def _jwks(self, _: Request) -> Response:
        self.fetches += 1
        await asyncio.sleep(self.delay)
        if self.body is not None:
            return Response(self.body, self.status)
        return JSONResponse({"keys": self.keys}, self.status)

    async def _discovery(self, _: Request) -> Response:
        jwks_uri = f"{self.url}/jwks.json" if self.jwks_uri == "" else self.jwks_uri
        return JSONResponse({"issuer": self.issuer, "jwks_uri": jwks_uri})

    @asynccontextmanager
    async def running(self) -> AsyncIterator["KeyServer"]:
        async with serving(self.app) as url:
            self.url = url
            yield self
