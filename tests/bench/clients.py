"""Which client to the provider: bare Starlette with each that could be in the place of ours (docs/decisions/0003).

`python -m tests.bench.clients`: 32 connections, then 1,000 requests in flight at a provider that takes 250 ms; all
clients in turn, several rounds. Four minutes; needs `scripts/setup bench` and a machine that does nothing else.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from tests.bench import bare, figures, parts
from tests.bench.cores import Cores
from tests.bench.figures import Results, median_of
from tests.bench.ground import ground
from tests.bench.nginx import DELAY_SECONDS
from tests.bench.parts import CONNECTIONS, Bench, Plan, measured
from tests.bench.people import People
from tests.bench.program import Failed
from tests.bench.subjects import TOKEN, Subject, bare_with
from tests.prove.machine import machine
from tests.prove.service import say_on_stderr, table

ROOT = Path(__file__).parents[2]
JSON = ROOT / "build" / "clients.json"
IN_FLIGHT = 1000
PLAN = Plan(rounds=3, seconds=2, warm_seconds=1, in_flight=(IN_FLIGHT,))
PACKAGES = {name: "pyreqwest" if name == "ours" else name for name in bare.KINDS}
COLLAPSED = 0.1  # of the ideal
NOBODY = "none"  # such an app looks at nobody's token


def subjects(names: Sequence[str]) -> list[Subject]:
    """One for each client, in the order of the names."""
    return [
        Subject(name, f"Starlette with {PACKAGES[name]}", TOKEN, bare_with(name), in_flight=True, bearer=NOBODY)
        for name in names
    ]


def measure(bench: Bench, chosen: Sequence[Subject]) -> None:
    """Both loads. Who collapses with a thousand in flight does so once: what it has left undone takes half a minute."""
    parts.measure_closed(bench, chosen)
    found: dict[str, list[dict[str, Any]]] = bench.results.in_flight.setdefault(str(IN_FLIGHT), {})
    for number in range(bench.plan.rounds):
        turn = number % len(chosen)
        for subject in (*chosen[turn:], *chosen[:turn]):
            samples = found.setdefault(subject.name, [])
            if any(sample["per_second"] < COLLAPSED * IN_FLIGHT / DELAY_SECONDS for sample in samples):
                continue
            sample = measured(bench, subject, connections=IN_FLIGHT, slow=True)
            samples.append(asdict(sample))
            bench.say(
                f"{IN_FLIGHT:,} in flight, round {number + 1}: {subject.name}: {sample.per_second:,.0f}/s, "
                f"p99 {sample.p99_ms:.0f} ms, {sample.errors} errors"
            )


def page(results: Results) -> str:
    """A table for each load, the fastest first."""
    lines = table("", "", rows=list(results.machine.items()))
    lines += ["", f"{CONNECTIONS} connections, a provider that answers at once:", "", *_rows(results.closed)]
    ideal = IN_FLIGHT / DELAY_SECONDS
    lines += ["", f"{IN_FLIGHT:,} in flight, a provider that takes 250 ms; {ideal:,.0f}/s is ideal:", ""]
    return "\n".join([*lines, *_rows(results.in_flight.get(str(IN_FLIGHT), {})), ""])


def _rows(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    rows = []
    ours = median_of(found["ours"], "cpu_us") if "ours" in found else None
    for name in sorted(found, key=lambda one: -median_of(found[one], "per_second")):
        samples = found[name]
        if not any(sample["per_second"] for sample in samples):
            rows.append([PACKAGES[name], "nobody was answered", *[""] * 7])
            continue
        to_ours = figures.ratio(found, name, "ours")
        cpu = median_of(samples, "cpu_us")
        rows.append(
            [
                f"{PACKAGES[name]} {installed(PACKAGES[name])}".strip(),
                f"{median_of(samples, 'per_second'):,.0f}",
                "" if to_ours is None else f"{to_ours:.2f}",
                f"{median_of(samples, 'p50_ms'):,.1f} ms",
                f"{median_of(samples, 'p99_ms'):,.1f} ms",
                f"{cpu:,.0f} µs",
                "" if ours is None else f"{cpu / ours:.1f}",
                f"{max(sample['memory_mb'] for sample in samples):.0f} MB",
                sum(sample["errors"] for sample in samples),
            ]
        )
    columns = ("client", "per second", "to ours", "p50", "p99", "processor", "to ours", "memory", "errors")
    return table(*columns, rows=rows)


def installed(package: str) -> str:
    """Its version; empty if it is not there."""
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return ""


def main() -> int:
    """The command line; gives the exit code: 0, or 2 if the figures are not to be trusted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.clients", description=__doc__)
    parser.add_argument("--only", default=",".join(PACKAGES), metavar="NAMES", help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("--rounds", type=int, default=PLAN.rounds, metavar="N", help=f"of each load ({PLAN.rounds})")
    parser.add_argument("--json", type=Path, default=JSON, metavar="FILE", help="all figures (build/clients.json)")
    parser.add_argument("--noisy", action="store_true", help="measure although the machine does other things")
    chosen = parser.parse_args()
    names = chosen.only.split(",")
    bare.find_clients()
    if unknown := [name for name in names if name not in PACKAGES or not installed(PACKAGES[name])]:
        print(f"clients: not known or not installed (scripts/setup bench): {', '.join(unknown)}", file=sys.stderr)
        return 2
    rows = dict(line.strip("| ").split(" | ", 1) for line in machine()[2:])
    results = Results(machine={**rows, "time": f"{datetime.now(UTC):%H:%M} UTC"})
    results.options = {"clients": names, "rounds": chosen.rounds, "seconds": PLAN.seconds}
    try:
        with ground(Cores.of_this_machine()) as place:
            people = People(place.folder / "nobody", 1)
            people.file.write_text(f"10.0.0.1 {NOBODY}\n")
            bench = Bench(place, people, replace(PLAN, rounds=chosen.rounds), results, say_on_stderr)
            parts.check_capacity(bench, noisy=chosen.noisy)
            measure(bench, subjects(names))
    except (Failed, RuntimeError, OSError) as error:
        print(f"clients: {error}", file=sys.stderr)
        return 2
    print(page(results))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_bytes(orjson.dumps(asdict(results), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    for reason in results.unsound:
        print(f"UNSOUND  {reason}", file=sys.stderr)
    return 2 if results.unsound else 0


if __name__ == "__main__":
    sys.exit(main())
