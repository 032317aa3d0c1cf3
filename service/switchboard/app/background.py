"""Work that goes on beside requests until the service closes: supervised, and ended for certain."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeAlias, TypeVar

import structlog

Run: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

T = TypeVar("T")

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


async def in_thread(work: Callable[[], T]) -> T:
    """Do what may take long, or hang with the file system for ever, in a thread that nobody waits for at the end.

    `asyncio.to_thread` would hold up the end of the process until it is done.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if done.done() else outcome())

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is waited for
            failure = error  # the name of an exception ends with its block
            settle(lambda: done.set_exception(failure))
        else:
            settle(lambda: done.set_result(result))

    threading.Thread(target=run, name="config", daemon=True).start()
    return await done
