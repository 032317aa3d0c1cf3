"""Mint · relay · hang up: the product on one screen. Data goes one way: admit → provider → evidence → answer."""

import asyncio
import contextlib
import hashlib
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any

from switchboard.admission import Admission, Admitted, Identified, Policies, Policy
from switchboard.audit import Audit, Caller, Event
from switchboard.calls import Call, Opening, is_call_id
from switchboard.errors import (
    AuditUnavailable,
    CallerGone,
    CallNotFound,
    Degraded,
    GrantExpired,
    ProviderError,
    ProviderUnavailable,
    Refusal,
    TenantSuspended,
    TooManyCalls,
)
from switchboard.grants import Grants
from switchboard.leash import HANGUP_SECONDS, Leash, describe, describe_end
from switchboard.ledger import Ending, Full, Ledger, Reservation, Reserved, Slot
from switchboard.presets import Asked, Preset, excerpt
from switchboard.providers import Opened
from switchboard.ratelimit import UNLIMITED, Standing
from switchboard.reports import Report
from switchboard.sdp import check_offer
from switchboard.values import light_dataclass
from switchboard.waiting import Waits

MIN_TTL = 10  # seconds; the provider mints nothing shorter
CLOCK_MARGIN = 120  # seconds that a used grant is remembered beyond its end, for replicas whose clocks are behind
GRANT_KEPT = 60  # seconds after its call's end that a grant may still ask about it
NO_ID = "The voice provider gives its calls no id, and the preset allows none that nobody can end."
REPLACED_AT_MOST = 3  # calls that make room for one; more only if a cap was lowered


async def _never() -> bool:
    return False


@light_dataclass(frozen=True, slots=True)
class Wish(Asked):
    """What a caller asks of /token: a session, and a lifetime in seconds; each may be left out."""

    seconds: int | None = None
    caller_gone: Callable[[], Awaitable[bool]] = field(default=_never)
    """Whether the caller has gone away meanwhile: nobody would use the secret."""


@light_dataclass(frozen=True, slots=True)
class Offer(Asked):
    """What a caller posts to /sdp: the browser's SDP, and which session it is for."""

    sdp: bytes
    dcid: int | None = None
    caller_gone: Callable[[], Awaitable[bool]] = field(default=_never)
    """Whether the caller has gone away meanwhile: nobody would hear the answer."""


@light_dataclass(frozen=True, slots=True)
class Credential:
    """What /token hands out: the provider's client secret or a grant, until when (unix seconds), where to use it."""

    value: str
    expires_at: int
    session: Mapping[str, Any]
    calls_url: str
    standing: Standing = UNLIMITED
    dropped: tuple[str, ...] = ()
    """What the caller asked for in vain, as far as that does no harm."""


@light_dataclass(frozen=True, slots=True)
class Answer:
    """What /sdp hands out: the provider's SDP answer and the call's id, if the provider gives its calls one."""

    call_id: str | None
    sdp: bytes
    standing: Standing = UNLIMITED
    dropped: tuple[str, ...] = ()


class Broker:
    """The service's use cases. Collaborators are injected.

    Args:
        lease_seconds: for how long a slot is held while the provider is asked; longer than that can take.
        clock: unix seconds, the same for all replicas.
    """

    def __init__(
        self,
        *,
        policies: Policies,
        admission: Admission,
        grants: Grants,
        ledger: Ledger,
        leash: Leash,
        waits: Waits,
        audit: Audit,
        on_report: Callable[[str, Report], None],
        public_url: str,
        lease_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policies = policies
        self._admission = admission
        self._grants = grants
        self._ledger = ledger
        self._leash = leash
        self._waits = waits
        self._lease_seconds = lease_seconds
        self._audit = audit
        self._on_report = on_report
        self._public_url = public_url.rstrip("/")
        self._clock = clock

    async def mint(self, caller: Caller, wish: Wish) -> Credential:
        """A credential for one call: the provider's own (`direct`) or a grant of ours (`relay`).

        Raises:
            Refusal: why not; it is on record.
            CallerGone: nobody waits for it any longer, so the provider was not waited for either; it is on record.
        """
        policy = self._policies.current
        async with self._audit.record("token.mint", caller) as event:
            admitted = await self._admission.admit(policy, caller, event, wish, by_grant="no")
            if admitted.preset.delivery == "direct":
                admitted.provider.check_available()
            standing = (await self._reserve(event, caller, self._reservation(admitted))).standing
            seconds = max(MIN_TTL, min(admitted.preset.token_ttl, wish.seconds or admitted.preset.token_ttl))
            with standing.shown():
                if admitted.preset.delivery == "relay":
                    credential = self._grant(admitted, caller.origin, seconds, standing)
                else:
                    with self._waits.while_awaited(wish.caller_gone):
                        credential = await self._client_secret(admitted, event, caller, seconds, standing)
            event.credential_sha256 = hashlib.sha256(credential.value.encode()).hexdigest()
            event.expires_at = credential.expires_at
        return credential

    async def relay(self, caller: Caller, offer: Offer) -> Answer:
        """Open a call with the caller's offer.

        Raises:
            Refusal: why not; it is on record, and no call stays open behind it.
        """
        policy = self._policies.current
        async with self._audit.record("call.open", caller) as event:
            admitted = await self._admission.admit(policy, caller, event, offer, by_grant="valid")
            check_offer(offer.sdp)
            admitted.provider.check_available()  # before an earlier call has to make room
            reservation = self._reservation(admitted, offer.sdp)
            reserved = await self._reserve(event, caller, reservation)
            with reserved.standing.shown():
                opened = await self._open(admitted, reservation, offer, event, caller)
                event.call_id, event.provider_request_id = opened.call_id, opened.provider_request_id
                opening = _opening(admitted, opened.call_id, opened.key_name)
                if opening is None:
                    self._let_go(admitted.preset, reservation, event)
                else:
                    await self._bind(opening, reservation, reserved.call_seconds, event, caller)
                if await offer.caller_gone():
                    raise CallerGone
        return Answer(opened.call_id, opened.answer, reserved.standing, admitted.tailored.dropped)

    async def calls(self, caller: Caller) -> Sequence[Call]:
        """The caller's open calls, the earliest first.

        Raises:
            Unauthorized, Forbidden: why they may not ask.
        """
        identified = await self._admission.identify(self._policies.current, caller, by_grant="no")
        return await self._ledger.open_calls(identified.tenant.name, identified.user_key)

    async def look_up(self, caller: Caller, call_id: str) -> Call:
        """The caller's own call.

        Raises:
            CallNotFound: there is none of theirs with this id.
            Unauthorized, Forbidden: why they may not ask.
        """
        return (await self._own_call(self._policies.current, caller, call_id, None))[1]

    async def report(self, caller: Caller, call_id: str | None, report: Report) -> None:
        """Take what a browser saw of its call, or of one that it opened with a client secret. `alive` is a heartbeat.

        Raises:
            CallNotFound: there is no call of theirs with this id.
            Unauthorized, Forbidden: why they may not report.
        """
        policy = self._policies.current
        if call_id is None:
            identified = await self._admission.identify(policy, caller, by_grant="valid")
        else:
            identified, call = await self._own_call(policy, caller, call_id, None)
            if report.event == "alive":
                await self._ledger.heard(call.tenant, call.id)
        self._on_report(identified.tenant.name, report)

    async def hang_up(self, caller: Caller, call_id: str) -> Call:
        """End the caller's own call; a call that is over stays as it ended.

        Raises:
            CallNotFound: there is none of theirs with this id.
            Refusal: any other reason why not.
        """
        policy = self._policies.current
        async with self._audit.record("call.end", caller) as event:
            _, call = await self._own_call(policy, caller, call_id, event)
            # Not before: what stands in the path may be anything, a credential by mistake included.
            describe(event, call)
            ending = Ending(call, is_ours=False)
            if call.ended_at is None:
                ending = await self._leash.hang_up(call, "owner", request_id=caller.request_id)
            if ending.is_ours:
                describe_end(event, ending.call)
            else:
                event.reason = "already_ended"  # a call ends once, and its seconds count once
        if ending.is_ours:
            await self._ledger.confirm(ending.call)
        return ending.call

    def _grant(self, admitted: Admitted, origin: str | None, seconds: int, standing: Standing) -> Credential:
        caller = admitted.caller
        carried = {
            name: caller.principal.claims[name] for name in caller.tenant.claims_in_use & caller.principal.claims.keys()
        }
        value, grant = self._grants.issue(
            replace(caller.principal, claims=carried),
            preset=admitted.preset.name,
            wanted=admitted.tailored.chosen,
            seconds=seconds,
            origin=origin,
        )
        session, dropped = excerpt(admitted.tailored.session), admitted.tailored.dropped
        return Credential(value, grant.expires_at, session, f"{self._public_url}/sdp", standing, dropped)

    async def _client_secret(
        self, admitted: Admitted, event: Event, caller: Caller, seconds: int, standing: Standing
    ) -> Credential:
        minted = await admitted.provider.mint(
            admitted.tailored.session,
            seconds=seconds,
            safety_identifier=admitted.caller.user_key,
            request_id=caller.request_id,
        )
        event.provider_request_id = minted.provider_request_id
        session, dropped = excerpt(minted.session), admitted.tailored.dropped
        return Credential(minted.value, minted.expires_at, session, minted.calls_url, standing, dropped)

    async def _open(
        self, admitted: Admitted, reservation: Reservation, offer: Offer, event: Event, caller: Caller
    ) -> Opened:
        opening = asyncio.ensure_future(
            admitted.provider.open_call(
                offer.sdp,
                admitted.tailored.session,
                safety_identifier=admitted.caller.user_key,
                dcid=offer.dcid,
                hide_instructions=admitted.preset.hide_instructions,
                request_id=caller.request_id,
            )
        )
        try:
            return await asyncio.shield(opening)
        except BaseException:
            # An offer that was sent is finished (its time is bounded), so that its call can be hung up.
            await _finished(opening)
            left_behind, untried = _outcome(admitted, opening)
            if left_behind is None:
                await self._ledger.release(reservation, untried=untried)
            else:
                event.call_id = left_behind.id
                call = self._unbound(reservation, left_behind)
                event.undo = partial(self._abandon, event, caller, call, reservation)
            raise

    async def _bind(
        self, opening: Opening, reservation: Reservation, seconds: float, event: Event, caller: Caller
    ) -> None:
        """Put the call in its slot's place.

        Raises:
            TenantSuspended, Degraded: it must not stand.
        """
        event.undo = partial(self._abandon, event, caller, self._unbound(reservation, opening), reservation)
        call = await self._ledger.bind(reservation, opening, seconds)
        event.undo = partial(self._abandon, event, caller, call, None)
        if call.ending is not None:
            raise TenantSuspended if call.ending == "suspended" else Degraded(retry_after=1)

    def _let_go(self, preset: Preset, reservation: Reservation, event: Event) -> None:
        """A call without an id: nobody can end it or learn of its end, so its slot stays until it lapses.

        Raises:
            ProviderUnavailable: the preset does not allow that; the provider drops a call that is not answered.
        """
        event.undo = partial(self._ledger.release, reservation, untried=False)
        if not preset.unleashed:
            raise ProviderUnavailable(NO_ID)

    def _reservation(self, admitted: Admitted, offer: bytes | None = None) -> Reservation:
        """What is to be charged: a grant has paid at /token, and is good for one call; an offer needs a slot."""
        caller, grant = admitted.caller, admitted.caller.grant
        limits = caller.tenant.limits_for(caller.principal.claims)
        slot = None
        if offer is not None:
            slot = Slot(
                id=os.urandom(8).hex(),
                offer_digest=hashlib.sha256(offer).hexdigest(),
                # Without an id it is all that ever stands for the call.
                lease_seconds=max(self._lease_seconds, limits.call_seconds if admitted.preset.unleashed else 0),
                call_seconds=limits.call_seconds,
                idle_seconds=limits.idle_seconds,
                minutes=limits.minutes,
                user_calls=limits.user_calls,
                tenant_calls=limits.tenant_calls,
                replace=limits.replace,
                needs_register=limits.leashed and not (limits.shadow or caller.tenant.calls_without_register),
            )
        return Reservation(
            tenant=caller.tenant.name,
            user_key=caller.user_key,
            quotas=() if grant else limits.quotas,
            enforce=not limits.shadow,
            grant_id=grant.id if grant else None,
            grant_seconds=grant.expires_at - self._clock() + CLOCK_MARGIN if grant else 0,
            slot=slot,
        )

    async def _reserve(self, event: Event, caller: Caller, reservation: Reservation) -> Reserved:
        """Charge and hold what a reservation asks for; its standing is what the caller is told.

        Raises:
            RateLimited, TooManyCalls: it does not fit, and nothing has been charged.
            Degraded: a call that was to make room could not be ended.
        """
        reserved = await self._ledger.reserve(reservation)
        end = self._clock() + HANGUP_SECONDS
        for _ in range(REPLACED_AT_MOST):
            if reserved.replace is not None:
                await self._make_room(reserved.replace, caller, end - self._clock())
                reserved = await self._ledger.reserve(reservation)
        event.standing = reserved.standing
        if reserved.replace is not None:
            raise TooManyCalls("Other offers of yours took the room that was made; try again in 1 s.", retry_after=1)
        if reserved.full is not None and (reservation.enforce or reserved.full.which == "offer"):
            raise _too_many(reserved.full)
        if reserved.standing.exceeded and reservation.enforce:
            raise reserved.standing.refusal()
        event.shadow = tuple(window.quota.name for window in reserved.standing.exceeded)
        if reserved.full is not None:
            event.shadow += (f"{reserved.full.which}-open-calls",)
        return reserved if reservation.enforce else replace(reserved, standing=UNLIMITED)

    async def _make_room(self, call: Call, caller: Caller, seconds: float) -> None:
        try:
            await self._leash.finish(call, "replaced", caller, seconds=seconds)
        except ProviderError:
            raise _no_room() from None

    async def _own_call(
        self, policy: Policy, caller: Caller, call_id: str, event: Event | None
    ) -> tuple[Identified, Call]:
        identified = await self._admission.identify(policy, caller, event, by_grant="even expired")
        call = await self._ledger.find(identified.tenant.name, call_id) if is_call_id(call_id) else None
        grant = identified.grant
        if call is None or (call.tenant, call.user_key) != (identified.tenant.name, identified.user_key):
            raise CallNotFound
        if grant is not None and grant.id != call.grant_id:
            raise CallNotFound
        if grant is not None and call.ended_at is not None and self._clock() > call.ended_at + GRANT_KEPT:
            raise GrantExpired("This grant's call has ended; ask with the user's own token.")
        return identified, call

    def _unbound(self, reservation: Reservation, opening: Opening) -> Call:
        """A call that is not in the register yet, as it has to be known to be ended."""
        now = self._clock()
        return Call(
            id=opening.id,
            tenant=reservation.tenant,
            issuer=opening.issuer,
            user_key=reservation.user_key,
            preset=opening.preset,
            provider=opening.provider,
            key_name=opening.key_name,
            started_at=now,
            deadline=now,
            grant_id=reservation.grant_id,
        )

    async def _abandon(self, event: Event, caller: Caller, call: Call, held: Reservation | None) -> None:
        """Nobody will hear of this call. Where it cannot be ended or recorded now, a sweeper will."""
        by = call.ending or ("owner" if event.reason in (CallerGone.code, "cancelled") else "admin")
        with contextlib.suppress(ProviderError, AuditUnavailable):
            await self._leash.finish(call, by, caller)
        if held is not None:
            await self._ledger.release(held, untried=False)


def _opening(admitted: Admitted, call_id: str | None, key_name: str) -> Opening | None:
    caller = admitted.caller
    return (
        None
        if call_id is None
        else Opening(
            id=call_id,
            issuer=caller.principal.issuer,
            preset=admitted.preset.name,
            provider=caller.tenant.provider,
            key_name=key_name,
        )
    )


async def _finished(opening: asyncio.Future[Opened]) -> None:
    """Wait for it, however often this request is cancelled meanwhile."""
    while not opening.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([opening])


def _outcome(admitted: Admitted, opening: asyncio.Future[Opened]) -> tuple[Opening | None, bool]:
    """The call that came of an offer that nobody will hear of; and whether the provider certainly did nothing."""
    if opening.cancelled():  # by who closes the event loop
        return None, False
    error = opening.exception()
    if error is None:
        return _opening(admitted, opening.result().call_id, opening.result().key_name), False
    if isinstance(error, ProviderError) and error.call_id is not None and error.key_name is not None:
        return _opening(admitted, error.call_id, error.key_name), False
    return None, isinstance(error, Refusal) and error.untried


def _too_many(full: Full) -> TooManyCalls:
    seconds = max(1, math.ceil(full.frees_in))
    what = {
        "user": "As many of your calls are open as may be",
        "tenant": "As many calls of this tenant are open as may be",
        "offer": "This very offer is being opened already",
    }[full.which]
    return TooManyCalls(f"{what}; room is made in {seconds} s at the latest.", retry_after=seconds)


def _no_room() -> Degraded:
    return Degraded("Your earlier call has to be ended first, and could not be; try again in a moment.", retry_after=2)
