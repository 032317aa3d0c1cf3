"""A world behind the protocol that `serve` gives it, over real sockets; the scan for leaks hears all of its answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import uvicorn

from switchboard.heads import BoundedHeads, ServerState
from tests.support.leaks import LEAKS
from tests.support.world import MINTING, World


class Door(NamedTuple):
    """Where it is, and what its connections share."""

    host: str
    port: int
    state: ServerState


@asynccontextmanager
async def open_door(world: World) -> AsyncIterator[Door]:
    """Serve a world's public port."""
    config = uvicorn.Config(
        _overheard(world.public), http=BoundedHeads, ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False,
    )  # fmt: skip
    config.load()
    state = ServerState()
    listening = await asyncio.get_running_loop().create_server(
        lambda: BoundedHeads(config=config, server_state=state, app_state={}, observe=world.service.observe),
        "127.0.0.1",
        0,
    )
    try:
        host, port = listening.sockets[0].getsockname()
        yield Door(host, port, state)
    finally:
        listening.close()
        for connection in list(state.connections):
            connection.transport.abort()


def _overheard(app: Any) -> Callable[..., Any]:
    async def overheard(scope, receive, send) -> None:
        said: list[str] = []
        bodies: list[bytes] = []

        async def hear(message) -> None:
            if message["type"] == "http.response.start":
                said.append(f"{message['status']} {dict(message['headers'])}")
            else:
                bodies.append(message.get("body", b""))
            await send(message)

        await app(scope, receive, hear)
        place = f"answer over a socket {scope['method']} {scope['path']} {id(said)}"
        body = b"".join(bodies).decode(errors="replace")
        LEAKS.saw(place, f"{said} {body}")
        if scope["path"] in MINTING and said and said[0].startswith("200"):
            LEAKS.handed_out(place, json.loads(body)["value"])

    return overheard
