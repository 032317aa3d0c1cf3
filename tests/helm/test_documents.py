"""docs/deploy.md, held against the chart: its commands render, its numbers are those of the tests."""

import re
import shlex

import pytest

from tests.helm import chart, kubernetes
from tests.helm.test_values import WRONG

PAGE = (chart.ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
ROWS = "\n".join(line for line in PAGE.splitlines() if line.startswith("| chart"))
WORDS = {10: "ten", 11: "eleven", 12: "twelve"}


def installing() -> list[str]:
    """The page's `helm install`, as arguments."""
    (command,) = re.findall(r"^helm install (?:.*\\\n)*.*$", PAGE, re.MULTILINE)
    return shlex.split(command.replace("\\\n", ""))[2:]


@pytest.mark.parametrize("name", chart.HELMS)
def test_the_command_of_the_page_installs_what_the_page_says(name, tmp_path, monkeypatch):
    (tmp_path / "helm").symlink_to(chart.ROOT / "helm")
    policy = chart.objects("gateway")["ConfigMap", "voice-switchboard-policy-0"]["data"]["acme.yaml"]
    (tmp_path / "acme.yaml").write_text(policy)
    monkeypatch.chdir(tmp_path)
    found = {
        (one["kind"], one["metadata"]["name"]): one
        for one in chart.manifests(chart.helm("template", *installing(), name=name))
    }
    deployment = found["Deployment", "voice-switchboard"]
    assert deployment["spec"]["replicas"] == 2
    assert found["ConfigMap", "voice-switchboard-policy-0"]["data"] == {"acme.yaml": policy}
    for minor in kubernetes.MINORS:
        assert [mistake for one in found.values() for mistake in kubernetes.mistakes(one, minor)] == []


def test_the_secret_of_the_page_has_the_keys_that_the_chart_looks_for():
    (command,) = re.findall(r"^kubectl .*create secret generic switchboard (?:.*\\\n)*.*$", PAGE, re.MULTILINE)
    made = set(re.findall(r"--from-(?:literal|file)=([\w-]+)=", command))
    wanted = {
        value.rpartition("/")[2] for name, value in chart.environment("one-pod").items() if name.endswith("_FILE")
    }
    assert wanted <= made
    assert made - wanted == {"openai-api-key"}


@pytest.mark.parametrize("name", chart.HELMS)
def test_the_prober_of_the_page_is_made_and_finds_its_key(name, tmp_path, monkeypatch):
    """The page's upgrade, with the values of its install."""
    (tmp_path / "helm").symlink_to(chart.ROOT / "helm")
    (tmp_path / "acme.yaml").write_text("# a policy\n")
    monkeypatch.chdir(tmp_path)
    (upgrade,) = re.findall(r"^helm upgrade (?:.*\\\n)+.*$", PAGE, re.MULTILINE)
    changes = shlex.split(upgrade.replace("\\\n", ""))[6:]
    assert changes[0] == "--reset-then-reuse-values"
    rendered = chart.helm("template", *installing(), *changes[1:], name=name)
    (job,) = [one for one in chart.manifests(rendered) if one["kind"] == "CronJob"]
    (prober,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert {"--call", "--issuer=https://probe.example.com"} < set(prober["args"])
    (made,) = re.findall(r"create secret generic (switchboard-probe) --from-file=([\w-]+)=", PAGE)
    (volume,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
    (key,) = [one["value"] for one in prober["env"]]
    assert (volume["secret"]["secretName"], key.rpartition("/")[2]) == made


def test_numbers_are_those_of_the_tests():
    assert f"{len(WRONG)} wrong values" in ROWS
    assert f"schemas of Kubernetes {', '.join(kubernetes.MINORS[:-1])} and {kubernetes.MINORS[-1]}" in ROWS
    assert f"Complete values for {WORDS[len(chart.CASES)]} situations" in PAGE
    assert f"each of the {WORDS[len(chart.CASES)]} situations" in PAGE


def test_values_that_the_page_names_exist():
    readme = (chart.CHART / "README.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `([\w.]+)` \|", readme, re.MULTILINE))
    top = {path.split(".")[0] for path in known}
    for name in re.findall(r"`([a-z]\w+(?:\.\w+)+)`", PAGE.partition("## Kubernetes")[2].partition("## systemd")[0]):
        if name.split(".")[0] in top:
            assert name in known or name.startswith(("settings.", "secret.env.")), name
