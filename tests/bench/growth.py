"""The parts of a run that let something grow: tenants, users, workers; and how long a start takes."""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import ryaml

from tests.bench import cores, load
from tests.bench.ground import TENANTS, Served, tenant
from tests.bench.parts import CONNECTIONS, Bench, Plan, settle, under_load
from tests.bench.people import People, one
from tests.bench.subjects import BY_NAME

MANY_TENANTS = tuple(f"tenant-{number:05}" for number in range(10_000))
STARTS = 5
SETTLE_SECONDS = 10
RELOAD_SECONDS = 30
BATCH = 100_000  # users at a time: what wrk holds
TOKEN = BY_NAME["token"]


def measure_start(bench: Bench) -> None:
    """`serve` to ready, with ten tenants, a few times."""
    policy = bench.ground.policy("fast", slow=False)
    took = []
    for _ in range(STARTS if bench.plan.rounds > 1 else 1):
        served = bench.ground.switchboard(policy)
        served.program.stop()
        took.append(served.ready_seconds)
        bench.say(f"ready after {served.ready_seconds:.2f} s")
    bench.results.growth |= {"start_seconds": statistics.median(took), "starts": took}


def measure_tenants(bench: Bench) -> None:
    """Ten thousand tenants in a folder of files, beside ten: start, memory, cost of a request, metrics, reload."""
    bench.say("writing 10,000 tenants")
    many = bench.ground.policy("many", slow=False, tenants=MANY_TENANTS)
    few = bench.ground.policy("fast", slow=False)
    everywhere = bench.ground.signer.people(bench.ground.folder / "everywhere", bench.people.count // 2, MANY_TENANTS)
    costs: dict[str, list[float]] = {"many": [], "few": []}
    growth = bench.results.growth
    for number in range(bench.plan.rounds):
        for name, policy, callers in (("few", few, bench.people), ("many", many, everywhere)):
            bench.ground.forget()
            served = bench.ground.switchboard(policy, ready_within=120)
            try:
                if name == "many" and number == 0:
                    time.sleep(SETTLE_SECONDS)
                    growth["tenants_start_seconds"] = served.ready_seconds
                    growth["tenants_memory_mb"] = cores.megabytes(served.program.pid)
                    growth["tenants_peak_mb"] = cores.megabytes(served.program.pid, "VmHWM")
                    bench.say(f"ready after {served.ready_seconds:.1f} s, {growth['tenants_memory_mb']:.0f} MB")
                warm = load.closed(
                    served.port,
                    TOKEN.ask,
                    callers,
                    connections=CONNECTIONS,
                    seconds=bench.plan.warm_seconds,
                    on=bench.ground.cores.others,
                )
                settle(served)
                first = load.after([warm], in_flight=CONNECTIONS)
                sample, _ = under_load(bench, served, TOKEN.ask, callers, connections=CONNECTIONS, first=first)
                costs[name].append(sample.cpu_us)
                bench.say(f"round {number + 1}, {name}: {sample.cpu_us:.0f} µs of processor per request")
                if name == "many" and number == bench.plan.rounds - 1:
                    url = f"http://127.0.0.1:{served.ops_port}/metrics"
                    growth["metrics_mb"] = len(httpx.get(url, trust_env=False, timeout=30).content) / 1e6
                    growth |= _reload(bench, served, everywhere)
            finally:
                served.program.stop()
    growth["tenants_cost"] = statistics.median(
        large / small for large, small in zip(costs["many"], costs["few"], strict=True)
    )


def _reload(bench: Bench, served: Served, people: People) -> dict[str, Any]:
    """Change one tenant's file, and see when its users have it; meanwhile somebody asks for health, again and again."""
    address, token = one(people)
    file = bench.ground.folder / "many" / f"{MANY_TENANTS[0]}.yaml"
    changed = tenant()
    changed["presets"]["relayed"]["session"]["audio"]["output"]["voice"] = "cedar"
    file.write_text(ryaml.dumps({"tenants": {MANY_TENANTS[0]: changed}}))
    served.program.signal(signal.SIGHUP)
    begun = time.monotonic()
    headers = {"authorization": f"Bearer {token}", "x-forwarded-for": address}

    # One client for all: making one takes this process longer than the stall that it looks for.
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", headers=headers, trust_env=False, timeout=10) as user:
        longest = _longest_while(
            f"http://127.0.0.1:{served.port}/healthz",
            lambda: '"cedar"' in user.get("/token?preset=relayed").text,
            most=RELOAD_SECONDS,
        )
    if longest is None:
        bench.say(f"the changed file was not taken within {RELOAD_SECONDS} s")
        return {"reload_missed": True}
    took = time.monotonic() - begun
    bench.say(f"one changed file was taken within {took:.1f} s; the longest stall was {longest:.0f} ms")
    return {"reload_stall_ms": longest, "reload_seconds": took}


def _longest_while(url: str, until: Callable[[], bool], *, most: float) -> float | None:
    """Milliseconds of the longest answer until something holds, and a second after; None if it never does."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=most) as client:
            while not over.is_set():
                begun = time.perf_counter()
                client.get(url)
                took.append((time.perf_counter() - begun) * 1000)
                time.sleep(0.002)

    asking = threading.Thread(target=ask)
    asking.start()
    end = time.monotonic() + most
    try:
        while not (held := until()) and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1)
    finally:
        over.set()
        asking.join()
    return max(took) if held else None


def measure_users(bench: Bench, *, users: int) -> None:
    """So many users, each once: what stays of a user in the process. Signed by HS256, as only memory is looked at."""
    bench.ground.forget()
    served = bench.ground.switchboard(bench.ground.policy("fast", slow=False))
    memory: list[tuple[int, float]] = []
    try:
        for first in range(0, users, BATCH):
            people = bench.ground.signer.people(bench.ground.folder / "crowd", BATCH, TENANTS, first=first, quick=True)
            seen = _each_once(served, people, on=bench.ground.cores.others)
            memory.append((first + seen, cores.megabytes(served.program.pid)))
            bench.say(f"{first + seen:,} users: {memory[-1][1]:.0f} MB")
    finally:
        served.program.stop()
    bench.results.growth |= slope(memory)


def _each_once(served: Served, people: People, *, on: frozenset[int]) -> int:
    """Ask for each user's token once, as nearly as the clock of the generator allows; gives how many were asked for."""
    asked, seconds = 0, 2.0
    while asked < people.count * 0.95:
        how: dict[str, Any] = {"connections": CONNECTIONS, "uses": 1, "apart": 1, "on": on}
        seen = load.closed(served.port, TOKEN.ask, people, seconds=seconds, first=asked, **how)
        asked += seen.requests
        seconds = min(30.0, (people.count - asked) / seen.per_second)
    return min(asked, people.count)


def slope(memory: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Bytes per further user, from where caches of a fixed size are full (half way) to the end."""
    (users, begin), (all_users, end) = memory[len(memory) // 2 - (len(memory) > 1)], memory[-1]
    further = all_users - users
    found: dict[str, Any] = {"users": all_users, "users_memory_mb": memory}
    if further > 0:
        found["user_bytes"] = max(0.0, (end - begin) * 2**20 / further)
    return found


def measure_workers(bench: Bench) -> None:
    """Two workers and one, on all cores, which generator, provider and Redis use as well."""
    policy = bench.ground.policy("fast", slow=False)
    every = bench.ground.cores.all
    speeds: dict[int, list[float]] = {1: [], 2: []}
    around = (bench.ground.redis_pid, bench.ground.provider_pid)
    for pid in around:
        os.sched_setaffinity(pid, every)
    for number in range(bench.plan.rounds):
        for workers in (1, 2):
            bench.ground.forget()
            served = bench.ground.switchboard(policy, on=every, workers=str(workers))
            try:
                # Twice as many as else, so that each worker has enough to do.
                how: dict[str, Any] = {"connections": 2 * CONNECTIONS, "on": every}
                warm = load.closed(served.port, TOKEN.ask, bench.people, seconds=bench.plan.warm_seconds, **how)
                first = load.after([warm], in_flight=2 * CONNECTIONS)
                seen = load.closed(served.port, TOKEN.ask, bench.people, seconds=bench.plan.seconds, first=first, **how)
            finally:
                served.program.stop()
            speeds[workers].append(seen.per_second)
            bench.say(f"round {number + 1}: {workers} worker(s): {seen.per_second:,.0f}/s, {seen.errors} errors")
    for pid in around:
        os.sched_setaffinity(pid, bench.ground.cores.others)
    growth = bench.results.growth
    growth["workers"] = {str(workers): statistics.median(found) for workers, found in speeds.items()}
    growth["workers_cores"] = len(every)
    growth["workers_ratio"] = statistics.median(two / single for two, single in zip(speeds[2], speeds[1], strict=True))


def shorter(plan: Plan) -> Plan:
    """What grows is measured in three rounds: it compares the service with itself."""
    return replace(plan, rounds=min(3, plan.rounds))
