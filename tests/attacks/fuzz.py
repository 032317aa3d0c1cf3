"""One target under atheris, libFuzzer for Python: `python -m tests.attacks.fuzz TARGET --runs N --folder FOLDER`.

It goes where the code branches: what reaches a new branch is kept and varied further. Ends with code 0 if no input made
anything but a refusal, in time; FOLDER/result.json says how far it came.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["switchboard", "python_multipart", "jwt"]):
    from tests.attacks import targets

SECONDS = 1  # for one input; the largest takes some milliseconds
MEMORY_MB = 512
LONGEST = 140_000  # bytes: more than any body that is read
TOLD_EVERY = 2_000  # inputs


# Beside the seeds: inputs as large as they may be, from which others of that size are made.
LARGE = {
    "sdp": targets.OFFER + b"a=x:" + b"y" * 60_000 + b"\r\n",
    "multipart": b'\0--b\r\nContent-Disposition: form-data; name="sdp"\r\n\r\n' + b"\r\n-" * 20_000 + b"\r\n--b--\r\n",
    "jwt": b's{"alg":"HS256"}\n{"name":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    "overrides": json.dumps({"x" * 30_000: {str(number): 0 for number in range(3_000)}}).encode(),
    "grants": b"r" + b"A" * 16_000,
    "bodies": json.dumps({"session": {"x" * 30_000: {"y" * 30_000: None}}}).encode(),
}


class Watched:
    """A target, with what it has seen."""

    def __init__(self, target: targets.Target, runs: int, result: Path) -> None:
        self._target = target
        self._runs = runs
        self._result = result
        self._began = time.monotonic()
        self._inputs = self._taken = self._longest = self._early = 0
        self._slowest = 0.0

    def __call__(self, text: bytes) -> None:
        began = time.thread_time()  # of the processor: others may keep this program waiting
        self._taken += self._target(text)
        self._slowest = max(self._slowest, time.thread_time() - began)
        self._longest = max(self._longest, len(text))
        self._inputs += 1
        if self._inputs == self._runs // 5:  # by then its caches are full
            self._early = _resident()
        if self._inputs % TOLD_EVERY == 0 or self._inputs >= self._runs:
            self._tell()

    def _tell(self) -> None:
        told: dict[str, Any] = {
            "inputs": self._inputs,
            "taken": self._taken,
            "seconds": time.monotonic() - self._began,
            "slowest_ms": self._slowest * 1000,
            "longest_bytes": self._longest,
            "growth_kb": _resident() - self._early if self._early else 0,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        self._result.write_text(json.dumps(told), encoding="ascii")


def _resident() -> int:
    """Memory of this process, in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("Linux has this line")


def main() -> None:
    """Run one target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=list(targets.WORDS))
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    corpus = given.folder / "corpus"
    corpus.mkdir(parents=True)
    for number, text in enumerate(targets.seeds()[given.target]):
        (corpus / f"seed-{number}").write_bytes(text)
    (corpus / "large").write_bytes(LARGE[given.target])
    words = given.folder / "words"
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in targets.WORDS[given.target])
    words.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")
    with asyncio.Runner() as runner:
        target = targets.targets(runner.get_loop().run_until_complete)[given.target]
        options = {
            "runs": given.runs,
            "seed": given.seed,
            "timeout": SECONDS,
            "rss_limit_mb": MEMORY_MB,
            "max_len": LONGEST,
            "dict": words,
            "artifact_prefix": f"{given.folder}/",
            "verbosity": 0,
        }
        watched = Watched(target, given.runs, given.folder / "result.json")
        atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], watched)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
