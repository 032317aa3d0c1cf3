"""Every object of every case, held against the schemas of the newest versions of Kubernetes."""

import copy

import pytest

from tests.helm import chart, kubernetes

KINDS = {
    "ConfigMap",
    "CronJob",
    "Deployment",
    "ExternalSecret",
    "HTTPRoute",
    "HorizontalPodAutoscaler",
    "Ingress",
    "NetworkPolicy",
    "Pod",
    "PodDisruptionBudget",
    "PrometheusRule",
    "Service",
    "ServiceAccount",
    "ServiceMonitor",
}


@pytest.mark.parametrize("minor", [kubernetes.OLDEST, *kubernetes.MINORS])
@pytest.mark.parametrize("case", chart.CASE_NAMES)
def test_objects_are_as_kubernetes_wants_them(case, minor):
    found = chart.objects(case).values()
    assert [mistake for one in found for mistake in kubernetes.mistakes(one, minor)] == []


def test_the_oldest_version_is_the_one_that_the_chart_asks_for():
    about = (chart.CHART / "Chart.yaml").read_text(encoding="utf-8")
    assert f'kubeVersion: ">={kubernetes.OLDEST}.0-0"' in about
    for name in chart.HELMS:
        with pytest.raises(chart.Refused, match="kubeVersion"):
            chart.helm("template", chart.CHART, "--values", chart.CASES[0], "--kube-version", "1.29.9", name=name)


def test_the_cases_have_every_kind_that_the_chart_can_make():
    assert {kind for case in chart.CASE_NAMES for kind, _ in chart.objects(case)} == KINDS


def a_place_for(manifest: chart.Manifest) -> chart.Manifest:
    """The innermost mapping at the first place of each level: where a typo is hardest to see."""
    inside = manifest.get("spec") or manifest
    while True:
        deeper = [
            one
            for one in (inside.values() if isinstance(inside, dict) else inside)
            if isinstance(one, dict | list) and one
        ]
        lists = [one[0] for one in deeper if isinstance(one, list) and isinstance(one[0], dict)]
        dicts = [
            one
            for one in deeper
            if isinstance(one, dict) and not set(one) & {"matchLabels", "app.kubernetes.io/name", "memory"}
        ]
        if not lists and not dicts:
            return inside
        inside = (lists or dicts)[0]


# Mappings whose names are the user's own take any name, so these show nothing.
@pytest.mark.parametrize("kind", sorted(KINDS - {"ConfigMap"}))
@pytest.mark.parametrize("minor", kubernetes.MINORS)
def test_the_schemas_notice_a_typo(kind, minor):
    """Validation that lets everything pass would look the same as objects that are right."""
    case = next(one for one in chart.CASE_NAMES if kind in {its for its, _ in chart.objects(one)})
    whole = next(one for (its, _), one in chart.objects(case).items() if its == kind)
    for at in (lambda one: one, lambda one: one.get("spec", one), a_place_for):
        spoilt = copy.deepcopy(whole)
        at(spoilt)["tpyo"] = "x"
        assert kubernetes.mistakes(spoilt, minor) != []


@pytest.mark.parametrize("minor", kubernetes.MINORS)
def test_the_schemas_notice_a_wrong_kind(minor):
    spoilt = copy.deepcopy(chart.only("Deployment", "one-pod"))
    spoilt["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] = "10"
    (mistake,) = kubernetes.mistakes(spoilt, minor)
    assert "containers.0.lifecycle.preStop.sleep.seconds" in mistake
