"""What a process watches of itself: whether its event loop keeps up, and what becomes of its log."""

import asyncio

from switchboard import logs
from switchboard.metrics import Metrics

LOOK_SECONDS = 0.25


async def watch_process(metrics: Metrics, *, has_callers: bool) -> None:
    """Look until cancelled.

    Args:
        metrics: shows it.
        has_callers: whether anybody waits for this loop; else how late it is would only hide how late others are.
    """
    loop = asyncio.get_running_loop()
    dropped = 0
    while True:
        due = loop.time() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        if has_callers:
            metrics.observe_lag(max(0.0, loop.time() - due))
        before, dropped = dropped, logs.lines_dropped()
        metrics.observe_lines_dropped(dropped - before)
