"""Issuers from a policy: where their keys come from, and what has to run to keep them fresh."""

from collections.abc import Awaitable, Callable

import httpx
import structlog
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from switchboard.app.background import Run
from switchboard.app.needs import CannotServe
from switchboard.config import schema
from switchboard.config.secrets import Secrets
from switchboard.identity.jwks import JwksEndpoint
from switchboard.identity.keys import KeySet, KeySource, KeysUnavailable, RemoteKeys, StaticKey, VerificationKey
from switchboard.identity.verifier import Issuer, TenantRule
from switchboard.metrics import Metrics

MIN_HMAC_BYTES = 32

_log = structlog.get_logger("switchboard")


def issuers_of(
    config: schema.Config, secrets: Secrets, client: httpx.AsyncClient, metrics: Metrics
) -> tuple[dict[str, Issuer], list[Run]]:
    """The issuers by name, and what has to run to keep their keys fresh."""
    issuers: dict[str, Issuer] = {}
    background: list[Run] = []
    for written in config.issuers:
        keys: KeySource
        if written.secret is not None:
            keys = StaticKey(_shared_secret(secrets, written.secret))
        elif written.public_key is not None:
            keys = StaticKey(_public_key(secrets, written.public_key))
        else:
            endpoint = JwksEndpoint(
                issuer=written.issuer, jwks_url=written.jwks_url, algorithms=written.algorithms, client=client
            )
            keys = RemoteKeys(_observed_load(endpoint, written.issuer, metrics))
            background.append(keys.run)
        issuers[written.issuer] = Issuer(
            name=written.issuer,
            audience=written.audience,
            algorithms=tuple(written.algorithms),
            keys=keys,
            tenant=_tenant_rule(written),
            leeway=written.leeway_seconds,
            max_lifetime=written.max_token_seconds,
        )
    return issuers, background


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
