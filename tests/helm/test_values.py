"""Values: what is refused and how it is said, what the schema allows, what the README tells."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import ryaml

from switchboard.cli import main as program
from switchboard.settings import Settings
from tests.helm import chart

LARGE = "x" * 900_001

# What is changed in the smallest case, and words that the refusal has to have.
WRONG = {
    # what is missing
    "no image": ({"image": {"repository": ""}}, ["image.repository is empty", "docs/deploy.md"]),
    "no public URL": ({"settings": {"public_url": ""}}, ["settings.public_url is empty", "https://voice.example.com"]),
    "no secret": (
        {"secret": {"existingSecret": ""}},
        ["no secret is ever made up", "audit-key, openai-api-key, signing-keys, user-key-secret", "namespace calls"],
    ),
    "no signing keys": ({"secret": {"keys": {"signing_keys": ""}}}, ["secret.keys.signing_keys is empty"]),
    "no user key secret": ({"secret": {"keys": {"user_key_secret": ""}}}, ["secret.keys.user_key_secret is empty"]),
    "a store that lacks a key": (
        {"secret": {"existingSecret": ""}, "externalSecret": {"store": "vault", "data": {"audit-key": {"key": "a"}}}},
        ["externalSecret.data lacks signing-keys", "lacks user-key-secret", "lacks openai-api-key"],
    ),
    "no Gateway": ({"httpRoute": {"enabled": True}}, ["httpRoute.parentRefs is empty"]),
    "an audit file on a root that cannot be written": (
        {"settings": {"audit": "file:/var/log/audit.jsonl"}},
        ["settings.audit is a file", "read-only", "extraVolumeMounts"],
    ),
    # what contradicts something else
    "several pods without Redis": (
        {"replicas": 3},
        ["replicas is 3, but there is no Redis", "counts limits", "redis.url"],
    ),
    "several workers without Redis": ({"settings": {"workers": 4}}, ["settings.workers is 4, but there is no Redis"]),
    "an autoscaler without Redis": (
        {"autoscaling": {"enabled": True}},
        ["autoscaling.enabled means more than one pod, but there is no Redis"],
    ),
    "two secrets": ({"externalSecret": {"store": "vault"}}, ["existingSecret and externalSecret.store are both set"]),
    "Redis twice": (
        {"redis": {"url": "redis://redis:6379"}, "secret": {"keys": {"redis_url": "redis-url"}}},
        ["redis.url and secret.keys.redis_url are both set"],
    ),
    "a password where everybody reads it": (
        {"redis": {"url": "redis://:hunter2@redis:6379"}},
        ["redis.url holds a password", "secret.keys.redis_url"],
    ),
    "two ways in": (
        {"ingress": {"enabled": True}, "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}},
        ["choose one way in"],
    ),
    "fewer at most than at least": (
        {"redis": {"url": "redis://redis"}, "autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 3}},
        ["maxReplicas is less than"],
    ),
    "an autoscaler that looks at nothing": (
        {"redis": {"url": "redis://redis"}, "autoscaling": {"enabled": True, "cpu": 0}},
        ["autoscaling has nothing to look at"],
    ),
    "a share of nothing": (
        {
            "redis": {"url": "redis://redis"},
            "autoscaling": {"enabled": True},
            "resources": {"requests": {"cpu": None}},
        },
        ["autoscaling.cpu is a share of resources.requests.cpu"],
    ),
    "a setting as a variable": (
        {"extraEnv": [{"name": "SWITCHBOARD_LOG_LEVEL", "value": "debug"}]},
        ["SWITCHBOARD_LOG_LEVEL is the chart's own: write settings.log_level"],
    ),
    "a setting as a secret variable": (
        {"secret": {"env": {"SWITCHBOARD_SIGNING_KEYS": "signing-keys"}}},
        ["SWITCHBOARD_SIGNING_KEYS is the chart's own"],
    ),
    "a file that is not read": (
        {"policy": {"files": {"acme.txt": "x"}}},
        ["acme.txt would not be read", ".yaml or .yml"],
    ),
    "a file that no ConfigMap holds": (
        {"policy": {"files": {"acme.yaml": LARGE}}},
        ["acme.yaml has 900001 characters", "a file per tenant"],
    ),
    "a prober that is nobody": ({"prober": {"enabled": True}}, ["prober.existingSecret is empty", "docs/deploy.md"]),
    "a prober that is two": (
        {"prober": {"existingSecret": "probe", "keys": {"token": "token"}, "options": {"issuer": "https://a.example"}}},
        ["prober.keys: set signing_key or token, one of them"],
    ),
    "a key of nobody's": ({"prober": {"existingSecret": "probe"}}, ["prober.options.issuer is empty"]),
    "a call of nobody's": ({"prober": {"options": {"call": True}}}, ["prober.options.call needs a user"]),
    # typos and wrong kinds: the schema
    "a misspelt option": ({"prober": {"options": {"orgin": "https://a.example"}}}, ["prober", "orgin"]),
    "a file among the options": ({"prober": {"options": {"token_file": "/tmp/token"}}}, ["prober", "token_file"]),
    "a step that does not exist": ({"prober": {"options": {"skip": ["no-tokn"]}}}, ["skip", "no-token"]),
    "a schedule in words": ({"prober": {"schedule": "every 5 minutes"}}, ["schedule"]),
    "a misspelt value": ({"replica": 3}, ["replica"]),
    "a misspelt setting": ({"settings": {"publicurl": "https://a.example"}}, ["settings", "publicurl"]),
    "a misspelt key of the Secret": ({"secret": {"keys": {"signing_key": "a"}}}, ["signing_key"]),
    "a misspelt value further down": ({"networkPolicy": {"enable": True}}, ["networkPolicy", "enable"]),
    "a secret among the settings": ({"settings": {"signing_keys": "abc"}}, ["settings", "signing_keys"]),
    "a port among the settings": ({"settings": {"port": 8081}}, ["settings", "port"]),
    "a level that does not exist": ({"settings": {"log_level": "loud"}}, ["log_level", "warning"]),
    "a word for a number": ({"settings": {"provider_timeout": "long"}}, ["provider_timeout"]),
    "a drain of an hour": ({"settings": {"drain_seconds": 3600}}, ["drain_seconds", "600"]),
    "no seconds for the provider": ({"settings": {"provider_timeout": 0}}, ["provider_timeout"]),
    "proxies in one text": ({"settings": {"trusted_proxies": "10.0.0.0/8"}}, ["trusted_proxies"]),
    "a URL without https": ({"settings": {"public_url": "voice.example.com"}}, ["public_url"]),
    "fewer than no pods": ({"replicas": -1}, ["replicas", "0"]),
    "pods as a text": ({"replicas": "3"}, ["replicas", "string"]),
    "a policy that is null": ({"policy": {"files": {"acme.yaml": None}}}, ["acme.yaml", "null", "string"]),
    "a policy that is no text": ({"policy": {"files": {"acme.yaml": {"providers": {}}}}}, ["acme.yaml", "string"]),
    "a Redis by HTTP": ({"redis": {"url": "https://redis"}}, ["redis"]),
    "a digest that is none": ({"image": {"digest": "latest"}}, ["digest"]),
    "a tag with a space": ({"image": {"tag": "0 1"}}, ["tag"]),
    "a service of an odd type": ({"service": {"type": "ExternalName"}}, ["service", "LoadBalancer"]),
    "a port out of range": ({"service": {"port": 80800}}, ["port", "65"]),
    "a Gateway without a name": ({"httpRoute": {"parentRefs": [{"namespace": "gateways"}]}}, ["parentRefs", "name"]),
    "no sleep before the stop": ({"preStopSeconds": 0}, ["preStopSeconds", "1"]),
    "no pod may stay": ({"podDisruptionBudget": {"maxUnavailable": "100%"}}, ["maxUnavailable"]),
    "an interval without a unit": ({"serviceMonitor": {"interval": "30"}}, ["interval"]),
}


@pytest.mark.parametrize("name", chart.HELMS)
@pytest.mark.parametrize(("overrides", "words"), WRONG.values(), ids=WRONG)
def test_wrong_values_are_refused_and_said(overrides, words, name):
    with pytest.raises(chart.Refused) as refused:
        chart.text("one-pod", overrides, name=name)
    said = str(refused.value)
    assert [word for word in words if word not in said] == []
    # helm's own lines and ours, not a trace of templates.
    assert "<" not in said
    assert "nil pointer" not in said


def test_all_that_is_missing_is_said_at_once():
    with pytest.raises(chart.Refused) as refused:
        chart.text("")
    said = [line for line in str(refused.value).splitlines() if line.startswith("  - ")]
    assert [line.split(" ")[3] for line in said] == [
        "image.repository",
        "settings.public_url",
        "policy.files",
        "secret.existingSecret",
    ]


@pytest.mark.parametrize("name", chart.HELMS)
@pytest.mark.parametrize("case", chart.CASE_NAMES)
def test_lint(case, name):
    values = chart.CHART / "ci" / f"{case}-values.yaml"
    assert "0 chart(s) failed" in chart.helm("lint", "--strict", chart.CHART, "--values", values, name=name)


@pytest.mark.parametrize("case", chart.CASE_NAMES)
def test_every_helm_renders_the_same(case):
    assert len({json.dumps(chart.manifests(chart.text(case, name=name))) for name in chart.HELMS}) == 1


@pytest.fixture(scope="module", params=chart.HELMS)
def packed(request, tmp_path_factory):
    """A helm, and the archive that it makes."""
    folder = tmp_path_factory.mktemp("packed")
    chart.helm("package", chart.CHART, "--destination", folder, name=request.param)
    (archive,) = folder.glob("*.tgz")
    return request.param, archive


@pytest.mark.parametrize("case", chart.CASE_NAMES)
def test_a_packed_chart_renders_the_same(case, packed):
    """What is shipped is an archive: a file that .helmignore loses, or a link that leads out, would show here."""
    name, archive = packed
    values = chart.CHART / "ci" / f"{case}-values.yaml"
    how = ("--namespace", chart.NAMESPACE, "--values", values)
    assert chart.helm("template", chart.RELEASE, archive, *how, name=name) == chart.text(case, name=name)


def test_the_cases_have_a_sentence_each():
    for file in chart.CASES:
        assert file.read_text(encoding="utf-8").startswith("# "), file.name


# What the chart takes from elsewhere.


def derived() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripts_chart", chart.ROOT / "scripts" / "chart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_chart_takes_from_elsewhere_is_current():
    stale = [str(file.relative_to(chart.ROOT)) for file in derived().stale()]
    assert stale == [], "run `make chart-files`"


def test_every_value_is_explained():
    told = derived().values()
    assert [path for path, _, text in told if not text] == []
    assert {path.split(".")[0] for path, *_ in told} == set(values())


def values() -> chart.Values:
    found: chart.Values = ryaml.loads((chart.CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def schema() -> chart.Values:
    found: chart.Values = json.loads((chart.CHART / "values.schema.json").read_text(encoding="utf-8"))
    return found


def test_the_schema_knows_every_value_and_no_other():
    def compare(node, known, path):
        if known.get("additionalProperties") is not False:
            return
        names = set(known["properties"]) - ({"global"} if not path else set())
        if path == ("settings",):
            assert set(node) <= names
        elif path not in (("resources",), ("prober", "resources"), ("prober", "options")):
            assert set(node) == names, path
        for name, value in node.items():
            if isinstance(value, dict):
                compare(value, known["properties"][name], (*path, name))

    compare(values(), schema(), ())


def test_every_setting_has_one_place():
    """A new field of the settings goes into `settings` by `make chart-files`; this says where the others are."""
    own, secrets = set(derived().OWN), set(derived().SECRETS)
    accepted = set(schema()["properties"]["settings"]["properties"])
    assert accepted | own | secrets == set(Settings.model_fields)
    assert len(accepted) + len(own) + len(secrets) == len(Settings.model_fields)
    assert set(values()["secret"]["keys"]) == secrets
    typed = {name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)}
    assert secrets == typed


def test_every_option_of_the_probe_has_one_place():
    """A new option goes into `prober.options` by `make chart-files`; this says where the others are."""
    own = set(derived().OWN_OPTIONS)
    accepted = set(schema()["properties"]["prober"]["properties"]["options"]["properties"])
    options = {one.name for one in program.commands["probe"].params}
    assert accepted | own == options
    assert len(accepted) + len(own) == len(options)
    assert {f"{name}_file" for name in values()["prober"]["keys"]} <= own


def test_versions_are_the_packages_own():
    about = ryaml.loads((chart.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (chart.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{about["version"]}"\n' in project
    assert about["appVersion"] == about["version"]
    dockerfile = Path(chart.ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"\nARG VERSION={about['version']}\n" in dockerfile


def test_no_value_is_a_secret():
    """Charts that ship a placeholder end up running with it."""
    text = (chart.CHART / "values.yaml").read_text(encoding="utf-8")
    assert values()["secret"]["existingSecret"] == ""
    assert not any(word in text.lower() for word in ("changeme", "change-me", "xxxx", "sk-"))
    for case in chart.CASE_NAMES:
        assert ("Secret", chart.RELEASE) not in chart.objects(case)
        assert "Secret" not in {kind for kind, _ in chart.objects(case)}
