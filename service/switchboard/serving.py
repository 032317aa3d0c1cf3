"""The three ways to serve: in this process alone, as the parent of workers, as one of them."""

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from switchboard import app, server
from switchboard.app import CannotServe
from switchboard.config.loading import Loaded, Source
from switchboard.endpoints.ops import Readiness
from switchboard.metrics import shared
from switchboard.settings import PREFIX, Settings
from switchboard.workers import Crew, telling_parent


@dataclass(frozen=True, slots=True)
class Post:
    """A worker's number, and what it inherits: the descriptors of the public socket and of its line to the parent."""

    number: int
    listening: int
    line: int

    def __str__(self) -> str:
        return f"{self.number},{self.listening},{self.line}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The opposite of `str`."""
        return cls(*map(int, text.split(",")))


def part_of(workers: int, post: Post | None = None) -> str:
    """What a process is called in the log and in names of files, if there are several."""
    if post is None:
        return "parent" if workers > 1 else ""
    return _worker(post.number)


def _worker(number: int) -> str:
    return f"worker-{number}"


def use_all_descriptors() -> None:
    """As many open files as this process may have: the usual first limit of 1024 is for programs that count on it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # "as many as you like" may be more than the system grants
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))


def _begin(readiness: Readiness) -> None:
    """From here on there are requests. What is there now stays, and none of it has to be looked at for garbage."""
    gc.collect()
    gc.freeze()
    readiness.ready()


async def serve_alone(settings: Settings, loaded: Loaded, source: Source) -> None:
    """Both ports in this process."""
    async with AsyncExitStack() as stack:
        public = stack.enter_context(server.bind(settings.host, settings.port))
        ops = stack.enter_context(server.bind(settings.ops_host, settings.ops_port))
        service = await stack.enter_async_context(app.build(settings, loaded, source=source))
        await server.serve(
            [_public(service, public), server.Listener(service.ops, ops)],
            _stopping(settings, service.readiness),
            on_ready=partial(_begin, service.readiness),
            on_hangup=service.on_hangup,
        )


async def serve_as_parent(settings: Settings, loaded: Loaded, source: Source) -> None:
    """The ops port, with the sum of all metrics; the public port is the workers'.

    Raises:
        CannotServe: also if a worker cannot.
    """
    public, ops = server.bind(settings.host, settings.port), server.bind(settings.ops_host, settings.ops_port)
    async with AsyncExitStack() as stack:
        try:
            folder = stack.enter_context(shared.folder_for_values(os.environ.get(shared.VARIABLE)))
        except OSError as error:
            raise CannotServe(f"{shared.VARIABLE}: {error.filename}: {error.strerror}") from None
        part = part_of(settings.workers)
        shared.keep_values_in(folder, part)
        service = await stack.enter_async_context(
            app.build(settings, loaded, source=source, part=part, render=shared.SumPage(folder))
        )
        crew = Crew(
            settings.workers,
            public,
            _command,
            environ={**os.environ, shared.VARIABLE: str(folder), f"{PREFIX}WORKERS": str(settings.workers)},
            drain_seconds=settings.lame_duck_seconds + settings.drain_seconds,
            on_change=service.readiness.hear,
            on_death=lambda number: shared.forget_gauges(folder, _worker(number)),
            on_restart=service.metrics.observe_restart,
        )

        def drain() -> None:
            service.readiness.drain()
            crew.stop()

        def hang_up() -> None:
            service.on_hangup()
            crew.reload()

        await server.serve(
            [server.Listener(service.ops, ops)],
            server.Stopping(settings.drain_seconds, on_drain=drain),
            on_ready=lambda: None,
            on_hangup=hang_up,
            beside=crew.run,
        )
    if crew.refused:
        raise CannotServe("a worker refused to start; it has said why")


async def serve_as_worker(settings: Settings, loaded: Loaded, source: Source, post: Post) -> None:
    """The public port, shared with other workers."""
    part = part_of(settings.workers, post)
    shared.keep_values_in(Path(os.environ[shared.VARIABLE]), part)
    public = socket.socket(fileno=post.listening)
    async with (
        app.build(settings, loaded, source=source, part=part) as service,
        telling_parent(
            post.line,
            lambda: service.readiness.shown(details=True),
            on_orphaned=lambda: signal.raise_signal(signal.SIGTERM),
        ),
    ):
        await server.serve(
            [_public(service, public)],
            _stopping(settings, service.readiness),
            on_ready=partial(_begin, service.readiness),
            on_hangup=service.on_hangup,
        )


def _public(service: app.Service, listening: socket.socket) -> server.Listener:
    return server.Listener(service.public, listening, service.observe, takes_work=True)


def _stopping(settings: Settings, readiness: Readiness) -> server.Stopping:
    return server.Stopping(
        settings.drain_seconds,
        lame_duck_seconds=settings.lame_duck_seconds,
        closes_first=settings.lame_duck_port == "closed",
        on_drain=readiness.drain,
        on_refuse=readiness.refuse,
    )


def _command(number: int, listening: int, line: int) -> list[str]:
    # -P: what lies in the working folder is nobody's module.
    return [sys.executable, "-P", "-m", "switchboard", "serve", "--as-worker", str(Post(number, listening, line))]
