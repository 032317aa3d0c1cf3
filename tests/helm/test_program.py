"""The chart, held against the program: its command, ports, paths and variables, and the program started with them."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import ryaml

from switchboard.cli import PROBE_VARIABLES, main
from switchboard.metrics import shared
from switchboard.probe.steps import STEPS
from switchboard.settings import PREFIX, Settings
from tests.helm import chart, local
from tests.helm.chart import container, environment, only
from tests.support.leaks import LEAKS
from tests.support.process import switchboard
from tests.support.redis import redis_server

SECRETS = {
    name: LEAKS.plant(name, f"{name}-of-the-chart-0123456789-0123456789")
    for name in ("signing-keys", "user-key-secret", "audit-key", "admin-token", "openai-api-key")
}
every_case = pytest.mark.parametrize("case", chart.CASE_NAMES)


def ports(case):
    return {port["name"]: port["containerPort"] for port in container(case)["ports"]}


@every_case
def test_the_command_exists(case):
    assert "command" not in container(case)  # the image's own: tests/deploy/test_image.py
    (command,) = container(case)["args"]
    assert command in main.commands
    assert not any(parameter.required for parameter in main.commands[command].params)


@every_case
def test_every_variable_is_a_setting(case):
    for one in container(case)["env"]:
        if one["name"].startswith(PREFIX):
            name = one["name"].removeprefix(PREFIX).removesuffix("_FILE").lower()
            assert name in Settings.model_fields
            # Only secrets are read from files.
            secret = "Secret" in str(Settings.model_fields[name].annotation)
            assert secret or not one["name"].endswith("_FILE")


def test_workers_metrics_are_where_the_program_looks():
    assert shared.VARIABLE in environment("workers")


@every_case
def test_ports_are_those_that_the_program_is_told(case):
    assert ports(case) == {
        "http": int(environment(case)["SWITCHBOARD_PORT"]),
        "ops": int(environment(case)["SWITCHBOARD_OPS_PORT"]),
    }
    # And those of the program by itself, so that documents that name them are true of both.
    assert ports(case) == {
        "http": Settings.model_fields["port"].default,
        "ops": Settings.model_fields["ops_port"].default,
    }


@every_case
def test_the_policy_is_where_the_program_looks(case):
    mounts = {one["name"]: one["mountPath"] for one in container(case)["volumeMounts"]}
    assert environment(case)["SWITCHBOARD_CONFIG"] == mounts["policy"]
    assert all(
        value.startswith(mounts["secrets"] + "/") for name, value in environment(case).items() if name.endswith("_FILE")
    )


@every_case
def test_variables_fit_the_settings(case, monkeypatch):
    for name, value in environment(case).items():
        if not name.endswith("_FILE"):
            monkeypatch.setenv(name, value)
    read = Settings()
    given = ryaml.loads((chart.CHART / "ci" / f"{case}-values.yaml").read_text(encoding="utf-8"))["settings"]
    for name, value in given.items():
        found = getattr(read, name)
        assert (list(map(str, found)) if isinstance(value, list) else found) == value


def test_every_setting_gets_through_as_it_was_meant(monkeypatch):
    """One value of each kind that the schema accepts, through helm, into the program."""
    sample = {
        "string": "text",
        "integer": 7,
        "number": 2.5,
        "boolean": True,
        "array": ["192.0.2.0/24", "2001:db8::/32"],
    }
    fields = only_settings().items()
    given: dict[str, Any] = {name: one["enum"][-1] if "enum" in one else sample[one["type"]] for name, one in fields}
    given |= {
        "public_url": "https://voice.example.com/base",
        "audit": "file:/var/log/audit.jsonl",
        "audit_anchors": "off",
        "edge_limit": "7/minute",
    }
    overrides = {
        "settings": given,
        "redis": {"url": "redis://redis"},
        "extraVolumeMounts": [{"name": "a", "mountPath": "/var/log"}],
    }
    for name, value in environment("one-pod", overrides).items():
        if not name.endswith("_FILE"):
            monkeypatch.setenv(name, value)
    read = Settings()
    for name, value in given.items():
        found = getattr(read, name)
        assert (list(map(str, found)) if isinstance(value, list) else found) == value, name


def only_settings():
    schema = json.loads((chart.CHART / "values.schema.json").read_text(encoding="utf-8"))
    return schema["properties"]["settings"]["properties"]


def started(case, tmp_path, redis_url, given=None):
    """The program's environment as the chart renders it, with the pod's folders in a folder of the test."""
    return local.environment_here(case, tmp_path, {**SECRETS, "redis-url": redis_url}, redis_url, given)


@pytest.mark.parametrize("case", ["one-pod", "three-pods", "workers", "many-tenants", "audit-file", "strict-cluster"])
def test_the_program_runs_with_what_the_chart_gives_it(case, tmp_path):
    """Its probes answer 200, a scrape finds metrics, and it ends within the grace period."""
    with redis_server(tmp_path) as redis:
        env = started(case, tmp_path, redis.url)
        by_name = {"http": env["SWITCHBOARD_PORT"], "ops": env["SWITCHBOARD_OPS_PORT"]}
        with switchboard(*container(case)["args"], env=env, cwd=Path("/")) as process:
            process.until(f"http://127.0.0.1:{by_name['http']}/readyz")
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container(case)[probe]["httpGet"]
                # One worker may be ready before the other.
                process.until(f"http://127.0.0.1:{by_name[asked['port']]}{asked['path']}")
            # A machine that is busy may take Redis for slow at first; what the chart says of it is right all the same.
            end = time.monotonic() + 15
            while "degraded" in httpx.get(f"http://127.0.0.1:{by_name['http']}/readyz").json():
                assert time.monotonic() < end
                time.sleep(0.1)
            scraped = only("ServiceMonitor", "monitoring")["spec"]["endpoints"][0]
            metrics = httpx.get(f"http://127.0.0.1:{by_name[scraped['port']]}{scraped['path']}")
            assert "switchboard_build_info" in metrics.text
            admin = httpx.get(f"http://127.0.0.1:{by_name['ops']}/admin/calls?tenant=acme")
            assert admin.status_code == (401 if "SWITCHBOARD_ADMIN_TOKEN_FILE" in env else 404)
            assert process.stop(signal.SIGTERM) == 0


@every_case
def test_probes_have_options_and_variables_that_the_program_has(case):
    command = main.commands["probe"]
    for one in chart.probe_pods(case).values():
        (prober,) = one["spec"]["containers"]
        name, *arguments = prober["args"]
        assert name == "probe"
        command.make_context(name, arguments)  # would end the program if one were unknown or out of bounds
        files = {f"{PROBE_VARIABLES}_{str(option.name).upper()}" for option in command.params}
        for variable in prober.get("env", ()):
            assert variable["name"] in files
            assert variable["value"].startswith(prober["volumeMounts"][0]["mountPath"] + "/")


def _emulated():
    return switchboard("emulate", "--port", "0", "--no-media", "--key", SECRETS["openai-api-key"])


@pytest.mark.parametrize("case", ["one-pod", "prober"])
def test_the_probe_of_the_chart_passes_against_the_service_of_the_chart(case, tmp_path):
    """Both started with what the chart renders; but for the way between them, which here is loopback's."""
    key = LEAKS.plant("probing key", "key-of-the-prober-of-the-chart-0123456789")
    with redis_server(tmp_path) as redis, _emulated() as provider:
        env = started(case, tmp_path, redis.url)
        while not provider.out:
            assert provider.popen.poll() is None, provider.err
        for file in (tmp_path / "policy").iterdir():
            base_url = f"kind: openai, base_url: {provider.out.removeprefix('base URL: ')}"
            file.write_text(file.read_text().replace("kind: openai", base_url))
        (tmp_path / "secrets" / "probe-key").write_text(key)
        (prober,) = chart.probe_pods(case)["Pod"]["spec"]["containers"]
        mount = f"{prober['volumeMounts'][0]['mountPath']}/" if "volumeMounts" in prober else "/none"
        own = {one["name"]: one["value"].replace(mount, f"{tmp_path}/secrets/") for one in prober.get("env", ())}
        with switchboard(*container(case)["args"], env=env, cwd=Path("/")) as process:
            url = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}"
            process.until(f"{url}/readyz")
            arguments = [f"--url={url}" if one.startswith("--url=") else one for one in prober["args"]]
            with switchboard(*arguments, "--json", env=own) as probe:
                assert probe.wait(60) == 0, probe.out + probe.err
                told = json.loads(probe.out)
    outcomes = {step["step"]: step["outcome"] for step in told["steps"]}
    passed = {step for step, outcome in outcomes.items() if outcome == "passed"}
    assert passed == ({"no-token", "foreign-issuer"} if case == "one-pod" else set(STEPS))


def test_the_name_that_kubernetes_would_overwrite(tmp_path):
    """Why `enableServiceLinks` is off: what a Service called `switchboard` sets, the program cannot use."""
    with redis_server(tmp_path) as redis:
        env = started("one-pod", tmp_path, redis.url) | {"SWITCHBOARD_PORT": "tcp://10.0.0.1:80"}
        with switchboard("serve", env=env) as process:
            assert process.wait() == 1
            assert "SWITCHBOARD_PORT" in process.err
