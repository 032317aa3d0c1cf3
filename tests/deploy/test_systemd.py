"""The unit, verified by systemd itself, and held against the program."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from switchboard.cli import main
from switchboard.settings import PREFIX, Settings
from tests.test_cli import serve_environment

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "switchboard.service"
TEXT = UNIT.read_text(encoding="utf-8")
# Exposure, as systemd counts it from 0 to 10; left over are the network, which a server needs, and the root directory.
EXPOSURE = 1.5


def directives(name: str) -> list[str]:
    """Every value of a directive."""
    return re.findall(rf"^{name}=(.*)$", TEXT, re.MULTILINE)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_systemd_has_nothing_to_complain_about(tmp_path):
    here = tmp_path / UNIT.name
    program = Path(sys.executable).parent / "switchboard"
    # A container has no kill of its own; a machine with systemd has.
    text = TEXT.replace("/opt/switchboard/bin/switchboard", str(program)).replace("=/bin/kill ", f"={sys.executable} ")
    here.write_text(text)
    done = analyze("verify", "--man=no", here)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    here.write_text(here.read_text().replace("NoNewPrivileges=yes", "NoNewPriviliges=yes"))
    assert "NoNewPriviliges" in analyze("verify", "--man=no", here).stderr


def test_the_service_is_exposed_to_little():
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}", UNIT)
    assert done.returncode == 0, done.stdout[-200:]
    shown = analyze("security", "--offline=true", "--no-pager", "--json=short", UNIT).stdout
    exposed = {one["json_field"] for one in json.loads(shown) if one["set"] is False}
    assert {"NoNewPrivileges", "ProtectSystem", "CapabilityBoundingSet_CAP_SYS_ADMIN"}.isdisjoint(exposed)


def test_the_command_and_its_variables_are_the_programs_own():
    (command,) = directives("ExecStart")
    path, *arguments = command.split()
    assert path == "/opt/switchboard/bin/switchboard"
    assert arguments[0] in main.commands
    credentials = {one.split(":")[0] for one in directives("LoadCredential")}
    for one in directives("Environment"):
        name, _, value = one.partition("=")
        field = Settings.model_fields[name.removeprefix(PREFIX).removesuffix("_FILE").lower()]
        if name.endswith("_FILE"):
            assert "Secret" in str(field.annotation)
            assert value.removeprefix("%d/") in credentials


def _seconds_to_stop() -> int:
    return math.ceil(sum(float(Settings.model_fields[name].default) for name in ("lame_duck_seconds", "drain_seconds")))


def test_a_stop_waits_for_the_drain():
    assert directives("KillSignal") == ["SIGTERM"]
    assert int(directives("TimeoutStopSec")[0]) >= _seconds_to_stop() + 5


def test_no_secret_stands_in_it():
    assert not re.search(r"(?i)(signing_keys|user_key_secret|audit_key)=", TEXT)


def calls_of(name: str) -> set[str]:
    """The system calls of one of systemd's sets, sets within it included."""
    lines = analyze("syscall-filter", name).stdout.splitlines()
    found: set[str] = set()
    for line in (line.strip() for line in lines):
        if line.startswith("@") and line != name:
            found |= calls_of(line)
        elif line and not line.startswith(("#", "@")):
            found.add(line)
    return found


def test_the_program_makes_no_system_call_that_is_forbidden(tmp_path):
    """Seen from start to stop, an answer in between."""
    allowed: set[str] = set()
    for given in directives("SystemCallFilter"):
        sets = [calls_of(name) for name in given.removeprefix("~").split()]
        allowed = allowed - set().union(*sets) if given.startswith("~") else allowed | set().union(*sets)
    assert "mount" not in allowed
    env = {**os.environ, **serve_environment()}
    seen = tmp_path / "calls"
    tracing = ["strace", "--follow-forks", "--output", str(seen)]
    command = [*tracing, sys.executable, "-m", "switchboard", "serve"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                url = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}/token"
                if httpx.get(url, timeout=10, trust_env=False).status_code == 401:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
            assert process.poll() is None
            assert time.monotonic() < end
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()
    text = seen.read_text(errors="replace")
    made = set(re.findall(r"^\d+ +(\w+)\(", text, re.MULTILINE))
    assert {"openat", "epoll_wait", "accept4"} & made
    assert made - allowed == {"execve"} - allowed  # systemd's own, before the filter
    assert directives("MemoryDenyWriteExecute") == ["yes"]
    assert not re.search(r"PROT_WRITE\|PROT_EXEC|PROT_EXEC\|PROT_WRITE", text)
