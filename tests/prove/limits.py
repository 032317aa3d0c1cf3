"""The proof of what docs/limits.md promises: Redis failing, two replicas counting as one, the quiet beside the loud.

`python -m tests.prove.limits [--full] [--write]`; `make prove-limits` does both. Exit code 1 if a bound is broken.
"""

import argparse
import asyncio
import contextlib
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from switchboard import logs
from tests.prove import service
from tests.prove.client import CONNECTIONS, Caller, paced
from tests.prove.machine import machine
from tests.prove.service import Result, Say, ground
from tests.support import faults
from tests.support.faults import DECISION_MS, FAULTS, HARMLESS, STALL_MS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof" / "limits.md"
AT_ONCE = 200
USER_QUOTA, TENANT_QUOTA = 50, 120
RATIO = 1.5
QUIET_RATE = 50.0
TENANT_LIMIT, USER_LIMIT = 20, 10  # per second, of those who flood at ten times of it


# Failures of Redis


def prove_failures(say: Say, *, modes: Sequence[str] = ("local", "deny"), seconds: float = 1.5) -> Result:
    """Each failure in each mode, under load from its begin to the way back."""
    result = Result(
        [
            "| Redis | mode | longest decision | longest stall | longest health | decisions | 200 | 429 | 503 | back |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
    )
    cases = [("all is well", faults.nothing_wrong), *FAULTS.items()]
    for name, setup in cases:
        for mode in modes:
            say(f"{name}, {mode}")
            with tempfile.TemporaryDirectory() as folder:
                seen = uvloop.run(faults.run(name, setup, mode, Path(folder), seconds=seconds))
            what = f"{name} ({mode})"
            statuses = Counter[str]()
            for answer, count in seen.answers.items():
                statuses[answer[:3]] += count
            harmless = name in HARMLESS or setup is faults.nothing_wrong
            back = "–" if harmless else f"{seen.back_after:.0f} ms"
            result.lines.append(
                f"| {name} | `{mode}` | {seen.longest:.0f} ms | {seen.stall:.0f} ms | {max(seen.health):.0f} ms "
                f"| {len(seen.decisions)} | {statuses['200']} | {statuses['429']} | {statuses['503']} | {back} |"
            )
            result.bound(seen.longest < DECISION_MS, f"{what}: decided after {seen.longest:.0f} ms")
            result.bound(seen.stall < STALL_MS, f"{what}: the loop stood still for {seen.stall:.0f} ms")
            result.bound(max(seen.health) < faults.HEALTH_MS, f"{what}: health after {max(seen.health):.0f} ms")
            result.bound(not seen.unready, f"{what}: not ready")
            result.bound(
                seen.log == ([] if harmless else ["Redis is away", "Redis is back"]), f"{what}: the log says {seen.log}"
            )
            result.bound(seen.counted == (faults.QUOTA, faults.QUOTA), f"{what}: afterwards {seen.counted} counted")
    return result


# Two replicas


def prove_exactness(say: Say, *, rounds: int) -> Result:
    """Two processes, one Redis: as many requests at once as four times a quota, and exactly the quota passes."""
    let_through: dict[str, Counter[int]] = {"one user": Counter(), "four users of one tenant": Counter()}
    with ground(_policy(user=f"{USER_QUOTA}/hour", tenant=f"{TENANT_QUOTA}/hour")) as place:
        for _ in range(2):
            place.add(expected_replicas="2")
        ports = place.start()
        for number in range(1, rounds + 1):
            for what, users in (("one user", 1), ("four users of one tenant", 4)):
                place.redis.do("FLUSHALL")
                tokens = [_token(f"exact-{number}-{user}") for user in range(users)]
                let_through[what][asyncio.run(_at_once(ports, tokens))] += 1
            if number % 10 == 0 or number == rounds:
                say(f"{number} of {rounds} rounds")
        away = sum(replica.log.count("Redis is") for replica in place.replicas)
    result = Result(
        [
            f"| {AT_ONCE} requests at once, over two processes | quota | let through | rounds |",
            "|---|---|---|---|",
        ]
    )
    for what, quota in zip(let_through, (USER_QUOTA, TENANT_QUOTA), strict=True):
        found = let_through[what]
        result.lines.append(f"| {what} | {quota} | {', '.join(str(one) for one in sorted(found))} | {found.total()} |")
        result.bound(set(found) == {quota}, f"{what}: a quota of {quota} let through {dict(found)}")
    result.bound(not away, f"Redis was called away {away} times while it was there")
    return result


async def _at_once(ports: Sequence[int], tokens: Sequence[str]) -> int:
    """How many of AT_ONCE requests pass, sent at the same moment over as many connections."""
    callers = [await Caller(ports[number % len(ports)]).__aenter__() for number in range(AT_ONCE)]
    statuses = Counter(
        await asyncio.gather(*(caller.token(tokens[n // 2 % len(tokens)]) for n, caller in enumerate(callers)))
    )
    for caller in callers:
        await caller.__aexit__()
    assert set(statuses) <= {200, 429}, statuses
    return statuses[200]


# Fairness


def prove_fairness(say: Say, *, rounds: int, seconds: float) -> Result:
    """A quiet user's latency alone, beside a tenant and beside a user who send ten times what they may."""
    policy = _policy(user="100000/minute", tenant="1000000/minute")
    policy["tenants"]["loud"] = _tenant(user="100000/minute", tenant=f"{TENANT_LIMIT}/second")
    policy["tenants"]["quiet"]["limits_by"] = {
        "claim": "plan",
        "values": {"loud": {"user": [f"{USER_LIMIT}/second"]}},
    }
    floods: dict[str, tuple[float, list[str]]] = {
        "alone": (0.0, []),
        f"beside a tenant with {TENANT_LIMIT}/s that sends {TENANT_LIMIT * 10}/s": (
            TENANT_LIMIT * 10.0,
            [_token(f"loud-{number}", tenant="loud") for number in range(20)],
        ),
        f"beside a user with {USER_LIMIT}/s who sends {USER_LIMIT * 10}/s": (
            USER_LIMIT * 10.0,
            [_token("loud-alone", plan="loud")],
        ),
    }
    found: dict[str, list[tuple[float, float]]] = {what: [] for what in floods}
    refused: dict[str, Counter[int]] = {what: Counter() for what in floods}
    with ground(policy) as place:
        place.add()
        (port,) = place.start()
        quiet = [_token(f"quiet-{number}") for number in range(20)]
        asyncio.run(_quiet(port, quiet, 1.0))  # warm
        for number in range(1, rounds + 1):
            # Turn and turn about, each time in another order, so that what else the machine does meets them all.
            order = list(floods)
            for what in order[number % len(order) :] + order[: number % len(order)]:
                rate, tokens = floods[what]
                with _flood(port, rate, seconds + 1, tokens) as sent:
                    found[what].append(asyncio.run(_quiet(port, quiet, seconds)))
                refused[what] += sent
            say(f"{number} of {rounds} rounds")
    result = Result(
        [
            f"| users who send {QUIET_RATE:.0f}/s and may | p50 | p99 | p99 to p99 alone | the flood's 200 | 429 |",
            "|---|---|---|---|---|---|",
        ]
    )
    alone = statistics.median(p99 for _, p99 in found["alone"])
    for what, rounds_of in found.items():
        p50, p99 = (statistics.median(column) for column in zip(*rounds_of, strict=True))
        through, denied = (refused[what][status] or "–" for status in (200, 429))
        result.lines.append(f"| {what} | {p50:.1f} ms | {p99:.1f} ms | {p99 / alone:.2f} | {through} | {denied} |")
        result.bound(p99 <= RATIO * alone, f"{what}: {p99:.1f} ms, {p99 / alone:.2f} times of {alone:.1f} ms")
    return result


async def _quiet(port: int, tokens: list[str], seconds: float) -> tuple[float, float]:
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Caller(port)) for _ in range(CONNECTIONS)]
        statuses, took = await paced(callers, tokens, QUIET_RATE, seconds)
    assert set(statuses) == {200}, statuses
    took.sort()
    return statistics.median(took), took[int(len(took) * 0.99)]


@contextmanager
def _flood(port: int, rate: float, seconds: float, tokens: Sequence[str]) -> Iterator[Counter[int]]:
    """A flood from a process of its own, while the block runs; gives what it got, when it is over."""
    sent: Counter[int] = Counter()
    if not tokens:
        yield sent
        return
    command = [sys.executable, "-m", "tests.prove.client", str(port), str(rate), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n".join(tokens))
        process.stdin.close()
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        try:
            yield sent
        finally:
            for word in process.stdout.read().split():
                status, _, count = word.partition(":")
                sent[int(status)] += int(count)


# What they share


def _tenant(*, user: str, tenant: str) -> dict[str, Any]:
    return service.tenant(limits={"user": [user], "tenant": [tenant]})


def _policy(*, user: str, tenant: str) -> dict[str, Any]:
    return service.policy(quiet=_tenant(user=user, tenant=tenant))


def _token(subject: str, *, tenant: str = "quiet", **claims: Any) -> str:
    return service.token(subject, tenant=tenant, **claims)


def _page(parts: dict[str, Result], *, rounds: int) -> str:
    failures, exactness, fairness = parts.values()
    return "\n".join(
        [
            "# Proof: limits",
            "",
            "Written by `make prove-limits`; [limits](../limits.md) says what it means. Everything ran on one machine:",
            "",
            *machine(),
            "",
            "## When Redis fails",
            "",
            "The service as it is built, in one event loop with its callers, whose own work is in all times:",
            f"{faults.AT_ONCE} requests at once, again and again. Each user has {faults.QUOTA} requests and sends",
            f"{faults.ASKED}; alone, one of two replicas gives {faults.SHARE}. “Back” counts from the repair, or",
            "from the failure where Redis repairs itself.",
            "",
            f"Bounds: decided within {DECISION_MS:.0f} ms, no stall over {STALL_MS:.0f} ms, ready throughout, one line",
            "of log per switch, and afterwards Redis counts again.",
            "",
            *failures.lines,
            "",
            "## Two replicas",
            "",
            f"Two `switchboard serve`, one Redis; windows of an hour, {rounds} rounds of each kind.",
            "",
            *exactness.lines,
            "",
            "## The quiet beside the loud",
            "",
            f"One `switchboard serve`, callers on the same machine. Bound: {RATIO} times. Medians of several rounds,",
            "taken in turn.",
            "",
            *fairness.lines,
            "",
        ]
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.limits", description=__doc__)
    parser.add_argument("--full", action="store_true", help="a hundred rounds; some minutes")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    chosen = parser.parse_args()
    rounds = 100 if chosen.full else 3
    logs.configure("info")
    logging.getLogger().handlers = []
    say = service.say_on_stderr
    parts = {
        "When Redis fails": prove_failures(say, seconds=3 if chosen.full else 1.5),
        "Two replicas": prove_exactness(say, rounds=rounds),
        "The quiet beside the loud": prove_fairness(
            say, rounds=9 if chosen.full else 3, seconds=6 if chosen.full else 3
        ),
    }
    return service.tell(_page(parts, rounds=rounds), parts, PAGE, write=chosen.write)


if __name__ == "__main__":
    sys.exit(main())
