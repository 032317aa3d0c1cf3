"""A breaker in front of a provider: while it is down nobody waits for it, and one request at a time looks whether it is
back. Our own, because no library lets a single one through; docs/decisions/0018-provider-faults.md.
"""

import math
import time
from collections.abc import Callable

from switchboard.errors import ProviderBusy, ProviderTimeout, ProviderUnavailable, Refusal
from switchboard.providers.events import BreakerClosed, BreakerOpened, Observe
from switchboard.providers.keys import KeyRefused

FAILURES = 5  # in a row, with no answer in between
SPAN_SECONDS = 1.0  # from the first to the last of them: what breaks many requests in one moment is no outage
FIRST_SECONDS = 1.0  # until the first probe
LONGEST_SECONDS = 30.0  # between two; each that fails doubles the wait
BUSY = "The voice provider does not answer at present; try again after the given time."


class Breaker:
    """Counts what a provider does not answer. Any answer, a refusal too, shows that it is up.

    Args:
        observe: hears when it opens and closes.
        clock: seconds that only grow.
    """

    def __init__(self, observe: Observe, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._observe = observe
        self._clock = clock
        self._failures = 0
        self._failing_since = 0.0
        self._probe_at: float | None = None  # None: it is closed
        self._wait = FIRST_SECONDS
        self._is_probed = False

    @property
    def is_open(self) -> bool:
        """Whether the provider is taken to be down."""
        return self._probe_at is not None

    def guard(self) -> "_Guard":
        """A block (`with`) for one request, which is let through, and learned from when it ends.

        Raises:
            ProviderBusy: the provider is down, and this is not the request that looks whether it is back.
        """
        return _Guard(self._enter, self._leave)

    def check(self) -> None:
        """Whether a request would be let through now.

        Raises:
            ProviderBusy: as in `guard`.
        """
        if self._probe_at is None:
            return
        left = self._probe_at - self._clock()
        if self._is_probed or left > 0:
            shed = ProviderBusy(BUSY, retry_after=max(1, math.ceil(left)))
            shed.untried = True
            raise shed

    def _enter(self) -> bool:
        self.check()
        self._is_probed = self.is_open
        return self._is_probed

    def _leave(self, error: BaseException | None, is_probe: bool) -> None:
        if isinstance(error, ProviderUnavailable | ProviderTimeout):
            self._failed(error.cause, is_probe=is_probe)
        elif error is None or isinstance(error, Refusal | KeyRefused):
            self._answered(is_probe=is_probe)
        elif is_probe:  # cancelled, or a defect of ours: it says nothing
            self._is_probed = False

    def _answered(self, *, is_probe: bool) -> None:
        if not is_probe:
            self._failures = 0
            return
        self._observe(BreakerClosed(self._clock() - self._failing_since))
        self._failures, self._probe_at, self._wait, self._is_probed = 0, None, FIRST_SECONDS, False

    def _failed(self, why: str, *, is_probe: bool) -> None:
        now = self._clock()
        if is_probe:
            self._wait, self._is_probed = min(2 * self._wait, LONGEST_SECONDS), False
        elif self._probe_at is not None:
            return  # it was sent before the breaker opened
        else:
            self._failing_since = now if self._failures == 0 else self._failing_since
            self._failures += 1
            if self._failures < FAILURES or now - self._failing_since < SPAN_SECONDS:
                return
        self._probe_at = now + self._wait
        self._observe(BreakerOpened(why, self._wait, again=is_probe))


class _Guard:
    """No generator: it stands around every request."""

    __slots__ = ("_enter", "_is_probe", "_leave")

    def __init__(self, enter: Callable[[], bool], leave: Callable[[BaseException | None, bool], None]) -> None:
        self._enter = enter
        self._leave = leave
        self._is_probe = False

    def __enter__(self) -> None:
        self._is_probe = self._enter()

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        self._leave(error, self._is_probe)
