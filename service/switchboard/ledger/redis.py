"""The ledger in Redis 7: one script, one wait, whatever the number of windows. Time is Redis's own.

Keys are `swb:{tenant}:…`; the braces are a hash tag, so that all keys of a tenant live in one slot of a Cluster.
"""

import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import orjson
from redis.exceptions import NoScriptError

from switchboard.calls import Call, EndedBy
from switchboard.errors import GrantUsed
from switchboard.ledger import Ending, LedgerAway, Reservation
from switchboard.ledger.connection import Commands
from switchboard.ledger.memory import KEPT_SECONDS
from switchboard.ledger.patience import patience
from switchboard.ratelimit import UNLIMITED, Quota, Standing, Window

WAIT_SECONDS = 0.1  # for one step, within the 250 ms in which a request has to be decided
SEARCH_SECONDS = 2.0  # for a probe to find its way: past silent Sentinels or nodes of a Cluster, say
PROBE = Quota("user", 2**31, 1)
PROBE_USER = "probe"  # no user key, which is 64 hexadecimal digits


class Script:
    """A Lua script, called by its hash; sent whole when the server does not know it (any more)."""

    def __init__(self, name: str) -> None:
        self._text = files("switchboard.ledger").joinpath(name).read_text(encoding="utf-8")
        # SHA-1 is how Redis names scripts.
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Commands, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        try:
            return await client.evalsha(self._sha, len(keys), *keys, *args)
        except NoScriptError:
            return await client.eval(self._text, len(keys), *keys, *args)


class RedisLedger:
    """Keeps the ledger in Redis.

    Args:
        client: bounded by its own socket timeouts, retrying nothing.
        wait: seconds for one step.
        clock: unix seconds; only to tell that a call's deadline has passed.
    """

    def __init__(self, client: Commands, *, wait: float = WAIT_SECONDS, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._client = client
        self._wait = wait
        self._reserve = Script("reserve.lua")
        self._end_call = Script("end_call.lua")

    async def reserve(self, reservation: Reservation) -> Standing:
        """See `Ledger.reserve`."""
        keys = [_window_key(reservation, quota) for quota in reservation.quotas]
        if reservation.grant_id is not None:
            keys.append(_grant_key(reservation))
        elif not keys:
            return UNLIMITED
        grant_ms = 0 if reservation.grant_id is None else int(reservation.grant_seconds * 1000)
        args: list[str | int] = [int(reservation.enforce), grant_ms]
        for quota in reservation.quotas:
            args += [quota.limit, quota.seconds * 1000]
        state, *numbers = await self._within(self._wait, self._reserve.run(self._client, keys, args))
        if state == b"used":
            raise GrantUsed
        counted = zip(reservation.quotas, numbers[::2], numbers[1::2], strict=True)
        windows = tuple(_window(quota, int(count), int(ttl)) for quota, count, ttl in counted)
        exceeded = tuple(window for window in windows if window.remaining == 0) if state == b"exceeded" else ()
        return Standing(windows, exceeded)

    async def release(self, reservation: Reservation) -> None:
        """See `Ledger.release`."""
        if reservation.grant_id is not None:
            await self._within(self._wait, self._client.delete(_grant_key(reservation)))

    async def bind(self, call: Call) -> None:
        """See `Ledger.bind`."""
        milliseconds = int((call.deadline - call.started_at + KEPT_SECONDS) * 1000)
        content = orjson.dumps(asdict(call))
        await self._within(self._wait, self._client.set(_call_key(call.tenant, call.id), content, px=milliseconds))

    async def find(self, tenant: str, call_id: str) -> Call | None:
        """See `Ledger.find`."""
        call = _call(await self._within(self._wait, self._client.get(_call_key(tenant, call_id))))
        return None if call is None else call.at(self._clock())

    async def end(self, tenant: str, call_id: str, *, by: EndedBy) -> Ending | None:
        """See `Ledger.end`."""
        answer = await self._within(self._wait, self._end_call.run(self._client, [_call_key(tenant, call_id)], [by]))
        return None if answer is None else Ending(Call(**orjson.loads(answer[0])), is_ours=bool(answer[1]))

    async def eviction_policy(self) -> str | None:
        """Redis's `maxmemory-policy`; None if it does not tell, as some managed services do not."""
        try:
            answer = await self._within(self._wait, self._client.config_get("maxmemory-policy"))
        except LedgerAway:
            return None
        policy = answer.get("maxmemory-policy", answer.get(b"maxmemory-policy"))
        return policy.decode() if isinstance(policy, bytes) else policy

    async def probe(self, tenant: str) -> None:
        """Whether admission would work for this tenant now: the same script, writing a counter of its own.

        All connections are made anew: an old one may lead to a server that is the primary no more. Finding the way may
        take longer than a request can wait; then a second look shows what a request would meet.

        Raises:
            LedgerAway: it would not.
        """
        keys = [_window_key(Reservation(tenant, PROBE_USER), PROBE)]
        args = [1, 0, PROBE.limit, PROBE.seconds * 1000]
        await self.aclose()
        for wait in (SEARCH_SECONDS, self._wait):
            await self._within(wait, self._reserve.run(self._client, keys, args))

    async def aclose(self) -> None:
        """Close the connections; a server that does not answer to that either has to do without an answer."""
        with contextlib.suppress(LedgerAway):
            await self._within(SEARCH_SECONDS, self._client.aclose())

    async def _within(self, seconds: float, step: Awaitable[Any]) -> Any:
        try:
            async with patience(seconds, at_most=1.5 * seconds):
                return await step
        except Exception as error:
            # Whatever it was, Redis has not answered as it should: besides errors of its own the library lets through
            # some of the socket's and the event loop's. Not the error's text: it may quote keys.
            raise LedgerAway(type(error).__name__) from error


def _window(quota: Quota, count: int, ttl: int) -> Window:
    return Window(quota, max(0, quota.limit - count), ttl / 1000 if ttl > 0 else float(quota.seconds))


def _window_key(reservation: Reservation, quota: Quota) -> str:
    whose = f"user:{reservation.user_key}" if quota.scope == "user" else "tenant"
    return f"swb:{{{reservation.tenant}}}:quota:{whose}:{quota.seconds}"


def _grant_key(reservation: Reservation) -> str:
    return f"swb:{{{reservation.tenant}}}:grant:{reservation.grant_id}"


def _call_key(tenant: str, call_id: str) -> str:
    return f"swb:{{{tenant}}}:call:{call_id}"


def _call(written: bytes | None) -> Call | None:
    return None if written is None else Call(**orjson.loads(written))
