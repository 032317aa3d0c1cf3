"""Composition root: settings and a configuration in, ASGI apps out. The only module that builds things."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from switchboard.admission import Admission, Policies, Policy
from switchboard.audit import Audit, Sink
from switchboard.broker import Broker
from switchboard.clientaddress import ClientAddress
from switchboard.config import schema
from switchboard.config.compile import all_origins, tenants_of
from switchboard.config.secrets import Secrets
from switchboard.endpoints import docs, report, sdp, token
from switchboard.endpoints.answering import answer_defect, answer_http_exception, answer_refusal
from switchboard.endpoints.edge import Edge
from switchboard.endpoints.ops import Readiness, health_routes, metrics_routes
from switchboard.errors import Refusal
from switchboard.grants import Grants
from switchboard.identity import UserKeys
from switchboard.identity.jwks import FETCH_SECONDS, JwksEndpoint
from switchboard.identity.keys import KeySet, KeySource, KeysUnavailable, RemoteKeys, StaticKey, VerificationKey
from switchboard.identity.verifier import Issuer, TenantRule, Verifier
from switchboard.ledger import Ledger
from switchboard.ledger.connection import RedisUrlError, connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import RedisLedger
from switchboard.ledger.resilient import ResilientLedger
from switchboard.metrics import Metrics
from switchboard.middleware import Cors, RealClient, RequestContext
from switchboard.providers.openai import OpenAI, ProviderKey
from switchboard.providers.transport import ObservedTransport, PyreqwestTransport, Transport
from switchboard.settings import Settings

Run = Callable[[], Coroutine[Any, Any, None]]

MIN_HMAC_BYTES = 32
EVICTION_SECONDS = 60.0  # between two looks at Redis's `maxmemory-policy`

_log = structlog.get_logger("switchboard")


@dataclass(frozen=True, slots=True)
class Service:
    """What a process serves: the app of each port, and the switch that says whether it takes work."""

    public: ASGIApp
    ops: ASGIApp
    readiness: Readiness
    broker: Broker


class CannotServe(Exception):
    """The settings lack what this configuration needs; the message says what."""


@asynccontextmanager
async def build(
    settings: Settings,
    config: schema.Config,
    *,
    sink: Sink,
    environ: Mapping[str, str] = os.environ,
    extra_routes: Sequence[Route] = (),
) -> AsyncIterator[Service]:
    """The whole service, its background work running until the block ends.

    Raises:
        CannotServe: a setting is missing.
        SecretMissing: a secret reference leads to nothing.
    """
    needed = _needed(settings)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(PyreqwestTransport())
        client = await stack.enter_async_context(
            httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False, limits=httpx.Limits(max_connections=16))
        )
        secrets = Secrets(environ)
        issuers, background = _issuers(config, secrets, client, metrics)
        policies = Policies(
            _policy(config, secrets=secrets, issuers=issuers, transport=transport, metrics=metrics, settings=settings)
        )
        for run in background:
            _run_until_closed(run, stack)
        base_path = urlsplit(needed.public_url).path.rstrip("/")
        readiness = Readiness()
        ledger = await _ledger(settings, metrics, readiness, stack)
        grants = Grants(needed.signing_keys)
        broker = Broker(
            policies=policies,
            admission=Admission(grants=grants, user_keys=UserKeys(needed.user_key_secret)),
            grants=grants,
            ledger=ledger,
            audit=Audit(sink, observers=[metrics.observe_decision]),
            on_report=metrics.observe_report,
            public_url=needed.public_url,
        )
        edge = Edge(settings.edge_limit, exempt=settings.edge_exempt)
        public = _starlette(
            [
                *edge.limited(
                    [
                        *token.routes(broker),
                        *sdp.routes(broker, base_path=base_path),
                        *report.routes(broker),
                        *docs.routes(),
                        *extra_routes,
                    ]
                ),
                # A flood must not make an orchestrator believe that the process is ill.
                *health_routes(readiness, details=False),
            ]
        )
        yield Service(
            public=RequestContext(
                RealClient(
                    Cors(public, origins=lambda: policies.current.origins),
                    addresses=ClientAddress(settings.trusted_proxies),
                ),
                observe=metrics.observe_http,
            ),
            ops=RequestContext(
                _starlette([*health_routes(readiness, details=True), *metrics_routes(metrics.render)]),
                observe=lambda *_: None,
            ),
            readiness=readiness,
            broker=broker,
        )


@dataclass(frozen=True, slots=True)
class _Needed:
    public_url: str
    signing_keys: Sequence[bytes]
    user_key_secret: bytes


def _needed(settings: Settings) -> _Needed:
    missing = []
    if settings.public_url is None:
        missing.append("SWITCHBOARD_PUBLIC_URL: where frontends reach this service, like https://voice.example.com")
    if not settings.signing_keys:
        missing.append("SWITCHBOARD_SIGNING_KEYS (or …_FILE): secrets for grants, 32 characters or more each")
    if settings.user_key_secret is None:
        missing.append("SWITCHBOARD_USER_KEY_SECRET (or …_FILE): a secret of 32 characters or more, never changed")
    if settings.public_url is None or settings.user_key_secret is None or missing:
        raise CannotServe("\n".join(missing))
    return _Needed(
        settings.public_url,
        [key.get_secret_value().encode() for key in settings.signing_keys],
        settings.user_key_secret.get_secret_value().encode(),
    )


def _starlette(routes: list[BaseRoute]) -> Starlette:
    app = Starlette(
        routes=routes,
        exception_handlers={
            Refusal: answer_refusal,
            HTTPException: answer_http_exception,
            Exception: answer_defect,
        },
    )
    # A redirect would lose the body of an offer, and names the Host header.
    app.router.redirect_slashes = False
    return app


def _policy(
    config: schema.Config,
    *,
    secrets: Secrets,
    issuers: Mapping[str, Issuer],
    transport: Transport,
    metrics: Metrics,
    settings: Settings,
) -> Policy:
    tenants = tenants_of(config, secrets)
    return Policy(
        verifier=Verifier(issuers),
        tenants=tenants,
        providers={
            name: OpenAI(
                base_url=provider.base_url,
                keys=[ProviderKey(reference, secrets.credential(reference)) for reference in provider.keys],
                transport=ObservedTransport(transport, _observing_provider(metrics, name)),
                timeout=settings.provider_timeout,
            )
            for name, provider in config.providers.items()
        },
        origins=all_origins(tenants.values()),
    )


def _observing_provider(metrics: Metrics, name: str) -> Callable[[str, str, float], None]:
    return lambda operation, status, seconds: metrics.observe_provider(name, operation, status, seconds)


def _issuers(
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


async def _ledger(settings: Settings, metrics: Metrics, readiness: Readiness, stack: AsyncExitStack) -> Ledger:
    """In memory, or in Redis with what is to be done while that is away."""
    if settings.redis_url is None:
        return MemoryLedger()
    try:
        client = connect(settings.redis_url.get_secret_value())
    except RedisUrlError as error:
        raise CannotServe(f"SWITCHBOARD_REDIS_URL: {error}") from None
    primary = RedisLedger(client)
    stack.push_async_callback(primary.aclose)

    def on_switch(away: bool, reason: str) -> None:
        metrics.observe_degraded(away)
        if away:
            readiness.degraded["redis"] = reason
            _log.warning("Redis is away", reason=reason, meanwhile=settings.on_redis_down)
        else:
            readiness.degraded.pop("redis", None)
            _log.warning("Redis is back")

    ledger = ResilientLedger(
        primary,
        MemoryLedger(replicas=settings.expected_replicas) if settings.on_redis_down == "local" else None,
        on_error=metrics.observe_redis_error,
        on_switch=on_switch,
    )
    await ledger.start()
    _run_until_closed(ledger.run, stack)
    _run_until_closed(lambda: _watch_eviction(primary, readiness.advice), stack)
    return ledger


async def _watch_eviction(primary: RedisLedger, advice: list[str]) -> None:
    """At the start, and again: Redis may be away then, and another server may be the primary later."""

    def said(policy: str) -> str:
        return f"Redis may evict counters: set maxmemory-policy to noeviction (it is {policy})"

    known = "noeviction"
    while True:
        policy = await primary.eviction_policy() or known
        if policy != known:
            if known != "noeviction":
                advice.remove(said(known))
            if policy != "noeviction":
                advice.append(said(policy))
                _log.warning("Redis may evict counters, which would lift limits", maxmemory_policy=policy)
            known = policy
        await asyncio.sleep(EVICTION_SECONDS)


def _run_until_closed(run: Run, stack: AsyncExitStack) -> None:
    async def supervised() -> None:
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001 - work that has to go on for ever; what ended it is for the operator
                _log.exception("background work ended; it is started again")
            await asyncio.sleep(1)

    stack.push_async_callback(_stop, asyncio.create_task(supervised()))


async def _stop(task: asyncio.Task[None]) -> None:
    # Again and again: one cancellation can get lost below (seen with redis-py 8.1 while a command was under way).
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
