"""Where the time of a request goes: py-spy samples a subject under load; samples are added up by part of the service.

`python -m tests.bench.profile [token|grants|sdp]`. A sample belongs to the innermost of its frames that some part owns:
what a library does is the library's, and not that of who called it. Shares are of the event loop's thread.
"""

import argparse
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench import load
from tests.bench.cores import Cores, cpu_seconds, pinned
from tests.bench.figures import GUARDED
from tests.bench.ground import TENANTS, ground
from tests.bench.load import Seen
from tests.bench.parts import CONNECTIONS, REDIS_AWAY, settle
from tests.bench.people import USES
from tests.bench.program import Failed
from tests.bench.subjects import BY_NAME
from tests.prove.service import say_on_stderr, table

ROOT = Path(__file__).parents[2]
PY_SPY = ROOT / ".venv" / "profile" / "bin" / "py-spy"  # scripts/setup puts it there
SAMPLES_PER_SECOND = 150  # each stops the process for about a millisecond
WARM_SECONDS, LEAD_SECONDS = 3, 1
TOP = 6  # functions that are named for each part

# The first that fits a file owns the frame.
PARTS = {
    "JWT": r"jwt/|identity/",
    "Redis: client": r"redis/|hiredis|async_timeout",
    "Redis: ledger": r"switchboard/ledger/",
    "provider: transport": r"providers/transport|pyreqwest",
    "provider: bodies and answers": r"switchboard/providers/",
    "audit": r"switchboard/audit/|app/evidence",
    "ceiling per address": r"slowapi/|endpoints/edge|limits/",
    "log": r"structlog/|switchboard/logs",
    "metrics": r"prometheus_client/|switchboard/metrics|app/watching",
    "middleware": r"switchboard/(middleware|clientaddress)",
    "admission, presets, broker": r"switchboard/(admission|broker|tenants|presets|ratelimit|grants|sdp|sessions)",
    "endpoints": r"switchboard/endpoints|pydantic/",
    "Starlette": r"starlette/",
    "uvicorn": r"uvicorn/|switchboard/(heads|server)",
    "event loop": r"asyncio/|uvloop|contextlib",
}
LOOP = "switchboard/cli.py"  # below it runs the event loop; beside it are threads that mostly wait


def by_part(lines: Iterable[str]) -> dict[str, Counter[str]]:
    """Samples of each function, by part.

    Args:
        lines: py-spy's raw form: frames from the outermost on, `function (file:line)` with `;` between, and a number.
    """
    found: dict[str, Counter[str]] = {part: Counter() for part in (*PARTS, "other")}
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        if LOOP not in stack:
            continue
        part, function = _owner(stack.split(";"))
        found[part][function] += int(count)
    return found


def _owner(frames: list[str]) -> tuple[str, str]:
    for frame in reversed(frames):
        function, _, file = frame.partition(" (")
        for part, pattern in PARTS.items():
            if re.search(pattern, file):
                return part, function.rpartition(".")[2]
    return "other", frames[-1]


def page(found: dict[str, Counter[str]], seen: Seen, *, cpu_us: float) -> str:
    """A table, the dearest part first."""
    total = sum(functions.total() for functions in found.values())
    if not total:
        raise Failed("py-spy saw nothing of the event loop")
    rows = [
        [
            part,
            f"{functions.total() / total:.1%}",
            ", ".join(f"`{name}` {count / total:.1%}" for name, count in functions.most_common(TOP)),
        ]
        for part, functions in sorted(found.items(), key=lambda pair: -pair[1].total())
        if functions
    ]
    head = (
        f"{seen.requests:,} requests, {cpu_us:.0f} µs of processor each (py-spy's pauses included), {total:,} samples"
    )
    return "\n".join([head, "", *table("part", "share", "of which", rows=rows), ""])


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("subject", nargs="?", default="token", choices=GUARDED)
    parser.add_argument("--seconds", type=int, default=20, metavar="N", help="how long it is watched (20)")
    parser.add_argument(
        "--in-flight", type=int, metavar="N", help="so many at once at the slow provider, instead of 32 at the fast one"
    )
    chosen = parser.parse_args()
    try:
        print(_profiled(chosen.subject, chosen.seconds, in_flight=chosen.in_flight))
    except Failed as error:
        print(f"profile: {error}", file=sys.stderr)
        return 2
    return 0


def _profiled(name: str, seconds: int, *, in_flight: int | None) -> str:
    if not PY_SPY.exists():
        raise Failed("py-spy is not set up: scripts/setup bench")
    cores, subject, say = Cores.of_this_machine(), BY_NAME[name], say_on_stderr
    with ground(cores) as place:
        count = 3000 * (seconds + WARM_SECONDS) // USES
        say(f"signing {count:,} JWTs")
        people = place.signer.people(place.folder / "people", count, TENANTS)
        served = subject.start(place, in_flight is not None)
        load.try_once(served.port, subject.ask, people)
        how: dict[str, Any] = {"connections": in_flight or CONNECTIONS, "on": cores.others}
        warm = load.closed(served.port, subject.ask, people, seconds=WARM_SECONDS, **how)
        settle(served)
        seen: list[Seen] = []

        def ask() -> None:
            first = load.after([warm], in_flight=how["connections"])
            seen.append(
                load.closed(served.port, subject.ask, people, seconds=seconds + 2 * LEAD_SECONDS, first=first, **how)
            )

        asking = threading.Thread(target=ask)
        before = cpu_seconds(served.program.pid)
        asking.start()
        say(f"watching {subject.name} for {seconds} s")
        file = place.folder / "samples"
        command = [*pinned(cores.others), str(PY_SPY), "record", "--pid", str(served.program.pid), "--format", "raw"]
        command += ["--rate", str(SAMPLES_PER_SECOND), "--duration", str(seconds), "--output", str(file)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        asking.join()
        if ran.returncode or not seen:
            raise Failed(f"py-spy ended with {ran.returncode} (it may need to be root): {ran.stderr[-500:]}")
        cpu_us = (cpu_seconds(served.program.pid) - before) / max(1, seen[0].requests) * 1e6
        if given_up := served.program.says(REDIS_AWAY):
            say(f"Redis was given up {given_up} times meanwhile: this is a profile of that")
        return page(by_part(file.read_text(encoding="utf-8").splitlines()), seen[0], cpu_us=cpu_us)


if __name__ == "__main__":
    sys.exit(main())
