"""The ledger of a single process: what `dev` and a lone replica use, and what a replica remembers beside Redis."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from limits.strategies import FixedWindowRateLimiter

from switchboard.calls import Call, EndedBy, Opening
from switchboard.errors import GrantUsed, TenantSuspended
from switchboard.ledger import Ending, Full, Reservation, Reserved, Slot, Sweep
from switchboard.ledger.agenda import Agenda
from switchboard.ledger.register import Key, Register
from switchboard.ratelimit import Quota, Standing, Window, share
from switchboard.ratelimit.windows import WindowStorage

BEHIND_SECONDS = 1.0  # so that a replica that is cut off does not end what others are ending


@dataclass(frozen=True, slots=True)
class _Charge:
    """Milliseconds of calls that a window was charged, and when it ends."""

    window: str
    milliseconds: int
    ends_at: float


class MemoryLedger:
    """Keeps the ledger in dictionaries; a single thread, so a step is atomic as long as it does not await.

    Args:
        replicas: among how many processes quotas and caps are divided, and heartbeats are spread.
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
        self._windows = WindowStorage(clock=window_clock)
        self._limiter = FixedWindowRateLimiter(self._windows)
        self._used_grants = Agenda[Key]()
        self._register = Register(clock, self._refund, hears_all=replicas == 1)
        self._charges: dict[Key, tuple[_Charge, ...]] = {}
        self.suspended: frozenset[str] = frozenset()
        """By the kill switch."""

    async def reserve(self, reservation: Reservation) -> Reserved:
        """See `Ledger.reserve`."""
        if reservation.tenant in self.suspended:
            raise TenantSuspended
        self.check_grant(reservation)
        quotas, slot = [share(quota, self._replicas) for quota in reservation.quotas], reservation.slot
        exceeded = [quota for quota in quotas if not self._limiter.test(quota.item, *_whose(reservation, quota))]
        if exceeded and reservation.enforce:
            return Reserved(self._standing(reservation, quotas, exceeded))
        full: Full | None = None
        seconds, used_up = 0.0, list[Window]()
        if slot is not None:
            room = self._register.room_for(reservation, self._share(slot))
            if isinstance(room, Call):
                return Reserved(self._standing(reservation, quotas, exceeded), replace=room)
            full = room
            if full is not None and (reservation.enforce or full.which == "offer"):
                return Reserved(self._standing(reservation, quotas, exceeded), full=full)
            seconds, used_up = self._minutes_left(reservation, slot)
            if used_up and reservation.enforce:
                return Reserved(self._standing(reservation, quotas, exceeded, used_up))
        for quota in quotas if not exceeded else ():
            self._limiter.hit(quota.item, *_whose(reservation, quota))
        self.use_grant(reservation)
        if slot is not None:
            self._register.hold(reservation, slot)
            self._charge_minutes(reservation, slot, seconds)
        return Reserved(self._standing(reservation, quotas, exceeded, used_up), call_seconds=seconds, full=full)

    async def release(self, reservation: Reservation, *, untried: bool) -> None:
        """See `Ledger.release`."""
        if reservation.slot is not None:
            self._register.drop((reservation.tenant, reservation.slot.id))
        if untried and reservation.grant_id is not None:
            self._used_grants.discard((reservation.tenant, reservation.grant_id))

    async def bind(self, reservation: Reservation, opening: Opening, call_seconds: float) -> Call:
        """See `Ledger.bind`."""
        slot = reservation.slot
        assert slot is not None  # noqa: S101 - a call comes of a reservation with a slot
        suspended = reservation.tenant in self.suspended
        call = self._register.bind(reservation, slot, opening, call_seconds, suspended=suspended)
        # Still there if the slot was.
        charges = self._charges.pop((reservation.tenant, slot.id), None)
        if charges:
            self._charges[call.tenant, call.id] = charges
        return call

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`."""
        return self._register.find((tenant, call_id))

    async def heard(self, tenant: str, call_id: str) -> None:
        """See `Ledger.heard`."""
        self._register.heard((tenant, call_id))

    async def end(self, call: Call, *, by: EndedBy, seen: bool = True) -> Ending:  # noqa: ARG002 - all is seen here
        """See `Ledger.end`."""
        return self._register.end(call, by)

    async def confirm(self, call: Call) -> None:
        """See `Ledger.confirm`."""
        self._register.confirm((call.tenant, call.id))

    async def put_off(self, call: Call, *, by: EndedBy, seconds: float) -> None:
        """See `Ledger.put_off`."""
        self._register.put_off(call, by, seconds)

    async def sweep(self, most: int) -> Sweep:
        """See `Ledger.sweep`."""
        for tenant in self.suspended:
            self._register.hasten(tenant)
        return Sweep(due=self._register.claim(most), suspended=self.suspended)

    async def open_calls(self, tenant: str | None = None, user_key: str | None = None) -> Sequence[Call]:
        """See `Ledger.open_calls`."""
        return self._register.open_calls(tenant, user_key)

    async def tenant_of(self, call_id: str) -> str | None:
        """See `Ledger.tenant_of`."""
        return self._register.tenant_of(call_id)

    async def count(self, tenants: Sequence[str]) -> Sequence[int]:
        """See `Ledger.count`."""
        return [self._register.count(tenant) for tenant in tenants]

    async def suspend(self, tenant: str, *, suspended: bool) -> None:
        """See `Ledger.suspend`."""
        self.suspended = self.suspended | {tenant} if suspended else self.suspended - {tenant}

    @property
    def now(self) -> float:
        """Unix seconds, as this ledger counts them."""
        return self._clock()

    def remember(self, call: Call) -> None:
        """Know a call as it stands in another ledger, which has it ended on time; here it is due a little later."""
        self._register.learn(call, behind=BEHIND_SECONDS)

    def overdue(self, most: int) -> Sequence[Call]:
        """Up to so many of the calls that are due, as they are known here; nobody is to end them because of that."""
        return self._register.overdue(most)

    def is_confirmed(self, call: Call) -> bool:
        """Whether the end of a call is on record."""
        return self._register.is_confirmed((call.tenant, call.id))

    def leave_to_others(self, call: Call) -> None:
        """The end of a call is not to be put on record here; whether it is remains to be seen."""
        self._register.leave_to_others((call.tenant, call.id))

    def remembered(self) -> Sequence[Call]:
        """All calls that are known here, open and lately ended."""
        return self._register.known()

    def hold(self, reservation: Reservation, slot: Slot) -> None:
        """Hold a slot that another ledger gave."""
        self._register.hold(reservation, slot)

    def holds(self, reservation: Reservation, slot: Slot) -> bool:
        """Whether a slot is held here."""
        return self._register.holds((reservation.tenant, slot.id))

    def check_grant(self, reservation: Reservation) -> None:
        """Refuse a grant that is known to be used.

        Raises:
            GrantUsed: it is.
        """
        while self._used_grants.take(self._clock()):
            pass  # it cannot be presented any more
        if reservation.grant_id is not None and (reservation.tenant, reservation.grant_id) in self._used_grants:
            raise GrantUsed

    def use_grant(self, reservation: Reservation) -> None:
        """Know that a grant was used, in this ledger or in another one."""
        if reservation.grant_id is not None:
            ends_at = self._clock() + reservation.grant_seconds
            self._used_grants.set((reservation.tenant, reservation.grant_id), ends_at)

    def _share(self, slot: Slot) -> Slot:
        def divided(cap: int | None) -> int | None:
            return cap and max(1, cap // self._replicas)

        return replace(slot, user_calls=divided(slot.user_calls), tenant_calls=divided(slot.tenant_calls))

    def _standing(
        self,
        reservation: Reservation,
        quotas: Sequence[Quota],
        exceeded: Sequence[Quota],
        used_up: Sequence[Window] = (),
    ) -> Standing:
        return Standing(
            tuple(self._window(reservation, quota) for quota in quotas),
            (*(self._window(reservation, quota) for quota in exceeded), *used_up),
        )

    def _window(self, reservation: Reservation, quota: Quota) -> Window:
        stats = self._limiter.get_window_stats(quota.item, *_whose(reservation, quota))
        return Window(quota, stats.remaining, self._resets_in(stats.reset_time, quota))

    def _resets_in(self, ends_at: float, quota: Quota) -> float:
        # A window that is not open yet would last its whole length.
        resets_in = ends_at - self._window_clock()
        return resets_in if resets_in > 0 else float(quota.seconds)

    def _minutes_left(self, reservation: Reservation, slot: Slot) -> tuple[float, list[Window]]:
        """How many seconds the call may last, and the quotas that have too little left for any."""
        most, used_up = slot.call_seconds * 1000, list[Window]()
        for written in slot.minutes:
            quota, window = share(written, self._replicas), _minutes_window(reservation, written)
            left = max(0, quota.limit * 1000 - self._windows.get(window))
            most = min(most, left)
            if left < slot.shortest_seconds * 1000:
                used_up.append(Window(written, 0, self._resets_in(self._windows.get_expiry(window), written)))
        return (most / 1000 if reservation.enforce else float(slot.call_seconds)), used_up

    def _charge_minutes(self, reservation: Reservation, slot: Slot, seconds: float) -> None:
        charges, milliseconds = list[_Charge](), round(seconds * 1000)
        for quota in slot.minutes:
            window = _minutes_window(reservation, quota)
            self._windows.incr(window, quota.seconds, milliseconds)
            charges.append(_Charge(window, milliseconds, self._windows.get_expiry(window)))
        if charges:
            self._charges[reservation.tenant, slot.id] = tuple(charges)

    def _refund(self, key: Key, seconds: float) -> None:
        """Give back what was reserved and not used; a window that has begun anew since owes nothing."""
        for charge in self._charges.pop(key, ()):
            if self._windows.get_expiry(charge.window) == charge.ends_at:
                unused = max(0, charge.milliseconds - round(seconds * 1000))
                self._windows.incr(charge.window, 0, -unused)


def _whose(reservation: Reservation, quota: Quota) -> tuple[str, ...]:
    return (reservation.tenant, reservation.user_key) if quota.scope == "user" else (reservation.tenant,)


def _minutes_window(reservation: Reservation, quota: Quota) -> str:
    return "/".join(("minutes", *_whose(reservation, quota), str(quota.seconds)))
