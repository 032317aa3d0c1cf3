"""uvicorn as we run it: several apps in one event loop, each on its own port, stopped in order by a signal.

docs/decisions/0020-restarts.md says why uvicorn's own way to stop is not enough.
"""

import asyncio
import contextlib
import errno
import math
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from switchboard.heads import BoundedHeads, ServerState
from switchboard.middleware import ObserveHttp, unobserved

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common load balancers, so that they close first
LOOK_SECONDS = 0.02  # between two looks at what is still in flight
FIRST_REQUEST_SECONDS = 0.5  # for what was sent on a connection that was accepted last
CANCELLED_SECONDS = 3.0  # for what was cancelled at the end of its time: a call that was opened is hung up


class PortTaken(Exception):
    """Something else listens there; the message says where."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An app and the socket that it serves."""

    app: ASGIApp
    socket: socket.socket
    observe: ObserveHttp = unobserved
    """Hears of requests that end before they reach the app."""
    takes_work: bool = False
    """Whether this is what is drained; the others are served until that is done."""
    takes_sockets: bool = False
    """Whether it speaks WebSocket; nothing that callers of Switchboard reach does."""


def _nothing() -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """How serving ends. All callbacks are quick.

    For `lame_duck_seconds` what comes is still taken, so that proxies can learn that they should send no more; then new
    work is refused, and work in flight has `drain_seconds`. Without a lame duck the port closes at once.
    """

    drain_seconds: float
    lame_duck_seconds: float = 0.0
    closes_first: bool = False
    """Whether new connections are refused from the first moment on, and only open ones are served meanwhile."""
    on_drain: Callable[[], None] = _nothing
    """Called when the end begins, and again with each further signal."""
    on_refuse: Callable[[], None] = _nothing
    """Called when new work is to be refused."""


class _Server(uvicorn.Server):
    """A server among several: signals are handled once, for all of them. It closes nothing that was not answered."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(_config(listener))
        self.listener = listener
        self.state = self.server_state = ServerState()
        self.ends_at = math.inf
        """When work in flight is cancelled, by the loop's clock."""
        self._is_listening = True
        self._late: list[asyncio.Task[Any]] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are not this server's."""
        yield

    def tell_to_leave(self) -> None:
        """Have each answer from now on say that its connection ends."""
        self.state.leaving = True
        for connection in self._connections():
            connection.leave()

    async def until_idle(self) -> None:
        """Wait until everything that has begun is answered, or has no more time."""
        await self._until(lambda: not (self.state.tasks or any(one.is_in_request for one in self._connections())))

    def stop_listening(self) -> None:
        """Refuse new connections. Those that the kernel has accepted already are served: it would reset them."""
        if not self._is_listening:
            return
        self._is_listening = False
        waiting = list(_accepted(self.listener.socket))
        for server in self.servers:
            server.close()
        self.listener.socket.close()
        loop = asyncio.get_running_loop()
        self._late = [loop.create_task(loop.connect_accepted_socket(self._protocol, one)) for one in waiting]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - the listener's
        """In place of uvicorn's, which closes connections whose first request lies unread in the kernel."""
        self.tell_to_leave()
        self.stop_listening()
        await asyncio.gather(*self._late, return_exceptions=True)
        await self._until(lambda: all(one.has_been_asked for one in self._connections()), FIRST_REQUEST_SECONDS)
        for connection in list(self.state.connections):
            connection.shutdown()
        if not await self._until(lambda: not (self.state.tasks or self.state.connections)):
            await self._cancel()

    async def _cancel(self) -> None:
        tasks = list(self.state.tasks)
        for task in tasks:
            task.cancel()
        if tasks and not self.force_exit:
            await asyncio.wait(tasks, timeout=CANCELLED_SECONDS)
        for connection in list(self.state.connections):
            connection.transport.abort()

    async def _until(self, holds: Callable[[], bool], seconds: float = math.inf) -> bool:
        loop = asyncio.get_running_loop()
        end = min(self.ends_at, loop.time() + seconds)
        while not holds():
            if self.force_exit or loop.time() > end:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    def _connections(self) -> list[BoundedHeads]:
        return [one for one in self.state.connections if isinstance(one, BoundedHeads)]  # and no WebSockets

    def _protocol(self) -> asyncio.Protocol:
        made = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return made(config=self.config, server_state=self.state, app_state=self.lifespan.state)


def _accepted(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be taken."""
    listening.setblocking(False)
    with contextlib.suppress(OSError):  # there is none (any more)
        while True:
            connection, _ = listening.accept()
            connection.setblocking(False)
            yield connection


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
    stopping: Stopping,
    *,
    on_ready: Callable[[], None],
    on_hangup: Callable[[], None] | None = None,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then end as `stopping` says; a second signal ends it at once.

    Args:
        listeners: the apps, each with its socket.
        stopping: how it ends.
        on_ready: called when all ports are served.
        on_hangup: called on SIGHUP; None leaves that signal its usual meaning, the end of the process.
        beside: other work, which ends in time after `on_drain`; it is waited for. Its end is the end of serving.
    """
    servers = [_Server(listener) for listener in listeners]
    asked, hurried = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        stopping.on_drain()
        if asked.is_set():
            hurried.set()
            for server in servers:
                server.force_exit = True
        asked.set()

    async def run_beside(work: Coroutine[Any, Any, None]) -> None:
        await work
        if not asked.is_set():
            stop()

    with _handling_signals(stop, on_hangup):
        async with asyncio.TaskGroup() as group:
            serving = {server: group.create_task(server.serve(sockets=[server.listener.socket])) for server in servers}
            others = [group.create_task(run_beside(beside()))] if beside is not None else []
            while not all(server.started or server.should_exit for server in servers):  # noqa: ASYNC110 - uvicorn sets a flag, no event
                await asyncio.sleep(0.01)
            if not asked.is_set():
                on_ready()
            await asked.wait()
            working = [server for server in servers if server.listener.takes_work]
            await _drain(working, stopping, hurried)
            await _ended(working, stopping.drain_seconds if not stopping.lame_duck_seconds else None, serving)
            await asyncio.gather(*others)
            await _ended([server for server in servers if server not in working], 1.0, serving)


async def _drain(servers: Sequence[_Server], stopping: Stopping, hurried: asyncio.Event) -> None:
    """Be a lame duck, then refuse, until nothing is in flight or the time is over."""
    for server in servers:
        server.tell_to_leave()
        if stopping.closes_first or not stopping.lame_duck_seconds:
            server.stop_listening()
    if not stopping.lame_duck_seconds:
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(hurried.wait(), stopping.lame_duck_seconds)
    stopping.on_refuse()
    for server in servers:
        server.ends_at = asyncio.get_running_loop().time() + stopping.drain_seconds
    await asyncio.gather(*(server.until_idle() for server in servers))


async def _ended(
    servers: Sequence[_Server], seconds: float | None, tasks: Mapping[_Server, asyncio.Task[None]]
) -> None:
    """Have servers end, within so many seconds if that was not settled before."""
    for server in servers:
        if seconds is not None:
            server.ends_at = asyncio.get_running_loop().time() + seconds
        server.should_exit = True
    await asyncio.gather(*(tasks[server] for server in servers))


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


def _config(listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        listener.app,
        # As good as a class: uvicorn calls it once for each connection.
        http=cast("type[asyncio.Protocol]", partial(BoundedHeads, observe=listener.observe)),
        ws="auto" if listener.takes_sockets else "none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
