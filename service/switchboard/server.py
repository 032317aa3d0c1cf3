"""uvicorn as we run it: several apps in one event loop, each on its own port, stopped together by a signal."""

import asyncio
import contextlib
import errno
import math
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from switchboard.heads import BoundedHeads
from switchboard.middleware import ObserveHttp, unobserved

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common load balancers, so that they close first


class PortTaken(Exception):
    """Something else listens there; the message says where."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An app and the socket that it serves."""

    app: ASGIApp
    socket: socket.socket
    observe: ObserveHttp = unobserved
    """Hears of requests that end before they reach the app."""


class _Server(uvicorn.Server):
    """A server among several: signals are handled once, for all of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        PortTaken: the port is in use or may not be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = "in use" if error.errno == errno.EADDRINUSE else (error.strerror or "not available")
        raise PortTaken(f"{host}:{port} is {reason}") from None


def port_of(listening: socket.socket) -> int:
    """The port that a socket listens on."""
    return int(listening.getsockname()[1])


async def serve(
    listeners: Sequence[Listener],
    *,
    drain_seconds: float,
    on_ready: Callable[[], None],
    on_drain: Callable[[], None],
    on_hangup: Callable[[], None] | None = None,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let work finish for `drain_seconds`; a second signal ends it at once.

    Args:
        listeners: the apps, each with its socket.
        drain_seconds: how long work may take to finish.
        on_ready: called when all ports are served.
        on_drain: called when the end begins, and again with each further signal.
        on_hangup: called on SIGHUP; None leaves that signal its usual meaning, the end of the process.
        beside: other work, which ends in time after `on_drain`; it is waited for. Its end is the end of serving.
    """
    servers = [_Server(_config(listener, drain_seconds)) for listener in listeners]

    def stop() -> None:
        on_drain()
        for server in servers:
            server.force_exit = server.should_exit
            server.should_exit = True

    async def run_beside(work: Coroutine[Any, Any, None]) -> None:
        await work
        if not all(server.should_exit for server in servers):
            stop()

    with _handling_signals(stop, on_hangup):
        async with asyncio.TaskGroup() as group:
            for server, listener in zip(servers, listeners, strict=True):
                group.create_task(server.serve(sockets=[listener.socket]))
            if beside is not None:
                group.create_task(run_beside(beside()))
            while not all(server.started or server.should_exit for server in servers):  # noqa: ASYNC110 - uvicorn sets a flag, no event
                await asyncio.sleep(0.01)
            on_ready()


@contextlib.contextmanager
def _handling_signals(stop: Callable[[], None], on_hangup: Callable[[], None] | None) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield
    finally:
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(name)


def _config(listener: Listener, drain_seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        # As good as a class: uvicorn calls it once for each connection.
        http=cast("type[asyncio.Protocol]", partial(BoundedHeads, observe=listener.observe)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(drain_seconds),
    )
