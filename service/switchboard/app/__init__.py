"""Composition root: settings and a configuration in, ASGI apps out. The only room that builds things."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from starlette.routing import Route
from starlette.types import ASGIApp

from switchboard import logcontext
from switchboard.admission import Admission, KillSwitch, Policies
from switchboard.app.background import run_until_closed
from switchboard.app.evidence import SHOWN_ADDRESS, sink_of
from switchboard.app.issuers import Issuers
from switchboard.app.ledgers import ledger_of
from switchboard.app.needs import CannotServe, needed_of
from switchboard.app.policies import PolicyMaker
from switchboard.app.providers import Upstreams, transport_of
from switchboard.app.reloading import reload_when_changed
from switchboard.app.tracing import Tracing, tracing_of
from switchboard.app.watching import watch_process
from switchboard.audit import Audit, Event, Sink
from switchboard.broker import Broker
from switchboard.clientaddress import ClientAddress
from switchboard.clock import SharedClock
from switchboard.config import schema
from switchboard.config.loading import Loaded, Source
from switchboard.config.secrets import Secrets
from switchboard.endpoints import admin, beta, calls, docs, helper, openai, report, sdp, token
from switchboard.endpoints.answering import Answering
from switchboard.endpoints.edge import Edge
from switchboard.endpoints.ops import Readiness, Render, health_routes, metrics_routes, while_taking_work
from switchboard.errors import Degraded
from switchboard.grants import Grants
from switchboard.identity import UserKeys
from switchboard.identity.jwks import FETCH_SECONDS
from switchboard.leash import Leash
from switchboard.ledger import Ledger
from switchboard.metrics import Metrics
from switchboard.middleware import Cors, ObserveHttp, RealClient, RequestContext, unobserved
from switchboard.operators import AdminToken, Operators
from switchboard.settings import Settings
from switchboard.waiting import Waits

__all__ = ["CannotServe", "Service", "build"]

LEASE_MARGIN = 10.0  # seconds beyond the provider's time-out: reading, binding, a slow loop
OPEN_CALLS_SECONDS = 5.0  # between two counts for the metric


@dataclass(frozen=True, slots=True)
class Service:
    """What a process serves: the app of each port, and the switch that says whether it takes work."""

    public: ASGIApp
    ops: ASGIApp
    readiness: Readiness
    metrics: Metrics
    observe: ObserveHttp
    """Hears of the public port's requests, also of those that end before its app."""
    broker: Broker
    on_hangup: Callable[[], None]
    """What SIGHUP asks for: to read the configuration again, and to go on in new files where the old ones have been
    moved away.
    """


@asynccontextmanager
async def build(
    settings: Settings,
    config: schema.Config | Loaded,
    *,
    source: Source | None = None,
    sink: Sink | None = None,
    environ: Mapping[str, str] = os.environ,
    extra_routes: Sequence[Route] = (),
    part: str = "",
    render: Render | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[Service]:
    """The whole service, its background work running until the block ends.

    Args:
        settings: addresses, bounds and secrets.
        config: the policy.
        source: where it comes from: what changes there is used from then on. None: it stays as it is.
        sink: where audit records go; None: where the settings say.
        environ: where the policy's secrets are looked up.
        extra_routes: more of the public port.
        part: which of several processes of one service this is; none if it is the only one.
        render: what `/metrics` shows, if this is the parent of those who serve the public port; None: its own metrics.
        tracing: what makes spans; None: as OpenTelemetry's variables say.

    Raises:
        CannotServe: a setting is missing, or what it names cannot be used.
        SecretMissing: a secret reference leads to nothing.
    """
    needed = needed_of(settings)
    metrics = Metrics(max_tenants=settings.metrics_tenants)
    readiness = Readiness()
    shown_address = SHOWN_ADDRESS[settings.audit_client_ip]
    async with AsyncExitStack() as stack:
        traced = tracing or tracing_of(settings, environ, stack)
        transport = await stack.enter_async_context(transport_of(settings))
        client = await stack.enter_async_context(
            httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False, limits=httpx.Limits(max_connections=16))
        )
        secrets = Secrets(environ)
        issuers = Issuers(secrets, client, metrics)
        stack.push_async_callback(issuers.aclose)
        upstreams = Upstreams(transport, traced.transport, metrics, timeout=settings.provider_timeout)
        run_until_closed(lambda: upstreams.follow_files(secrets), stack)
        run_until_closed(upstreams.keep_token, stack)
        maker = PolicyMaker(issuers, upstreams, secrets, metrics)
        made = maker.make(config if isinstance(config, Loaded) else Loaded.of(config, secrets))
        policies = Policies(maker.policy_of(made))
        await upstreams.first_token()
        records = sink or await sink_of(settings, needed, metrics, readiness, stack, part=part)
        audit = Audit(
            traced.around(records, write="audit"),
            observers=[metrics.observe_decision, _name_tenant, traced.observe],
            shown_address=shown_address,
        )
        base_path = urlsplit(needed.public_url).path.rstrip("/")
        clock, kill_switch = SharedClock(), KillSwitch()
        ledger = await ledger_of(settings, metrics, readiness, clock, stack)
        leash = Leash(policies=policies, ledger=ledger, audit=audit, clock=clock, kill_switch=kill_switch)
        await leash.look(0)  # the first request is to find the register's time and who is suspended
        run_until_closed(leash.run, stack)
        run_until_closed(lambda: _watch_open_calls(policies, ledger, metrics), stack)
        run_until_closed(lambda: watch_process(metrics, has_callers=render is None), stack)
        waits = Waits()
        run_until_closed(waits.run, stack)
        grants = Grants(needed.signing_keys, clock=clock)
        broker = Broker(
            policies=policies,
            admission=traced.around(
                Admission(grants=grants, user_keys=UserKeys(needed.user_key_secret), kill_switch=kill_switch),
                admit="admit",
                identify="admit",
            ),
            grants=grants,
            ledger=traced.around(ledger, reserve="quota", bind="bind"),
            leash=leash,
            waits=waits,
            audit=audit,
            on_report=metrics.observe_report,
            public_url=needed.public_url,
            lease_seconds=settings.provider_timeout + LEASE_MARGIN,
            clock=clock,
        )
        edge = Edge(settings.edge_limit, exempt=settings.edge_exempt)
        work = [
            *token.routes(broker),
            *sdp.routes(broker, base_path=base_path),
            *calls.routes(broker),
            *openai.routes(broker, base_path=base_path),
            *beta.routes(broker, base_path=base_path),
            *report.routes(broker),
        ]
        public = Answering(
            [
                *edge.limited([*while_taking_work(readiness, work), *docs.routes(), *helper.routes(), *extra_routes]),
                # A flood must not make an orchestrator believe that the process is ill.
                *health_routes(readiness, details=False),
            ]
        )
        for_operators: list[Route] = [
            *health_routes(readiness, details=True),
            *metrics_routes(render or metrics.render),
        ]
        if settings.admin_token is not None:
            operators = Operators(
                admin_token=AdminToken.of(settings.admin_token.get_secret_value()),
                policies=policies,
                ledger=ledger,
                leash=leash,
                audit=audit,
                kill_switch=kill_switch,
                clock=clock,
            )
            for_operators += admin.routes(operators)
        addresses = ClientAddress(settings.trusted_proxies)
        reload = reload_when_changed(source, maker, policies, metrics=metrics, readiness=readiness, stack=stack)

        def on_hangup() -> None:
            records.reopen()
            reload()

        yield Service(
            public=RequestContext(
                traced.app(
                    RealClient(
                        Cors(public, origins=lambda: policies.current.origins), addresses=addresses, shown=shown_address
                    )
                ),
                observe=metrics.observe_http,
            ),
            ops=RequestContext(
                RealClient(Answering(for_operators), addresses=addresses, shown=shown_address),
                observe=unobserved,
            ),
            readiness=readiness,
            metrics=metrics,
            observe=metrics.observe_http,
            broker=broker,
            on_hangup=on_hangup,
        )


def _name_tenant(event: Event) -> None:
    """From now on the lines of this request's log say whose it is."""
    if event.tenant is not None:
        logcontext.add(tenant=event.tenant)


async def _watch_open_calls(policies: Policies, ledger: Ledger, metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(OPEN_CALLS_SECONDS)
        tenants = metrics.shown_of(policies.current.tenants)
        with contextlib.suppress(Degraded):
            metrics.observe_open_calls(dict(zip(tenants, await ledger.count(tenants), strict=True)))
