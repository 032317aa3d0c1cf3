"""Where records go, as the code that decides sees it: asynchronous, bounded in time, healing by itself."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from errno import EBADF, EIO, ETIMEDOUT
from typing import Any, Protocol, TypeAlias

from switchboard.audit.appender import Appended, Appender
from switchboard.audit.chain import Link
from switchboard.audit.event import bounded, utc_text

STUCK_SECONDS = 2.0  # a write that takes longer is given up on; callers get their 503 while they still listen
SLOW_SECONDS = 0.05  # a write that takes longer is waited for before a provider is asked for anything
LOOK_SECONDS = 0.25  # between two looks at what is going on, and between two tries to write again
IDLE_SECONDS = 1.0  # after which a sink that nobody writes to is checked
CLOSE_SECONDS = 3.0

Step: TypeAlias = "asyncio.Future[Appended]"
Entry: TypeAlias = tuple[bytes, "asyncio.Future[None]"]


class Sink(Protocol):
    """Where records go."""

    async def ready(self) -> None:
        """Say no if it is known that nothing can be written, before anything is done that would need a record.

        Raises:
            OSError: why not.
        """

    async def write(self, record: bytes) -> None:
        """Append one record, a JSON object; when this returns, the record outlives the process.

        Raises:
            OSError: it could not be written; the caller hands nothing out.
        """

    def reopen(self) -> None:
        """Go on in a new file if the old one has been moved away; no record is lost in between."""


@dataclass(slots=True)
class _Trouble:
    """Since when nothing can be written, and what became of those who came meanwhile."""

    error: OSError
    since: str = field(default_factory=utc_text)
    refused: int = 0
    void: list[int] = field(default_factory=list)

    def refusal(self) -> OSError:
        """The error, for one more caller: an exception that is raised twice collects both tracebacks."""
        self.refused += 1
        return OSError(*self.error.args)

    def told(self) -> dict[str, Any]:
        """What the record says that ends it."""
        told = {"since": self.since, "failure": str(self.error), "refused": self.refused, "void": self.void}
        return {name: bounded(value) for name, value in told.items() if value != []}


class QueuedSink:
    """Writes in a thread of its own what many requests record, in steps: while one is written, the next gathers.

    After a step that failed everybody is refused (fail closed) until a record of its own, `audit.resume`, could be
    written; that is tried four times a second. A step that hangs is given up on, and what becomes of it is told there.

    Args:
        appender: writes; used by the thread alone.
        on_health: hears why nothing can be written, and None when it can be again.
    """

    def __init__(self, appender: Appender, *, on_health: Callable[[str | None], None] = lambda _: None) -> None:
        self._appender = appender
        self._on_health = on_health
        self._thread = ThreadPoolExecutor(1, "audit")
        self._waiting: list[Entry] = []
        self._batch: list[Entry] = []
        self._step: Step | None = None
        self._begun = 0.0
        self._trouble: _Trouble | None = None
        self.link = Link()
        """Where the chain stands on record."""

    async def open(self, details: Mapping[str, Any]) -> None:
        """Begin.

        Args:
            details: what an opening record says.

        Raises:
            OSError: there is no such place. One that is merely full is waited for: requests are refused until then.
        """
        self._loop = asyncio.get_running_loop()
        try:
            opened = await self._loop.run_in_executor(self._thread, self._appender.open, details)
        except OSError:
            self._thread.shutdown(wait=False)
            raise
        self._begun, self.link = self._loop.time(), opened.link
        if opened.error is not None:
            self._fall_ill(opened.error)
        self._watching = asyncio.create_task(self._watch())

    async def ready(self) -> None:
        """See `Sink.ready`. A write that takes its time is waited for: it may be about to fail."""
        step = self._step if self._trouble is None else None
        if step is not None and self._loop.time() - self._begun > SLOW_SECONDS:
            await asyncio.wait([step], timeout=STUCK_SECONDS)
        if self._trouble is not None:
            raise self._trouble.refusal()

    async def write(self, record: bytes) -> None:
        """See `Sink.write`."""
        if self._trouble is not None:
            raise self._trouble.refusal()
        written = self._loop.create_future()
        self._waiting.append((record, written))
        if self._step is None and len(self._waiting) == 1:
            # Not at once: others who come to their end in this turn of the event loop come along.
            self._loop.call_soon(self._begin)
        await written

    def reopen(self) -> None:
        """See `Sink.reopen`. The thread that writes does it, between two writes; the next step tells how it went."""
        self._thread.submit(self._appender.reopen)

    async def aclose(self) -> None:
        """End. What waits is written first; whoever comes later is refused."""
        self._watching.cancel()
        last = self._loop.time() + CLOSE_SECONDS
        while self._step is not None and self._loop.time() < last:
            await asyncio.wait([self._step], timeout=CLOSE_SECONDS)
        trouble, self._trouble = self._trouble, _Trouble(OSError(EBADF, "the audit is closed"))
        told = trouble.told() if trouble else None
        closing = self._loop.run_in_executor(self._thread, self._appender.close, told)
        done, _ = await asyncio.wait([closing], timeout=CLOSE_SECONDS)
        closed = self._outcome(closing) if done else Appended(self.link, error=TimeoutError(ETIMEDOUT, "it hangs"))
        self.link = closed.link
        if closed.error is not None and trouble is None:
            self._on_health(str(closed.error))
        self._thread.shutdown(wait=False)

    def _do(self, then: Callable[[Step], None], work: Callable[..., Appended], *given: Any) -> None:
        self._begun = self._loop.time()
        self._step = self._loop.run_in_executor(self._thread, work, *given)
        self._step.add_done_callback(then)

    def _outcome(self, step: Step) -> Appended:
        try:
            return step.result()
        except Exception as defect:  # noqa: BLE001 - whatever it is, nothing was written for certain
            return Appended(self.link, error=OSError(EIO, f"a defect: {defect!r}"))

    def _begin(self) -> None:
        if self._step is None and self._waiting:
            self._write_waiting()

    def _write_waiting(self) -> None:
        self._batch, self._waiting = self._waiting, []
        self._do(self._appended, self._appender.append, [record for record, _ in self._batch])

    def _appended(self, step: Step) -> None:
        done = self._outcome(step)
        batch, self._batch = self._batch, []
        trouble = self._trouble if done.error is None else self._fall_ill(done.error)
        for seq, (_, written) in enumerate(batch[: done.written], done.first):
            if not written.done():
                written.set_result(None)
            elif trouble is not None and not written.cancelled():
                trouble.void.append(seq)  # it was given up on, and has been written after all
        if trouble is not None:
            trouble.void += done.void
            _refuse(batch[done.written :], trouble)
        self._ended(done)

    def _resumed(self, step: Step) -> None:
        done = self._outcome(step)
        if done.error is None:
            self._trouble = None
            self._on_health(None)
        else:
            self._fall_ill(done.error)
        self._ended(done)

    def _checked(self, step: Step) -> None:
        done = self._outcome(step)
        if done.error is not None:
            self._fall_ill(done.error)
        self._ended(done)

    def _ended(self, done: Appended) -> None:
        self._step, self.link = None, done.link
        if self._waiting:
            self._write_waiting()

    def _fall_ill(self, error: OSError) -> _Trouble:
        if self._trouble is None:
            self._trouble = _Trouble(error)
            self._on_health(str(error))
        self._trouble.error = error
        waiting, self._waiting = self._waiting, []
        _refuse(waiting, self._trouble)
        return self._trouble

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            lasted = self._loop.time() - self._begun
            if self._step is not None:
                if lasted > STUCK_SECONDS and self._trouble is None:
                    _refuse(self._batch, self._fall_ill(TimeoutError(ETIMEDOUT, "a write takes too long")))
            elif self._trouble is not None:
                self._do(self._resumed, self._appender.resume, self._trouble.told)
            elif lasted > IDLE_SECONDS:
                self._do(self._checked, self._appender.append)


def _refuse(entries: Sequence[Entry], trouble: _Trouble) -> None:
    for _, written in entries:
        if not written.done():
            written.set_exception(trouble.refusal())
