"""The bench: how many calls one core carries with everything switched on, beside what else one could run.

It starts all it needs (Redis, a provider that is never the bottleneck, the subjects), gives the subject a core of its
own and everything else the others, and measures the subjects in turn, several rounds.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from tests.bench import growth, parts
from tests.bench.cores import Cores
from tests.bench.figures import Results, judge, targets, to_accept
from tests.bench.ground import TENANTS, ground
from tests.bench.page import page
from tests.bench.parts import Bench, Plan
from tests.bench.program import Failed
from tests.bench.subjects import BY_NAME, LITELLM, Subject, at_hand, versions
from tests.prove.machine import machine
from tests.prove.service import say_on_stderr

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof" / "bench.md"
JSON = ROOT / "build" / "bench.json"
ACCEPTED = Path(__file__).with_name("accepted.json")
PARTS = ("closed", "in-flight", "latency", "start", "tenants", "users", "workers")
GUARD_SUBJECTS = ("token", "grants", "sdp", "bare")
FULL = Plan(rounds=5, seconds=8, warm_seconds=3)
QUICK = Plan(rounds=1, seconds=3, warm_seconds=2, in_flight=(1000,), in_flight_rounds=1, latency_rounds=1)
FASTEST = (
    12_000  # requests a second of our fastest subject: so many JWTs are signed beforehand that each is used five times
)
HELP = """
parts
  closed     32 connections, as fast as it goes: requests per second, p50, p99, processor time, memory, cold start
  in-flight  1,000 and 5,000 requests at once, the provider takes 250 ms
  latency    an open loop at half of what `closed` reached: what the service adds to asking the provider directly
  start      `serve` to ready
  tenants    10,000 tenants with 3 presets each, beside 10: start, memory, cost of a request, /metrics, reload
  users      many distinct users, each once: whether memory stays flat
  workers    two workers and one, on all cores

examples
  make bench                                        everything, half an hour; wants a machine that does nothing else
  python -m tests.bench --quick                     one short round of the first four parts, to see that it works
  python -m tests.bench --only token,bare --parts closed
  python -m tests.bench --parts tenants,users --users 1000000
  BENCH_LITELLM=1 make bench                        with LiteLLM's proxy, which scripts/setup installs apart
  make bench-guard                                  a few minutes: has our speed to bare Starlette fallen by over 15 %?
  python -m tests.bench --guard --accept            this is how fast it is to be from now on
  python -m tests.bench.profile token               where the time of a request goes

Progress goes to stderr, the page to stdout, all figures to build/bench.json (--json).

exit codes
  0  every target that was measured is met, and the guard holds
  1  a target is missed, or the guard found a loss
  2  nothing to be trusted: something cannot run, the machine is busy, or generator or provider was the bottleneck
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    chosen = _parser().parse_args(arguments)
    results = Results()
    say = say_on_stderr
    try:
        subjects = _subjects(chosen.only, guard=chosen.guard)
        wanted = _parts(chosen)
        plan = QUICK if chosen.quick else FULL
        if chosen.rounds:
            plan = replace(plan, rounds=chosen.rounds)
        results.machine = _machine()
        results.options = {
            "parts": wanted,
            "subjects": [one.name for one in subjects],
            "rounds": plan.rounds,
            "seconds": plan.seconds,
        }
        accepted = _accepted() if chosen.guard and not chosen.accept else None
        _run(results, subjects, wanted, plan, chosen)
        verdicts = judge(results, accepted) if accepted else []
    except (Failed, RuntimeError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    found = targets(results)
    text = page(results, found, verdicts)
    print(text)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    content = {**asdict(results), "targets": [asdict(one) for one in found], "guard": [asdict(one) for one in verdicts]}
    chosen.json.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    say(f"all figures: {chosen.json}")
    for reason in results.unsound:
        print(f"UNSOUND  {reason}", file=sys.stderr)
    missed = [one for one in found if not one.met]
    for one in missed:
        print(f"MISSED   {one.what}: {one.found}, not {one.bound}", file=sys.stderr)
    lost = [one for one in verdicts if not one.holds]
    for loss in lost:
        print(
            f"LOST     {loss.name}: {loss.now:.3f} of bare Starlette, accepted were {loss.accepted:.3f}",
            file=sys.stderr,
        )
    if accepted and accepted["machine"].get("machine") != results.machine.get("machine"):
        say(f"accepted on another machine ({accepted['machine'].get('machine')}): look twice at a small loss")
    if results.unsound:
        return 2
    if chosen.accept:
        ACCEPTED.write_bytes(orjson.dumps(to_accept(results), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        say("accepted")
    if chosen.write:
        PAGE.write_text(text, encoding="utf-8")
        say(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if lost or (missed and not chosen.guard) else 0


def _run(
    results: Results, subjects: Sequence[Subject], wanted: Sequence[str], plan: Plan, chosen: argparse.Namespace
) -> None:
    say = say_on_stderr
    cores = Cores.of_this_machine()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(ground(cores))
        needed = int(FASTEST * (plan.seconds + plan.warm_seconds) / 5) + 3000
        say(f"signing {needed:,} JWTs")
        people = place.signer.people(place.folder / "people", needed, TENANTS)
        # From here on this process, too, keeps off the subject's core.
        os.sched_setaffinity(0, cores.others)
        flights = plan if "in-flight" in wanted else replace(plan, in_flight=())
        bench = Bench(place, people, plan, results, say)
        parts.check_capacity(replace(bench, plan=flights), noisy=chosen.noisy)
        parts.check_subjects(bench, subjects)
        shorter = replace(bench, plan=growth.shorter(plan))
        todo: dict[str, Callable[[], None]] = {
            "closed": lambda: parts.measure_closed(bench, subjects),
            "in-flight": lambda: parts.measure_in_flight(bench, subjects),
            "latency": lambda: parts.measure_latency(bench, subjects),
            "start": lambda: growth.measure_start(bench),
            "tenants": lambda: growth.measure_tenants(shorter),
            "users": lambda: growth.measure_users(bench, users=chosen.users),
            "workers": lambda: growth.measure_workers(shorter),
        }
        carry_out({part: todo[part] for part in PARTS if part in wanted}, results)


def carry_out(todo: Mapping[str, Callable[[], None]], results: Results) -> None:
    """One part after the other; what fails leaves the others their figures."""
    for part, measure in todo.items():
        try:
            measure()
        except Failed as error:
            results.unsound.append(f"{part}: {error}")


def _accepted() -> dict[str, Any]:
    """What the guard holds this run against.

    Raises:
        Failed: nothing was ever accepted.
    """
    if not ACCEPTED.exists():
        raise Failed("there is nothing to compare with: accept a run on a quiet machine, by --guard --accept")
    accepted: dict[str, Any] = orjson.loads(ACCEPTED.read_bytes())
    return accepted


def _parts(chosen: argparse.Namespace) -> list[str]:
    if chosen.parts:
        return [part for part in PARTS if part in chosen.parts]
    if chosen.guard:
        return ["closed"]
    return list(PARTS[:4] if chosen.quick else PARTS)


def _subjects(only: Sequence[str] | None, *, guard: bool) -> list[Subject]:
    """Those that were chosen, in the usual order.

    Raises:
        Failed: LiteLLM is chosen and not installed.
    """
    names = only or (GUARD_SUBJECTS if guard else [one.name for one in at_hand()])
    if "litellm" in names and not (LITELLM / "bin" / "litellm").exists():
        raise Failed("LiteLLM is not installed: BENCH_LITELLM=1 scripts/setup bench")
    return [subject for name, subject in BY_NAME.items() if name in names]


def _machine() -> dict[str, str]:
    """As in the other proofs, and the versions of what is compared."""
    rows = [line.strip("| ").split(" | ", 1) for line in machine()[2:]]
    return {**dict(rows), "time": f"{datetime.now(UTC):%H:%M} UTC", "beside": versions()}


def _names(known: Sequence[str]) -> Any:
    def names(text: str) -> list[str]:
        given = [name.strip() for name in text.split(",") if name.strip()]
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(f"`{name}` is none of {', '.join(known)}")
        return given

    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round; its figures only show that everything works")
    add("--only", type=_names(list(BY_NAME)), metavar="NAMES", help=f"subjects: {', '.join(BY_NAME)}")
    add("--parts", type=_names(PARTS), metavar="NAMES", help=f"parts: {', '.join(PARTS)}")
    add(
        "--rounds", type=int, metavar="N", help=f"rounds of the closed loop ({FULL.rounds}, or {QUICK.rounds} if quick)"
    )
    add("--users", type=int, default=400_000, metavar="N", help="distinct users of the part `users` (400000)")
    add("--guard", action="store_true", help="compare our speed to bare Starlette with the accepted one")
    add("--accept", action="store_true", help="keep this run's as the accepted one (tests/bench/accepted.json)")
    add("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}, unless the figures cannot be trusted")
    add("--json", type=Path, default=JSON, metavar="FILE", help="where all figures go (build/bench.json)")
    add("--noisy", action="store_true", help="measure although the machine does other things; exit code 2")
    return parser


if __name__ == "__main__":
    sys.exit(main())
