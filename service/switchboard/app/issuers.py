"""Issuers from a policy: where their keys come from, and what has to run to keep them fresh."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeAlias

import httpx
import structlog
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from switchboard.app.background import run_until_closed
from switchboard.app.needs import CannotServe
from switchboard.config import schema
from switchboard.config.secrets import Secrets
from switchboard.identity.jwks import JwksEndpoint
from switchboard.identity.keys import KeySet, KeySource, KeysUnavailable, RemoteKeys, StaticKey, VerificationKey
from switchboard.identity.verifier import Issuer, TenantRule
from switchboard.metrics import Metrics

MIN_HMAC_BYTES = 32
LEAVE_SECONDS = 15.0  # longer than discovery and key set together may take

Endpoint: TypeAlias = tuple[str, str | None, tuple[str, ...]]
"""What a key set is fetched by: the issuer, its `jwks_url`, and the algorithms that are wanted."""

_log = structlog.get_logger("switchboard")


@dataclass(frozen=True, slots=True)
class Prepared:
    """Issuers by name, and those of them whose keys are fetched; nothing runs for them yet."""

    issuers: Mapping[str, Issuer]
    remote: Mapping[Endpoint, RemoteKeys]


class Issuers:
    """The issuers of one policy after the other. One that stays as it is keeps the keys that were fetched.

    Args:
        secrets: shared secrets and public keys, which are read anew each time.
        client: fetches key sets.
        metrics: shows how that goes.
    """

    def __init__(self, secrets: Secrets, client: httpx.AsyncClient, metrics: Metrics) -> None:
        self._secrets = secrets
        self._client = client
        self._metrics = metrics
        self._running: dict[Endpoint, tuple[RemoteKeys, AsyncExitStack]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def prepare(self, written: Sequence[schema.Issuer]) -> Prepared:
        """The issuers of a policy; reads files, so it belongs into a thread, and changes nothing.

        Raises:
            SecretMissing, CannotServe: a key is not there, or is none.
        """
        remote: dict[Endpoint, RemoteKeys] = {}
        issuers = {
            one.issuer: Issuer(
                name=one.issuer,
                audience=one.audience,
                algorithms=tuple(one.algorithms),
                keys=self._keys(one, remote),
                tenant=_tenant_rule(one),
                leeway=one.leeway_seconds,
                max_lifetime=one.max_token_seconds,
            )
            for one in written
        }
        return Prepared(issuers, remote)

    def start(self, prepared: Prepared) -> None:
        """Keep the keys of these fresh from now on."""
        for endpoint, keys in prepared.remote.items():
            if endpoint not in self._running:
                stack = AsyncExitStack()
                run_until_closed(keys.run, stack)
                self._running[endpoint] = keys, stack

    def leave(self, prepared: Prepared) -> None:
        """Let those go that are not among these: in a while, because requests in flight may still need them."""
        for endpoint in self._running.keys() - prepared.remote.keys():
            _, stack = self._running.pop(endpoint)
            task = asyncio.create_task(_close_later(stack))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def aclose(self) -> None:
        """End all of it."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        for _, stack in self._running.values():
            await stack.aclose()

    def _keys(self, written: schema.Issuer, remote: dict[Endpoint, RemoteKeys]) -> KeySource:
        if written.secret is not None:
            return StaticKey(_shared_secret(self._secrets, written.secret))
        if written.public_key is not None:
            return StaticKey(_public_key(self._secrets, written.public_key))
        endpoint: Endpoint = written.issuer, written.jwks_url, tuple(written.algorithms)
        running = self._running.get(endpoint)
        remote[endpoint] = running[0] if running else self._remote_keys(written)
        return remote[endpoint]

    def _remote_keys(self, written: schema.Issuer) -> RemoteKeys:
        endpoint = JwksEndpoint(
            issuer=written.issuer, jwks_url=written.jwks_url, algorithms=written.algorithms, client=self._client
        )
        return RemoteKeys(_observed_load(endpoint, written.issuer, self._metrics))


async def _close_later(stack: AsyncExitStack) -> None:
    try:
        await asyncio.sleep(LEAVE_SECONDS)
    finally:
        await stack.aclose()


def _shared_secret(secrets: Secrets, reference: str) -> bytes:
    secret = secrets.resolve(reference).encode()
    if len(secret) < MIN_HMAC_BYTES:
        raise CannotServe(f"{reference}: a shared secret for HS256 has {MIN_HMAC_BYTES} bytes or more (RFC 7518)")
    return secret


def _public_key(secrets: Secrets, reference: str) -> VerificationKey:
    try:
        return load_pem_public_key(secrets.resolve(reference).encode())
    except ValueError:
        raise CannotServe(f"{reference}: a public key in PEM is needed here") from None


def _tenant_rule(written: schema.Issuer) -> TenantRule:
    allowed = None if written.tenants == "any" else frozenset(written.tenants or ())
    return TenantRule(fixed=written.tenant, claim=written.tenant_claim, allowed=allowed)


def _observed_load(endpoint: JwksEndpoint, issuer: str, metrics: Metrics) -> Callable[[], Awaitable[KeySet]]:
    async def load() -> KeySet:
        try:
            keys = await endpoint.load()
        except KeysUnavailable as error:
            metrics.observe_jwks(issuer, "failed")
            _log.warning("the keys of an issuer could not be fetched", issuer=issuer, reason=str(error))
            raise
        metrics.observe_jwks(issuer, "ok")
        return keys

    return load
