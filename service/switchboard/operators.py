"""What operators do at run time: list calls, hang one up, stop a tenant and let it go on. Each is on record."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import Self

from switchboard.admission import KillSwitch, Policies
from switchboard.audit import Action, Audit, Caller, Event
from switchboard.calls import Call, is_call_id
from switchboard.errors import (
    AuditUnavailable,
    CallNotFound,
    Degraded,
    InvalidToken,
    MissingToken,
    NotFound,
    ProviderError,
    TenantSuspended,
)
from switchboard.leash import Leash, describe
from switchboard.ledger import LISTED, Ledger
from switchboard.tenants import is_tenant_name

AWAY = (
    "The register that all replicas share (Redis) does not answer, so nothing can be looked up or stored there;"
    " /readyz says why. To stop a tenant without it, write `suspended: true` in the policy."
)
UNCONFIRMED = (
    "The provider did not confirm that the call is over. The service goes on trying until it does; the call shows"
    " `ending` until then."
)
UNRECORDED = (
    "This could not be put on record. What takes something away is done all the same, unless the token was not right:"
    " look at GET /admin/calls, and ask again, so that it is on record."
)
BY_POLICY = (
    "This tenant is suspended by the policy, which is not changed at run time: take `suspended: true` out of it. If"
    " an operator has suspended it as well, resume it then."
)


@dataclass(frozen=True, slots=True)
class AdminToken:
    """Knows the operators' token when it sees it, and holds its SHA-256 only."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, token: str) -> Self:
        """The token itself."""
        return cls(_sha256(token))

    def check(self, unverified_token: str | None) -> None:
        """Takes as long whatever is presented, because two digests are compared.

        Raises:
            MissingToken: nothing was presented.
            InvalidToken: something else was.
        """
        if unverified_token is None:
            raise MissingToken("Send the operators' token as `Authorization: Bearer <SWITCHBOARD_ADMIN_TOKEN>`.")
        if not hmac.compare_digest(_sha256(unverified_token), self.digest):
            raise InvalidToken("This is not the operators' token, SWITCHBOARD_ADMIN_TOKEN.")


@dataclass(frozen=True, slots=True)
class TenantState:
    """Whether a tenant is served, and how many calls it has: those that are being opened count as well."""

    tenant: str
    suspended: bool
    suspended_by_policy: bool
    open_calls: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Open calls as the register has them at a moment (unix seconds of its clock), and who is suspended."""

    now: float
    calls: Sequence[Call]
    """The first `LISTED`."""
    open_calls: int
    """How many there are; those that are being opened count as well."""
    suspended: Sequence[TenantState]

    @property
    def cut(self) -> bool:
        """Whether there are more calls than are listed."""
        return self.open_calls > LISTED


class Operators:
    """The operators' use cases. Collaborators are injected.

    Args:
        admin_token: what an operator has to present; one who presents another one is on record as well.
        policies: who is a tenant, and whom the policy suspends.
        ledger: the register of calls, and where the kill switch is kept.
        leash: ends calls.
        audit: where each deed is recorded.
        kill_switch: who is suspended at run time, as this process knows.
        clock: unix seconds of the register.
    """

    def __init__(
        self,
        *,
        admin_token: AdminToken,
        policies: Policies,
        ledger: Ledger,
        leash: Leash,
        audit: Audit,
        kill_switch: KillSwitch,
        clock: Callable[[], float],
    ) -> None:
        self._admin_token = admin_token
        self._policies = policies
        self._ledger = ledger
        self._leash = leash
        self._audit = audit
        self._kill_switch = kill_switch
        self._clock = clock

    async def list_calls(self, caller: Caller, tenant: str | None = None) -> Listing:
        """Open calls of a tenant or of all, and who is suspended.

        Raises:
            MissingToken, InvalidToken: the caller is no operator.
            NotFound: there is no such tenant.
            Degraded: the register is away.
        """
        async with self._decision("admin.calls", caller) as event:
            if tenant is not None:
                await self._state_of(tenant, event)
            calls = await self._ledger.open_calls(tenant)
            counts = await self._counts(self._tenants(calls) if tenant is None else [tenant])
            states = [self._state(name, count) for name, count in counts.items()]
        return Listing(self._clock(), calls, sum(counts.values()), [state for state in states if state.suspended])

    async def hang_up(self, caller: Caller, call_id: str, tenant: str | None = None) -> Call:
        """End a call, whoever's it is; one that is over stays as it ended.

        Args:
            caller: who asks.
            call_id: the provider's.
            tenant: whose call it is, if that is known: it need not be searched for then.

        Raises:
            MissingToken, InvalidToken: the caller is no operator.
            CallNotFound: there is no such call, and was none within the last hour.
            ProviderError: the provider did not confirm it; the sweepers go on trying.
            Degraded: the register is away.
        """
        async with self._decision("admin.hang_up", caller) as event:
            call = await self._find(call_id, tenant)
            # Not before: what stands in the path may be anything, a credential by mistake included.
            describe(event, call)
            if call.ended_at is not None:
                event.reason = "already_ended"
                return call
            try:
                ending = await self._leash.finish(call, "admin", caller)
            except ProviderError as error:
                error.detail = UNCONFIRMED
                raise
            if not ending.is_ours:
                event.reason = "already_ended"
        return ending.call

    async def suspend(self, caller: Caller, tenant: str) -> TenantState:
        """Refuse a tenant from now on, here and within a second everywhere, and have its calls hung up.

        Raises:
            MissingToken, InvalidToken: the caller is no operator.
            NotFound: there is no such tenant.
            Degraded: it cannot be stored, so the other replicas would not hear of it.
        """
        async with self._decision("admin.suspend", caller) as event:
            state = await self._state_of(tenant, event)
            await self._switch(tenant, suspended=True)
        return replace(state, suspended=True)

    async def resume(self, caller: Caller, tenant: str) -> TenantState:
        """Serve a tenant again that an operator has suspended. Calls that were to be hung up still are.

        Raises:
            MissingToken, InvalidToken: the caller is no operator.
            NotFound: there is no such tenant.
            TenantSuspended: by the policy, so that this would change nothing.
            Degraded: it cannot be stored.
        """
        async with self._decision("admin.resume", caller) as event:
            state = await self._state_of(tenant, event)
            if state.suspended_by_policy:
                raise TenantSuspended(BY_POLICY, param="tenant")
            await self._switch(tenant, suspended=False)
            if state.suspended:
                event.undo = partial(self._switch, tenant, suspended=True)
        return replace(state, suspended=False)

    @asynccontextmanager
    async def _decision(self, action: Action, caller: Caller) -> AsyncIterator[Event]:
        """A record that begins with the question who asks."""
        try:
            async with self._audit.record(action, caller) as event:
                self._admin_token.check(caller.unverified_token)
                yield event
        except Degraded as error:
            raise Degraded(AWAY, retry_after=error.retry_after) from None
        except AuditUnavailable as error:
            if action in ("admin.hang_up", "admin.suspend"):
                raise AuditUnavailable(UNRECORDED, retry_after=error.retry_after) from None
            raise

    async def _find(self, call_id: str, tenant: str | None) -> Call:
        """An open call by its id; one that has ended stands under its tenant only."""
        if is_call_id(call_id):
            found_at = await self._ledger.tenant_of(call_id) if tenant is None else tenant
            for name in self._policies.current.tenants if found_at is None else (found_at,):
                call = await self._ledger.find(name, call_id) if is_tenant_name(name) else None
                if call is not None:
                    return call
        raise CallNotFound("No call has this id; one that ended more than an hour ago is forgotten.")

    async def _state_of(self, tenant: str, event: Event) -> TenantState:
        """A tenant as it stands; what is none is not put on record, because it may be anything."""
        count = (await self._counts([tenant]))[tenant] if is_tenant_name(tenant) else 0
        state = self._state(tenant, count)
        if not (tenant in self._policies.current.tenants or state.suspended or count):
            meant = "".join(f" Did you mean `{name}`?" for name in get_close_matches(tenant, self._tenants(), 1))
            detail = f"No tenant has this name: it is not in the policy and has no open calls.{meant}"
            raise NotFound(detail, param="tenant")
        event.tenant = tenant
        return state

    def _state(self, tenant: str, open_calls: int) -> TenantState:
        known = self._policies.current.tenants.get(tenant)
        by_policy = known is not None and known.suspended
        return TenantState(tenant, by_policy or tenant in self._kill_switch.suspended, by_policy, open_calls)

    async def _counts(self, tenants: Iterable[str]) -> Mapping[str, int]:
        names = list(tenants)
        return dict(zip(names, await self._ledger.count(names), strict=True))

    def _tenants(self, calls: Sequence[Call] = ()) -> Sequence[str]:
        """Each tenant of the policy, and those that are in it no more but are suspended or have one of the calls."""
        names = {*self._policies.current.tenants, *self._kill_switch.suspended, *(call.tenant for call in calls)}
        return sorted(names)

    async def _switch(self, tenant: str, *, suspended: bool) -> None:
        await self._ledger.suspend(tenant, suspended=suspended)
        await self._leash.look(0)  # so that this process knows at once, even if the ledger is lost in the next moment


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
