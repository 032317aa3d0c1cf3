"""A caller that costs little itself: HTTP/1.1 by hand, one connection, one request at a time. Also run as a flood.

`python -m tests.prove.client PORT RATE SECONDS`, with the tokens on standard input, one per line.
"""

import asyncio
import sys
import time
from collections import Counter
from typing import Self

CONNECTIONS = 8


class Caller:
    """One kept connection to the service on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def token(self, jwt: str) -> int:
        """Ask for a token; gives the status."""
        self._writer.write(f"GET /token HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {jwt}\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        await self._reader.readexactly(length)
        return int(head[9:12])


async def paced(
    callers: list[Caller], tokens: list[str], rate: float, seconds: float
) -> tuple[Counter[int], list[float]]:
    """Requests at even distances, however long answers take; statuses, and milliseconds until each was answered."""
    free: asyncio.Queue[Caller] = asyncio.Queue()
    for caller in callers:
        free.put_nowait(caller)
    statuses: Counter[int] = Counter()
    took: list[float] = []

    async def ask(jwt: str) -> None:
        begun = time.perf_counter()  # not when it was due: this side's own timer is not what is measured
        caller = await free.get()
        statuses[await caller.token(jwt)] += 1
        took.append((time.perf_counter() - begun) * 1000)
        free.put_nowait(caller)

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(ask(tokens[number % len(tokens)]))
    return statuses, took


async def flood(port: int, rate: float, seconds: float, tokens: list[str]) -> Counter[int]:
    """Prints `ready` when it begins, and the statuses in the end."""
    callers = [await Caller(port).__aenter__() for _ in range(CONNECTIONS)]
    print("ready", flush=True)
    statuses, _ = await paced(callers, tokens, rate, seconds)
    for caller in callers:
        await caller.__aexit__()
    return statuses


if __name__ == "__main__":
    sent = asyncio.run(flood(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.stdin.read().split()))
    print(*(f"{status}:{count}" for status, count in sorted(sent.items())))
