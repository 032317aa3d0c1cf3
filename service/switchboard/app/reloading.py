"""The configuration at run time: looked at again and again, read when it has changed, kept if it is broken then."""

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import structlog

from switchboard.admission import Policies
from switchboard.app.background import in_thread, run_until_closed
from switchboard.app.needs import CannotServe
from switchboard.app.policies import Made, PolicyMaker
from switchboard.config.loading import Loaded, Mistaken, Source
from switchboard.config.secrets import SecretMissing
from switchboard.endpoints.ops import Readiness
from switchboard.metrics import Metrics

LOOK_SECONDS = 2.0  # between two looks
SHARE = 50  # a look that takes longer is followed by a longer pause: at most this part of a core is spent
LONGEST_PAUSE = 60.0
SETTLE_SECONDS = 0.25  # in which nothing changes: whoever copies files may be in the middle of it
MOST_SETTLING = 20
SHOWN = 20  # mistakes, and names of files, in one line of the log
MOST_CHARACTERS = 500  # of what `/readyz` says of it
MANY_FILES = 500  # whose objects would make each full garbage collection long

_log = structlog.get_logger("switchboard.config")


class Reloading:
    """Reads a policy anew when its files change, or when it is asked to.

    What is read replaces the policy in use as a whole or not at all. Everything that takes time is done in a thread.

    Args:
        source: the files.
        make: makes a policy of them, in a thread.
        use: puts it in the place of the one before.
        metrics: shows how that goes, and when what is on disk was last what is in use.
        readiness: says why an old policy is in use.
        wall_clock: unix seconds.
    """

    def __init__(
        self,
        source: Source,
        *,
        make: Callable[[Loaded], Made],
        use: Callable[[Made], None],
        metrics: Metrics,
        readiness: Readiness,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._make = make
        self._use = use
        self._metrics = metrics
        self._readiness = readiness
        self._wall_clock = wall_clock
        self._asked = asyncio.Event()
        self._is_good = True

    def hasten(self) -> None:
        """Read everything that has changed now, and secrets as well."""
        self._asked.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            seconds, seen = await in_thread(self._timed_look)
            if self._asked.is_set():
                self._asked.clear()
                await self._reload()
            elif seen != self._source.seen:
                await self._settle(seen)
                await self._reload()
            elif self._is_good:
                self._metrics.observe_good_configuration(self._wall_clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), min(max(LOOK_SECONDS, seconds * SHARE), LONGEST_PAUSE))

    def _timed_look(self) -> tuple[float, int]:
        began = time.thread_time()  # what it costs, not how long a slow file system takes
        seen = self._source.look()
        return time.thread_time() - began, seen

    async def _settle(self, seen: int) -> None:
        for _ in range(MOST_SETTLING):
            await asyncio.sleep(SETTLE_SECONDS)
            before, seen = seen, await in_thread(self._source.look)
            if seen == before:
                return

    async def _reload(self) -> None:
        began = time.perf_counter()
        try:
            loaded, made = await in_thread(self._loaded_and_made)
        except Mistaken as error:
            shown = [str(one) for one in error.mistakes[:SHOWN]]
            self._keep(f"{error}, of which the first is {shown[0]}", mistakes=shown, count=len(error.mistakes))
        except (SecretMissing, CannotServe) as error:
            self._keep(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, those who call are served as before
            _log.exception("the configuration could not be read")
            self._keep(type(error).__name__)
        else:
            self._use(made)
            self._is_good = True
            self._readiness.degraded.pop("config", None)
            self._metrics.observe_reload("ok")
            self._metrics.observe_good_configuration(self._wall_clock())
            _log.info(
                "the configuration was read again",
                files=loaded.read[:SHOWN],
                count=len(loaded.read),
                tenants=len(loaded.tenants),
                seconds=round(time.perf_counter() - began, 3),
            )

    def _loaded_and_made(self) -> tuple[Loaded, Made]:
        loaded = self._source.load()
        made = self._make(loaded)
        if len(loaded.read) > MANY_FILES:
            gc.freeze()
        return loaded, made

    def _keep(self, reason: str, **details: Any) -> None:
        self._is_good = False
        self._readiness.degraded["config"] = f"the last good one is kept: {reason}"[:MOST_CHARACTERS]
        self._metrics.observe_reload("failed")
        _log.error("the configuration cannot be used; the last good one is kept", reason=reason, **details)


def reload_when_changed(
    source: Source | None,
    maker: PolicyMaker,
    policies: Policies,
    *,
    metrics: Metrics,
    readiness: Readiness,
    stack: AsyncExitStack,
) -> Callable[[], None]:
    """Have what changes used, until the stack closes; gives what reads it at once.

    Args:
        source: where the policy comes from; None: it stays as it is.
        maker: made the policy in use.
        policies: hold it.
        metrics: shows how that goes.
        readiness: says why an old policy is in use.
        stack: closes with the service.
    """
    metrics.observe_good_configuration(time.time())
    if source is None:
        return lambda: None

    def use(made: Made) -> None:
        policies.replace(maker.policy_of(made))
        maker.let_go(made)

    reloading = Reloading(source, make=maker.make, use=use, metrics=metrics, readiness=readiness)
    run_until_closed(reloading.run, stack)
    return reloading.hasten
