"""The drill: one fault after the other under load, and whether anything was ever answered wrongly.

`python -m tests.prove.drill [--full] [--write] [--only NAME …]`; `make drill` does the first two.
Exit code 1 if a bound is broken.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from switchboard import logs
from tests.prove import service
from tests.prove.drill import load, running
from tests.prove.drill.faults import CALL_SECONDS, FAULTS, Fault
from tests.prove.drill.running import Found, drill
from tests.prove.machine import machine
from tests.prove.service import Result, Say, table

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "proof" / "drill.md"
FULL_SECONDS, SHORT_SECONDS = 8.0, 4.0
TRIES = 3  # of a fault during which this machine was too busy for Redis
IN_SHORT = ("redis-frozen", "provider-5xx", "replica-killed")


def run(fault: Fault, say: Say, *, seconds: float) -> tuple[Found, int]:
    """One fault, tried again if the machine was too busy; also gives how often."""
    found, tries = drill(fault, say, seconds=seconds), 1
    while found.is_busy and tries < TRIES:
        say(f"{fault.name}: this machine kept a replica from Redis: {dict(found.wrong)}")
        found, tries = drill(fault, say, seconds=seconds), tries + 1
    return found, tries


def bounds(found: Found) -> list[str]:
    """Which bounds one fault broke."""
    broken = [f"wrong: {count} × {text}" for text, count in found.wrong.items()]
    if found.unaccounted:
        broken.append(f"{found.unaccounted} credentials are not on record")
    if found.late:
        broken.append(f"{found.late} calls ended too late, the latest by {found.latest:.1f} s")
    if found.recovery is None:
        broken.append("it did not recover")
    return [*broken, *found.amiss]


def row(found: Found) -> list[object]:
    """One line of the table."""
    return [
        found.fault.what,
        f"{found.lasted:.1f} s",
        found.verdicts.total(),
        found.verdicts["right"],
        found.verdicts["refused"],
        found.verdicts["wrong"],
        found.unaccounted,
        found.late,
        f"{found.latest:.1f} s" if found.latest > 0 else "–",
        f"{found.longest * 1000:.0f} ms",
        "–" if found.recovery is None else f"{found.recovery:.1f} s",
    ]


def page(founds: Sequence[Found], repeated: Sequence[str]) -> str:
    """The whole page."""
    refusals = [
        [found.fault.what, ", ".join(f"{count} × `{text}`" for text, count in found.refusals.most_common()) or "nobody"]
        for found in founds
    ]
    again = f"Repeated, because this machine was so busy that Redis seemed to be away: {', '.join(repeated)}."
    return "\n".join(
        [
            "# Proof: the drill",
            "",
            "Written by `make drill`. Everything ran on one machine, each service as a process of its own, with the",
            "provider emulator behind it, without media:",
            "",
            *machine(),
            "",
            f"Two `switchboard serve` on one Redis, {load.CLIENTS} clients who ask either of them: for grants and the",
            "provider's secrets, for calls with their own token and with grants, for calls that they have, and to end",
            "them; with used grants, for more calls than they may have, and with forged, expired and foreign tokens.",
            "Half of the users are of an issuer with a key set. A user may have one call at a time, for",
            f"{CALL_SECONDS} s at most; some end theirs, the others leave that to the leash.",
            f"Each fault begins after {running.CALM_SECONDS:.0f} s of that load.",
            "",
            "- **Refused rightly** is what the documentation allows under that fault for that kind of request",
            "  (`tests/prove/drill/judging.py`), or no answer from the replica that is at fault.",
            "- **Wrong** is anything else: a bad token or a used grant that is taken, a call more than may be, a call",
            "  that is not found, a 500. Must be 0.",
            "- **Not on record**: credentials and calls that were handed out without an audit record. Must be 0.",
            f"- **Late**: calls that ended more than {running.LATE_SECONDS:.0f} s after their deadline, or after",
            "  the provider was back. Must be 0. **Latest end**: by how much the latest one missed.",
            "- **Longest decision**: until an answer that did not wait for the provider, from replicas that ran.",
            f"- **Recovery**: from the end of the fault to the first of {running.ROW} successive successes of each",
            "  kind at each replica.",
            "",
            *table(
                "fault",
                "lasted",
                "sent",
                "right",
                "refused rightly",
                "wrong",
                "not on record",
                "late",
                "latest end",
                "longest decision",
                "recovery",
                rows=[row(found) for found in founds],
            ),
            "",
            "## Who was refused",
            "",
            *table("fault", "refused rightly", rows=refusals),
            "",
            *([again, ""] if repeated else []),
            "[Operations](../operations.md#the-drill) tells what each looks like on the dashboard, and what to do.",
            "",
        ]
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.drill", description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"every fault, for {FULL_SECONDS:.0f} s each; 8 minutes")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}; needs --full")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=", ".join(one.name for one in FAULTS))
    chosen = parser.parse_args()
    if unknown := set(chosen.only or ()) - {one.name for one in FAULTS}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if chosen.write and (chosen.only or not chosen.full):
        parser.error("the page shows every fault in full: --write needs --full, and no --only")
    logs.configure("info")
    logging.getLogger().handlers = []
    names = chosen.only or (None if chosen.full else IN_SHORT)
    founds, repeated = list[Found](), list[str]()
    for fault in FAULTS:
        if names is None or fault.name in names:
            found, tries = run(fault, service.say_on_stderr, seconds=FULL_SECONDS if chosen.full else SHORT_SECONDS)
            founds.append(found)
            repeated += [fault.what] * (tries > 1)
    parts = {found.fault.name: Result(broken=bounds(found)) for found in founds}
    return service.tell(page(founds, repeated), parts, PAGE, write=chosen.write)


if __name__ == "__main__":
    sys.exit(main())
