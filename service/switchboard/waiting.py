"""Waiting for a provider only as long as somebody waits for us."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from switchboard.errors import CallerGone

LOOK_SECONDS = 1.0  # between two looks; most answers are there before the first


class while_awaited:  # noqa: N801 - named as what one writes after `async with`, like the library's own
    """A block that is cancelled when the caller has gone away.

    Args:
        caller_gone: whether they have.

    Raises:
        CallerGone: they have, so the block did not end.
    """

    # No generator: this stands around every mint, and is of use to one in a thousand.

    def __init__(self, caller_gone: Callable[[], Awaitable[bool]]) -> None:
        self._caller_gone = caller_gone
        self._bound = asyncio.timeout(None)
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        await self._bound.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._begin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        try:
            await self._bound.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise CallerGone from None

    def _begin(self) -> None:
        self._watching = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while not await self._caller_gone():  # noqa: ASYNC110 - ASGI has no event for it, only a message to be asked for
            await asyncio.sleep(LOOK_SECONDS)
        self._bound.reschedule(self._loop.time())
