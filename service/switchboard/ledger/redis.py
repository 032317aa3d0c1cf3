"""The ledger in Redis 7: one script, one wait, whatever is to be decided. Time is Redis's own.

Tenants are spread over a fixed number of buckets. All keys of a bucket share a hash tag (`swb:{3}:acme:…`) and so a
slot of a Cluster: a script can decide on a tenant's quotas and calls and on the bucket's set of due calls at once,
and a sweeper looks at a fixed number of sets, however many tenants and open calls there are.
"""

import asyncio
import contextlib
import hashlib
import os
import zlib
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from switchboard.calls import Call, EndedBy, Opening
from switchboard.errors import GrantUsed, TenantSuspended
from switchboard.ledger import (
    CLAIM_SECONDS,
    KEPT_SECONDS,
    LISTED,
    RECORD_SECONDS,
    Ending,
    Full,
    LedgerAway,
    Reservation,
    Reserved,
    Slot,
    Sweep,
)
from switchboard.ledger.connection import Commands
from switchboard.ledger.patience import Patience
from switchboard.ledger.pipeline import Pipeline
from switchboard.ratelimit import Quota, Standing, Window

# Steps at one time where each needs a connection of its own: one takes a fraction of a millisecond, and more would only
# queue elsewhere. As many connections are there from the first probe on: a burst that had to make its own, on a busy
# machine, would take Redis for dead.
LANES = 16
BUCKETS = 16  # enough to spread over the nodes of a Cluster, few enough to ask them all twice a second
HASTENED = 100  # open calls of a suspended tenant that one sweep makes due: a script must not keep Redis from others
WAIT_SECONDS = 0.1  # for one step, within the 250 ms in which a request has to be decided
STALLED = 5.0  # times as long by the clock on the wall, where this process cannot run
SEARCH_SECONDS = 2.0  # for a probe to find its way: past silent Sentinels or nodes of a Cluster, say
PROBE_TENANT, PROBE_USER = "switchboard-probe", "probe"  # no user key, which is 64 hexadecimal digits
PROBE = Quota("user", 2**31, 1)
_SCRIPTS = files("switchboard.ledger") / "scripts"


class Script:
    """A Lua script, called by its hash; sent whole when the server does not know it (any more)."""

    def __init__(self, name: str) -> None:
        self.text = "\n".join(_SCRIPTS.joinpath(f"{one}.lua").read_text(encoding="utf-8") for one in ("common", name))
        # SHA-1 is how Redis names scripts.
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Commands, key: str, args: Sequence[str | int]) -> Any:
        try:
            return await client.evalsha(self.sha, 1, key, *args)
        except NoScriptError:
            return await client.eval(self.text, 1, key, *args)


class _Scripts:
    """All of them, by name."""

    def __init__(self) -> None:
        self.reserve = Script("reserve")
        self.release = Script("release")
        self.bind = Script("bind")
        self.heard = Script("heard")
        self.end = Script("end")
        self.confirm = Script("confirm")
        self.put_off = Script("put_off")
        self.restore = Script("restore")
        self.sweep = Script("sweep")
        self.suspend = Script("suspend")
        self.restore_suspended = Script("restore_suspended")
        self.list = Script("list")
        self.count = Script("count")


class RedisLedger:
    """Keeps the ledger in Redis.

    Args:
        client: bounded by its own socket timeouts, retrying nothing.
        wait: seconds for one step.
    """

    def __init__(self, client: Commands, *, wait: float = WAIT_SECONDS) -> None:
        self._client = client
        self._wait = wait
        self._pipeline: Pipeline | None = None
        if isinstance(client, Redis):  # a Cluster's commands go to several servers
            self._pipeline = Pipeline(client.connection_pool, wait=wait, at_most=STALLED * wait)
        self._scripts = _Scripts()
        self._first_bucket = 0
        self._generations: dict[int, bytes] = {}
        self._flips: dict[int, dict[str, int]] = {bucket: {} for bucket in range(BUCKETS)}
        """By bucket: tenant → when its kill switch was flipped, negative if off again. The latest seen."""

    async def reserve(self, reservation: Reservation) -> Reserved:
        """See `Ledger.reserve`."""
        slot, quotas = reservation.slot, reservation.quotas
        args: list[str | int] = [
            reservation.tenant,
            reservation.user_key,
            int(reservation.enforce),
            reservation.grant_id or "",
            _ms(reservation.grant_seconds),
            *_quota_args(quotas),
        ]
        args += [""] if slot is None else _slot_args(slot)
        state, windows, minutes, length, extra = await self._run(self._scripts.reserve, reservation.tenant, args)
        if state == b"used":
            raise GrantUsed
        if state == b"suspended":
            raise TenantSuspended
        standing = _standing(quotas, windows, charged=state == b"ok")
        if slot is not None and slot.minutes:
            standing = replace(standing, exceeded=(*standing.exceeded, *_used_up(slot, minutes)))
        return Reserved(
            standing,
            call_seconds=int(length) / 1000,
            full=Full(extra[0].decode(), int(extra[1]) / 1000) if state != b"replace" and extra else None,
            replace=_call(extra) if state == b"replace" else None,
        )

    async def release(self, reservation: Reservation, *, untried: bool) -> None:
        """See `Ledger.release`."""
        slot_id = reservation.slot.id if reservation.slot else None
        grant_id = reservation.grant_id if untried else None
        if slot_id or grant_id:
            args = [reservation.tenant, _slot_id(slot_id), grant_id or ""]
            await self._run(self._scripts.release, reservation.tenant, args)

    async def bind(self, reservation: Reservation, opening: Opening, call_seconds: float) -> Call:
        """See `Ledger.bind`."""
        slot = reservation.slot
        assert slot is not None  # noqa: S101 - a call comes of a reservation with a slot
        args: list[str | int] = [
            reservation.tenant,
            _slot_id(slot.id),
            opening.id,
            reservation.user_key,
            slot.offer_digest,
            _ms(call_seconds),
            _ms(CLAIM_SECONDS),
            opening.issuer,
            opening.preset,
            opening.provider,
            opening.key_name,
            reservation.grant_id or "",
            "" if slot.idle_seconds is None else _ms(slot.idle_seconds),
        ]
        return _call(await self._run(self._scripts.bind, reservation.tenant, args))

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`."""
        key = f"{_base(_bucket(tenant))}{tenant}:call:{call_id}"
        values = await self._within(self._wait, self._client.hmget(key, FIELDS))
        return None if values[0] is None else _call([call_id.encode(), *values])

    async def heard(self, tenant: str, call_id: str) -> None:
        """See `Ledger.heard`."""
        await self._run(self._scripts.heard, tenant, [tenant, call_id])

    async def end(self, call: Call, *, by: EndedBy, seen: bool = True) -> Ending:  # noqa: ARG002 - all is seen here
        """See `Ledger.end`."""
        still_open = replace(call, ended_at=None, ended_by=None)
        args = [by, _ms(KEPT_SECONDS), _ms(RECORD_SECONDS), _ms(call.ended_at or 0), *_call_args(still_open)]
        ended, is_ours = await self._run(self._scripts.end, call.tenant, args)
        return Ending(_call(ended), is_ours=bool(is_ours))

    async def confirm(self, call: Call) -> None:
        """See `Ledger.confirm`."""
        await self._run(self._scripts.confirm, call.tenant, [call.tenant, call.id])

    async def put_off(self, call: Call, *, by: EndedBy, seconds: float) -> None:
        """See `Ledger.put_off`."""
        await self._run(self._scripts.put_off, call.tenant, [by, _ms(seconds), *_call_args(call)])

    async def restore(self, call: Call) -> None:
        """Write an open call back that Redis may have lost. Whether its heartbeats have stopped is seen anew."""
        await self._run(self._scripts.restore, call.tenant, _call_args(call))

    async def sweep(self, most: int) -> Sweep:
        """See `Ledger.sweep`. What it learns of the kill switch it writes back where Redis has lost it."""
        now, due = 0.0, list[Call]()
        self._first_bucket = (self._first_bucket + 1) % BUCKETS  # so that a full one does not starve the others
        for bucket in (*range(self._first_bucket, BUCKETS), *range(self._first_bucket)):
            args: list[str | int] = [max(0, most - len(due)), _ms(CLAIM_SECONDS), HASTENED, os.urandom(8).hex()]
            time, generation, flips, claimed = await self._run_in(bucket, self._scripts.sweep, args)
            now = int(time) / 1000
            due += [_call(values) for values in claimed]
            await self._keep_flips(bucket, _by_tenant(flips))
            self._generations[bucket] = generation
        suspended = (tenant for flips in self._flips.values() for tenant, at in flips.items() if at > 0)
        return Sweep(now, tuple(due), frozenset(suspended))

    @property
    def lanes(self) -> int | None:
        """See `Primary.lanes`."""
        return LANES if self._pipeline is None else None

    @property
    def generation(self) -> tuple[bytes, ...]:
        """Changes when Redis has lost its data, or some of it."""
        return tuple(self._generations[bucket] for bucket in sorted(self._generations))

    async def open_calls(self, tenant: str | None = None, user_key: str | None = None) -> Sequence[Call]:
        """See `Ledger.open_calls`."""
        found: list[Call] = []
        for bucket in range(BUCKETS) if tenant is None else (_bucket(tenant),):
            args: list[str | int] = [tenant or "", user_key or "", LISTED - len(found)]
            found += [_call(values) for values in await self._run_in(bucket, self._scripts.list, args)]
            if len(found) == LISTED:
                break
        return found

    async def tenant_of(self, call_id: str) -> str | None:
        """See `Ledger.tenant_of`."""
        for bucket in range(BUCKETS):
            tenant = await self._within(self._wait, self._client.hget(f"{_base(bucket)}where", call_id))
            if tenant is not None:
                return str(tenant.decode())
        return None

    async def count(self, tenants: Sequence[str]) -> Sequence[int]:
        """See `Ledger.count`."""
        counts: dict[str, int] = {}
        for bucket in range(BUCKETS):
            here = [tenant for tenant in tenants if _bucket(tenant) == bucket]
            if here:
                counts |= zip(here, await self._run_in(bucket, self._scripts.count, here), strict=True)
        return [counts[tenant] for tenant in tenants]

    async def suspend(self, tenant: str, *, suspended: bool) -> None:
        """See `Ledger.suspend`."""
        flips = await self._run(self._scripts.suspend, tenant, [tenant, int(suspended)])
        self._learn_flips(_bucket(tenant), _by_tenant(flips))

    async def eviction_policy(self) -> str | None:
        """Redis's `maxmemory-policy`; None if it does not tell, as some managed services do not."""
        try:
            answer = await self._within(self._wait, self._client.config_get("maxmemory-policy"))
        except LedgerAway:
            return None
        policy = answer.get("maxmemory-policy", answer.get(b"maxmemory-policy"))
        return policy.decode() if isinstance(policy, bytes) else policy

    async def probe(self) -> None:
        """Whether everything would work now: the script of admission in each bucket, writing a counter of its own.

        All connections are made anew: an old one may lead to a server that is the primary no more. Finding the way may
        take longer than a request can wait; then a second look shows what a request would meet. The connections stay
        for the requests that follow.

        Raises:
            LedgerAway: it would not. A Cluster can be away in part.
        """
        args = [PROBE_TENANT, PROBE_USER, 0, "", 0, *_quota_args([PROBE]), ""]

        def look(bucket: int, wait: float) -> Awaitable[Any]:
            return self._within(wait, self._scripts.reserve.run(self._client, _due(bucket), args))

        await self.aclose()
        for bucket in range(BUCKETS):  # one by one: a Cluster's client, when new, closes connections that others begin
            await look(bucket, SEARCH_SECONDS)
        for wait in (SEARCH_SECONDS, self._wait):
            looks = (look(bucket, wait) for bucket in range(BUCKETS))
            for found in await asyncio.gather(*looks, return_exceptions=True):
                if isinstance(found, LedgerAway):
                    raise found

    async def aclose(self) -> None:
        """Close the connections; a server that does not answer to that either has to do without an answer."""
        with contextlib.suppress(LedgerAway):
            if self._pipeline is not None:
                await self._pipeline.aclose()
            await self._within(SEARCH_SECONDS, self._client.aclose())

    async def _keep_flips(self, bucket: int, there: dict[str, int]) -> None:
        """Learn of kill switches, and write those back that Redis has lost."""
        self._learn_flips(bucket, there)
        lost = {tenant: at for tenant, at in self._flips[bucket].items() if there.get(tenant) != at}
        if lost:
            args = [part for flip in lost.items() for part in flip]
            await self._run_in(bucket, self._scripts.restore_suspended, args)

    def _learn_flips(self, bucket: int, there: dict[str, int]) -> None:
        known = self._flips[bucket]
        known |= {tenant: at for tenant, at in there.items() if abs(at) > abs(known.get(tenant, 0))}

    async def _run(self, script: Script, tenant: str, args: Sequence[str | int]) -> Any:
        return await self._run_in(_bucket(tenant), script, args)

    async def _run_in(self, bucket: int, script: Script, args: Sequence[str | int]) -> Any:
        if self._pipeline is None:
            return await self._within(self._wait, script.run(self._client, _due(bucket), args))
        try:
            return await self._pipeline.run(script.sha, _due(bucket), args)
        except NoScriptError:
            return await self._within(self._wait, self._client.eval(script.text, 1, _due(bucket), *args))
        except ResponseError as error:
            raise _away(error) from error

    async def _within(self, seconds: float, step: Awaitable[Any]) -> Any:
        try:
            async with Patience(seconds, at_most=STALLED * seconds):
                return await step
        except Exception as error:
            raise _away(error) from error


def _away(error: Exception) -> LedgerAway:
    """Whatever it was, Redis has not answered as it should: besides errors of its own the library lets through some of
    the socket's and the event loop's. Not the error's text: it may quote keys.
    """
    return LedgerAway(type(error).__name__)


# As in common.lua, and in the order of `Call`.
FIELDS = (
    "tenant", "issuer", "user_key", "preset", "provider", "key_name", "started_at", "deadline", "grant_id", "idle",
    "heard_at", "ending", "attempts", "ended_at", "ended_by",
)  # fmt: skip
_MILLISECONDS = frozenset({"started_at", "deadline", "heard_at", "ended_at"})


def _bucket(tenant: str) -> int:
    return zlib.crc32(tenant.encode()) % BUCKETS


def _base(bucket: int) -> str:
    return f"swb:{{{bucket}}}:"


def _due(bucket: int) -> str:
    return f"{_base(bucket)}due"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _slot_id(slot_id: str | None) -> str:
    return f"~{slot_id}" if slot_id else ""


def _quota_args(quotas: Sequence[Quota]) -> list[str | int]:
    return [len(quotas), *(part for quota in quotas for part in (quota.scope, quota.limit, quota.seconds))]


def _slot_args(slot: Slot) -> list[str | int]:
    return [
        _slot_id(slot.id),
        slot.offer_digest,
        _ms(slot.lease_seconds),
        _ms(slot.call_seconds),
        _ms(slot.shortest_seconds),
        slot.user_calls or 0,
        slot.tenant_calls or 0,
        int(slot.replace),
        *_quota_args(slot.minutes),
    ]


def _standing(quotas: Sequence[Quota], numbers: Sequence[int], *, charged: bool) -> Standing:
    """What a request was held against; of what is full, it was exceeded unless this very request filled it."""
    counted = zip(quotas, numbers[::2], numbers[1::2], strict=True)
    windows = tuple(_window(quota, int(count), int(ttl)) for quota, count, ttl in counted)
    return Standing(windows, () if charged else tuple(window for window in windows if window.remaining == 0))


def _used_up(slot: Slot, numbers: Sequence[int]) -> Iterator[Window]:
    """The quotas of minutes that have too little left for a call, if they were looked at."""
    for quota, left, ttl in zip(slot.minutes, numbers[::2], numbers[1::2], strict=False):
        if int(left) < _ms(slot.shortest_seconds):
            yield Window(quota, 0, ttl / 1000 if ttl > 0 else float(quota.seconds))


def _window(quota: Quota, count: int, ttl: int) -> Window:
    return Window(quota, max(0, quota.limit - count), ttl / 1000 if ttl > 0 else float(quota.seconds))


def _by_tenant(flat: Sequence[bytes]) -> dict[str, int]:
    return {tenant.decode(): int(number) for tenant, number in zip(flat[::2], flat[1::2], strict=True)}


def _call(values: Sequence[bytes | None]) -> Call:
    known = {name: value.decode() for name, value in zip(("id", *FIELDS), values, strict=True) if value is not None}
    times: dict[str, Any] = {name: int(known.pop(name)) / 1000 for name in _MILLISECONDS & known.keys()}
    attempts, idle = int(known.pop("attempts", 0)), known.pop("idle", None)
    return Call(**{**known, **times}, attempts=attempts, idle_seconds=None if idle is None else int(idle) // 1000)


def _call_args(call: Call) -> list[str | int]:
    """As `write` of common.lua takes it."""
    told: dict[str, Any] = {name: getattr(call, name) for name in FIELDS if name != "idle"}
    times = {name: None if told[name] is None else _ms(told[name]) for name in _MILLISECONDS}
    told |= {**times, "idle": None if call.idle_seconds is None else _ms(call.idle_seconds)}
    return [call.id, *("" if told[name] is None else told[name] for name in FIELDS)]
