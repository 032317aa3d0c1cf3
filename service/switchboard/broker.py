"""Mint · relay · hang up: the product on one screen. Data goes one way: admit → provider → evidence → answer."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from switchboard.admission import Admission, Admitted, Identified, Policies, Policy
from switchboard.audit import Audit, Caller, Event
from switchboard.calls import MAX_SECONDS, Call, is_call_id
from switchboard.errors import (
    CallerGone,
    CallNotFound,
    Degraded,
    InvalidRequest,
    ProviderError,
    ProviderUnavailable,
    Refusal,
)
from switchboard.grants import Grants
from switchboard.ledger import Ending, Ledger, Reservation
from switchboard.presets import Session, excerpt
from switchboard.providers import Opened
from switchboard.ratelimit import UNLIMITED, Standing
from switchboard.reports import Report
from switchboard.sdp import check_offer

MIN_TTL = 10  # seconds; the provider mints nothing shorter
CLOCK_MARGIN = 120  # seconds that a used grant is remembered beyond its end, for replicas whose clocks are behind


async def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks of /token: a preset, overrides, a lifetime in seconds; each may be left out."""

    preset: str | None = None
    session: Session = field(default_factory=dict)
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a caller posts to /sdp: the browser's SDP, and which session it is for."""

    sdp: bytes
    preset: str | None = None
    session: Session = field(default_factory=dict)
    dcid: int | None = None
    caller_gone: Callable[[], Awaitable[bool]] = field(default=_never)
    """Whether the caller has gone away meanwhile: nobody would hear the answer."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What /token hands out: the provider's client secret or a grant, until when (unix seconds), where to use it."""

    value: str
    expires_at: int
    session: Mapping[str, Any]
    calls_url: str
    standing: Standing = UNLIMITED


@dataclass(frozen=True, slots=True)
class Answer:
    """What /sdp hands out: the provider's SDP answer and the call's id."""

    call_id: str
    sdp: bytes
    standing: Standing = UNLIMITED


class Broker:
    """The service's use cases. Collaborators are injected; `clock` gives unix seconds."""

    def __init__(
        self,
        *,
        policies: Policies,
        admission: Admission,
        grants: Grants,
        ledger: Ledger,
        audit: Audit,
        on_report: Callable[[str, Report], None],
        public_url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policies = policies
        self._admission = admission
        self._grants = grants
        self._ledger = ledger
        self._audit = audit
        self._on_report = on_report
        self._public_url = public_url.rstrip("/")
        self._clock = clock

    async def mint(self, caller: Caller, wish: Wish) -> Credential:
        """A credential for one call: the provider's own (`direct`) or a grant of ours (`relay`).

        Raises:
            Refusal: why not; it is on record.
        """
        policy = self._policies.current
        async with self._audit.record("token.mint", caller) as event:
            admitted = await self._admission.admit(
                policy, caller, event, preset_name=wish.preset, wanted=wish.session, by_grant="no"
            )
            standing = await self._charge(event, self._reservation(admitted))
            seconds = max(MIN_TTL, min(admitted.preset.token_ttl, wish.seconds or admitted.preset.token_ttl))
            with standing.shown():
                if admitted.preset.delivery == "relay":
                    credential = self._grant(admitted, wish.session, seconds)
                else:
                    credential = await self._client_secret(admitted, event, caller, seconds)
            event.credential_sha256 = hashlib.sha256(credential.value.encode()).hexdigest()
            event.expires_at = credential.expires_at
        return replace(credential, standing=standing)

    async def relay(self, caller: Caller, offer: Offer) -> Answer:
        """Open a call with the caller's offer.

        Raises:
            Refusal: why not; it is on record, and no call stays open behind it.
        """
        policy = self._policies.current
        async with self._audit.record("call.open", caller) as event:
            admitted = await self._admission.admit(
                policy, caller, event, preset_name=offer.preset, wanted=offer.session, by_grant="valid"
            )
            _check_relayable(admitted.tailored.session)
            check_offer(offer.sdp)
            reservation = self._reservation(admitted)
            standing = await self._charge(event, reservation)
            with standing.shown():
                opened = await self._open(admitted, reservation, offer, caller.request_id)
                call = self._call(admitted, opened)
                event.call_id, event.provider_request_id = call.id, opened.provider_request_id
                event.undo = lambda: self._abandon(policy, call, caller.request_id)
                await self._ledger.bind(call)
                if await offer.caller_gone():
                    raise CallerGone
        return Answer(call.id, opened.answer, standing)

    async def look_up(self, caller: Caller, call_id: str) -> Call:
        """The caller's own call.

        Raises:
            CallNotFound: there is none of theirs with this id.
            Unauthorized, Forbidden: why they may not ask.
        """
        return (await self._own_call(self._policies.current, caller, call_id, None))[1]

    async def report(self, caller: Caller, call_id: str | None, report: Report) -> None:
        """Take what a browser saw of its call, or of one that it opened with a client secret.

        Raises:
            CallNotFound: there is no call of theirs with this id.
            Unauthorized, Forbidden: why they may not report.
        """
        policy = self._policies.current
        if call_id is None:
            identified = await self._admission.identify(policy, caller, by_grant="valid")
        else:
            identified, _ = await self._own_call(policy, caller, call_id, None)
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
            event.call_id, event.preset, event.provider = call.id, call.preset, call.provider
            ending = Ending(call, is_ours=False)
            if call.ended_at is None:
                await self._hang_up(policy, call, caller.request_id)
                ending = await self._ledger.end(call.tenant, call.id, by="owner") or Ending(call, is_ours=True)
            if ending.is_ours:
                event.seconds = round((ending.call.ended_at or self._clock()) - call.started_at, 3)
            else:
                event.reason = "already_ended"  # a call ends once, and its seconds count once
        return ending.call

    def _grant(self, admitted: Admitted, wanted: Session, seconds: int) -> Credential:
        caller = admitted.caller
        carried = {
            name: caller.principal.claims[name] for name in caller.tenant.claims_in_use & caller.principal.claims.keys()
        }
        value, grant = self._grants.issue(
            replace(caller.principal, claims=carried),
            preset=admitted.preset.name,
            wanted=wanted,
            seconds=seconds,
        )
        return Credential(value, grant.expires_at, excerpt(admitted.tailored.session), f"{self._public_url}/sdp")

    async def _client_secret(self, admitted: Admitted, event: Event, caller: Caller, seconds: int) -> Credential:
        minted = await admitted.provider.mint(
            admitted.tailored.session,
            seconds=seconds,
            safety_identifier=admitted.caller.user_key,
            request_id=caller.request_id,
        )
        event.provider_request_id = minted.provider_request_id
        return Credential(minted.value, minted.expires_at, excerpt(minted.session), admitted.provider.calls_url)

    async def _open(self, admitted: Admitted, reservation: Reservation, offer: Offer, request_id: str) -> Opened:
        opening = asyncio.ensure_future(
            admitted.provider.open_call(
                offer.sdp,
                admitted.tailored.session,
                safety_identifier=admitted.caller.user_key,
                dcid=offer.dcid,
                request_id=request_id,
            )
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # An offer that was sent is finished (its time is bounded), so that its call can be hung up.
            with contextlib.suppress(Refusal):
                opened = await opening
                await admitted.provider.hang_up(opened.call_id, key_name=opened.key_name, request_id=request_id)
            raise
        except Refusal as refusal:
            if refusal.untried:
                with contextlib.suppress(Degraded):  # then the grant's mark ends by itself
                    await self._ledger.release(reservation)
            raise

    def _reservation(self, admitted: Admitted) -> Reservation:
        """What is to be charged: a grant has paid at /token, and is good for one call."""
        caller, grant = admitted.caller, admitted.caller.grant
        limits = caller.tenant.limits_for(caller.principal.claims)
        return Reservation(
            tenant=caller.tenant.name,
            user_key=caller.user_key,
            quotas=() if grant else limits.quotas,
            enforce=not limits.shadow,
            grant_id=grant.id if grant else None,
            grant_seconds=grant.expires_at - self._clock() + CLOCK_MARGIN if grant else 0,
        )

    async def _charge(self, event: Event, reservation: Reservation) -> Standing:
        """Charge the quotas; gives what the caller is told of them.

        Raises:
            RateLimited: the request does not fit into one of them, and has been charged to none.
        """
        standing = await self._ledger.reserve(reservation)
        event.standing = standing
        if standing.exceeded and reservation.enforce:
            raise standing.refusal()
        event.shadow = tuple(window.quota.name for window in standing.exceeded)
        return standing if reservation.enforce else UNLIMITED

    def _call(self, admitted: Admitted, opened: Opened) -> Call:
        caller, now = admitted.caller, round(self._clock(), 3)
        return Call(
            id=opened.call_id,
            tenant=caller.tenant.name,
            user_key=caller.user_key,
            preset=admitted.preset.name,
            provider=caller.tenant.provider,
            key_name=opened.key_name,
            started_at=now,
            deadline=now + MAX_SECONDS,
            grant_id=caller.grant.id if caller.grant else None,
        )

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
        return identified, call

    async def _hang_up(self, policy: Policy, call: Call, request_id: str) -> None:
        provider = policy.providers.get(call.provider)
        if provider is None:
            raise ProviderUnavailable
        await provider.hang_up(call.id, key_name=call.key_name, request_id=request_id)

    async def _abandon(self, policy: Policy, call: Call, request_id: str) -> None:
        """Nobody will hear of this call; if the provider cannot be told now, the answer is lost all the same."""
        with contextlib.suppress(ProviderError, Degraded):
            await self._hang_up(policy, call, request_id)
            await self._ledger.end(call.tenant, call.id, by="admin")


def _check_relayable(session: Session) -> None:
    """The provider takes a transcription session through a client secret alone."""
    if session.get("type") != "realtime":
        detail = "This preset transcribes: get its token from /token and post the offer to `calls_url`."
        raise InvalidRequest(detail, param="preset")
