"""The proof that nothing strangers write makes more than a refusal: a million inputs, and the whole contract.

`python -m tests.prove.fuzz [--full] [--write]`; `make prove-fuzz` does both. Exit code 1 if anything was found.
"""

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from switchboard import logs
from tests.attacks import contract
from tests.prove.machine import machine
from tests.prove.service import Result, Say, say_on_stderr, table, tell
from tests.support.redis import redis_server

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof" / "fuzz.md"
MILLION = {
    "sdp": 200_000,
    "multipart": 150_000,
    "jwt": 150_000,
    "overrides": 200_000,
    "grants": 150_000,
    "bodies": 150_000,
}
READS = {
    "sdp": "`sdp.py`: an offer",
    "multipart": "`endpoints/offering.py`: a whole request, its media type and its parts",
    "jwt": "`identity/verifier.py`: a token as it comes, or any header and claims under a right signature",
    "overrides": "`presets.py`, `sessions/beta.py`: a caller's `session`, and the beta's flat one",
    "grants": "`grants.py`: a grant as it comes, or one of ours with bytes changed",
    "bodies": "`endpoints/token.py`, `report.py`: JSON bodies",
}
INPUT_MS = 1000  # libFuzzer ends a run whose input takes longer
GROWTH_KB = 32 * 1024  # from the first fifth of the inputs to the last; libFuzzer's own corpus is in it
SEED = 20261120


def prove_inputs(say: Say, *, runs: dict[str, int], seed: int = SEED) -> Result:
    """Each target with its number of inputs, one after another."""
    result = Result()
    rows = []
    seen: list[dict[str, Any]] = []
    for name, count in runs.items():
        say(f"{name}: {count} inputs")
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, name)
            told, said, code = _drive(say, name, count, folder, seed)
            found = [file.read_bytes() for file in folder.glob("*-*") if file.is_file()]
        result.bound(code == 0 and not found, f"{name}: ended with {code}: {found[:1]} {said[-2000:]}")
        result.bound(told["inputs"] >= count, f"{name}: {told['inputs']} inputs of {count}")
        result.bound(told["taken"] > 0, f"{name}: every input was refused")
        result.bound(told["slowest_ms"] < INPUT_MS, f"{name}: one input took {told['slowest_ms']:.0f} ms")
        result.bound(told["growth_kb"] < GROWTH_KB, f"{name}: grew by {told['growth_kb']} KiB")
        seen.append(told)
        rows.append(
            (
                name,
                f"{told['inputs']:,}",
                f"{told['taken']:,}",
                len(found),
                f"{told['seconds']:.0f} s",
                f"{told['slowest_ms']:.0f} ms",
                f"{told['longest_bytes']:,}",
                f"{told['growth_kb'] / 1024:+.1f} MB",
                f"{told['peak_mb']} MB",
            )
        )
    total, taken = sum(told["inputs"] for told in seen), sum(told["taken"] for told in seen)
    seconds = sum(told["seconds"] for told in seen)
    rows.append(("**all**", f"{total:,}", f"{taken:,}", len(result.broken), f"{seconds:.0f} s", "", "", "", ""))
    result.lines = table(
        *("target", "inputs", "taken", "findings", "time", "slowest input", "longest input, bytes", "growth", "peak"),
        rows=rows,
    )
    return result


def _drive(say: Say, name: str, count: int, folder: Path, seed: int) -> tuple[dict[str, Any], str, int]:
    """Run one target; gives what it told last, what libFuzzer said, and its exit code."""
    told = {
        "inputs": 0,
        "taken": 0,
        "seconds": 0.0,
        "slowest_ms": 0.0,
        "longest_bytes": 0,
        "growth_kb": 0,
        "peak_mb": 0,
    }
    command = [sys.executable, "-m", "tests.attacks.fuzz", name, "--runs", str(count), "--folder", str(folder)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        running = subprocess.Popen([*command, "--seed", str(seed)], stdout=said, stderr=said, cwd=ROOT)
        shown = time.monotonic()
        while running.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                told = _told(folder, told)
                say(f"{name}: {told['inputs']} of {count}")
        said.seek(0)
        return _told(folder, told), said.read(), running.returncode


def _told(folder: Path, before: dict[str, Any]) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="ascii"))
    except (OSError, ValueError):  # not written yet, or just being written
        return before
    return told


def prove_contract(say: Say, *, examples: int, seed: int = SEED) -> Result:
    """schemathesis with the whole contract, state in memory and in Redis."""
    result = Result()
    rows = []
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis:
        for state, settings in (("in memory", {}), ("in Redis", {"redis_url": redis.url})):
            say(f"openapi.yaml, state {state}")
            began = time.monotonic()
            outcome = asyncio.run(contract.run(seed=seed, examples=examples, **settings))
            result.bound(outcome.code == 0, f"state {state}:\n{outcome.output}")
            defects = sum(count for (*_, status), count in outcome.answers.items() if status in {"0", "500"})
            result.bound(defects == 0, f"state {state}: {defects} answers of 500, or none")
            statuses = sorted({status for *_, status in outcome.answers})
            rows.append(
                (
                    state,
                    f"{outcome.cases:,}",
                    f"{sum(outcome.answers.values()):,}",
                    ", ".join(statuses),
                    0 if outcome.code == 0 else "some",
                    f"{time.monotonic() - began:.0f} s",
                )
            )
    result.lines = table("state", "requests made up", "answers", "their statuses", "findings", "time", rows=rows)
    return result


def _page(parts: dict[str, Result], *, seed: int) -> str:
    inputs, whole = parts.values()
    return "\n".join(
        [
            "# Proof: bad input",
            "",
            "Written by `make prove-fuzz`; [security](../security.md#the-threat-model) says what it means.",
            "Everything ran on one machine:",
            "",
            *machine(),
            f"| fuzzers | atheris {version('atheris')}, schemathesis {version('schemathesis')}, seed {seed} |",
            "",
            "## A million inputs",
            "",
            "atheris (libFuzzer for Python) follows the branches of `switchboard`, `python_multipart` and `jwt`,",
            "from inputs that are taken, from some of full size, and with the words that each format is made of.",
            "A finding is whatever is no refusal: an exception, a wrong answer, more than 512 MB, or more than",
            f"{INPUT_MS} ms for one input. “Taken” are inputs that were right; all others were refused. “Slowest”",
            "is in time of the processor, with the fuzzer watching every branch. “Growth” is the process's memory from",
            "the first fifth of its inputs to the last, libFuzzer's own collection included; the bound",
            f"is {GROWTH_KB // 1024} MB.",
            "",
            *inputs.lines,
            "",
            *(f"- {name}: {what}" for name, what in READS.items()),
            "",
            "## The whole contract",
            "",
            "schemathesis makes up requests from `openapi.yaml`, right and wrong ones, with offers, sessions and",
            "tokens from generators of ours, and holds every answer against all of its checks but one",
            "(`tests/attacks/schemathesis.toml`).",
            "",
            *whole.lines,
            "",
        ]
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.fuzz", description=__doc__)
    parser.add_argument("--full", action="store_true", help="a million inputs; five minutes")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--seed", type=int, default=SEED, help="another one makes up other inputs")
    chosen = parser.parse_args()
    logs.configure("error")
    logging.getLogger().handlers = []
    runs = MILLION if chosen.full else dict.fromkeys(MILLION, 2_000)
    parts = {
        "A million inputs": prove_inputs(say_on_stderr, runs=runs, seed=chosen.seed),
        "The whole contract": prove_contract(say_on_stderr, examples=100 if chosen.full else 4, seed=chosen.seed),
    }
    return tell(_page(parts, seed=chosen.seed), parts, PAGE, write=chosen.write)


if __name__ == "__main__":
    sys.exit(main())
