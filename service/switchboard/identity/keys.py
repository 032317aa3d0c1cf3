"""Where an issuer's verification keys come from: a fixed key, or a JWKS that is kept fresh and served stale."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

from jwt import PyJWK

from switchboard.errors import Degraded, InvalidToken

VerificationKey: TypeAlias = Any
"""As PyJWT takes it: a JWK, a public key of `cryptography`, or a shared secret."""
KeySet: TypeAlias = Mapping[tuple[str | None, str], PyJWK]
"""Keys by (kid, algorithm)."""

FRESH_SECONDS = 300.0  # how long a key set is used before it is fetched again, ahead of need
STALE_SECONDS = 24 * 3600.0  # how long an issuer may be away before its users are refused
COOL_DOWN_SECONDS = 10.0  # between two fetches, whatever callers send: a flood of unknown kids costs one fetch


class KeysUnavailable(Exception):
    """An issuer's key set could not be had. The message is for the log; it holds no key."""


class KeySource(Protocol):
    """Finds the key that verifies a token."""

    async def key_for(self, kid: str | None, algorithm: str) -> VerificationKey:
        """The key for a token's header.

        Raises:
            InvalidToken: the issuer has no such key.
            Degraded: the issuer's keys cannot be had at the moment.
        """


class StaticKey:
    """One key, for every token of its issuer."""

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def key_for(self, kid: str | None, algorithm: str) -> VerificationKey:  # noqa: ARG002 - one key for all
        """The key."""
        return self._key


class RemoteKeys:
    """A JWKS (RFC 7517) that requests never wait for, but for the very first and for a key id not seen before.

    `run` keeps it fresh in the background. While the issuer is away the last good set serves, for 24 hours.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[KeySet]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._load = load
        self._sleep = sleep
        self._clock = clock
        self._keys: KeySet = {}
        self._loaded_at = float("-inf")
        self._asked_at = float("-inf")
        self._loading: asyncio.Task[None] | None = None

    async def key_for(self, kid: str | None, algorithm: str) -> VerificationKey:
        """The key with this id; without an id, the only key that fits the algorithm."""
        key = self._find(kid, algorithm)
        if key is None or self._is_stale():
            await self._refresh_within_cool_down()
            key = self._find(kid, algorithm)
        if self._is_stale():
            raise Degraded("The keys of the token's issuer cannot be fetched; try again in a moment.", retry_after=5)
        if key is None:
            raise InvalidToken("The token's `kid` and `alg` name no key of its issuer.")
        return key

    async def run(self) -> None:
        """Fetch now and then for ever, ahead of need; a failed fetch is tried again after the cool-down."""
        try:
            while True:
                await self._refresh_within_cool_down()
                fresh_for = self._loaded_at + FRESH_SECONDS - self._clock()
                # Jitter keeps many replicas from asking the issuer in step.
                await self._sleep(max(fresh_for, COOL_DOWN_SECONDS) * random.uniform(1.0, 1.1))  # noqa: S311
        finally:
            # A fetch under way must not outlive the client that it uses.
            if self._loading is not None:
                self._loading.cancel()
                await asyncio.wait([self._loading])

    def _is_stale(self) -> bool:
        return self._clock() - self._loaded_at > STALE_SECONDS

    def _find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, name), key in self._keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _refresh_within_cool_down(self) -> None:
        if self._loading is None:
            if self._clock() - self._asked_at < COOL_DOWN_SECONDS:
                return
            self._asked_at = self._clock()
            self._loading = asyncio.create_task(self._refresh())
        # Shielded: a caller who goes away must not cancel the fetch that others wait for.
        await asyncio.shield(self._loading)

    async def _refresh(self) -> None:
        try:
            with contextlib.suppress(KeysUnavailable):
                self._keys = await self._load()
                self._loaded_at = self._clock()
        finally:
            self._loading = None
