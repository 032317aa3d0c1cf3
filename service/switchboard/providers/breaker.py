"""A breaker in front of a provider: while it is down nobody waits for it, and one request at a time looks whether it is
back. Our own, because no library lets a single one through; docs/decisions/0018-provider-faults.md.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let one request through, and learn from how it ends.

        Raises:
            ProviderBusy: the provider is down, and this is not the request that looks whether it is back.
        """
        is_probe = self._enter()
        try:
            yield
        except (ProviderUnavailable, ProviderTimeout) as error:
            self._failed(error.cause, is_probe=is_probe)
            raise
        except (Refusal, KeyRefused):
            self._answered(is_probe=is_probe)
            raise
        except BaseException:  # cancelled, or a defect of ours: it says nothing
            if is_probe:
                self._is_probed = False
            raise
        self._answered(is_probe=is_probe)

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
