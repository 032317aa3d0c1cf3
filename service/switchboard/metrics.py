"""Collectors, and the observers that feed them. Observers are handed to what they watch; nothing here is called by
business code. Labels are bounded: route templates, never raw paths; the first tenants, then `other`; never a user.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import generate_latest

from switchboard import __version__
from switchboard.audit import Event
from switchboard.reports import Report

# A `_created` series beside each counter would double what a scraper stores.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped

# A mint waits for the provider: tens of milliseconds when all is well, seconds when it is not.
PROVIDER_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 15.0, 30.0)
HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, *PROVIDER_BUCKETS)
# ICE, DTLS and SDP together: a quarter of a second on a good network, many on a bad one.
CONNECT_BUCKETS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 30.0)
RTT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
# From a wrong click to the provider's hour.
CALL_BUCKETS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 2700.0, 3600.0)
MAX_TENANTS = 100


class Metrics:
    """The service's metrics in a registry of their own."""

    def __init__(self, *, max_tenants: int = MAX_TENANTS) -> None:
        self.registry = CollectorRegistry()
        self._tenants: set[str] = set()
        self._max_tenants = max_tenants
        self._decisions = Counter(
            "switchboard_decisions",
            "Decisions by action, tenant, outcome and reason; each is one audit record.",
            ("action", "tenant", "outcome", "reason"),
            registry=self.registry,
        )
        self._http = Histogram(
            "switchboard_http_request_duration_seconds",
            "Time from a request's arrival to its answer's last byte.",
            ("route", "method", "status"),
            buckets=HTTP_BUCKETS,
            registry=self.registry,
        )
        self._provider = Histogram(
            "switchboard_provider_request_duration_seconds",
            "Time of one request to a provider; status is the HTTP status, or timeout, unreachable, broken.",
            ("provider", "operation", "status"),
            buckets=PROVIDER_BUCKETS,
            registry=self.registry,
        )
        self._jwks = Counter(
            "switchboard_jwks_refresh",
            "Fetches of an issuer's key set.",
            ("issuer", "outcome"),
            registry=self.registry,
        )
        self._quota = Gauge(
            "switchboard_quota_used_ratio",
            "The fullest of a tenant's own windows at its last request: 1 is where refusals begin.",
            ("tenant",),
            registry=self.registry,
        )
        self._shadow = Counter(
            "switchboard_shadow_refusals",
            "Requests let through in shadow mode that a quota would have refused.",
            ("tenant", "policy"),
            registry=self.registry,
        )
        self._degraded = Gauge(
            "switchboard_ratelimit_degraded",
            "1 while Redis is away and limits are kept locally or requests are denied.",
            registry=self.registry,
        )
        self._redis_errors = Counter(
            "switchboard_redis_errors",
            "Steps that Redis did not answer, or not as it should.",
            ("error",),
            registry=self.registry,
        )
        self._connections = Counter(
            "switchboard_client_connections",
            "Calls that browsers reported as connected or failed.",
            ("tenant", "outcome"),
            registry=self.registry,
        )
        self._to_connected = Histogram(
            "switchboard_client_time_to_connected_seconds",
            "From a browser's click to its connected call, as browsers report it.",
            buckets=CONNECT_BUCKETS,
            registry=self.registry,
        )
        self._rtt = Histogram(
            "switchboard_client_rtt_seconds",
            "Round trip between browser and provider, as browsers report it.",
            buckets=RTT_BUCKETS,
            registry=self.registry,
        )
        self._open_calls = Gauge(
            "switchboard_open_calls",
            "Open calls and reserved slots of a tenant, read from the register: the same number at every replica.",
            ("tenant",),
            registry=self.registry,
        )
        self._ended = Counter(
            "switchboard_calls_ended",
            "Calls that have ended, by what ended them; each is one audit record.",
            ("tenant", "by"),
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "switchboard_call_duration_seconds",
            "How long calls took.",
            ("tenant",),
            buckets=CALL_BUCKETS,
            registry=self.registry,
        )
        self._audit = Counter("switchboard_audit_records", "Audit records written.", registry=self.registry)
        self._audit_unavailable = Gauge(
            "switchboard_audit_unavailable",
            "1 while no audit record can be written and every decision is refused.",
            registry=self.registry,
        )
        self._anchors = Counter(
            "switchboard_audit_anchors",
            "Checkpoints of the audit's chain that were put elsewhere, or could not be.",
            ("outcome",),
            registry=self.registry,
        )
        Info("switchboard_build", "The running version.", registry=self.registry).info({"version": __version__})

    def observe_decision(self, event: Event) -> None:
        """Count a decision that the audit has seen."""
        self._decisions.labels(event.action, self._tenant(event.tenant), event.outcome, event.reason).inc()
        if event.reason != "audit_unavailable":
            self._audit.inc()
        if event.action == "call.end" and event.outcome == "allowed" and event.seconds is not None:
            self._ended.labels(self._tenant(event.tenant), event.reason).inc()
            self._call_seconds.labels(self._tenant(event.tenant)).observe(event.seconds)
        for policy in event.shadow:
            self._shadow.labels(self._tenant(event.tenant), policy).inc()
        used = (
            [1 - one.remaining / one.quota.limit for one in event.standing.windows if one.quota.scope == "tenant"]
            if event.standing
            else []
        )
        if used:
            self._quota.labels(self._tenant(event.tenant)).set(max(used))

    def observe_audit(self, failure: str | None) -> None:
        """Show whether audit records can be written; None: they can."""
        self._audit_unavailable.set(int(failure is not None))

    def observe_anchor(self, failure: str | None) -> None:
        """Count a checkpoint of the audit's chain; None: it is kept."""
        self._anchors.labels("ok" if failure is None else "failed").inc()

    def observe_http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Time an answered request."""
        self._http.labels(route, method, str(status)).observe(seconds)

    def observe_provider(self, provider: str, operation: str, status: str, seconds: float) -> None:
        """Time a provider's answer."""
        self._provider.labels(provider, operation, status).observe(seconds)

    def observe_jwks(self, issuer: str, outcome: str) -> None:
        """Count a fetch of an issuer's keys."""
        self._jwks.labels(issuer, outcome).inc()

    def observe_report(self, tenant: str, report: Report) -> None:
        """Show what a browser saw."""
        if report.event in ("connected", "failed"):
            self._connections.labels(self._tenant(tenant), report.event).inc()
        if report.ms_to_connected is not None:
            self._to_connected.observe(report.ms_to_connected / 1000)
        if report.rtt_ms is not None:
            self._rtt.observe(report.rtt_ms / 1000)

    def observe_redis_error(self, error: str) -> None:
        """Count what went wrong with Redis, by the error's class."""
        self._redis_errors.labels(error).inc()

    def observe_degraded(self, degraded: bool) -> None:
        """Show whether Redis is away."""
        self._degraded.set(int(degraded))

    def shown_of(self, tenants: Iterable[str]) -> list[str]:
        """Those of the tenants that have a label of their own."""
        return [name for name in tenants if self._tenant(name) == name]

    def observe_open_calls(self, counts: Mapping[str, int]) -> None:
        """Show how many calls are open, by tenant."""
        for tenant, count in counts.items():
            self._open_calls.labels(tenant).set(count)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def _tenant(self, name: str | None) -> str:
        if name is None:
            return ""
        if name not in self._tenants:
            if len(self._tenants) >= self._max_tenants:
                return "other"
            self._tenants.add(name)
        return name
