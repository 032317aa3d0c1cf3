"""compose.yaml, held against the compose specification and the program; `make prove-image` has compose load it."""

import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import ryaml
from jsonschema import Draft202012Validator

from switchboard.cli import main
from switchboard.settings import PREFIX, Settings
from tests.deploy.prometheus import promtool

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = ryaml.loads(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
every_service = pytest.mark.parametrize("name", SERVICES)


def specification() -> dict[str, Any]:
    # Found without importing it: only its data are wanted.
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / "builtin_schemas" / "vendor" / "compose-spec.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_it_is_what_compose_reads():
    validator = Draft202012Validator(specification())
    assert [one.message for one in validator.iter_errors(COMPOSE)] == []
    spoilt = {**COMPOSE, "services": {**SERVICES, "redis": {**SERVICES["redis"], "readonly": True}}}
    assert [one.message for one in validator.iter_errors(spoilt)] != []


def test_it_asks_for_what_it_cannot_know():
    """`${NAME:?…}` ends compose with that sentence; nothing that is secret has a default."""
    asked = dict(re.findall(r"\$\{(\w+):\?([^}]+)\}", TEXT))
    assert set(asked) == {"SWITCHBOARD_PUBLIC_URL", "POLICY_FOLDER", "SECRETS_FOLDER"}
    assert all(sentence.startswith("Set it to ") for sentence in asked.values())
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT))
    images = {"IMAGE", "EMULATOR_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
    assert set(defaults) == {*images, "SWITCHBOARD_TRUSTED_PROXIES"}
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("${SECRETS_FOLDER")
    named = asked["SECRETS_FOLDER"]
    assert all(name in named for name in COMPOSE["secrets"])


def test_variables_and_secrets_are_the_programs_own():
    service = SERVICES["switchboard"]
    mounted = {f"/run/secrets/{name}" for name in service["secrets"]}
    assert set(service["secrets"]) == set(COMPOSE["secrets"])
    for name, value in service["environment"].items():
        field = Settings.model_fields[name.removeprefix(PREFIX).removesuffix("_FILE").lower()]
        if name.endswith("_FILE"):
            assert "Secret" in str(field.annotation)
            assert value in mounted
    assert service["command"][0] in main.commands
    assert SERVICES["emulator"]["command"][0] in main.commands


def test_ports_are_the_programs_own_and_on_loopback():
    told = [port.split(":") for port in SERVICES["switchboard"]["ports"]]
    assert [address for address, *_ in told] == ["127.0.0.1", "127.0.0.1"]
    assert [int(port) for *_, port in told] == [Settings.model_fields[name].default for name in ("port", "ops_port")]
    assert "ports" not in SERVICES["redis"]
    everything = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in everything)
    here = [port.split(":")[1] for port in everything]
    assert len(set(here)) == len(here)
    assert COMPOSE["networks"]["redis"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["redis"]


@every_service
def test_nothing_can_be_written_or_gained(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_the_policy_is_where_the_image_looks():
    (volume,) = SERVICES["switchboard"]["volumes"]
    assert volume["read_only"] is True
    assert f"SWITCHBOARD_CONFIG={volume['target']}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _seconds_to_stop() -> int:
    return math.ceil(sum(float(Settings.model_fields[name].default) for name in ("lame_duck_seconds", "drain_seconds")))


def test_a_stop_waits_for_the_drain():
    seconds = int(SERVICES["switchboard"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= _seconds_to_stop() + 5


def test_redis_is_set_up_as_the_limits_want_it():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert SERVICES["switchboard"]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def mounted(name: str) -> dict[str, Path]:
    """What a service finds where, of this folder's files."""
    volumes = [volume for volume in SERVICES[name]["volumes"] if isinstance(volume, dict)]
    assert all(volume["read_only"] and not volume["bind"]["create_host_path"] for volume in volumes)
    return {volume["target"]: (FILE.parent / volume["source"]).resolve() for volume in volumes}


def test_prometheus_has_the_configuration_and_rules_of_this_repository():
    """But for where the service is, which has a name there."""
    files = mounted("prometheus")
    assert f"--config.file={next(iter(files))}" in SERVICES["prometheus"]["command"]
    config, rules = (ryaml.loads(file.read_text(encoding="utf-8")) for file in files.values())
    folder = ROOT / "deploy" / "prometheus"
    usual: dict[str, Any] = ryaml.loads((folder / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = usual["scrape_configs"]
    job["static_configs"] = [{"targets": [f"switchboard:{Settings.model_fields['ops_port'].default}"]}]
    assert config == usual
    assert rules == ryaml.loads((folder / "rules.yaml").read_text(encoding="utf-8"))
    assert list(files) == [f"/etc/prometheus/{name}" for name in ("prometheus.yaml", *config["rule_files"])]
    promtool("check", "config", "--lint=all", "--lint-fatal", "compose.yaml")
    assert SERVICES["switchboard"]["environment"]["SWITCHBOARD_OPS_HOST"] == "0.0.0.0"
    assert {"monitoring"} < set(SERVICES["switchboard"]["networks"])


def test_grafana_has_the_dashboard_in_place_and_no_password():
    files = mounted("grafana")
    provisioning, dashboard = files["/etc/grafana/provisioning"], ROOT / "deploy" / "grafana" / "switchboard.json"
    (provider,) = ryaml.loads((provisioning / "dashboards" / "switchboard.yaml").read_text("utf-8"))["providers"]
    assert files[f"{provider['options']['path']}/{dashboard.name}"] == dashboard
    environment = SERVICES["grafana"]["environment"]
    assert environment["PROMETHEUS_URL"] == "http://prometheus:9090"
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in files
    # Who looks needs no account, and the account that Grafana makes by itself, admin/admin, is not made.
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert not any("PASSWORD" in name for name in environment)


def test_the_emulator_is_only_there_if_asked_for():
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["emulator"]
    assert SERVICES["emulator"]["build"]["args"] == {"LOCK": "demo"}
    assert (ROOT / "locks" / "demo.txt").exists()
