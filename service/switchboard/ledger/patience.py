"""Waiting for somebody else, without blaming them for what this process was slow at itself."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LOOKS = 5  # at the clock
PASSES = 3  # of the event loop, in which an answer that has arrived is read, parsed and handed over


@asynccontextmanager
async def patience(seconds: float, at_most: float = math.inf) -> AsyncIterator[None]:
    """Like `asyncio.timeout`, but for what the other side takes.

    A burst of requests can keep the event loop from its sockets for much longer than Redis takes; a timeout that fires
    first would call a healthy Redis dead just when many count on it. So the time in which this thread computes does
    not count, and an answer that is here when the time is up is taken.

    Args:
        seconds: of waiting.
        at_most: seconds by the clock on the wall.

    Raises:
        TimeoutError: the block took too long.
    """
    loop = asyncio.get_running_loop()
    end, last = _waited() + seconds, time.monotonic() + at_most

    timer: asyncio.Handle

    async with asyncio.timeout(None) as bound:

        def look(passes: int) -> None:
            nonlocal timer
            left = min(end - _waited(), last - time.monotonic())
            if left > 0:
                # Not at every moment: many who look often would be what this thread computes.
                timer = loop.call_later(max(left, seconds / LOOKS), look, PASSES)
            elif passes:
                timer = loop.call_soon(look, passes - 1)
            else:
                bound.reschedule(loop.time())

        timer = loop.call_later(min(seconds, at_most), look, PASSES)
        try:
            yield
        finally:
            timer.cancel()


def _waited() -> float:
    """A clock that stands still while this thread computes."""
    return time.monotonic() - time.thread_time()
