"""The dashboard as a document; tests/deploy/test_prometheus.py runs its queries."""

import json
import re
from itertools import combinations

import pytest
import ryaml

from deploy.grafana.dashboard import COLUMNS, FILE, SOURCE, as_text
from switchboard.metrics import Metrics
from switchboard.probe.steps import Report, Result
from switchboard.probe.telling import as_prometheus
from tests.deploy.prometheus import FOLDER

DASHBOARD = json.loads(FILE.read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
every_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
ROWS = [
    "Up and serving", "Traffic by outcome", "Refusals by reason", "Provider", "Calls", "Quotas", "Degradation",
    "What browsers saw",
]  # fmt: skip


def families() -> set[str]:
    """The metrics of the service, as queries name them."""
    suffixes = {"counter": "_total", "info": "_info"}
    registry = Metrics().registry
    return {one.name + suffixes.get(one.type, "") for one in registry.collect()}


def of_probes() -> set[str]:
    """What `switchboard probe --prometheus` prints."""
    report = Report("http://probed.example", 0.0, 1.0, (Result("token", "passed", "200"),), reached=True)
    return set(re.findall(r"^# TYPE (\w+) ", as_prometheus(report), re.MULTILINE))


def named_in(text: str) -> set[str]:
    """The metrics of the service that an expression reads; a histogram's by its own name."""
    names = set(re.findall(r"(?<![\w:])switchboard_\w+(?![\w:])", text))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def test_the_file_is_what_its_program_writes():
    assert FILE.read_text(encoding="utf-8") == as_text(), "run python deploy/grafana/dashboard.py"


def test_it_keeps_its_address_and_its_order():
    assert DASHBOARD["uid"] == "switchboard"
    assert "id" not in DASHBOARD
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == ROWS


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_titles_are_unique():
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)


@every_panel
def test_a_panel_says_what_it_shows_and_asks_the_chosen_source(panel):
    assert panel["description"].endswith(".")
    assert panel["datasource"] == SOURCE
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
    for target in panel["targets"]:
        assert target["datasource"] == SOURCE
        assert target["legendFormat"] or panel["type"] != "timeseries"


@every_panel
def test_a_panel_keeps_to_what_is_chosen_at_the_head(panel):
    """Every series that it reads is of the chosen namespace and job, and of the chosen tenants where it has tenants."""
    for target in panel["targets"]:
        for selector in re.findall(r"(?:switchboard_\w+|\bup)({[^}]*})?", target["expr"]):
            assert 'namespace=~"$namespace", job=~"$job"' in selector, target["expr"]
        if "tenant" in target["expr"]:
            assert 'tenant=~"$tenant"' in target["expr"]


def test_every_metric_of_the_service_is_charted_and_no_other():
    assert named_in(" ".join(EXPRESSIONS)) == families()


def test_rules_read_what_there_is():
    rules = [
        rule
        for group in ryaml.loads((FOLDER / "rules.yaml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        assert named_in(rule["expr"]) <= families() | of_probes(), rule
        assert set(re.findall(r"\w+:\w+:\w+", rule["expr"])) <= recorded, rule


def test_provisioning_leads_to_the_dashboard_and_to_its_source():
    folder = FILE.parent / "provisioning"
    (source,) = ryaml.loads((folder / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))["datasources"]
    (provider,) = ryaml.loads((folder / "dashboards" / "switchboard.yaml").read_text(encoding="utf-8"))["providers"]
    assert source["type"] == SOURCE["type"]
    assert source["url"] == "$PROMETHEUS_URL"
    scraping = ryaml.loads((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))["global"]
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]
    assert provider["type"] == "file"
    documented = (FOLDER.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"`{provider['options']['path']}`" in documented
