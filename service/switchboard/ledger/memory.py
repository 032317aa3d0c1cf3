"""The ledger of a single process: what `dev`, a lone replica, and a replica cut off from Redis use."""

import heapq
import time
from collections.abc import Callable
from dataclasses import replace

from limits.strategies import FixedWindowRateLimiter

from switchboard.calls import Call, EndedBy
from switchboard.errors import GrantUsed
from switchboard.ledger import Ending, Reservation
from switchboard.ratelimit import Quota, Standing, Window, share
from switchboard.ratelimit.windows import WindowStorage

KEPT_SECONDS = 3600.0  # how long an ended call can still be asked about


class MemoryLedger:
    """Keeps the ledger in dictionaries; a single thread, so a step is atomic as long as it does not await.

    Args:
        replicas: among how many processes the quotas are divided.
        clock: unix seconds, for calls and grants.
        window_clock: seconds that nobody sets back, for windows.
    """

    def __init__(
        self,
        *,
        replicas: int = 1,
        clock: Callable[[], float] = time.time,
        window_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replicas = replicas
        self._clock = clock
        self._window_clock = window_clock
        self._limiter = FixedWindowRateLimiter(WindowStorage(clock=window_clock))
        self._used_grants: set[str] = set()
        self._calls: dict[tuple[str, str], Call] = {}
        self._forget_at: list[tuple[float, str, tuple[str, str]]] = []

    async def reserve(self, reservation: Reservation) -> Standing:
        """See `Ledger.reserve`."""
        self._forget()
        if reservation.grant_id in self._used_grants:
            raise GrantUsed
        standing = self._charge(reservation)
        if reservation.grant_id is not None and not (standing.exceeded and reservation.enforce):
            self._used_grants.add(reservation.grant_id)
            forget_at = self._clock() + reservation.grant_seconds
            heapq.heappush(self._forget_at, (forget_at, "grant", (reservation.grant_id, "")))
        return standing

    async def release(self, reservation: Reservation) -> None:
        """See `Ledger.release`."""
        if reservation.grant_id is not None:
            self._used_grants.discard(reservation.grant_id)

    async def bind(self, call: Call) -> None:
        """See `Ledger.bind`."""
        key = (call.tenant, call.id)
        self._calls[key] = call
        heapq.heappush(self._forget_at, (call.deadline + KEPT_SECONDS, "call", key))

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`."""
        call = self._calls.get((tenant, call_id))
        return None if call is None else call.at(self._clock())

    async def end(self, tenant: str, call_id: str, *, by: EndedBy) -> Ending | None:
        """See `Ledger.end`."""
        call = await self.find(tenant, call_id)
        if call is None:
            return None
        if call.ended_at is not None:
            return Ending(call, is_ours=False)
        ended = replace(call, ended_at=self._clock(), ended_by=by)
        self._calls[tenant, call_id] = ended
        return Ending(ended, is_ours=True)

    def _charge(self, reservation: Reservation) -> Standing:
        held = [share(quota, self._replicas) for quota in reservation.quotas]
        exceeded = [quota for quota in held if not self._limiter.test(quota.item, *_identifiers(reservation, quota))]
        for quota in held if not exceeded else ():
            self._limiter.hit(quota.item, *_identifiers(reservation, quota))
        return Standing(
            tuple(self._window(reservation, quota) for quota in held),
            tuple(self._window(reservation, quota) for quota in exceeded),
        )

    def _window(self, reservation: Reservation, quota: Quota) -> Window:
        stats = self._limiter.get_window_stats(quota.item, *_identifiers(reservation, quota))
        # A window that is not open yet would last its whole length.
        resets_in = stats.reset_time - self._window_clock()
        return Window(quota, stats.remaining, resets_in if resets_in > 0 else float(quota.seconds))

    def _forget(self) -> None:
        now = self._clock()
        while self._forget_at and self._forget_at[0][0] <= now:
            _, kind, key = heapq.heappop(self._forget_at)
            if kind == "grant":
                self._used_grants.discard(key[0])
            else:
                self._calls.pop(key, None)


def _identifiers(reservation: Reservation, quota: Quota) -> tuple[str, ...]:
    return (reservation.tenant, reservation.user_key) if quota.scope == "user" else (reservation.tenant,)
