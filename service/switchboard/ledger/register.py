"""The register of calls in memory: slots, open and lately ended calls, and when something is to be done about each.

Not for threads: the event loop alone calls it, so a step is atomic.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from switchboard.calls import Call, EndedBy, Opening
from switchboard.ledger import (
    CLAIM_SECONDS,
    KEPT_SECONDS,
    LISTED,
    RECORD_SECONDS,
    Ending,
    Full,
    Reservation,
    Slot,
)

Key = tuple[str, str]
"""Tenant and id, of a call or of a slot."""


@dataclass(frozen=True, slots=True)
class Held:
    """A slot that no call has come of yet."""

    user_key: str
    lapses_at: float


class Register:
    """See the module.

    Args:
        clock: unix seconds.
        on_leave: told the tenant, the id and the seconds used, when a call has ended or a slot came to nothing.
    """

    def __init__(self, clock: Callable[[], float], on_leave: Callable[[Key, float], None]) -> None:
        self._clock = clock
        self._on_leave = on_leave
        self._held: dict[Key, Held] = {}
        self._calls: dict[Key, Call] = {}
        # Open calls and slots of a tenant, and of a tenant's user: sets in the order of their start.
        self._open: dict[tuple[str, ...], dict[str, None]] = {}
        self._offers: dict[tuple[str, str, str], str] = {}
        self._offer_of: dict[Key, tuple[str, str, str]] = {}
        self._due: dict[Key, float] = {}
        self._queue: list[tuple[float, Key]] = []
        self._leases: list[tuple[float, Key]] = []
        self._kept_until: list[tuple[float, Key]] = []

    def room_for(self, reservation: Reservation, slot: Slot) -> Full | Call | None:
        """None: there is room. A call: it has to be ended first, to make room or because it came of the same offer."""
        tenant, user = reservation.tenant, reservation.user_key
        self._forget()
        same = self._offers.get((tenant, user, slot.offer_digest), "")
        if (tenant, same) in self._held:
            return Full("offer", self._frees_in(tenant, [same]))
        if (earlier := self._calls.get((tenant, same))) and earlier.ended_at is None:
            return earlier
        mine = self._open.get((tenant, user), {})
        if slot.user_calls and len(mine) >= slot.user_calls:
            bound = next((self._calls[tenant, one] for one in mine if (tenant, one) in self._calls), None)
            replaces = slot.replace and reservation.enforce
            return bound if replaces and bound else Full("user", self._frees_in(tenant, mine))
        everybody = self._open.get((tenant,), {})
        if slot.tenant_calls and len(everybody) >= slot.tenant_calls:
            return Full("tenant", self._frees_in(tenant, everybody))
        return None

    def hold(self, reservation: Reservation, slot: Slot) -> None:
        """Hold a slot until its lease is over."""
        key, lapses_at = (reservation.tenant, slot.id), self._clock() + slot.lease_seconds
        self._held[key] = Held(reservation.user_key, lapses_at)
        heapq.heappush(self._leases, (lapses_at, key))
        self._enter(key, reservation.user_key)
        self._remember_offer(key, reservation.user_key, slot)

    def drop(self, key: Key) -> None:
        """A slot came to nothing."""
        held = self._held.pop(key, None)
        if held is not None:
            self._leave(key, held.user_key, 0.0)

    def bind(self, reservation: Reservation, slot: Slot, opening: Opening, call_seconds: float) -> Call:
        """Put a call in its slot's place. It is `ending` if the slot's lease was over."""
        now, held = self._clock(), (reservation.tenant, slot.id)
        self._forget()
        lapsed = held not in self._held
        call = Call(
            id=opening.id,
            tenant=reservation.tenant,
            issuer=opening.issuer,
            user_key=reservation.user_key,
            preset=opening.preset,
            provider=opening.provider,
            key_name=opening.key_name,
            started_at=round(now, 3),
            deadline=round(now + call_seconds, 3),
            grant_id=reservation.grant_id,
            idle_seconds=slot.idle_seconds,
            ending="replaced" if lapsed else None,
        )
        self.drop(held)
        self.restore(call, due_at=now + CLAIM_SECONDS if lapsed else call.deadline)
        self._remember_offer((call.tenant, call.id), call.user_key, slot)
        return call

    def restore(self, call: Call, *, due_at: float | None = None) -> None:
        """Enter a call as it is told, unless it is known."""
        key = (call.tenant, call.id)
        if key not in self._calls:
            self._calls[key] = call
            if call.ended_at is None:
                self._enter(key, call.user_key)
                self._schedule(key, call.due_at if due_at is None else due_at)
            else:
                self._keep(key, call.ended_at)

    def find(self, key: Key) -> Call | None:
        """A call, open or lately ended."""
        return self._calls.get(key)

    def heard(self, key: Key) -> None:
        """A heartbeat."""
        call = self._calls.get(key)
        if call is not None and call.ended_at is None and call.ending is None:
            self._calls[key] = replace(call, heard_at=self._clock())
            self._schedule(key, self._calls[key].due_at)

    def end(self, call: Call, by: EndedBy) -> Ending:
        """Mark a call as ended, once: now, or when it is told to have."""
        key, now = (call.tenant, call.id), self._clock()
        self.restore(replace(call, ended_at=None, ended_by=None))
        known = self._calls[key]
        if known.ended_at is not None:
            return Ending(known, is_ours=False)
        ended = replace(known, ended_at=round(call.ended_at or now, 3), ended_by=by)
        self._calls[key] = ended
        self._leave(key, ended.user_key, ended.seconds)
        self._schedule(key, now + RECORD_SECONDS)
        self._keep(key, now)
        return Ending(ended, is_ours=True)

    def learn(self, call: Call) -> None:
        """Take over how a call ended, and that this is on record."""
        if (call.tenant, call.id) in self._calls:
            self.end(call, call.ended_by or "provider")
            self.confirm((call.tenant, call.id))

    def confirm(self, key: Key) -> None:
        """Its end is on record."""
        if (call := self._calls.get(key)) and call.ended_at is not None:
            self._due.pop(key, None)

    def is_confirmed(self, key: Key) -> bool:
        """Whether its end is on record."""
        return key not in self._due

    def put_off(self, call: Call, by: EndedBy, seconds: float) -> None:
        """Have a call ended after a while."""
        key = (call.tenant, call.id)
        self.restore(call)
        known = self._calls[key]
        if known.ended_at is None:
            self._calls[key] = replace(known, ending=known.ending or by)
            self._schedule(key, self._clock() + seconds)

    def hasten(self, tenant: str) -> None:
        """A tenant was suspended: all its calls are due."""
        for call_id in self._open.get((tenant,), {}):
            call = self._calls.get((tenant, call_id))
            if call is not None and call.ending is None:
                self.put_off(call, "suspended", 0)

    def claim(self, most: int) -> tuple[Call, ...]:
        """Up to so many calls that are due, for `CLAIM_SECONDS`."""
        now, claimed = self._clock(), list[Call]()
        self._forget()
        while self._queue and self._queue[0][0] <= now and len(claimed) < most:
            at, key = heapq.heappop(self._queue)
            if self._due.get(key) != at:
                continue  # it has been scheduled anew since
            call = self._calls[key]
            if call.ended_at is None:
                call = replace(call, ending=call.reason_at(now), attempts=call.attempts + 1)
                self._calls[key] = call
            self._schedule(key, now + CLAIM_SECONDS)
            claimed.append(call)
        return tuple(claimed)

    def open_calls(self, tenant: str | None, user_key: str | None) -> Sequence[Call]:
        """Open calls, the first `LISTED`."""
        if tenant is None:
            keys = [(of[0], one) for of, ids in self._open.items() if len(of) == 1 for one in ids]
        elif user_key is None:
            keys = [(tenant, one) for one in self._open.get((tenant,), {})]
        else:
            keys = [(tenant, one) for one in self._open.get((tenant, user_key), {})]
        return [self._calls[key] for key in keys if key in self._calls][:LISTED]

    def tenant_of(self, call_id: str) -> str | None:
        """Whose open call this is."""
        return next((of[0] for of, ids in self._open.items() if call_id in ids), None)

    def count(self, tenant: str) -> int:
        """How many calls and slots a tenant has."""
        return len(self._open.get((tenant,), {}))

    def known(self) -> Sequence[Call]:
        """All calls, open and lately ended."""
        return tuple(self._calls.values())

    def _frees_in(self, tenant: str, ids: Iterable[str]) -> float:
        ends = (
            held.lapses_at if (held := self._held.get((tenant, one))) else self._calls[tenant, one].deadline
            for one in ids
        )
        return max(0.0, min(ends) - self._clock())

    def _enter(self, key: Key, user_key: str) -> None:
        tenant, one = key
        for of in ((tenant,), (tenant, user_key)):
            self._open.setdefault(of, {})[one] = None

    def _leave(self, key: Key, user_key: str, seconds: float) -> None:
        tenant, one = key
        for of in ((tenant,), (tenant, user_key)):
            ids = self._open.get(of, {})
            ids.pop(one, None)
            if not ids:
                self._open.pop(of, None)
        offer = self._offer_of.pop(key, None)
        if offer is not None and self._offers.get(offer) == one:
            del self._offers[offer]
        self._on_leave(key, seconds)

    def _remember_offer(self, key: Key, user_key: str, slot: Slot) -> None:
        offer = (key[0], user_key, slot.offer_digest)
        self._offers[offer] = key[1]
        self._offer_of[key] = offer

    def _schedule(self, key: Key, at: float) -> None:
        self._due[key] = at
        heapq.heappush(self._queue, (at, key))

    def _keep(self, key: Key, ended_at: float) -> None:
        heapq.heappush(self._kept_until, (ended_at + KEPT_SECONDS, key))

    def _forget(self) -> None:
        """Slots whose lease is over, and calls that were kept long enough."""
        now = self._clock()
        while self._leases and self._leases[0][0] <= now:
            self.drop(heapq.heappop(self._leases)[1])
        while self._kept_until and self._kept_until[0][0] <= now:
            key = heapq.heappop(self._kept_until)[1]
            self._calls.pop(key, None)
            self._due.pop(key, None)
