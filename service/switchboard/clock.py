"""One time for all replicas: each one's own clock, set by the register's."""

import time
from collections.abc import Callable


class SharedClock:
    """Unix seconds as the shared register counts them; the process's own as long as that has not been asked."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._clock() + self._ahead

    def adjust(self, now: float) -> None:
        """It is `now` there."""
        self._ahead = now - self._clock()
