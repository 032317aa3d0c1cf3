"""Waiting for somebody else, without blaming them for what this process was slow at itself."""

import asyncio
import math
import time
from functools import lru_cache
from pathlib import Path
from types import TracebackType

LOOKS = 5  # at the clock, at least
PASSES = 3  # of the event loop, in which an answer that has arrived is read, parsed and handed over
GRAIN_SECONDS = 0.005
SCHEDULED = Path(
    "/proc/thread-self/schedstat"
)  # of this thread, in nanoseconds: it ran, it could have run; and how often


class Patience:
    """Like `asyncio.timeout`, as a block (`async with`), but for what the other side takes.

    A burst of requests can keep the event loop from its sockets for much longer than Redis takes, and a busy machine
    can keep this process from its processor; a timeout that fires first would call a healthy Redis dead just when many
    count on it. So neither the time in which this thread computes counts, nor that in which it is kept from computing,
    and an answer that is here when the time is up is taken.

    Args:
        seconds: of waiting.
        at_most: seconds by the clock on the wall.

    Raises:
        TimeoutError: the block took too long.
    """

    __slots__ = ("_bound", "_end", "_interval", "_last", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float, at_most: float = math.inf) -> None:
        self._seconds = seconds
        self._interval = seconds / LOOKS
        self._end = math.inf  # known at the first look: few answers take so long that there is one
        self._last = time.monotonic() + at_most
        self._bound = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        await self._bound.__aenter__()
        first = min(self._interval, self._last - time.monotonic())
        self._timer = self._loop.call_later(first, self._look, PASSES)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None  # it holds this object: a circle, which only the collector would free
        await self._bound.__aexit__(kind, error, trace)

    def _look(self, passes: int) -> None:
        waited = _waited()
        self._end = min(self._end, waited + self._seconds - self._interval)
        if waited < self._end and time.monotonic() < self._last:
            self._timer = self._loop.call_later(self._interval, self._look, passes)
        elif passes:
            self._timer = self._loop.call_soon(self._look, passes - 1)
        else:
            self._bound.reschedule(self._loop.time())


def _waited() -> float:
    """A clock, in seconds, that stands still while this thread computes or waits for a processor."""
    now = time.monotonic()
    return now - _not_waited(int(now / GRAIN_SECONDS))


@lru_cache(maxsize=1)
def _not_waited(_: int) -> float:
    """Seconds that this thread has computed, or could have. Read once per grain: many look at the same moment."""
    try:
        ran, was_kept, _times = SCHEDULED.read_bytes().split()
    except OSError:  # it is Linux that tells
        return time.thread_time()
    return (int(ran) + int(was_kept)) / 1e9
