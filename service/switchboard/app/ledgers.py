"""The ledger that the settings ask for: in memory, or in Redis with what is to be done while that is away."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from switchboard.app.background import run_until_closed
from switchboard.app.needs import CannotServe
from switchboard.clock import SharedClock
from switchboard.endpoints.ops import Readiness
from switchboard.ledger import Ledger
from switchboard.ledger.connection import RedisUrlError, connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import RedisLedger
from switchboard.ledger.resilient import ResilientLedger
from switchboard.metrics import Metrics
from switchboard.settings import Settings

EVICTION_SECONDS = 60.0  # between two looks at Redis's `maxmemory-policy`

_log = structlog.get_logger("switchboard")


async def ledger_of(
    settings: Settings, metrics: Metrics, readiness: Readiness, clock: SharedClock, stack: AsyncExitStack
) -> Ledger:
    """In memory, or in Redis with what is to be done while that is away."""
    if settings.redis_url is None:
        return MemoryLedger()
    try:
        client = connect(settings.redis_url.get_secret_value())
    except RedisUrlError as error:
        raise CannotServe(f"SWITCHBOARD_REDIS_URL: {error}") from None
    primary = RedisLedger(client)
    stack.push_async_callback(primary.aclose)

    def on_switch(away: bool, reason: str) -> None:
        metrics.observe_degraded(away)
        if away:
            readiness.degraded["redis"] = reason
            _log.warning("Redis is away", reason=reason, meanwhile=settings.on_redis_down)
        else:
            readiness.degraded.pop("redis", None)
            _log.warning("Redis is back")

    ledger = ResilientLedger(
        primary,
        MemoryLedger(replicas=settings.expected_replicas * settings.workers, clock=clock),
        admits_locally=settings.on_redis_down == "local",
        on_error=metrics.observe_redis_error,
        on_switch=on_switch,
    )
    await ledger.start()
    run_until_closed(ledger.run, stack)
    run_until_closed(lambda: _watch_eviction(primary, readiness.advice), stack)
    return ledger


async def _watch_eviction(primary: RedisLedger, advice: list[str]) -> None:
    """At the start, and again: Redis may be away then, and another server may be the primary later."""

    def said(policy: str) -> str:
        return f"Redis may evict counters: set maxmemory-policy to noeviction (it is {policy})"

    known = "noeviction"
    while True:
        policy = await primary.eviction_policy() or known
        if policy != known:
            if known != "noeviction":
                advice.remove(said(known))
            if policy != "noeviction":
                advice.append(said(policy))
                _log.warning("Redis may evict counters, which would lift limits", maxmemory_policy=policy)
            known = policy
        await asyncio.sleep(EVICTION_SECONDS)
