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

    A burst of requests can keep the event loop from its sockets for much longer than Redis takes, and a busy machine
    can keep this process from its processor; a timeout that fires first would call a healthy Redis dead just when many
    count on it. So the time is told by looks at short intervals: one that comes late counts like one that is on time.
    An answer that is here when the time is up is taken.

    Args:
        seconds: of waiting.
        at_most: seconds by the clock on the wall.

    Raises:
        TimeoutError: the block took too long.
    """
    loop = asyncio.get_running_loop()
    interval, last = seconds / LOOKS, time.monotonic() + at_most

    timer: asyncio.Handle

    async with asyncio.timeout(None) as bound:

        def look(looks: int, passes: int) -> None:
            nonlocal timer
            if looks and time.monotonic() < last:
                timer = loop.call_later(interval, look, looks - 1, passes)
            elif passes:
                timer = loop.call_soon(look, 0, passes - 1)
            else:
                bound.reschedule(loop.time())

        timer = loop.call_later(min(interval, at_most), look, LOOKS - 1, PASSES)
        try:
            yield
        finally:
            timer.cancel()
