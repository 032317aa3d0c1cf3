"""Where subjects run: one Redis, one provider, keys and policies, all on other cores than the subject's."""

import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ryaml

from tests.bench import nginx
from tests.bench.cores import Cores, shielded
from tests.bench.people import ISSUER, LEGACY, Signer
from tests.bench.program import Failed, Program
from tests.support import world
from tests.support.process import free_ports
from tests.support.redis import RedisServer, redis_server

MAX_FILES = 65536  # 5,000 callers and as many connections to the provider, on both sides
TENANTS = tuple(f"tenant-{number:05}" for number in range(10))


def tenant(instructions: str = "You help ${claims.name|a customer} with orders. Be brief.") -> dict[str, Any]:
    """A tenant as customers have them: three presets, two quotas that nobody reaches, calls that end by themselves."""
    session = {
        "type": "realtime",
        "model": "gpt-realtime-2.1",
        "instructions": instructions,
        "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}, "output": {"voice": "marin"}},
        "tools": [
            {
                "type": "function",
                "name": "look_up_order",
                "description": "Finds an order by its number.",
                "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
            }
        ],
    }
    overrides = {"audio.output.voice": ["marin", "cedar"], "audio.output.speed": {"min": 0.8, "max": 1.2}}
    preset = {"session": session, "overrides": overrides, "token_ttl": 60}
    return {
        "provider": "openai",
        "origins": ["https://app.bench.example"],
        "limits": {"user": ["1000000/hour"], "tenant": ["1000000000/minute"], "call_seconds": 3000},
        "default_preset": "direct",
        "presets": {
            "direct": {**preset, "delivery": "direct"},
            "relayed": {**preset, "delivery": "relay"},
            "brief": {**preset, "delivery": "relay", "token_ttl": 30},
        },
    }


@dataclass(frozen=True, slots=True)
class Served:
    """A subject that runs: its process, its port, how long it took to be ready."""

    program: Program
    port: int
    ready_seconds: float
    ops_port: int = 0


class Ground:
    """One Redis and one provider; subjects come and go."""

    def __init__(self, stack: ExitStack, folder: Path, cores: Cores) -> None:
        self._stack = stack
        self.folder = folder
        self.cores = cores
        self.signer = Signer.new(world.LEGACY_SECRET)
        with pinned_children(cores.others):
            self.redis: RedisServer = stack.enter_context(redis_server(folder))
        assert self.redis.popen
        self.redis_pid = self.redis.popen.pid
        self.provider_port, self.slow_port = free_ports(2)
        command = nginx.provider(
            folder / "provider", port=self.provider_port, slow_port=self.slow_port, key_set=self.signer.key_set
        )
        provider = self.program("provider", command, on=cores.others)
        for port in (self.provider_port, self.slow_port):
            provider.until(f"http://127.0.0.1:{port}/healthz")
        self.provider_pid = provider.pid

    def program(
        self,
        name: str,
        command: Sequence[str],
        *,
        on: frozenset[int],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Program:
        """Start a program that does not outlive the ground."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        # As in the image: no bytecode is written while something is measured, and nothing of this shell is seen.
        given = {**mine, "OPENAI_API_KEY": world.API_KEY, **(env or {})}
        program = Program(command, on=on, env=given, log=self.folder / f"{name}.log", cwd=cwd)
        self._stack.callback(program.stop)
        return program

    def base_url(self, *, slow: bool) -> str:
        """The provider's address, without `/v1`."""
        return f"http://127.0.0.1:{self.slow_port if slow else self.provider_port}"

    def policy(self, name: str, *, slow: bool, tenants: Sequence[str] = TENANTS) -> Path:
        """A folder of files, one per tenant, as large installations have them."""
        folder = self.folder / name
        if folder.exists():
            return folder
        folder.mkdir()
        common = {"audience": "switchboard", "tenant_claim": "org_id", "tenants": "any"}
        base = {
            "providers": {
                "openai": {
                    "kind": "openai",
                    "base_url": f"{self.base_url(slow=slow)}/v1",
                    "keys": ["env:OPENAI_API_KEY"],
                }
            },
            "issuers": [
                {
                    "issuer": ISSUER,
                    "jwks_url": f"{self.base_url(slow=False)}/jwks.json",
                    "algorithms": ["RS256"],
                    **common,
                },
                {"issuer": LEGACY, "secret": "env:LEGACY_JWT_SECRET", "algorithms": ["HS256"], **common},
            ],
        }
        (folder / "base.yaml").write_text(ryaml.dumps(base))
        for one in tenants:
            (folder / f"{one}.yaml").write_text(ryaml.dumps({"tenants": {one: tenant()}}))
        return folder

    def switchboard(
        self, policy: Path, *, on: frozenset[int] | None = None, ready_within: float = 60, **settings: str
    ) -> Served:
        """`switchboard serve` as in production, with everything on.

        Args:
            policy: its folder.
            on: cores; the subject's, if nothing is said.
            ready_within: seconds.
            settings: as in the environment, in lower case and without prefix.
        """
        port, ops_port = free_ports(2)
        audit = self.folder / f"audit-{port}.jsonl"
        given = {
            "config": str(policy),
            "host": "127.0.0.1",
            "port": str(port),
            "ops_port": str(ops_port),
            "public_url": world.PUBLIC_URL,
            "signing_keys": world.SIGNING_KEY,
            "user_key_secret": world.USER_KEY_SECRET,
            "audit_key": world.AUDIT_KEY,
            "audit": f"file:{audit}",
            "redis_url": self.redis.url,
            # Counted for each user's own address, as behind a load balancer, and high enough that nobody is refused.
            "trusted_proxies": "127.0.0.0/8",
            "edge_limit": "1000000/minute",
            **settings,
        }
        env = {f"SWITCHBOARD_{name.upper()}": value for name, value in given.items()}
        env["LEGACY_JWT_SECRET"] = world.LEGACY_SECRET
        command = [sys.executable, "-m", "switchboard", "serve"]
        program = self.program(f"switchboard-{port}", command, on=on or self.cores.subject, env=env)
        ready = program.until(f"http://127.0.0.1:{port}/readyz", seconds=ready_within)
        self._stack.callback(audit.unlink, missing_ok=True)
        return Served(program, port, ready, ops_port)

    def forget(self) -> None:
        """Everything that Redis knows, and the evidence of subjects that are over."""
        self.redis.do("FLUSHALL")
        self.redis.do("CONFIG", "RESETSTAT")
        for file in self.folder.glob("audit-*"):
            file.unlink()


@contextmanager
def pinned_children(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def ground(cores: Cores) -> Iterator[Ground]:
    """A ground whose processes do not outlive the block.

    Raises:
        Failed: what it needs is not there.
    """
    if not nginx.BINARY.exists():
        raise Failed("nginx is not set up: run it by `make bench`, or `scripts/setup bench` before")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(MAX_FILES, most), most))
    with ExitStack() as stack:
        stack.enter_context(shielded(cores))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="switchboard-bench-")))
        yield Ground(stack, folder, cores)
