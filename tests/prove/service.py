"""What proofs of the running service share: processes as in production on one Redis and one emulator, and a table."""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson
import ryaml

from switchboard.identity import Principal, UserKeys
from tests.support import keys, world
from tests.support.process import Process, free_ports, switchboard
from tests.support.redis import RedisServer, redis_server

Say = Callable[[str], None]
ISSUER = "https://prove.example/"
_numbers = itertools.count(1)


@dataclass
class Result:
    """What one part found, as Markdown, and which bounds it broke."""

    lines: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def bound(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)


def say_on_stderr(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"\033[2m• {text}\033[0m", file=sys.stderr, flush=True)


def tell(page: str, parts: dict[str, Result], file: Path, *, write: bool) -> int:
    """Print a page, write it if nothing is broken; gives the exit code."""
    print(page)
    broken = [f"{part}: {what}" for part, result in parts.items() for what in result.broken]
    for line in broken:
        print(f"BROKEN  {line}", file=sys.stderr)
    if write and not broken:
        file.parent.mkdir(exist_ok=True)
        file.write_text(page, encoding="utf-8")
    return 1 if broken else 0


# A policy, and who calls under it


def tenant(**fields: Any) -> dict[str, Any]:
    """A tenant whose one preset is relayed; without quotas, unless `limits` says so."""
    session = {"type": "realtime", "model": "gpt-realtime-2.1", "instructions": "Be brief."}
    limits = {"user": [], "tenant": [], **fields.pop("limits", {})}
    preset = {"delivery": "relay", "session": session, **fields.pop("preset", {})}
    return {
        "provider": "openai",
        "origins": "any",
        "limits": limits,
        "default_preset": "talk",
        "presets": {"talk": preset},
        **fields,
    }


def policy(**tenants: dict[str, Any]) -> dict[str, Any]:
    """A policy with these tenants, for whom one issuer speaks."""
    issuer: dict[str, Any] = {"issuer": ISSUER, "audience": "switchboard", "secret": "env:PROVE_SECRET"}
    issuer |= {"algorithms": ["HS256"], "tenant_claim": "org_id", "tenants": "any"}
    return {
        "providers": {"openai": {"kind": "openai", "base_url": "", "keys": ["env:OPENAI_API_KEY"]}},
        "issuers": [issuer],
        "tenants": tenants,
    }


def token(subject: str, *, tenant: str, **claims: Any) -> str:
    """A user's JWT, issued a minute ago: no clock that is half a minute off takes it for one of the future."""
    content = keys.claims(iss=ISSUER, sub=subject, org_id=tenant, **claims)
    content |= {"iat": content["iat"] - 60, "exp": content["iat"] + 7200}
    return jwt.encode(content, world.LEGACY_SECRET, "HS256")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who calls: the token, and the key that stands for them in the register and at the provider."""

    token: str
    key: str


def new_user(tenant: str) -> User:
    """Somebody who has never called before."""
    subject = f"prover-{next(_numbers)}"
    principal = Principal(ISSUER, subject, tenant, {})
    return User(token(subject, tenant=tenant), UserKeys(world.USER_KEY_SECRET.encode()).of(principal))


def new_offer() -> bytes:
    """An offer that nobody has sent before."""
    return world.fresh_offer(next(_numbers))


# Processes


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """A call as the provider knows it; times are unix seconds of its own clock."""

    id: str
    user_key: str
    started_at: float
    ended_at: float | None


class Replica:
    """`switchboard serve`, which can be killed and started again on the same ports."""

    def __init__(self, env: dict[str, str], *, off_by: str | None = None) -> None:
        free = {"SWITCHBOARD_PORT": "", "SWITCHBOARD_OPS_PORT": ""}
        free = {name: str(port) for name, port in zip(free, free_ports(2), strict=True)}
        self._env = {**free, **env}
        self.port, self._ops_port = (int(self._env[name]) for name in free)
        # Timers go by the monotonic clock, which no clock that is off takes along.
        self._under = ["faketime", "-m", "--exclude-monotonic", "-f", off_by] if off_by else []
        self._lives: list[Process] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self._ops_port}"

    def start(self) -> None:
        """Begin; `until_ready` waits for it."""
        self._lives.append(Process("serve", env=self._env, under=self._under))

    def until_ready(self) -> None:
        self._lives[-1].until(f"http://127.0.0.1:{self.port}/readyz", seconds=30)

    def kill(self) -> None:
        """kill -9, if it lives."""
        if self._lives:
            self._lives[-1].kill()

    @property
    def process(self) -> Process:
        """Its last life."""
        return self._lives[-1]

    @property
    def degraded(self) -> list[str]:
        """What it says that is amiss."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2, trust_env=False)
        return list(answer.json().get("degraded", ()))

    @property
    def ahead(self) -> float:
        """Seconds by which its clock is ahead of this process's, to about a second."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/healthz", timeout=2, trust_env=False)
        return parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()

    @property
    def metrics(self) -> str:
        """What a scraper gets."""
        return httpx.get(f"http://127.0.0.1:{self._ops_port}/metrics", trust_env=False).text

    @property
    def records(self) -> list[dict[str, Any]]:
        """The audit of all its lives."""
        lines = [line for life in self._lives for line in tuple(life.lines["stdout"])]
        return [orjson.loads(line) for line in lines if line.startswith("{")]

    @property
    def log(self) -> str:
        return "\n".join(life.err for life in self._lives)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name with these labels."""
        text = httpx.get(f"http://127.0.0.1:{self._ops_port}/metrics", trust_env=False).text
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        samples = [line for line in text.splitlines() if line.startswith(name + "{")]
        return sum(float(line.rpartition(" ")[2]) for line in samples if all(one in line for one in wanted))

    @property
    def hang_ups(self) -> int:
        """How many the provider was asked for."""
        return int(self.metric("switchboard_provider_request_duration_seconds_count", operation="hangup"))


def _stepping_clock(file: str) -> dict[str, str]:
    """Variables by which libfaketime takes a process's wall clock from a file, looked at every second."""
    command = ["faketime", "-m", "--exclude-monotonic", "-f", "+0s", "env"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    preload = next(line.partition("=")[2] for line in lines if line.startswith("LD_PRELOAD="))
    return {
        "LD_PRELOAD": preload,
        "FAKETIME_TIMESTAMP_FILE": file,
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # With its fix for old C libraries, threads wait up to a second for each other, because Python's lock does.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }


class Ground:
    """Where replicas run: one Redis, one provider, one policy."""

    def __init__(
        self, stack: ExitStack, folder: Path, policy: dict[str, Any], *redis_options: str, media: bool
    ) -> None:
        self._stack = stack
        self.redis: RedisServer = stack.enter_context(redis_server(folder, *redis_options))
        (port,) = free_ports(1)
        silent = () if media else ("--no-media",)
        emulator = stack.enter_context(switchboard("emulate", "--port", str(port), *silent))
        self.provider = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        stack.callback(self.provider.close)
        emulator.until(f"http://127.0.0.1:{port}/_emulator/faults")
        self.emulator = emulator
        policy["providers"]["openai"]["base_url"] = f"http://127.0.0.1:{port}/v1"
        self.tenants = tuple(policy["tenants"])
        self.policy_file = folder / "switchboard.yaml"
        self.policy_file.write_text(ryaml.dumps(policy))
        self.replicas: list[Replica] = []

    def add(self, *, off_by: str | None = None, clock_file: str | None = None, **settings: str) -> Replica:
        """One more replica, not started yet.

        Args:
            off_by: how far its clock is off, such as `+30s`.
            clock_file: what says so at any time, so that its clock can step.
            settings: as in the environment, in lower case and without prefix.
        """
        given = {
            "config": str(self.policy_file),
            "host": "127.0.0.1",
            "public_url": world.PUBLIC_URL,
            "signing_keys": world.SIGNING_KEY,
            "user_key_secret": world.USER_KEY_SECRET,
            "audit_key": world.AUDIT_KEY,
            "redis_url": self.redis.url,
            "edge_exempt": "127.0.0.0/8",
            "lame_duck_seconds": "0",
            **settings,
        }
        env = {f"SWITCHBOARD_{name.upper()}": value for name, value in given.items()}
        secrets = {"OPENAI_API_KEY": world.API_KEY, "PROVE_SECRET": world.LEGACY_SECRET}
        clock = _stepping_clock(clock_file) if clock_file else {}
        replica = Replica({**env, **secrets, **clock}, off_by=off_by)
        self._stack.callback(replica.kill)
        self.replicas.append(replica)
        return replica

    def start(self) -> list[int]:
        """Start all replicas at once; gives their ports when they are ready."""
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            replica.until_ready()
        return [replica.port for replica in self.replicas]

    def faults(self, **faults: Any) -> None:
        """Make the provider misbehave from now on; without any, behave."""
        self.provider.put("/_emulator/faults", json=faults).raise_for_status()

    def calls(self) -> dict[str, ProviderCall]:
        """All calls that the provider has seen, by id."""
        rows = orjson.loads(self.provider.get("/_emulator/calls").content)["calls"]
        return {
            row["id"]: ProviderCall(row["id"], row["safety_identifier"], row["started_at"], row["ended_at"])
            for row in rows
        }

    @property
    def records(self) -> list[dict[str, Any]]:
        """The audit of all replicas."""
        return [record for replica in self.replicas for record in replica.records]


@contextmanager
def ground(policy: dict[str, Any], *redis_options: str, media: bool = False) -> Iterator[Ground]:
    """A ground whose processes do not outlive the block; with `media` its provider answers with real WebRTC."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield Ground(stack, folder, policy, *redis_options, media=media)


def table(*columns: str, rows: Sequence[Sequence[object]] = ()) -> list[str]:
    """A Markdown table."""
    head, *lines = [f"| {' | '.join(str(cell) for cell in line)} |" for line in (columns, *rows)]
    return [head, f"|{'---|' * len(columns)}", *lines]
