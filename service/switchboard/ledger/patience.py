"""Waiting for somebody else, without blaming them for what this process was slow at itself."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

LOOKS = 5  # at the clock, at least
PASSES = 3  # of the event loop, in which an answer that has arrived is read, parsed and handed over
GRAIN_SECONDS = 0.005
SCHEDULED = Path(
    "/proc/thread-self/schedstat"
)  # of this thread, in nanoseconds: it ran, it could have run; and how often


@asynccontextmanager
async def patience(seconds: float, at_most: float = math.inf) -> AsyncIterator[None]:
    """Like `asyncio.timeout`, but for what the other side takes.

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
    loop = asyncio.get_running_loop()
    interval, last = seconds / LOOKS, time.monotonic() + at_most
    end = math.inf  # known at the first look: few answers take so long that there is one

    timer: asyncio.Handle

    async with asyncio.timeout(None) as bound:

        def look(passes: int) -> None:
            nonlocal end, timer
            waited = _waited()
            end = min(end, waited + seconds - interval)
            if waited < end and time.monotonic() < last:
                timer = loop.call_later(interval, look, passes)
            elif passes:
                timer = loop.call_soon(look, passes - 1)
            else:
                bound.reschedule(loop.time())

        timer = loop.call_later(min(interval, at_most), look, PASSES)
        try:
            yield
        finally:
            timer.cancel()


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
