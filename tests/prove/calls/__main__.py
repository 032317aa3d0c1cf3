"""The proof of what the leash promises: calls end when they have to, whatever becomes of who opened them.

`python -m tests.prove.calls [--full] [--write]`; `make prove-calls` does both. Exit code 1 if a bound is broken.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from switchboard import logs
from tests.prove import service
from tests.prove.calls import at_once, away, clocks, hangups, killed, sweeper
from tests.prove.machine import machine
from tests.prove.service import Result

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "proof" / "calls.md"


def page(parts: dict[str, Result]) -> str:
    """The whole page."""
    words = {
        "kill -9 of the opener": f"""
Two `switchboard serve` and one Redis. {killed.AT_ONCE} callers at a time offer calls to one of them, each offer another
user's, who may have one call; at a random moment that process is killed, and started again for the next time. The
provider takes {killed.PROVIDER_SECONDS * 1000:.0f} ms, and Redis is {killed.REDIS_SECONDS * 1000:.0f} ms away from that
process in each direction, so that kills land everywhere. Calls may last {killed.CALL_SECONDS} s. Nobody has the answer
of a call that the provider opened for a process that was dead by then, so nothing connects to it and the provider drops
it; the emulator without media does not.
""",
        "Clocks that are off": f"""
libfaketime sets the clocks of some replicas off; one more has the right time. Each opens calls, and each mints grants,
beats hearts and ends calls for the others. Bounds: {clocks.LATE_SECONDS:.0f} s after a deadline or an idle time, by the
provider's clock; {clocks.ALONE_SECONDS:.0f} s more without Redis; times and minutes within
{clocks.APART_SECONDS:.0f} s. In the end the replica whose clock is off first is the only one left, and then Redis is
killed as well.
""",
        "Redis restarted or lost": f"""
Two `switchboard serve` with {away.EACH} calls each. Redis is killed (-9) and comes back, with what it had on disk
(`appendonly yes`) or empty. Meanwhile calls are offered with a user's own token, with a grant, and under a tenant that
says `calls_without_register: allow`. Then the owner of each call asks the other replica about it, and offers another
call, which a cap of one refuses while the first one is open. Bounds: {away.LATE_SECONDS:.0f} s after the deadline,
{away.BEHIND_SECONDS:.0f} s more where Redis was away then; each end on record once; nothing left in the register.
""",
        "A provider that does not hang up": """
Hang-ups are refused (500, then 429), broken off and swallowed, each for a quarter of the time, from a second before the
deadlines on. Tries are two seconds apart, and take two seconds at most.
""",
        "Many offers at once": f"""
One user who may have one call, {at_once.AT_ONCE} connections to two `switchboard serve`, all offering at the same
moment. “Most open at a time” is taken from the begin and the end of every call in the provider's own list. A round in
which this machine was so busy that Redis seemed to be away (503) is repeated, and the repetition told.
""",
        "The sweeper": f"""
Calls entered by way of the ledger, none of them due; {sweeper.SWEEPS} sweeps, which each replica does twice a second.
Bounds: as many commands, and at most {sweeper.SLOWER:.0f} times as long.
""",
    }
    lines = [
        "# Proof: calls",
        "",
        "Written by `make prove-calls`. Everything ran on one machine, each service as a process of its own, with the",
        "provider emulator behind it, without media:",
        "",
        *machine(),
    ]
    for title, result in parts.items():
        lines += ["", f"## {title}", *words[title].rstrip().splitlines(), "", *result.lines]
    return "\n".join([*lines, ""])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.calls", description=__doc__)
    parser.add_argument("--full", action="store_true", help="a hundred kills, all cases; ten minutes")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    chosen = parser.parse_args()
    logs.configure("info")
    logging.getLogger().handlers = []
    say, full = service.say_on_stderr, chosen.full
    off = [("+30s",), ("-30s",), ("+30s", "-30s")] if full else [("+30s", "-30s")]
    proofs: dict[str, Callable[[], Result]] = {
        "kill -9 of the opener": lambda: killed.prove_kills(say, kills=100 if full else 5),
        "Clocks that are off": lambda: clocks.prove_clocks(say, runs=off, alone=full),
        "Redis restarted or lost": lambda: away.prove_redis(say, cases=away.CASES if full else away.CASES[-1:]),
        "A provider that does not hang up": lambda: hangups.prove_hang_ups(say, outages=[3, 10, 40] if full else [3]),
        "Many offers at once": lambda: at_once.prove_at_once(say, rounds=50 if full else 2),
        "The sweeper": lambda: sweeper.prove_sweeper(say, calls=100_000 if full else 5000),
    }
    parts = {}
    for title, prove in proofs.items():
        say(title)
        parts[title] = prove()
        for line in (*parts[title].lines, *parts[title].broken):
            say(line)
    return service.tell(page(parts), parts, PAGE, write=chosen.write)


if __name__ == "__main__":
    sys.exit(main())
