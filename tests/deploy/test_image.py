"""The Dockerfile, linted and held against the program. That it builds and runs is `make prove-image`."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from switchboard.cli import main
from switchboard.settings import PREFIX, Settings
from tests.support.process import free_ports, switchboard
from tests.test_cli import serve_environment

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEALTHCHECK = ROOT / "deploy" / "healthcheck.py"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its text, continued lines joined."""
    lines = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    split = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    return [(name, re.sub(r" +", " ", rest)) for name, rest in split]


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one stage."""
    everything = instructions()
    begin = everything.index(("FROM", f"${{BASE}} AS {name}"))
    end = next((at for at in range(begin + 1, len(everything)) if everything[at][0] == "FROM"), len(everything))
    return everything[begin + 1 : end]


def last(name: str) -> str:
    """The text of an instruction that the last stage has once."""
    (found,) = [rest for its, rest in stage("service") if its == name]
    return found


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something(tmp_path):
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.read_text(encoding="utf-8").replace("\nUSER 65532:65532\n", "\nUSER root\n"))
    hadolint = Path(sys.executable).parent / "hadolint"
    assert b"DL3002" in subprocess.run([hadolint, bad], capture_output=True, check=False).stdout


def test_the_first_lines_name_the_stages():
    said = re.findall(r"`(\w+)`", DOCKERFILE.read_text(encoding="utf-8").split("\nARG ")[0].split("BASE")[0])
    stages = [rest.rpartition(" AS ")[2] for name, rest in instructions() if name == "FROM"]
    assert said == stages == ["wheel", "packages", "service"]


def test_one_base_which_an_argument_gives():
    assert instructions()[0] == ("ARG", "BASE=python:3.13-slim")
    assert {rest.split(" ")[0] for name, rest in instructions() if name == "FROM"} == {"${BASE}"}
    assert not any(rest.endswith(":latest") for _, rest in instructions())


def test_everything_is_installed_by_hash_and_as_wheels():
    installs = [rest for name, rest in instructions() if name == "RUN" and '"install"' in rest]
    assert len(installs) == 3
    for one in installs:
        # Our own wheel comes out of the stage before, and nothing else with it.
        assert ("--require-hashes" in one and "--only-binary=:all:" in one) or (
            "--no-index" in one and "--no-deps" in one
        )
    for name in ("build", "runtime", "demo"):
        lock = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
        packages = re.findall(r"^[\w.-]+==", lock, re.MULTILINE)
        assert packages
        assert len(re.findall(r"^[\w.-]+==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)) == len(
            packages
        )


def test_the_lock_for_building_is_the_build_backend():
    lock = (ROOT / "locks" / "build.txt").read_text(encoding="utf-8")
    assert re.search(r"^hatchling==", lock, re.MULTILINE)
    demo = (ROOT / "locks" / "demo.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^\S+==\S+", lock, re.MULTILINE)) <= set(re.findall(r"^\S+==\S+", demo, re.MULTILINE))


def test_the_last_stage_runs_nothing_and_takes_one_folder():
    """So there is no compiler in it, nor anything else that the base has not."""
    names = [name for name, _ in stage("service")]
    assert "RUN" not in names
    assert "ADD" not in names
    assert last("COPY") == "--from=packages /opt/switchboard /opt/switchboard"


def test_nobody_in_particular_runs_it():
    uid, gid = last("USER").split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    values = (ROOT / "helm" / "switchboard" / "templates" / "deployment.yaml").read_text(encoding="utf-8")
    assert f"runAsUser: {uid}\n" in values
    assert f"runAsGroup: {gid}\n" in values


def test_no_shell_is_between_signals_and_program():
    assert json.loads(last("ENTRYPOINT")) == [next(iter(PROJECT["scripts"]))]
    (command,) = json.loads(last("CMD"))
    assert command in main.commands
    assert last("STOPSIGNAL") == "SIGTERM"
    check = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    assert check == ["/opt/switchboard/bin/python", "/opt/switchboard/healthcheck.py"]
    assert ("COPY", "deploy/healthcheck.py /opt/switchboard/") in stage("packages")


def test_ports_and_variables_are_the_programs_own():
    assert last("EXPOSE").split() == [str(Settings.model_fields[name].default) for name in ("port", "ops_port")]
    names = re.findall(r"(\w+)=", last("ENV"))
    for name in names:
        if name.startswith(PREFIX):
            assert name.removeprefix(PREFIX).lower() in Settings.model_fields
    assert "SWITCHBOARD_CONFIG=/etc/switchboard" in last("ENV")


def test_labels():
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', last("LABEL")))
    assert set(labels) == {"title", "description", "licenses", "version", "revision"}
    assert labels["licenses"] == PROJECT["license"]
    assert next(rest for name, rest in stage("service") if name == "ARG") == f"VERSION={PROJECT['version']}"


def test_no_secret_can_get_in():
    """What is not listed does not get into the build at all."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed[0] == "*"
    sources = {
        source.replace("${LOCK}", "runtime")
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(f"!{source}" == line or re.fullmatch(line[1:].replace("*", ".*"), source) for line in listed[1:]), (
            source
        )


def asked(port: int, path: str = "/readyz", **env: str) -> int:
    command: list[str | Path] = [sys.executable, HEALTHCHECK, *([str(port), path] if port else [])]
    return subprocess.run(command, env=env, check=False, timeout=10).returncode


def test_the_healthcheck_says_what_readyz_says():
    env = serve_environment()
    port = int(env["SWITCHBOARD_PORT"])
    assert asked(port) == 1  # nobody is there yet
    with switchboard("serve", env=env) as process:
        process.until(f"http://127.0.0.1:{port}/readyz")
        assert asked(port) == 0
        assert asked(0, SWITCHBOARD_PORT=str(port)) == 0
        # A proxy that the environment names is none of its business.
        assert (
            asked(0, SWITCHBOARD_PORT=str(port), http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9") == 0
        )
        assert asked(port, "/nowhere") == 1
    assert asked(free_ports(1)[0]) == 1


@pytest.mark.parametrize("lock", ["runtime", "demo"])
def test_the_locks_of_the_image_are_what_the_extras_need(lock):
    packages = set(
        re.findall(r"^([\w.-]+)==", (ROOT / "locks" / f"{lock}.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert ("aiortc" in packages) == (lock == "demo")
    assert {re.split(r"[\[><=~ ]", one)[0] for one in PROJECT["dependencies"]} <= packages
