"""What one hit costs on the event loop while many windows are open: ours, and the storage of the library `limits`.

`python -m tests.prove.windows`, after `make test` or `make prove-limits` has set up what it needs.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter as TheirLimiter
from limits.strategies import FixedWindowRateLimiter

from switchboard.ratelimit.windows import WindowStorage

KEYS = (1_000, 10_000, 50_000)
HITS, ROUNDS = 50, 5
ITEM = parse("1000000/hour")


async def ours(keys: int) -> Callable[[int], Awaitable[object]]:
    limiter = FixedWindowRateLimiter(WindowStorage())
    for number in range(keys):
        limiter.hit(ITEM, str(number))

    async def hit(number: int) -> None:
        limiter.hit(ITEM, str(number))

    return hit


async def theirs(keys: int) -> Callable[[int], Awaitable[object]]:
    """The library's, filled without its hits, which would take minutes."""
    storage = MemoryStorage()
    limiter = TheirLimiter(storage)
    end = time.time() + ITEM.get_expiry()
    for number in range(keys):
        key = ITEM.key_for(str(number))
        storage.storage[key] = 1
        storage.expirations[key] = end
    return lambda number: limiter.hit(ITEM, str(number))


async def microseconds(make: Callable[[int], Awaitable[Callable[[int], Awaitable[object]]]], keys: int) -> float:
    """Of one hit, with whatever it leaves for the loop to do before the next one; the median of several rounds."""
    hit = await make(keys)
    rounds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for number in range(HITS):
            await hit(number)
            await asyncio.sleep(0)
        rounds.append((time.perf_counter() - begin) / HITS * 1e6)
    return statistics.median(rounds)


async def main() -> None:
    print("| live windows | ours | `limits.aio.storage.MemoryStorage` |\n|---|---|---|")
    for keys in KEYS:
        print(f"| {keys:,} | {await microseconds(ours, keys):.0f} µs | {await microseconds(theirs, keys):,.0f} µs |")


if __name__ == "__main__":
    asyncio.run(main())
