"""Processes that share a port: started, watched, started again when they die, and stopped together.

A worker and its parent are the two ends of a socket pair. The worker tells how it is, in a JSON line for each change;
an end that closes tells the other that nobody is there any more, however it died.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

FIRST_PAUSE = 0.25  # seconds before a worker that died is started again; twice as long each time
LONGEST_PAUSE = 10.0
STEADY_SECONDS = 30.0  # a worker that lived for so long has not died of its start
TELL_SECONDS = 0.1  # between two looks at whether there is something to tell
LATE_SECONDS = 10.0  # beyond the time to drain: for the audit's end, and for telling the collector of traces
HASTY_SECONDS = 2.0  # that a worker has after a second signal
REFUSED = 1  # the exit code of a process that lacks something

_log = structlog.get_logger("switchboard.workers")


@dataclass(slots=True)
class _Worker:
    number: int
    process: asyncio.subprocess.Process | None = None
    told: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    was_ready: bool = False

    def shown(self) -> dict[str, Any]:
        pid = self.process.pid if self.process else None
        return {
            "worker": self.number,
            "pid": pid,
            "restarts": max(0, self.starts - 1),
            "status": "starting",
            **self.told,
        }


class Crew:
    """The workers of one parent.

    Args:
        count: how many.
        listening: the socket that they share. Each takes a connection when it is free to; those that wait are nobody's
            until then, so that none is lost with a worker.
        command: the program and its arguments for a worker's number, the descriptor of the socket, and that of its end
            of the socket pair.
        environ: theirs.
        drain_seconds: how long their work may take to finish.
        on_change: hears what is known of each, whenever that changes.
        on_death: hears the number of a worker that has ended.
        on_restart: hears that one is started again.
    """

    def __init__(
        self,
        count: int,
        listening: socket.socket,
        command: Callable[[int, int, int], Sequence[str]],
        *,
        environ: Mapping[str, str],
        drain_seconds: float,
        on_change: Callable[[Sequence[Mapping[str, Any]]], None],
        on_death: Callable[[int], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._listening = listening
        self._command = command
        self._environ = environ
        self._drain_seconds = drain_seconds
        self._on_change = on_change
        self._on_death = on_death
        self._on_restart = on_restart
        self._stopping = asyncio.Event()
        self._last = 0.0
        self.refused = False
        """Whether the first start of a worker failed for lack of something; it has said of what."""

    async def run(self) -> None:
        """Have them run until they have been stopped, and all have ended."""
        self._change()
        keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        try:
            await self._stopping.wait()
            await self._ended(keepers)
        finally:
            self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Have them end when their work is finished; the second time, at once."""
        loop = asyncio.get_running_loop()
        seconds = HASTY_SECONDS if self._stopping.is_set() else self._drain_seconds + LATE_SECONDS
        self._last = loop.time() + seconds
        self._stopping.set()
        self._listening.close()  # else the kernel would go on accepting what nobody will serve
        self._signal(signal.SIGTERM)

    def reload(self) -> None:
        """Pass SIGHUP on; one that is just starting sees what is new by itself."""
        for worker in self._workers:
            if worker.told.get("status") == "ready":
                _signal(worker, signal.SIGHUP)

    async def _keep(self, worker: _Worker) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._run_once(worker)
            self._on_death(worker.number)
            self._change()
            if self._stopping.is_set():
                return
            if code == REFUSED and worker.starts == 1 and not worker.was_ready:
                self.refused = True
                self.stop()
                return
            pause = FIRST_PAUSE if loop.time() - began > STEADY_SECONDS else pause
            _log.error("a worker died; it is started again", worker=worker.number, code=code, seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _run_once(self, worker: _Worker) -> int | None:
        """One life of a worker; gives its exit code, less than 0 for a signal, None if it could not begin."""
        if worker.starts:
            self._on_restart()
        worker.starts += 1
        ours, theirs = socket.socketpair()
        try:
            descriptors = self._listening.fileno(), theirs.fileno()
            worker.process = await asyncio.create_subprocess_exec(
                *self._command(worker.number, *descriptors),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,  # a Ctrl-C is for the parent alone, which passes on what it means
            )
        except OSError as error:
            ours.close()
            _log.error("a worker could not be started", worker=worker.number, reason=error.strerror)
            return None
        finally:
            theirs.close()
        if self._stopping.is_set():
            _signal(worker, signal.SIGTERM)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        hearing = asyncio.create_task(self._hear(worker, reader))
        code = await worker.process.wait()
        await hearing  # its end of the pair has closed with it
        writer.close()
        worker.process, worker.told = None, {}
        return code

    async def _hear(self, worker: _Worker, reader: asyncio.StreamReader) -> None:
        while (line := await reader.readline()).endswith(b"\n"):
            worker.told = orjson.loads(line)
            worker.was_ready = worker.was_ready or worker.told["status"] == "ready"
            self._change()

    async def _ended(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        while not all(keeper.done() for keeper in keepers):
            await asyncio.wait(keepers, timeout=TELL_SECONDS)
            if loop.time() > self._last:
                _log.error("workers did not end in time; they are killed")
                self._signal(signal.SIGKILL)
                self._last = loop.time() + HASTY_SECONDS

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            _signal(worker, number)

    def _change(self) -> None:
        self._on_change([worker.shown() for worker in self._workers])


def _signal(worker: _Worker, number: int) -> None:
    if worker.process is not None:
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(number)


@asynccontextmanager
async def telling_parent(
    descriptor: int, shown: Callable[[], Mapping[str, Any]], *, on_orphaned: Callable[[], None]
) -> AsyncIterator[None]:
    """Tell the parent how this worker is, until the block ends.

    Args:
        descriptor: of this worker's end of the socket pair.
        shown: how it is.
        on_orphaned: called when the parent is gone.
    """
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))

    async def tell() -> None:
        told = b""
        while True:
            line = orjson.dumps(shown()) + b"\n"
            if line != told:
                told = line
                writer.write(line)
            await asyncio.sleep(TELL_SECONDS)

    async def listen() -> None:
        await reader.read()
        _log.warning("the parent is gone; this worker ends", pid=os.getpid())
        on_orphaned()

    tasks = [asyncio.create_task(tell()), asyncio.create_task(listen())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        writer.close()
