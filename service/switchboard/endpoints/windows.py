"""Fixed windows in memory, bounded in number, for `limits`.

The library's own memory has no bound, and starts a thread that looks at every key it holds up to 100 times a second:
with 400,000 addresses in one minute that stops the loop for 56 ms at a time. Here each hit clears up after two others.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from limits.storage import Storage

SCHEME = "bounded-memory"
MAX_WINDOWS = 100_000  # about 30 MB; with more addresses at once, the oldest windows start anew
CLEARED_PER_HIT = 2  # more than a hit can add, so that the ended ones go away without a sweep


@dataclass(slots=True)
class _Window:
    ends: float
    count: int = 0


class BoundedMemory(Storage):
    """Counters by key. Times are of the monotonic clock: a step of the wall clock opens and closes nothing."""

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - the library's registry reads it from the class

    def __init__(
        self,
        uri: str | None = None,
        *,
        wrap_exceptions: bool = False,
        clock: Callable[[], float] = time.monotonic,
        max_windows: int = MAX_WINDOWS,
        **_: Any,
    ) -> None:
        super().__init__(uri, wrap_exceptions)
        self._clock = clock
        self._max = max_windows
        # By length: among windows of one length the first to begin is the first to end.
        self._by_length: dict[int, OrderedDict[str, _Window]] = {}

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """What may go wrong: nothing."""
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, in a window that begins with its first hit and lasts `expiry` seconds."""
        now = self._clock()
        windows = self._by_length.setdefault(expiry, OrderedDict())
        for _ in range(CLEARED_PER_HIT):
            oldest = next(iter(windows.values()), None)
            if oldest is not None and (oldest.ends <= now or len(windows) > self._max):
                windows.popitem(last=False)
        window = windows.get(key)
        if window is None or window.ends <= now:
            windows.pop(key, None)
            window = windows[key] = _Window(now + expiry)
        window.count += amount
        return window.count

    def get(self, key: str) -> int:
        """The count of a key's window."""
        window = self._window(key)
        return window.count if window else 0

    def get_expiry(self, key: str) -> float:
        """When a key's window ends; now, if it has none."""
        window = self._window(key)
        return window.ends if window else self._clock()

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget all windows; returns how many."""
        forgotten = sum(map(len, self._by_length.values()))
        self._by_length.clear()
        return forgotten

    def clear(self, key: str) -> None:
        """Forget a key's window."""
        for windows in self._by_length.values():
            windows.pop(key, None)

    def _window(self, key: str) -> _Window | None:
        now = self._clock()
        for windows in self._by_length.values():
            window = windows.get(key)
            if window is not None and window.ends > now:
                return window
        return None
