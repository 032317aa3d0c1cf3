"""How long a stranger waits: `make demo` in a fresh clone, and once more.

    python -m tests.prove.start [--write]

Exit code 1 if the first start takes two minutes or the second five seconds.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.prove.machine import machine
from tests.support.process import free_ports

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof" / "start.md"
FIRST_SECONDS, SECOND_SECONDS = 120.0, 5.0


def started(folder: Path) -> float:
    """Seconds from `make demo` to a page that is served."""
    port, ops_port = free_ports(2)
    begin = time.monotonic()
    make = subprocess.Popen(
        ["make", "demo", f"ARGS=--port {port} --ops-port {ops_port}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while True:
            if make.poll() is not None:
                raise SystemExit(f"make demo ended with {make.returncode}")
            try:
                if httpx.get(f"http://127.0.0.1:{port}/demo", timeout=1, trust_env=False).status_code == 200:
                    return time.monotonic() - begin
            except httpx.TransportError:
                time.sleep(0.02)
    finally:
        os.killpg(make.pid, signal.SIGINT)
        make.wait()


def main() -> int:
    """Measure, print, and say whether the bounds hold."""
    arguments = argparse.ArgumentParser(description="Measure how long `make demo` takes in a fresh clone.")
    arguments.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    write = arguments.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        print("first start, with all set-up …", flush=True)
        first = started(Path(folder))
        print("second start …", flush=True)
        second = started(Path(folder))
    table = [
        "| `make demo` until the page is served | bound | measured |",
        "|---|---|---|",
        f"| in a fresh clone, packages downloaded | {FIRST_SECONDS:.0f} s | {first:.1f} s |",
        f"| once more | {SECOND_SECONDS:.0f} s | {second:.1f} s |",
    ]
    print("\n".join(table))
    if write:
        PAGE.write_text(
            "\n".join(["# Proof: start", "", "Written by `make prove-start`.", "", *machine(), "", *table, ""])
        )
    return int(first >= FIRST_SECONDS or second >= SECOND_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
