"""What a look at what is due costs while few calls are open, and while many are."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from switchboard.calls import Opening
from switchboard.ledger import Reservation, Slot
from switchboard.ledger.redis import RedisLedger
from tests.prove.calls.books import register
from tests.prove.service import Result, Say, table
from tests.support.redis import RedisServer, redis_server

FEW = 10
AT_ONCE = 64  # as many hang-ups as one replica has under way
SWEEPS = 200
SLOWER = 2.0
CALL_SECONDS = 3600
_TENANTS = [f"tenant-{number}" for number in range(50)]  # more than there are buckets


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one sweep: milliseconds, and commands that Redis ran for it, those within scripts included."""

    quick: float
    """The longest of its quickest quarter: what else the machine does is not what is asked."""
    median: float
    longest: float
    commands: float


def prove_sweeper(say: Say, *, calls: int) -> Result:
    """A sweep is bounded by what is due, not by what is open."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis:
        return uvloop.run(_measure(say, redis, calls))


async def _measure(say: Say, redis: RedisServer, calls: int) -> Result:
    costs, memory = {}, [_memory(redis)]
    async with register(redis) as ledger:
        for numbers in (range(FEW), range(FEW, calls)):
            left = iter(numbers)
            await asyncio.gather(*(_enter(ledger, left) for _ in range(AT_ONCE)))
            count = numbers.stop
            assert sum(await ledger.count(_TENANTS)) == count
            say(f"{count:,} calls are open")
            memory.append(_memory(redis))
            costs[count] = await _cost(ledger, redis)
    few, many = costs.values()
    result = Result(
        table(
            "open calls",
            "a sweep, median",
            "longest",
            "commands in Redis",
            "Redis's memory for each",
            rows=[
                [
                    f"{count:,}",
                    f"{cost.median:.1f} ms",
                    f"{cost.longest:.1f} ms",
                    f"{cost.commands:.0f}",
                    "–" if count == FEW else f"{(used - memory[1]) / (count - FEW):.0f} bytes",
                ]
                for (count, cost), used in zip(costs.items(), memory[1:], strict=True)
            ],
        )
    )
    result.bound(many.commands == few.commands, f"{few.commands} commands became {many.commands}")
    ratio = many.quick / few.quick
    result.bound(ratio <= SLOWER, f"a sweep took {ratio:.1f} times as long")
    return result


async def _enter(ledger: RedisLedger, numbers: Iterator[int]) -> None:
    """Open calls one after the other, as a replica does: a slot for each, and the call in its place."""
    for number in numbers:
        tenant, name = _TENANTS[number % len(_TENANTS)], f"{number:064x}"
        slot = Slot(
            id=name[-16:],
            offer_digest=name,
            lease_seconds=25,
            call_seconds=CALL_SECONDS,
            idle_seconds=60,
            user_calls=1,
        )
        reservation = Reservation(tenant, user_key=name, slot=slot)
        reserved = await ledger.reserve(reservation)
        opening = Opening(
            f"rtc_u1_{name[-32:]}", "https://login.acme.example/", "support", "openai", "env:OPENAI_API_KEY"
        )
        await ledger.bind(reservation, opening, reserved.call_seconds)


def _memory(redis: RedisServer) -> int:
    return int(redis.do("INFO", "memory")["used_memory"])


async def _cost(ledger: RedisLedger, redis: RedisServer) -> Cost:
    await ledger.sweep(AT_ONCE)
    redis.do("CONFIG", "RESETSTAT")
    took = []
    for _ in range(SWEEPS):
        begin = time.perf_counter()
        sweep = await ledger.sweep(AT_ONCE)
        took.append((time.perf_counter() - begin) * 1000)
        assert not sweep.due
    stats = redis.do("INFO", "commandstats")
    commands = sum(int(stat["calls"]) for name, stat in stats.items() if name not in ("cmdstat_info", "cmdstat_config"))
    return Cost(statistics.quantiles(took, n=4)[0], statistics.median(took), max(took), commands / SWEEPS)
