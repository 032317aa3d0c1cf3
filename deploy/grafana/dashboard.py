# ruff: noqa: INP001 - run as a file
"""Writes switchboard.json: `python deploy/grafana/dashboard.py`. Change the panels here, not there.

Rows stand in the order in which an operator looks. Queries need no recording rule, so the dashboard works by itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("switchboard.json")
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

HERE = 'namespace=~"$namespace", job=~"$job"'
TENANT = f'{HERE}, tenant=~"$tenant"'
STARTS = 'action=~"token.mint|grant.issue|call.open"'
FAILED = 'outcome="error", reason!~"cancelled|caller_gone"'
RATE = "[$__rate_interval]"
PROVIDER_SECONDS = "switchboard_provider_request_duration_seconds"
OPENINGS = f'{HERE}, operation=~"mint|call"'
# Every replica shows what the register of its deployment says.
OPEN_CALLS = f"max by (namespace, job, tenant) (switchboard_open_calls{{{TENANT}}})"

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One expression, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    `steps` are thresholds: from which value on which colour. `colours` are those of series by their names, `texts` what
    is shown for a value, `names` whether a stat shows its series' name and not its value.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    width: int = 8
    height: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    highest: float | None = None
    base: str = GREEN
    steps: Sequence[tuple[float, str]] = ()
    colours: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    names: bool = False


@dataclass(frozen=True)
class Row:
    """A headline, and panels that fill lines of 24 columns below it."""

    title: str
    panels: Sequence[Panel]


def total(metric: str, labels: str = HERE, by: str = "") -> str:
    """The rate of a counter per second, summed."""
    return f"sum{by and f' by ({by})'} (rate({metric}{{{labels}}}{RATE}))"


def quantiles(metric: str, labels: str = HERE, by: str = "", *, of: Sequence[float] = (0.5, 0.95, 0.99)) -> list[Query]:
    """Quantiles of a histogram, each named after what it is of."""
    buckets = total(f"{metric}_bucket", labels, f"{by}, le" if by else "le")
    name = f"{{{{{by}}}}} " if by else ""
    return [Query(f"histogram_quantile({q}, {buckets})", f"{name}p{q * 100:g}") for q in of]


def share(part: str, whole: str) -> str:
    """A part of something; 0 if that part has never been counted, nothing while there is nothing to share."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def decisions(labels: str, by: str = "") -> str:
    """The rate of decisions of the chosen tenants."""
    return total("switchboard_decisions_total", f"{TENANT}, {labels}", by)


def per_minute(expr: str) -> str:
    """Calls are few: by the minute they are easier to read."""
    return f"60 * {expr}"


UP = Row(
    "Up and serving",
    [
        Panel(
            "Replicas",
            "Replicas that Prometheus reaches. None: SwitchboardDown.",
            [Query(f"sum(up{{{HERE}}})")],
            kind="stat", width=3, height=4, base=RED, steps=[(1, GREEN)],
        ),
        Panel(
            "Not reached",
            "Replicas that Prometheus knows and does not reach.",
            [Query(f"count(up{{{HERE}}}) - sum(up{{{HERE}}})")],
            kind="stat", width=3, height=4, steps=[(1, RED)],
        ),
        Panel(
            "Served",
            "Requests for calls that did not end in an error of ours or of the provider's. Refusals count as served.",
            [Query(f"1 - {share(decisions(f'{STARTS}, {FAILED}'), decisions(STARTS))}")],
            unit="percentunit", kind="stat", width=3, height=4, base=RED, steps=[(0.95, YELLOW), (0.99, GREEN)],
        ),
        Panel(
            "Requests for calls",
            "Requests for a token or a call, each second, whatever came of them.",
            [Query(decisions(STARTS))],
            unit="reqps", kind="stat", width=3, height=4, base=BLUE,
        ),
        Panel(
            "Open calls",
            "Calls that are open, and those that are being opened, as the register has them.",
            [Query(f"sum({OPEN_CALLS})")],
            kind="stat", width=3, height=4, base=BLUE,
        ),
        Panel(
            "Redis",
            "Whether any replica cannot reach Redis. A replica without Redis shows none.",
            [Query(f"max(switchboard_ratelimit_degraded{{{HERE}}})")],
            kind="stat", width=3, height=4, steps=[(1, RED)], texts={"0": "there", "1": "away"},
        ),
        Panel(
            "Audit",
            "Whether any replica cannot write its audit: it refuses every request then.",
            [Query(f"max(switchboard_audit_unavailable{{{HERE}}})")],
            kind="stat", width=3, height=4, steps=[(1, RED)], texts={"0": "written", "1": "cannot be written"},
        ),
        # The age of the configuration goes here, beside the version, when reloads are counted.
        Panel(
            "Version",
            "What runs. More than one: a rollout is under way, or got stuck.",
            [Query(f"count by (version) (switchboard_build_info{{{HERE}}})", "{{version}}")],
            kind="stat", width=3, height=4, base=BLUE, names=True,
        ),
    ],
)  # fmt: skip

TRAFFIC = Row(
    "Traffic by outcome",
    [
        Panel(
            "Requests for calls by outcome",
            "allowed; denied: the caller's fault, see the next row; error: ours or the provider's.",
            [Query(decisions(STARTS, "outcome"), "{{outcome}}")],
            unit="reqps", width=12, stacked=True, colours={"allowed": GREEN, "denied": YELLOW, "error": RED},
        ),
        Panel(
            "Requests for calls by tenant",
            "not known: refused before the tenant was. other: beyond the first 100 tenants.",
            [Query(f'label_replace({decisions(STARTS, "tenant")}, "tenant", "not known", "tenant", "")', "{{tenant}}")],
            unit="reqps", width=12, stacked=True,
        ),
        Panel(
            "Time to answer (p95)",
            "From a request's arrival to its answer's last byte, by route. What the provider takes is within it.",
            quantiles(
                "switchboard_http_request_duration_seconds", f'{HERE}, route!~"/healthz|/readyz"', "route", of=(0.95,)
            ),
            unit="s", width=12,
        ),
        Panel(
            "HTTP answers by status",
            "All routes of the public port but health. 0: no answer was sent; 499: the caller had gone away.",
            [
                Query(
                    total(
                        "switchboard_http_request_duration_seconds_count",
                        f'{HERE}, route!~"/healthz|/readyz"',
                        "status",
                    ),
                    "{{status}}",
                )
            ],
            unit="reqps", width=12, stacked=True,
        ),
    ],
)  # fmt: skip

REFUSALS = Row(
    "Refusals by reason",
    [
        Panel(
            "Denied",
            "What callers did wrong or may not. invalid_token, unknown_issuer: attack, or an issuer that changed.",
            [Query(decisions('outcome="denied"', "reason"), "{{reason}}")],
            unit="reqps", width=12, stacked=True,
        ),
        Panel(
            "Errors",
            "What kept us from deciding or doing: provider_…, degraded, audit_unavailable, internal_error (a defect).",
            [Query(decisions('outcome="error"', "reason"), "{{reason}}")],
            unit="reqps", width=12, stacked=True,
        ),
        Panel(
            "Who is refused, and why",
            "Requests in the chosen time, the most frequent first.",
            [
                Query(
                    "sort_desc(topk(20, sum by (tenant, reason) "
                    f'(increase(switchboard_decisions_total{{{TENANT}, outcome!="allowed"}}[$__range]))))'
                )
            ],
            kind="table", width=12,
        ),
        Panel(
            "Refused before a decision",
            "By form, size, time or the ceiling per address (429 without a decision); not in the audit.",
            [
                Query(
                    total(
                        "switchboard_http_request_duration_seconds_count",
                        f'{HERE}, status=~"405|408|413|415|429|431"',
                        "route, status",
                    ),
                    "{{status}} {{route}}",
                )
            ],
            unit="reqps", width=12, stacked=True,
        ),
    ],
)  # fmt: skip

PROVIDER = Row(
    "Provider",
    [
        Panel(
            "Time to open a call",
            "One request with an offer, from sending to the answer's last byte.",
            quantiles(PROVIDER_SECONDS, f'{HERE}, operation="call"', "provider"),
            unit="s", steps=[(2.5, RED)],
        ),
        Panel(
            "Time to mint a client secret",
            "Only presets with `delivery: direct` ask for one.",
            quantiles(PROVIDER_SECONDS, f'{HERE}, operation="mint"', "provider"),
            unit="s", steps=[(2.5, RED)],
        ),
        Panel(
            "Answers",
            "By operation and HTTP status, or timeout, unreachable, broken, cancelled.",
            [Query(total(f"{PROVIDER_SECONDS}_count", HERE, "operation, status"), "{{operation}} {{status}}")],
            unit="reqps", stacked=True,
        ),
        Panel(
            "Failed",
            "Share of offers and mints that were answered with 5xx, too late or not at all.",
            [
                Query(
                    share(
                        total(
                            f"{PROVIDER_SECONDS}_count",
                            f'{OPENINGS}, status=~"5..|timeout|unreachable|broken"',
                            "provider",
                        ),
                        total(f"{PROVIDER_SECONDS}_count", OPENINGS, "provider"),
                    ),
                    "{{provider}}",
                )
            ],
            unit="percentunit", highest=1, steps=[(0.1, RED)],
        ),
        Panel(
            "Told to wait (429)",
            "Share of offers and mints that met the provider's own rate limit, or the end of a key's budget.",
            [
                Query(
                    share(
                        total(f"{PROVIDER_SECONDS}_count", f'{OPENINGS}, status="429"', "provider"),
                        total(f"{PROVIDER_SECONDS}_count", OPENINGS, "provider"),
                    ),
                    "{{provider}}",
                )
            ],
            unit="percentunit", highest=1, steps=[(0.05, RED)],
        ),
        Panel(
            "What callers were told",
            "Decisions that failed at the provider. provider_refused: a preset that it does not take.",
            [Query(decisions('reason=~"provider_.*"', "tenant, reason"), "{{tenant}} {{reason}}")],
            unit="reqps", stacked=True,
        ),
        Panel(
            "Taken to be down",
            "Processes that refuse callers at once, because the provider does not answer. One request at a time looks.",
            [Query(f"sum by (provider) (switchboard_provider_breaker_open{{{HERE}}})", "{{provider}}")],
            steps=[(1, RED)],
        ),
        Panel(
            "Keys set aside",
            "1: some process has a key, by its reference, that the provider refused. Others are used meanwhile.",
            [
                Query(
                    f"max by (provider, key) (switchboard_provider_key_set_aside{{{HERE}}})", "{{provider}} {{key}}"
                )
            ],
            highest=1, steps=[(1, RED)],
        ),
        Panel(
            "Tried again",
            "Requests sent once more, by what came before. An offer is, only if it cannot have arrived.",
            [
                Query(
                    total("switchboard_provider_retries_total", HERE, "operation, reason"), "{{operation}} {{reason}}"
                )
            ],
            unit="reqps", stacked=True,
        ),
    ],
)  # fmt: skip

CALLS = Row(
    "Calls",
    [
        Panel(
            "Open",
            "By tenant, as the register has them: the same number at every replica.",
            [Query(f"sum by (tenant) ({OPEN_CALLS})", "{{tenant}}")],
            stacked=True,
        ),
        Panel(
            "Opened and ended",
            "Each minute. Where fewer end than open for long, calls do not end.",
            [
                Query(per_minute(decisions('action="call.open", outcome="allowed"')), "opened"),
                Query(per_minute(total("switchboard_calls_ended_total", TENANT)), "ended"),
            ],
            unit="cpm", colours={"opened": BLUE, "ended": GREEN},
        ),
        Panel(
            "Ended by",
            "owner: hung up; deadline; idle: no heartbeat; replaced: by a newer call; admin; suspended: kill switch; "
            "provider: found to be over.",
            [Query(per_minute(total("switchboard_calls_ended_total", TENANT, "by")), "{{by}}")],
            unit="cpm", stacked=True,
        ),
        Panel(
            "Duration",
            "Of calls that have ended.",
            quantiles("switchboard_call_duration_seconds", TENANT),
            unit="s",
        ),
        Panel(
            "Hang-ups that failed",
            "They are tried again; meanwhile the calls go on and cost. 404 is none: the call was over.",
            [
                Query(
                    per_minute(
                        total(f"{PROVIDER_SECONDS}_count", f'{HERE}, operation="hangup", status!~"2..|404"', "status")
                    ),
                    "{{status}}",
                )
            ],
            unit="cpm", stacked=True, steps=[(1, RED)],
        ),
        Panel(
            "Over before anybody ended them",
            "Share of calls that the provider had ended already: it drops them, or frontends do not hang up.",
            [
                Query(
                    share(
                        total("switchboard_calls_ended_total", f'{TENANT}, by="provider"', "tenant"),
                        total("switchboard_calls_ended_total", TENANT, "tenant"),
                    ),
                    "{{tenant}}",
                )
            ],
            unit="percentunit", highest=1, steps=[(0.5, RED)],
        ),
    ],
)  # fmt: skip

QUOTAS = Row(
    "Quotas",
    [
        Panel(
            "Used by tenant",
            "The fullest of a tenant's own windows at its last request; at 100% its users are refused.",
            [Query(f"max by (tenant) (switchboard_quota_used_ratio{{{TENANT}}})", "{{tenant}}")],
            unit="percentunit", highest=1, steps=[(0.8, YELLOW), (0.9, RED)],
        ),
        Panel(
            "Refused by a limit",
            "rate_limited: a quota of the user or the tenant; too_many_calls: as many are open as may be.",
            [Query(decisions('reason=~"rate_limited|too_many_calls"', "tenant, reason"), "{{tenant}} {{reason}}")],
            unit="reqps", stacked=True,
        ),
        Panel(
            "Would be refused",
            "Requests that shadow mode let through. Look here before you write `mode: enforce`.",
            [Query(total("switchboard_shadow_refusals_total", TENANT, "tenant, policy"), "{{tenant}} {{policy}}")],
            unit="reqps", stacked=True,
        ),
    ],
)  # fmt: skip

DEGRADED = Row(
    "Degradation",
    [
        Panel(
            "Redis away",
            "Replicas that cannot reach Redis: `local`, limits for each by itself; `deny`, nobody gets in.",
            [Query(f"switchboard_ratelimit_degraded{{{HERE}}}", "{{instance}}")],
            stacked=True, steps=[(1, RED)],
        ),
        Panel(
            "Redis errors",
            "Steps that Redis did not answer, or not as it should, by the error's class.",
            [Query(total("switchboard_redis_errors_total", by="error"), "{{error}}")],
            unit="ops", stacked=True,
        ),
        Panel(
            "Key sets of issuers",
            "Fetches, every five minutes if all is well. Without one for 24 h an issuer's users are refused.",
            [
                Query(
                    per_minute(total("switchboard_jwks_refresh_total", by="issuer, outcome")), "{{issuer}} {{outcome}}"
                )
            ],
            unit="cpm",
        ),
        Panel(
            "Audit cannot be written",
            "Replicas that refuse every request, because they could not put it on record.",
            [Query(f"switchboard_audit_unavailable{{{HERE}}}", "{{instance}}")],
            stacked=True, steps=[(1, RED)],
        ),
        Panel(
            "Audit records",
            "Records written.",
            [Query(total("switchboard_audit_records_total", by="instance"), "{{instance}}")],
            unit="ops", stacked=True,
        ),
        Panel(
            "Anchors of the audit",
            "Checkpoints that were put elsewhere, or could not be.",
            [Query(per_minute(total("switchboard_audit_anchors_total", by="outcome")), "{{outcome}}")],
            unit="cpm", stacked=True, colours={"ok": GREEN, "failed": RED},
        ),
        Panel(
            "Event loop lag (p99)",
            "How late the event loop runs what is due. Tens of milliseconds: something blocks it, or the CPU is short.",
            quantiles("switchboard_event_loop_lag_seconds", by="instance", of=(0.99,)),
            unit="s", steps=[(0.25, RED)],
        ),
        Panel(
            "Log lines given up",
            "Lines that were not written, because whoever reads the log stands still. The audit loses none.",
            [Query(per_minute(total("switchboard_log_lines_dropped_total", by="instance")), "{{instance}}")],
            unit="cpm", stacked=True,
        ),
        Panel(
            "Age of the configuration",
            "Since the files on disk were last those in use. It grows while they are broken: see the log and /readyz.",
            [Query(f"time() - switchboard_config_last_good_timestamp_seconds{{{HERE}}}", "{{instance}}")],
            unit="s", steps=[(60, RED)],
        ),
        Panel(
            "Readings of the configuration",
            "Changed files that were read: used as a whole, or not at all because something about them is broken.",
            [Query(per_minute(total("switchboard_config_reload_total", by="outcome")), "{{outcome}}")],
            unit="cpm", stacked=True, colours={"ok": GREEN, "failed": RED},
        ),
        Panel(
            "Workers started again",
            "Processes of a replica that died.",
            [Query(per_minute(total("switchboard_worker_restarts_total", by="instance")), "{{instance}}")],
            unit="cpm", stacked=True,
        ),
    ],
)  # fmt: skip

BROWSERS = Row(
    "What browsers saw",
    [
        Panel(
            "Connected",
            "Share of the calls that browsers reported which connected. What browsers say is not verified.",
            [
                Query(
                    share(
                        total("switchboard_client_connections_total", f'{TENANT}, outcome="connected"', "tenant"),
                        total("switchboard_client_connections_total", TENANT, "tenant"),
                    ),
                    "{{tenant}}",
                )
            ],
            unit="percentunit", highest=1, base=RED, steps=[(0.8, YELLOW), (0.95, GREEN)],
        ),
        Panel(
            "Time to connected",
            "From the click to the connected call.",
            quantiles("switchboard_client_time_to_connected_seconds", TENANT, "tenant", of=(0.5, 0.95)),
            unit="s", steps=[(5, RED)],
        ),
        Panel(
            "Audio heard per call (p50)",
            "What browsers had received when their calls ended. Next to nothing: calls connect and stay silent.",
            quantiles("switchboard_client_audio_seconds", TENANT, "tenant", of=(0.5,)),
            unit="s",
        ),
        Panel(
            "Packets lost (p95)",
            "Share of the audio's packets that did not arrive. The codec hides a few percent.",
            quantiles("switchboard_client_loss_ratio", TENANT, "tenant", of=(0.95,)),
            unit="percentunit", steps=[(0.05, RED)],
        ),
        Panel(
            "Jitter (p95)",
            "Of the audio that browsers receive. Some tens of milliseconds are hidden by their buffers.",
            quantiles("switchboard_client_jitter_seconds", TENANT, "tenant", of=(0.95,)),
            unit="s", steps=[(0.05, RED)],
        ),
        Panel(
            "Round trip (p95)",
            "Between browser and provider.",
            quantiles("switchboard_client_rtt_seconds", TENANT, "tenant", of=(0.95,)),
            unit="s", steps=[(0.3, RED)],
        ),
    ],
)  # fmt: skip

ROWS = (UP, TRAFFIC, REFUSALS, PROVIDER, CALLS, QUOTAS, DEGRADED, BROWSERS)


# From here on: how Grafana writes it.


def dashboard(rows: Sequence[Row] = ROWS) -> Json:
    """The document."""
    return {
        "uid": "switchboard",
        "title": "Switchboard",
        "description": "Calls through Switchboard, from up and serving to what browsers saw.",
        "tags": ["switchboard"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
                _variable("namespace", "Namespace", "switchboard_build_info"),
                _variable("job", "Deployment", 'switchboard_build_info{namespace=~"$namespace"}'),
                _variable("tenant", "Tenant", f"switchboard_decisions_total{{{HERE}}}"),
            ]
        },
        "panels": _laid_out(rows),
    }


def as_text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def _variable(name: str, label: str, series: str) -> Json:
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "definition": query,
        "refresh": 2,  # when the time range changes, too: tenants come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # series without that label as well
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    panels: list[Json] = []
    y = 0
    for row in rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        panels.append({"type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []})
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            panels.append({**_panel(panel), "gridPos": place})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def _panel(panel: Panel) -> Json:
    at_once = panel.kind == "table"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [_colour(*one) for one in panel.colours.items()]},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": not at_once,
                "instant": at_once,
                **({"format": "table"} if at_once else {}),
            }
            for number, query in enumerate(panel.queries)
        ],
        **({"transformations": _ONLY_WHAT_IS_READ} if at_once else {}),
    }


_ONLY_WHAT_IS_READ = [
    {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True},
            "indexByName": {"tenant": 0, "reason": 1, "Value": 2},
            "renameByName": {"tenant": "Tenant", "reason": "Reason", "Value": "Requests"},
        },
    }
]


def _defaults(panel: Panel) -> Json:
    steps = [{"color": panel.base, "value": None}, *({"color": colour, "value": at} for at, colour in panel.steps)]
    defaults: Json = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
    }
    if panel.highest is not None:
        defaults["max"] = panel.highest
    if panel.texts:
        shown = {value: {"text": text, "index": number} for number, (value, text) in enumerate(panel.texts.items())}
        defaults["mappings"] = [{"type": "value", "options": shown}]
    if panel.kind == "table":
        defaults |= {"decimals": 0, "custom": {"align": "auto", "filterable": True}}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 0,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
    return defaults


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none" if panel.texts or panel.names else "area",
            "textMode": "name" if panel.names else "auto",
            "justifyMode": "auto",
            "orientation": "auto",
        }
    if panel.kind == "table":
        return {"showHeader": True, "sortBy": [{"displayName": "Requests", "desc": True}]}
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _colour(series: str, colour: str) -> Json:
    fixed = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
    return {"matcher": {"id": "byName", "options": series}, "properties": [fixed]}


if __name__ == "__main__":
    FILE.write_text(as_text(), encoding="utf-8")
