"""An upgrade from the last version: with the values of then, the chart of today."""

import copy

import pytest

from tests.helm import chart, upgrade

every_case_of_then = pytest.mark.parametrize("case", upgrade.before())


def now(case):
    return chart.manifests(upgrade.rendered(upgrade.before()[case]))


def then(case):
    return chart.manifests((upgrade.LAST / f"{case}.yaml").read_text(encoding="utf-8"))


def test_there_is_a_last_version():
    assert upgrade.before()


@every_case_of_then
@pytest.mark.parametrize("name", chart.HELMS)
def test_values_of_then_still_work(case, name):
    assert upgrade.rendered(upgrade.before()[case], name=name)


@every_case_of_then
def test_nothing_changes_that_must_not(case):
    assert upgrade.forbidden(then(case), now(case)) == []


def test_every_other_change_has_been_read():
    """Each change of a template shows in this file, where whoever reviews it sees what users will get."""
    assert upgrade.difference() == upgrade.DIFF.read_text(encoding="utf-8"), "run `make chart-files` and read the diff"


def test_what_must_not_change_is_noticed():
    old = then("three-pods")
    new = copy.deepcopy(old)
    deployment = next(one for one in new if one["kind"] == "Deployment")
    deployment["spec"]["selector"]["matchLabels"]["team"] = "voice"
    new.remove(next(one for one in new if one["kind"] == "Ingress"))
    gone, changed = upgrade.forbidden(old, new)
    assert gone == "Ingress voice-switchboard is gone"
    assert changed.startswith("Deployment voice-switchboard: ")
    assert upgrade.forbidden(old, old) == []
