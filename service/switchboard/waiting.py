"""Waiting for a provider only as long as somebody waits for us."""

import asyncio
from collections.abc import Awaitable, Callable

from switchboard.errors import CallerGone

LOOK_SECONDS = 1.0  # between two looks; most answers are there before the first

CallerIsGone = Callable[[], Awaitable[bool]]


class Waits:
    """The blocks that go on for somebody, and are looked at once a second. One for a process: a timer for each block
    would cost more than most of them take, and would be of use to one in a thousand.
    """

    def __init__(self) -> None:
        self._now: set[_Wait] = set()

    def while_awaited(self, caller_gone: CallerIsGone) -> "_Wait":
        """A block (`with`) that is cancelled when the caller has gone away.

        Args:
            caller_gone: whether they have.

        Raises:
            CallerGone: they have, so the block did not end.
        """
        return _Wait(self._now, caller_gone)

    async def run(self) -> None:
        """Look after them, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for wait in tuple(self._now):
                await wait.look()


class _Wait:
    __slots__ = ("_all", "_before", "_caller_gone", "_has_lasted", "_is_over", "_task")

    def __init__(self, everybody: "set[_Wait]", caller_gone: CallerIsGone) -> None:
        self._all = everybody
        self._caller_gone = caller_gone
        self._has_lasted = False
        self._is_over = False
        self._task: asyncio.Task[object] | None = None
        self._before = 0

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None  # noqa: S101 - blocks are in tasks
        self._before = self._task.cancelling()
        self._all.add(self)

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: object) -> None:
        self._all.discard(self)
        if not self._is_over or self._task is None:
            return
        # As asyncio's own time-outs do it: a cancellation by somebody else goes on its way.
        if self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise CallerGone from None

    async def look(self) -> None:
        """End the block if nobody waits for it. Not at the first look: it may have begun just now."""
        has_lasted, self._has_lasted = self._has_lasted, True
        if not has_lasted or self._is_over or not await self._caller_gone():
            return
        if self in self._all and self._task is not None:
            self._is_over = True
            self._task.cancel()
