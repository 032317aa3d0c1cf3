"""What is measured: how each subject is started, and how it is asked."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import orjson

from tests.bench import nginx
from tests.bench.ground import Ground, Served
from tests.bench.load import Ask
from tests.support import world
from tests.support.process import free_ports

ROOT = Path(__file__).parents[2]
EXPRESS = Path(__file__).with_name("express")
LITELLM = ROOT / ".venv" / "litellm"  # a virtual environment of its own: scripts/setup makes it if BENCH_LITELLM is 1
MASTER_KEY = "sk-" + "b3" * 32
TOKEN = Ask("GET", "/token")
# Straight to the provider, without anything between.
DIRECT = Ask("POST", "/v1/realtime/client_secrets", "json")
DIRECT_CALL = Ask("POST", "/v1/realtime/calls", "offer", status=201)


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that answers on a port."""

    name: str
    title: str
    ask: Ask
    start: Callable[[Ground, bool], Served]
    """The second argument says whether the provider is the slow one."""
    in_flight: bool = False
    """Whether it is also measured with thousands in flight."""
    direct: Ask = DIRECT
    """The same, without anything between, for the latency that it adds."""
    ours: bool = False
    bearer: str | None = None
    """What all callers present, if it takes no users' JWTs."""
    of_call: bool = False
    """Whether it is asked about a call, which one user opens beforehand; its path begins with `{call}`."""
    saturates: bool = True
    """Whether it is its own core that bounds it; nginx may be faster than what asks it."""


def _switchboard(ground: Ground, slow: bool) -> Served:
    return ground.switchboard(ground.policy("slow" if slow else "fast", slow=slow))


def bare_with(client: str) -> Callable[[Ground, bool], Served]:
    """Starts bare Starlette with one of `tests.bench.bare.KINDS`."""

    def start(ground: Ground, slow: bool) -> Served:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "tests.bench.bare", client, str(port), ground.base_url(slow=slow)]
        program = ground.program(f"bare-{client}", command, on=ground.cores.subject, cwd=ROOT)
        return Served(program, port, program.until(f"http://127.0.0.1:{port}/healthz"))

    return start


def _express(ground: Ground, slow: bool) -> Served:
    (port,) = free_ports(1)
    command = ["node", "server.js", str(port), ground.base_url(slow=slow)]
    env = {"NODE_ENV": "production"}
    program = ground.program("express", command, on=ground.cores.subject, env=env, cwd=EXPRESS)
    return Served(program, port, program.until(f"http://127.0.0.1:{port}/healthz"))


def _nginx(ground: Ground, slow: bool) -> Served:
    (port,) = free_ports(1)
    provider_port = ground.slow_port if slow else ground.provider_port
    command = nginx.gateway(ground.folder / "gateway", port=port, provider_port=provider_port, api_key=world.API_KEY)
    program = ground.program("gateway", command, on=ground.cores.subject)
    return Served(program, port, program.until(f"http://127.0.0.1:{port}/healthz"))


def _litellm(ground: Ground, slow: bool) -> Served:
    (port,) = free_ports(1)
    file = ground.folder / "litellm.yaml"
    file.write_text(
        "model_list:\n"
        "  - model_name: gpt-realtime-2.1\n"
        "    litellm_params:\n"
        "      model: openai/gpt-realtime-2.1\n"
        f"      api_base: {ground.base_url(slow=slow)}\n"
        "      api_key: os.environ/OPENAI_API_KEY\n"
    )
    command = [str(LITELLM / "bin" / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    # One key for everybody, and no database: the least that it starts with.
    env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": MASTER_KEY}
    program = ground.program("litellm", [*command, "--num_workers", "1"], on=ground.cores.subject, env=env)
    return Served(program, port, program.until(f"http://127.0.0.1:{port}/health/liveliness", seconds=120))


SUBJECTS = [
    Subject("token", "Switchboard `/token`, direct", TOKEN, _switchboard, in_flight=True, ours=True),
    Subject("grants", "Switchboard `/token`, grants", Ask("GET", "/token?preset=relayed"), _switchboard, ours=True),
    Subject(
        "sdp",
        "Switchboard `/sdp`",
        Ask("POST", "/sdp?preset=relayed", "offer", status=201),
        _switchboard,
        in_flight=True,
        direct=DIRECT_CALL,
        ours=True,
    ),
    Subject(
        "heartbeat",
        "Switchboard, a heartbeat of a call",
        Ask("POST", "{call}/report", "heartbeat", status=204),
        _switchboard,
        of_call=True,
    ),
    Subject("bare", "Starlette, the same client, nothing else", TOKEN, bare_with("ours"), in_flight=True),
    Subject("express", "Express with fetch, nothing else", TOKEN, _express, in_flight=True),
    Subject("httpx", "Starlette with httpx, nothing else", TOKEN, bare_with("httpx"), in_flight=True),
    Subject("nginx", "nginx, `proxy_pass` and `limit_req`", TOKEN, _nginx, saturates=False),
    Subject("litellm", "LiteLLM's proxy, `client_secrets`", DIRECT, _litellm, bearer=MASTER_KEY),
]
BY_NAME = {subject.name: subject for subject in SUBJECTS}


def at_hand() -> list[Subject]:
    """All, without LiteLLM unless it is wanted."""
    wanted = os.environ.get("BENCH_LITELLM") == "1"
    return [subject for subject in SUBJECTS if subject.name != "litellm" or wanted]


def versions() -> str:
    """Of what subjects and provider are made of, as far as it is there."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("starlette", "uvicorn", "pyreqwest", "httpx"))
    commands = {"Node": ["node", "--version"], "nginx": [str(nginx.BINARY), "-v"], "wrk": ["wrk", "-v"]}
    told = []
    for name, command in commands.items():
        with contextlib.suppress(OSError):
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            found = re.search(r"\d+\.\d+\.\d+", ran.stdout + ran.stderr)
            told += [f"{name} {found[0]}"] if found else []
    express = EXPRESS / "node_modules" / "express" / "package.json"
    if express.exists():
        told.append(f"Express {orjson.loads(express.read_bytes())['version']}")
    for info in LITELLM.glob("lib/*/site-packages/litellm-*.dist-info"):
        told.append(f"LiteLLM {info.name.removesuffix('.dist-info').partition('-')[2]}")
    return ", ".join([packages, *told])
