"""Every metric of the service, and what it counts."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values

from switchboard import __version__
from switchboard.audit import Event
from switchboard.metrics.exposition import OwnPage, Page
from switchboard.metrics.families import Family, Shown
from switchboard.reports import Report

# A `_created` series beside each counter would double what a scraper stores.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped
# In this process's memory, whatever the environment says, unless `shared` is asked for something else.
values.ValueClass = values.MutexValue

# A mint waits for the provider: tens of milliseconds when all is well, seconds when it is not.
PROVIDER_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 15.0, 30.0)
HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, *PROVIDER_BUCKETS)
# ICE, DTLS and SDP together: a quarter of a second on a good network, many on a bad one.
CONNECT_BUCKETS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 30.0)
RTT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
# A jitter buffer hides some tens of milliseconds.
JITTER_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5)
# Opus hides a few percent; more is heard.
LOSS_BUCKETS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
# From a wrong click to the provider's hour.
CALL_BUCKETS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 2700.0, 3600.0)
# A turn of the loop takes a fraction of a millisecond; what is late by tens of them has been blocked.
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
MAX_TENANTS = 100
EXEMPLAR_SECONDS = 1.0  # more often than anything is scraped
MAX_EXEMPLAR = 128 - len("request_id")  # characters of a label's value: OpenMetrics bounds name and value together

Mode = Literal["max", "livemax", "livemin", "mostrecent"]


class Metrics:
    """The service's metrics in a registry of their own.

    Args:
        max_tenants: how many tenants have label values of their own; as many issuers and providers as well.
    """

    def __init__(self, *, max_tenants: int = MAX_TENANTS) -> None:
        self.registry = CollectorRegistry()
        self._families: list[Family[Any]] = []
        self._tenants, self._issuers, self._providers = (Shown(max_tenants) for _ in range(3))
        # Files of values, which several processes share, hold none.
        self._has_exemplars = values.ValueClass is values.MutexValue
        self._next_exemplars: dict[tuple[str | int, ...], float] = {}
        self._decisions = self._counter(
            "decisions",
            "Decisions by action, tenant, outcome and reason; each is one audit record.",
            ("action", "tenant", "outcome", "reason"),
        )
        self._http = self._histogram(
            "http_request_duration",
            "Time from a request's arrival to its answer's last byte.",
            ("route", "method", "status"),
            HTTP_BUCKETS,
        )
        self._provider = self._histogram(
            "provider_request_duration",
            "Time of one request to a provider; status is the HTTP status, or timeout, unreachable, broken.",
            ("provider", "operation", "status"),
            PROVIDER_BUCKETS,
        )
        self._provider_retries = self._counter(
            "provider_retries",
            "Requests sent to a provider once more; reason is what came before, as the status of its requests.",
            ("provider", "operation", "reason"),
        )
        self._key_set_aside = self._gauge(
            "provider_key_set_aside",
            "1 while a provider's key, by its reference, is set aside because the provider refused it.",
            ("provider", "key"),
            mode="livemax",
        )
        self._breaker_open = self._gauge(
            "provider_breaker_open",
            "1 while a provider is taken to be down: callers are refused at once, one request at a time looks.",
            ("provider",),
            mode="livemax",
        )
        self._jwks = self._counter("jwks_refresh", "Fetches of an issuer's key set.", ("issuer", "outcome"))
        self._quota = self._gauge(
            "quota_used",
            "The fullest of a tenant's own windows at its last request: 1 is where refusals begin.",
            ("tenant",),
            unit="ratio",
        )
        self._shadow = self._counter(
            "shadow_refusals",
            "Requests let through in shadow mode that a quota would have refused.",
            ("tenant", "policy"),
        )
        self._degraded = self._gauge(
            "ratelimit_degraded",
            "1 while Redis is away and limits are kept locally or requests are denied.",
            mode="livemax",
        )
        self._redis_errors = self._counter(
            "redis_errors", "Steps that Redis did not answer, or not as it should.", ("error",)
        )
        for error in ("ConnectionError", "TimeoutError"):
            self._redis_errors.of(error)  # from the start: `increase` does not see what a series begins with
        self._connections = self._counter(
            "client_connections", "Calls that browsers reported as connected or failed.", ("tenant", "outcome")
        )
        self._to_connected = self._histogram(
            "client_time_to_connected",
            "From a browser's click to its connected call, as browsers report it.",
            ("tenant",),
            CONNECT_BUCKETS,
        )
        self._rtt = self._histogram(
            "client_rtt", "Round trip between browser and provider, as browsers report it.", ("tenant",), RTT_BUCKETS
        )
        self._jitter = self._histogram(
            "client_jitter",
            "Jitter of the audio that browsers receive, as they report it.",
            ("tenant",),
            JITTER_BUCKETS,
        )
        self._loss = self._histogram(
            "client_loss",
            "Lost share of the packets that browsers should have received, as they report it.",
            ("tenant",),
            LOSS_BUCKETS,
            unit="ratio",
        )
        self._heard = self._histogram(
            "client_audio",
            "Audio that a browser had received when its call ended, as it reports it.",
            ("tenant",),
            CALL_BUCKETS,
        )
        self._open_calls = self._gauge(
            "open_calls",
            "Open calls and reserved slots of a tenant, read from the register: the same number at every replica.",
            ("tenant",),
        )
        self._ended = self._counter(
            "calls_ended", "Calls that have ended, by what ended them; each is one audit record.", ("tenant", "by")
        )
        self._call_seconds = self._histogram("call_duration", "How long calls took.", ("tenant",), CALL_BUCKETS)
        self._audit = self._counter("audit_records", "Audit records written.")
        self._audit_unavailable = self._gauge(
            "audit_unavailable",
            "1 while no audit record can be written and every decision is refused.",
            mode="livemax",
        )
        self._anchors = self._counter(
            "audit_anchors",
            "Checkpoints of the audit's chain that were put elsewhere, or could not be.",
            ("outcome",),
        )
        self._lag = self._histogram(
            "event_loop_lag",
            "How late the event loop runs what is due, looked at four times a second.",
            (),
            LAG_BUCKETS,
        )
        self._lines_dropped = self._counter(
            "log_lines_dropped", "Lines of the log that were given up because nobody read them."
        )
        self._restarts = self._counter("worker_restarts", "Workers that died and were started again.")
        self._reloads = self._counter(
            "config_reload", "Readings of a changed configuration: what was broken is not used.", ("outcome",)
        )
        self._good_configuration = self._gauge(
            "config_last_good_timestamp",
            "When the configuration in use was last seen to be the one on disk, in unix seconds.",
            unit="seconds",
            mode="livemin",
        )
        # A gauge, because the library's own `Info` is not kept in files.
        self._gauge("build_info", "1, for the running version.", ("version",), mode="max").of(__version__).set(1)
        self._page = OwnPage(self._families)

    def show(self, *, tenants: Iterable[str], issuers: Iterable[str], providers: Iterable[str]) -> None:
        """Give names of the policy label values of their own, in its order, as far as there is room."""
        self._tenants.add(tenants)
        self._issuers.add(issuers)
        self._providers.add(providers)

    def observe_decision(self, event: Event) -> None:
        """Count a decision that the audit has seen."""
        tenant = self._tenants.label(event.tenant)
        labels = (event.action, tenant, event.outcome, event.reason)
        self._decisions.of(*labels).inc(1, self._exemplar(event.request_id, labels))
        if event.reason != "audit_unavailable":
            self._audit.of().inc()
        if event.action == "call.end" and event.outcome == "allowed" and event.seconds is not None:
            self._ended.of(tenant, event.reason).inc()
            self._call_seconds.of(tenant).observe(event.seconds)
        for policy in event.shadow:
            self._shadow.of(tenant, policy).inc()
        used = (
            [1 - one.remaining / one.quota.limit for one in event.standing.windows if one.quota.scope == "tenant"]
            if event.standing
            else []
        )
        if used:
            self._quota.of(tenant).set(max(used))

    def observe_audit(self, failure: str | None) -> None:
        """Show whether audit records can be written; None: they can."""
        self._audit_unavailable.of().set(int(failure is not None))

    def observe_anchor(self, failure: str | None) -> None:
        """Count a checkpoint of the audit's chain; None: it is kept."""
        self._anchors.of("ok" if failure is None else "failed").inc()

    def observe_http(self, route: str, method: str, status: int, seconds: float, request_id: str) -> None:
        """Time an answered request."""
        labels = (route, method, str(status))
        place = (*labels, bisect_left(HTTP_BUCKETS, seconds))
        self._http.of(*labels).observe(seconds, self._exemplar(request_id, place))

    def observe_provider(self, provider: str, operation: str, status: str, seconds: float) -> None:
        """Time a provider's answer."""
        self._provider.of(self._providers.label(provider), operation, status).observe(seconds)

    def observe_provider_retry(self, provider: str, operation: str, reason: str) -> None:
        """Count a request that is sent once more."""
        self._provider_retries.of(self._providers.label(provider), operation, reason).inc()

    def observe_key(self, provider: str, key: str, *, set_aside: bool) -> None:
        """Show whether a key is set aside, if its provider is shown by name: several would overwrite each other."""
        if provider in self._providers:
            self._key_set_aside.of(provider, key).set(int(set_aside))

    def observe_breaker(self, provider: str, *, is_open: bool) -> None:
        """Show whether a provider is taken to be down, if it is shown by name."""
        if provider in self._providers:
            self._breaker_open.of(provider).set(int(is_open))

    def observe_jwks(self, issuer: str, outcome: str) -> None:
        """Count a fetch of an issuer's keys."""
        self._jwks.of(self._issuers.label(issuer), outcome).inc()

    def observe_report(self, tenant: str, report: Report) -> None:
        """Show what a browser saw."""
        shown = self._tenants.label(tenant)
        if report.event in ("connected", "failed"):
            self._connections.of(shown, report.event).inc()
        if report.ms_to_connected is not None:
            self._to_connected.of(shown).observe(report.ms_to_connected / 1000)
        if report.rtt_ms is not None:
            self._rtt.of(shown).observe(report.rtt_ms / 1000)
        if report.jitter_ms is not None:
            self._jitter.of(shown).observe(report.jitter_ms / 1000)
        if report.loss is not None:
            self._loss.of(shown).observe(report.loss)
        # It grows from report to report: before the end it is no call's.
        if report.audio_seconds is not None and report.event == "ended":
            self._heard.of(shown).observe(report.audio_seconds)

    def observe_redis_error(self, error: str) -> None:
        """Count what went wrong with Redis, by the error's class."""
        self._redis_errors.of(error).inc()

    def observe_degraded(self, degraded: bool) -> None:
        """Show whether Redis is away."""
        self._degraded.of().set(int(degraded))

    def observe_lag(self, seconds: float) -> None:
        """Show how late the event loop was."""
        self._lag.of().observe(seconds)

    def observe_lines_dropped(self, lines: int) -> None:
        """Count lines of the log that nobody will read."""
        self._lines_dropped.of().inc(lines)

    def observe_reload(self, outcome: Literal["ok", "failed"]) -> None:
        """Count a reading of the configuration at run time."""
        self._reloads.of(outcome).inc()

    def observe_good_configuration(self, at: float) -> None:
        """Show when the configuration in use was the one on disk; unix seconds."""
        self._good_configuration.of().set(at)

    def observe_restart(self) -> None:
        """Count a worker that was started again."""
        self._restarts.of().inc()

    def shown_of(self, tenants: Iterable[str]) -> list[str]:
        """Those of the tenants that have a label value of their own."""
        return [name for name in tenants if name in self._tenants]

    def observe_open_calls(self, counts: Mapping[str, int]) -> None:
        """Show how many calls are open, by tenant."""
        for tenant, count in counts.items():
            self._open_calls.of(tenant).set(count)

    async def render(self, accept: str) -> Page:
        """See `OwnPage`."""
        return await self._page(accept)

    def _exemplar(self, request_id: str, place: tuple[str | int, ...]) -> dict[str, str] | None:
        """An exemplar for a series, or for a bucket of it: a new one each second, as checking one is dear."""
        if not self._has_exemplars or len(request_id) > MAX_EXEMPLAR:
            return None
        now = time.monotonic()
        if now < self._next_exemplars.get(place, 0.0):
            return None
        self._next_exemplars[place] = now + EXEMPLAR_SECONDS
        return {"request_id": request_id}

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Family[Counter]:
        family = Family(Counter(f"switchboard_{name}", text, labels, registry=self.registry), labels)
        self._families.append(family)
        return family

    def _gauge(
        self, name: str, text: str, labels: Sequence[str] = (), *, unit: str = "", mode: Mode = "mostrecent"
    ) -> Family[Gauge]:
        gauge = Gauge(f"switchboard_{name}", text, labels, unit=unit, registry=self.registry, multiprocess_mode=mode)
        family = Family(gauge, labels)
        self._families.append(family)
        return family

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float], *, unit: str = "seconds"
    ) -> Family[Histogram]:
        histogram = Histogram(f"switchboard_{name}", text, labels, unit=unit, registry=self.registry, buckets=buckets)
        family = Family(histogram, labels)
        self._families.append(family)
        return family
