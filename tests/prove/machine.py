"""Where a proof was made: for the head of each page in docs/proof."""

import contextlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.support.redis import BINARY

ROOT = Path(__file__).parents[2]


def machine() -> list[str]:
    """A table of date, commit, machine and versions; no name of a host and no path."""
    cpu = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    redis = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    describe = ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty= and changes"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False, cwd=ROOT)
    return [
        "| | |",
        "|---|---|",
        f"| date | {datetime.now(UTC):%Y-%m-%d} |",
        f"| commit | {commit.stdout.strip() or 'unknown'} |",
        f"| machine | {cpu}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} |",
        f"| Python | {platform.python_version()}, uvloop {version('uvloop')}, redis-py {version('redis')} |",
        f"| Redis | {redis.split('v=')[1].split()[0]} |",
    ]
