"""Many tenants: how long the start takes, how much memory they need, and whether a reload holds anybody up.

    python -m tests.prove.tenants [--count 10000]

Exit code 1 if a bound is broken.
"""

import argparse
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ryaml

from tests.support.process import Process, switchboard
from tests.support.world import LEGACY_SECRET
from tests.test_cli import serve_environment
from tests.test_metrics import samples

START_SECONDS, MEGABYTES, STALL_SECONDS = 10.0, 400.0, 0.05
PRESETS = 3
ANSWER = b'{"status":"ok"}'
PROVIDER = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "keys": ["env:OPENAI_API_KEY"]}
QUIET_SECONDS = 2.0
TEXT = "You are the assistant of tenant {name}. Be brief, be kind, never promise what the shop cannot keep. " * 6


@dataclass(frozen=True)
class Figures:
    """What was measured, in seconds and megabytes (RSS); stalls are the longest answers of an idle route."""

    bytes_on_disk: int
    start: float
    rss: float
    reload: float
    stall_at_rest: float
    stall_in_reload: float
    stall_when_broken: float
    rss_after: float


def tenant_file(name: str, *, more: str = "") -> str:
    """A tenant of some 2.7 kB, as they are written."""
    session = {
        "type": "realtime",
        "model": "gpt-realtime-2.1",
        "instructions": TEXT.format(name=name) + more,
        "audio": {"output": {"voice": "marin"}, "input": {"turn_detection": {"type": "server_vad"}}},
    }
    overrides: dict[str, Any] = {
        "audio.output.voice": ["marin", "cedar"],
        "audio.output.speed": {"min": 0.8, "max": 1.2},
    }
    preset = {"delivery": "relay", "token_ttl": 60, "session": session, "overrides": overrides}
    tenant = {
        "provider": "openai",
        "origins": [f"https://{name}.example"],
        "limits": {"user": ["10/minute", "100/day"], "tenant": ["1000/minute"], "open_calls": {"user": 1}},
        "default_preset": "preset0",
        "presets": {f"preset{number}": preset for number in range(PRESETS)},
    }
    return str(ryaml.dumps({"tenants": {name: tenant}}))


def write_policy(folder: Path, count: int) -> int:
    """A folder with a file for each tenant; gives its size in bytes."""
    shared = {
        "providers": {"openai": PROVIDER},
        "issuers": [
            {"issuer": "https://prove.example/", "audience": "switchboard", "secret": "env:LEGACY_JWT_SECRET",
             "algorithms": ["HS256"], "tenant_claim": "org_id", "tenants": "any"}
        ],
    }  # fmt: skip
    (folder / "shared.yaml").write_text(ryaml.dumps(shared))
    for number in range(count):
        name = f"tenant-{number:05}"
        (folder / f"{name}.yaml").write_text(tenant_file(name))
    return sum(file.stat().st_size for file in folder.iterdir())


def measure(count: int) -> Figures:
    """Start a service on so many tenants, and change one of them."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        size = write_policy(folder, count)
        env = serve_environment(SWITCHBOARD_CONFIG=str(folder), LEGACY_JWT_SECRET=LEGACY_SECRET)
        env["SWITCHBOARD_AUDIT"] = f"file:{folder}/audit.jsonl"
        began = time.monotonic()
        with switchboard("serve", env=env) as process:
            ops = f"http://127.0.0.1:{env['SWITCHBOARD_OPS_PORT']}"
            process.until(f"{ops}/readyz", seconds=120)
            start = time.monotonic() - began
            time.sleep(3)  # until it has looked at the files once
            rss = _rss(process)
            with _Asking(int(env["SWITCHBOARD_PORT"])) as asking:
                at_rest = asking.longest_for(QUIET_SECONDS)
                changed = folder / f"tenant-{count // 2:05}.yaml"
                changed_text = tenant_file(changed.stem, more="New.")
                seconds, in_reload = _reloaded(process, ops, asking, changed, changed_text)
                _, when_broken = _reloaded(process, ops, asking, changed, "tenants: {x: {presets: 1}}")
            after = _rss(process)
            process.stop()
    return Figures(size, start, rss, seconds, at_rest, in_reload, when_broken, after)


def _reloaded(process: Process, ops: str, asking: "_Asking", file: Path, text: str) -> tuple[float, float]:
    """Seconds until a changed file was read, and the longest answer meanwhile and a second after."""
    url = f"{ops}/metrics"
    before = _reloads(process.until(url).text)
    replacement = file.with_name(".new")
    replacement.write_text(text)
    replacement.rename(file)
    began = time.monotonic()
    process.popen.send_signal(signal.SIGHUP)
    longest = 0.0
    while _reloads(process.until(url).text) == before:
        longest = max(longest, asking.longest_for(0.5))
        assert time.monotonic() < began + 60, process.err
    seconds = time.monotonic() - began
    return seconds, max(longest, asking.longest_for(1.0))


def _reloads(page: str) -> dict[Any, float]:
    return samples(page, "switchboard_config_reload_total")


class _Asking:
    """Asks for /healthz on one connection, again and again."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def longest_for(self, seconds: float) -> float:
        """The longest that an answer took."""
        longest, end = 0.0, time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            self._connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(ANSWER):
                answer += self._connection.recv(4096)
                assert answer
            longest = max(longest, time.monotonic() - begin)
            time.sleep(0.001)
        return longest


def _rss(process: Process) -> float:
    pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    arguments = argparse.ArgumentParser(description="Measure start, memory and reload with many tenants.")
    arguments.add_argument("--count", type=int, default=10_000, help="tenants, each with three presets")
    arguments.add_argument("--rounds", type=int, default=1)
    given = arguments.parse_args()
    found = [measure(given.count) for _ in range(given.rounds)]
    for one in found:
        print(one)
    start, rss, stall = (
        statistics.median(values)
        for values in zip(
            *((one.start, one.rss_after, max(one.stall_in_reload, one.stall_when_broken)) for one in found), strict=True
        )
    )
    print(f"{given.count} tenants: start {start:.1f} s, {rss:.0f} MB, stall {stall * 1000:.0f} ms")
    return int(start > START_SECONDS or rss > MEGABYTES or stall > STALL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
