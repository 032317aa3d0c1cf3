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
    assert set(defaults) == {"IMAGE", "EMULATOR_IMAGE", "SWITCHBOARD_TRUSTED_PROXIES"}
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


def test_a_stop_waits_for_the_drain():
    seconds = int(SERVICES["switchboard"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= math.ceil(Settings.model_fields["drain_seconds"].default) + 5


def test_redis_is_set_up_as_the_limits_want_it():
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert SERVICES["switchboard"]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_the_emulator_is_only_there_if_asked_for():
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["emulator"]
    assert SERVICES["emulator"]["build"]["args"] == {"LOCK": "demo"}
    assert (ROOT / "locks" / "demo.txt").exists()
