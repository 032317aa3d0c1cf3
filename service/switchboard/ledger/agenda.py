"""What is due when, of many things whose times change."""

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Agenda(Generic[Item]):
    """Each item once, with its time.

    To put an item off costs no memory, however often: it stays in the queue where it was, and is queued anew when that
    time has come. Items of the same time are compared with each other.
    """

    def __init__(self) -> None:
        self._times: dict[Item, float] = {}
        self._queued: dict[Item, float] = {}
        self._queue: list[tuple[float, Item]] = []

    def set(self, item: Item, at: float) -> None:
        """An item is due at this time, and at no other."""
        self._times[item] = at
        if at < self._queued.get(item, math.inf):
            self._queued[item] = at
            heapq.heappush(self._queue, (at, item))

    def discard(self, item: Item) -> None:
        """An item is not due any more."""
        self._times.pop(item, None)

    def take(self, now: float) -> Item | None:
        """Take out one of the items that are due."""
        while self._queue and self._queue[0][0] <= now:
            queued, item = heapq.heappop(self._queue)
            if self._queued.get(item) != queued:
                continue  # it has been queued for an earlier time since
            del self._queued[item]
            at = self._times.get(item, math.inf)
            if at <= now:
                del self._times[item]
                return item
            if at < math.inf:
                self.set(item, at)
        return None

    def __contains__(self, item: Item) -> bool:
        return item in self._times
