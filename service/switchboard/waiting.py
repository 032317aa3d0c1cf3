"""Waiting for a provider only as long as somebody waits for us."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from switchboard.errors import CallerGone

LOOK_SECONDS = 1.0  # between two looks; most answers are there before the first


@asynccontextmanager
async def while_awaited(caller_gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """A block that is cancelled when the caller has gone away.

    Args:
        caller_gone: whether they have.

    Raises:
        CallerGone: they have, so the block did not end.
    """
    loop = asyncio.get_running_loop()
    watching: asyncio.Task[None] | None = None

    async def watch(bound: asyncio.Timeout) -> None:
        while not await caller_gone():  # noqa: ASYNC110 - ASGI has no event for it, only a message to be asked for
            await asyncio.sleep(LOOK_SECONDS)
        bound.reschedule(loop.time())

    def begin(bound: asyncio.Timeout) -> None:
        nonlocal watching
        watching = loop.create_task(watch(bound))

    try:
        async with asyncio.timeout(None) as bound:
            timer = loop.call_later(LOOK_SECONDS, begin, bound)
            try:
                yield
            finally:
                timer.cancel()
                if watching is not None:
                    watching.cancel()
    except TimeoutError:
        if bound.expired():
            raise CallerGone from None
        raise
