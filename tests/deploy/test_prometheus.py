"""The rules by promtool, and rules and dashboard by a real Prometheus that scrapes a real mixed run."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, get_args

import pytest
import ryaml

from deploy.grafana.dashboard import dashboard
from switchboard.calls import EndedBy
from switchboard.errors import Refusal
from tests.deploy import mixed
from tests.deploy.prometheus import FOLDER, Prometheus, Series, prometheus, promtool
from tests.test_docs import DOCS, anchors


@dataclass(frozen=True)
class Query:
    """One expression of the dashboard."""

    panel: str
    number: int
    expr: str
    legend: str


RULES: Mapping[str, Any] = ryaml.loads((FOLDER / "rules.yaml").read_text(encoding="utf-8"))
ALL = [rule for group in RULES["groups"] for rule in group["rules"]]
RECORDS = [rule for rule in ALL if "record" in rule]
ALERTS = [rule for rule in ALL if "alert" in rule]
CASES = [
    (case["expr"], case["exp_samples"])
    for file in sorted((FOLDER / "tests").glob("*.yaml"))
    for test in ryaml.loads(file.read_text(encoding="utf-8"))["tests"]
    for case in test["promql_expr_test"]
]
QUERIES = [
    Query(panel["title"], number, target["expr"], target["legendFormat"])
    for panel in dashboard()["panels"]
    for number, target in enumerate(panel.get("targets", ()), 1)
]
# What is refused by form alone, or on the way to a route.
BEFORE_A_DECISION = {
    "draining", "headers_too_large", "method_not_allowed", "not_found", "payload_too_large", "request_timeout",
    "unsupported_media_type",
}  # fmt: skip
# What a run of seconds cannot bring about: ten thousand lines that nobody reads.
AT_REST = {"Log lines given up"}
# Nothing of this happens in the run, and nothing of this may be told.
QUIET = {
    "SwitchboardDown", "SwitchboardNoTraffic", "SwitchboardInternalErrors", "SwitchboardCallsDoNotEnd",
    "SwitchboardIssuerKeysEnd", "SwitchboardLogLinesDropped", "SwitchboardProbeFailing",
}  # fmt: skip
# These need a time before that was better, a slower provider, or a slower machine.
EITHER = {
    "SwitchboardConfigurationBroken",
    "SwitchboardTokensRefused", "SwitchboardIssuerKeysNotRefreshed", "SwitchboardProviderSlow",
    "SwitchboardCallsEndedByProvider", "SwitchboardEventLoopLag",
}  # fmt: skip
in_a_mixed_run = pytest.mark.long
every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
SECONDS = {"s": 1, "m": 60, "h": 3600}
DURATION = re.compile(r"(?<=\[)(\d+)([smh])(?=\])|(?<=offset )(\d+)([smh])")


# The rules, by promtool


def test_promtool_has_nothing_to_say_against_rules_and_configuration():
    promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
    promtool("check", "config", "--lint=all", "--lint-fatal", "prometheus.yaml")


def test_the_rules_do_what_their_tests_say():
    promtool("test", "rules", *sorted((FOLDER / "tests").glob("*.yaml")))


@every_alert
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert):
    about = [
        (expr, samples)
        for expr, samples in CASES
        if (named := re.search(r'alertname(=~?)"([^"]+)"', expr))
        and (re.fullmatch(named[2], alert["alert"]) if named[1] == "=~" else named[2] == alert["alert"])
    ]
    fired = f'alertname="{alert["alert"]}", alertstate="firing"'
    assert any(fired in sample["labels"] for _, samples in about for sample in samples)
    assert any(not samples for _, samples in about)


@every_alert
def test_an_alert_says_what_to_do_and_leads_to_its_paragraph(alert):
    assert set(alert) == {"alert", "expr", "for", "labels", "annotations"}
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"
    assert alert["alert"].lower() in anchors(DOCS / "operations.md")


def test_each_paragraph_of_the_runbook_is_of_an_alert():
    told = re.findall(r"^### (Switchboard\w+)$", (DOCS / "operations.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert told == [alert["alert"] for alert in ALERTS]


@every_alert
def test_labels_that_a_text_uses_are_those_of_the_alert(alert):
    used = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
    fired = f'ALERTS{{alertname="{alert["alert"]}"'
    shown = [sample["labels"] for _, samples in CASES for sample in samples if sample["labels"].startswith(fired)]
    with_all = [labels for labels in shown if used <= set(re.findall(r"(\w+)=", labels))]
    assert with_all


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: rule["record"])
def test_a_recorded_series_is_named_by_level_metric_and_operations(rule):
    assert re.fullmatch(
        r"[a-z]+(_[a-z]+)*:switchboard_[a-z_]+:[a-z]+(\d+_[a-z]+|_[a-z]+)*\d+m|[a-z]+:switchboard_[a-z_]+:max",
        rule["record"],
    )


# Rules and dashboard, by a real Prometheus


@dataclass(frozen=True)
class Watched:
    """A mixed run as Prometheus saw it."""

    prometheus: Prometheus
    begin: float
    end: float

    def over(self, expr: str) -> list[Series]:
        return self.prometheus.over(expr, self.begin, self.end)


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        begun = []

        def watch(targets: list[str]) -> Callable[[], None]:
            begun.append(stack.enter_context(prometheus(_hurried(targets, folder), folder)))
            return lambda: begun[0].until_seen(len(targets))

        begin, end = mixed.live(stack, watch)
        yield Watched(begun[0], begin, end)


def _hurried(targets: list[str], folder: Path) -> dict[str, Any]:
    """Our own configuration and rules, a minute of which takes a second."""
    rules: dict[str, Any] = copy.deepcopy(dict(RULES))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = DURATION.sub(_a_sixtieth, rule["expr"])
            if "for" in rule:
                rule["for"] = "0s"
    (folder / "rules.yaml").write_text(ryaml.dumps(rules))
    config: dict[str, Any] = ryaml.loads((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    config["global"] = dict.fromkeys(config["global"], "1s")
    assert config["rule_files"] == ["rules.yaml"]
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    return config


def _a_sixtieth(found: re.Match[str]) -> str:
    number, unit = found[1] or found[3], found[2] or found[4]
    return f"{int(number) * SECONDS[unit] // 60}s"


@in_a_mixed_run
def test_the_run_meets_every_refusal_and_every_end(watched):
    reasons = {one["metric"]["reason"] for one in watched.over("sum by (reason) (switchboard_decisions_total)")}
    assert _codes() - reasons == BEFORE_A_DECISION | {"internal_error"}
    ended = {one["metric"]["by"] for one in watched.over("sum by (by) (switchboard_calls_ended_total)")}
    assert ended == set(get_args(EndedBy))


@in_a_mixed_run
def test_every_query_of_the_dashboard_returns_data(watched):
    empty, at_rest, unnamed = [], set(), []
    for query in QUERIES:
        series = watched.over(_with_values(query.expr))
        values = [value for one in series for value in _values(one)]
        if not values:
            empty.append(query)
        elif max(values) == 0:
            at_rest.add(query.panel)
        if any(label not in one["metric"] for label in re.findall(r"{{(\w+)}}", query.legend) for one in series):
            unnamed.append(query)
    assert empty == []
    assert at_rest == AT_REST
    assert unnamed == []


@in_a_mixed_run
def test_variables_of_the_dashboard_have_values(watched):
    found = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            (asked,) = re.finditer(r"label_values\((.*), (\w+)\)", variable["definition"])
            series, label = asked.groups()
            found[variable["name"]] = watched.prometheus.values_of(label, _with_values(series))
    assert found == {
        "namespace": [],
        "job": ["switchboard"],
        "tenant": ["acme", "busy", "capped", "stopped", "widgets"],
    }


@in_a_mixed_run
def test_every_recording_rule_returns_data(watched):
    empty = [
        one["record"] for one in RECORDS if not any(sum(_values(each)) > 0 for each in watched.over(one["record"]))
    ]
    assert empty == []


@in_a_mixed_run
def test_everything_that_alerts_look_at_is_there(watched):
    """That labels and values are those that are written; a defect of ours cannot be had, and nobody probes."""
    looked_at = {
        selector
        for alert in ALERTS
        for selector in re.findall(r"\b(?:\w+:)?(?:switchboard_\w+|up)(?::\w+)?(?:{[^}]*})?", alert["expr"])
    }
    assert len(looked_at) > len(ALERTS)
    absent = {selector for selector in looked_at if not watched.over(selector)}
    probed = {"switchboard_probe_success", "switchboard_probe_end_timestamp_seconds"}
    assert absent == {'switchboard_decisions_total{reason="internal_error"}'} | probed


@in_a_mixed_run
def test_rules_are_evaluated_without_a_mistake(watched):
    assert {rule["health"] for rule in watched.prometheus.rules} == {"ok"}
    assert watched.prometheus.own_metric("prometheus_rule_evaluation_failures_total") == 0


@in_a_mixed_run
def test_what_goes_wrong_in_the_run_alerts(watched):
    settled = watched.begin + 2  # before, Prometheus had not found its targets
    firing = watched.prometheus.over('ALERTS{alertstate="firing"}', settled, watched.end)
    fired = {one["metric"]["alertname"] for one in firing}
    assert {alert["alert"] for alert in ALERTS} - fired - EITHER == QUIET
    texts = [
        text
        for rule in watched.prometheus.rules
        for alert in rule.get("alerts", ())
        for text in alert["annotations"].values()
    ]
    assert texts
    assert [text for text in texts if re.search(r"<no value>|{{|<error", text)] == []


def _codes() -> set[str]:
    waiting, codes = [Refusal], set()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        codes |= {kind.code} if "code" in vars(kind) else set()
    return codes


def _values(series: Series) -> list[float]:
    return [value for _, text in series["values"] if not isnan(value := float(text))]


def _with_values(expr: str) -> str:
    """A query as Grafana sends it, with a scrape each second."""
    chosen = {"namespace": ".*", "job": "switchboard", "tenant": ".*", "__rate_interval": "4s", "__range": "15s"}
    for name, value in chosen.items():
        expr = expr.replace(f"${name}", value)
    assert "$" not in expr, expr
    return expr
