"""Work that goes on beside requests until the service closes: supervised, and ended for certain."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import structlog

Run: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_log = structlog.get_logger("switchboard")


def run_until_closed(run: Run, stack: AsyncExitStack) -> None:
    """Start `run`, start it again whenever it ends, and stop it when the stack closes."""

    async def supervised() -> None:
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001 - work that has to go on for ever; what ended it is for the operator
                _log.exception("background work ended; it is started again")
            await asyncio.sleep(1)

    stack.push_async_callback(_stop, asyncio.create_task(supervised()))


async def _stop(task: asyncio.Task[None]) -> None:
    # Again and again: one cancellation can get lost below (seen with redis-py 8.1 while a command was under way).
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
