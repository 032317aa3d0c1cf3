"""A caller that costs little itself: HTTP/1.1 by hand, one connection, one request at a time. Also run as a flood.

`python -m tests.prove.client PORT RATE SECONDS`, with the tokens on standard input, one per line.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Caller:
    """One kept connection to the service on this machine.

    A server that goes away shows as an OSError or an EOFError.
    """

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
        return (await self.ask("GET", "/token", jwt)).status

    async def offer(self, bearer: str, sdp: bytes, path: str = "/sdp") -> Reply:
        """Offer a call."""
        return await self.ask("POST", path, bearer, "application/sdp", sdp)

    async def ask(
        self, method: str, path: str, bearer: str, kind: str = "application/json", body: bytes = b""
    ) -> Reply:
        """One request."""
        head = f"{method} {path} HTTP/1.1\r\nhost: s\r\nauthorization: Bearer {bearer}\r\n"
        if body:
            head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        self._writer.write(f"{head}\r\n".encode() + body)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        return Reply(int(first[9:12]), headers, await self._reader.readexactly(int(headers.get("content-length", 0))))


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
