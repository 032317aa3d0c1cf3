"""The register of calls in memory: slots, open and lately ended calls, and when something is to be done about each.

Not for threads: the event loop alone calls it, so a step is atomic.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

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
from switchboard.ledger.agenda import Agenda

Key = tuple[str, str]
"""Tenant and id, of a call or of a slot."""


@dataclass(frozen=True, slots=True)
class Held:
    """A slot that no call has come of yet."""

    user_key: str
    lapses_at: float
    lease_seconds: float


class Register:
    """See the module.

    Args:
        clock: unix seconds.
        on_leave: told the key and the seconds used, when a call has ended or a slot came to nothing.
        hears_all: whether each heartbeat comes here; else that they stop says nothing, and only deadlines count.
    """

    def __init__(
        self, clock: Callable[[], float], on_leave: Callable[[Key, float], None], *, hears_all: bool = True
    ) -> None:
        self._clock = clock
        self._on_leave = on_leave
        self._hears_all = hears_all
        self._held: dict[Key, Held] = {}
        self._leases = Agenda[Key]()
        self._calls: dict[Key, Call] = {}
        # Open calls and slots of a tenant, and of a tenant's user: sets in the order of their start.
        self._open: dict[tuple[str, ...], dict[str, None]] = {}
        self._offers: dict[tuple[str, str, str], str] = {}
        self._offer_of: dict[Key, tuple[str, str, str]] = {}
        self._due = Agenda[Key]()
        self._unrecorded: set[Key] = set()
        self._kept = Agenda[Key]()

    def room_for(self, reservation: Reservation, slot: Slot) -> Full | Call | None:
        """None: there is room. A call: it has to be ended first, to make room or because it came of the same offer."""
        tenant, user = reservation.tenant, reservation.user_key
        self._forget()
        same = self._offers.get((tenant, user, slot.offer_digest), "")
        if (tenant, same) in self._held:
            return Full("offer", self._frees_in(tenant, [same]))
        if same:
            return self._calls[tenant, same]
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
        self._held[key] = Held(reservation.user_key, lapses_at, slot.lease_seconds)
        self._leases.set(key, lapses_at)
        self._enter(key, reservation.user_key)
        self._remember_offer(key, reservation.user_key, slot)

    def holds(self, key: Key) -> bool:
        """Whether a slot's lease goes on."""
        self._forget()
        return key in self._held

    def drop(self, key: Key) -> None:
        """A slot came to nothing."""
        if key in self._held:
            self._vacate(key)
            self._on_leave(key, 0.0)

    def bind(
        self, reservation: Reservation, slot: Slot, opening: Opening, call_seconds: float, *, suspended: bool
    ) -> Call:
        """Put a call in its slot's place. It is `ending` if its tenant is suspended or the slot's lease was over."""
        now, held, key = self._clock(), (reservation.tenant, slot.id), (reservation.tenant, opening.id)
        if key in self._calls:  # given up, or known from elsewhere, by a step that has overtaken this one
            self.drop(held)
            return self._calls[key]
        lapsed = not self.holds(held)
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
            ending="suspended" if suspended else "replaced" if lapsed else None,
        )
        if not lapsed:
            self._vacate(held)
        self.restore(call)
        if call.ending is None:
            self._remember_offer(key, call.user_key, slot)
        else:
            self._due.set(key, now + CLAIM_SECONDS)
        return call

    def restore(self, call: Call) -> None:
        """Enter an open call as it is told, unless it is known."""
        key = (call.tenant, call.id)
        if key not in self._calls:
            self._calls[key] = call
            self._enter(key, call.user_key)
            self._due.set(key, self._due_at(call))

    def learn(self, call: Call, *, behind: float) -> None:
        """Take over what another register has of a call. An end that is known here stays.

        Args:
            call: as it stands there.
            behind: seconds that the other register has for what is due, before it is due here.
        """
        key, now = (call.tenant, call.id), self._clock()
        if call.ended_at is not None:
            self.end(call, call.ended_by or "provider")
            return
        self.restore(call)
        if self._calls[key].ended_at is None:
            self._calls[key] = call
            self._due.set(key, behind + max(now, now if call.ending else self._due_at(call)))

    def find(self, key: Key) -> Call | None:
        """A call, open or lately ended."""
        return self._calls.get(key)

    def heard(self, key: Key) -> None:
        """A heartbeat."""
        call = self._calls.get(key)
        if call is not None and call.ended_at is None and call.ending is None:
            self._calls[key] = replace(call, heard_at=self._clock())
            self._due.set(key, self._due_at(self._calls[key]))

    def end(self, call: Call, by: EndedBy) -> Ending:
        """Mark a call as ended, once: now, or when it is told to have."""
        key, now = (call.tenant, call.id), self._clock()
        self.restore(replace(call, ended_at=None, ended_by=None))
        known = self._calls[key]
        if known.ended_at is not None:
            return Ending(known, is_ours=False)
        ended_at = max(known.started_at, round(call.ended_at or now, 3))  # clocks differ, and are set back
        ended = replace(known, ended_at=ended_at, ended_by=by)
        self._calls[key] = ended
        self._leave(key, ended.user_key)
        self._on_leave(key, ended.seconds)
        self._unrecorded.add(key)
        self._due.set(key, now + RECORD_SECONDS)
        self._kept.set(key, now + KEPT_SECONDS)
        return Ending(ended, is_ours=True)

    def confirm(self, key: Key) -> None:
        """Its end is on record."""
        if key in self._unrecorded:
            self._unrecorded.discard(key)
            self._due.discard(key)

    def is_confirmed(self, key: Key) -> bool:
        """Whether its end is on record."""
        return key not in self._unrecorded

    def leave_to_others(self, key: Key) -> None:
        """Its end is not to be put on record here."""
        self._due.discard(key)

    def put_off(self, call: Call, by: EndedBy, seconds: float) -> None:
        """Have a call ended after a while."""
        key = (call.tenant, call.id)
        self.restore(call)
        known = self._calls[key]
        if known.ended_at is None:
            self._calls[key] = replace(known, ending=known.ending or by)
            self._due.set(key, self._clock() + seconds)

    def hasten(self, tenant: str) -> None:
        """A tenant was suspended: all its calls are due."""
        for call_id in self._open.get((tenant,), {}):
            call = self._calls.get((tenant, call_id))
            if call is not None and call.ending is None:
                self.put_off(call, "suspended", 0)

    def overdue(self, most: int) -> tuple[Call, ...]:
        """Up to so many calls that are due, as they stand. They are not told again for `CLAIM_SECONDS`."""
        self._forget()
        now, found = self._clock(), list[Call]()
        while len(found) < most and (key := self._due.take(now)):
            self._due.set(key, now + CLAIM_SECONDS)
            found.append(self._calls[key])
        return tuple(found)

    def claim(self, most: int) -> tuple[Call, ...]:
        """`overdue`, to end those that are open."""
        now, claimed = self._clock(), list[Call]()
        for call in self.overdue(most):
            if call.ended_at is None:
                claimed.append(replace(call, ending=call.reason_at(now), attempts=call.attempts + 1))
                self._calls[call.tenant, call.id] = claimed[-1]
            else:
                claimed.append(call)
        return tuple(claimed)

    def open_calls(self, tenant: str | None, user_key: str | None) -> Sequence[Call]:
        """Open calls, the first `LISTED`."""
        if tenant is None:
            keys = ((of[0], one) for of, ids in self._open.items() if len(of) == 1 for one in ids)
        else:
            of = (tenant,) if user_key is None else (tenant, user_key)
            keys = ((tenant, one) for one in self._open.get(of, {}))
        return list(islice((self._calls[key] for key in keys if key in self._calls), LISTED))

    def tenant_of(self, call_id: str) -> str | None:
        """Whose open call this is."""
        return next((key[0] for key, call in self._calls.items() if key[1] == call_id and call.ended_at is None), None)

    def count(self, tenant: str) -> int:
        """How many calls and slots a tenant has."""
        return len(self._open.get((tenant,), {}))

    def known(self) -> Sequence[Call]:
        """All calls, open and lately ended."""
        return tuple(self._calls.values())

    def _due_at(self, call: Call) -> float:
        return call.due_at if self._hears_all else call.deadline

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

    def _vacate(self, key: Key) -> None:
        self._leave(key, self._held.pop(key).user_key)
        self._leases.discard(key)

    def _leave(self, key: Key, user_key: str) -> None:
        tenant, one = key
        for of in ((tenant,), (tenant, user_key)):
            ids = self._open.get(of, {})
            ids.pop(one, None)
            if not ids:
                self._open.pop(of, None)
        offer = self._offer_of.pop(key, None)
        if offer is not None and self._offers.get(offer) == one:
            del self._offers[offer]

    def _remember_offer(self, key: Key, user_key: str, slot: Slot) -> None:
        offer = (key[0], user_key, slot.offer_digest)
        self._offers[offer] = key[1]
        self._offer_of[key] = offer

    def _forget(self) -> None:
        """Slots whose lease is over, and calls that were kept long enough."""
        now = self._clock()
        while key := self._leases.take(now):
            lease_seconds = self._held[key].lease_seconds
            self._vacate(key)
            self._on_leave(key, lease_seconds)  # nobody knows what came of it, so it counts as long as it was held
        while key := self._kept.take(now):
            del self._calls[key]
            self._due.discard(key)
            self._unrecorded.discard(key)
