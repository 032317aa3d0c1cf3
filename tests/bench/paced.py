"""An open loop: requests at even distances, however long answers take. Cheap: bytes made beforehand, and uvloop.

`python -m tests.bench.paced`, with what is wanted as JSON on standard input; prints what it saw as JSON.
Exit code 1 if it could not keep its own pace, because then its figures mean nothing.
"""

import asyncio
import gc
import sys
import time
from collections import deque
from typing import Any

import orjson
import uvloop

from tests.bench.figures import percentile

WARM_CONNECTIONS = 64
MAX_CONNECTIONS = 4000
LATE_MS = 20.0  # what the generator's own timer may be late, at the 99th percentile
LAST_SECONDS = 30.0


class Connection(asyncio.Protocol):
    """One kept connection with at most one request in flight."""

    def __init__(self, seen: "Observations") -> None:
        self._seen = seen
        self._buffer = b""
        self._begun = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, content: bytes) -> None:
        assert self._transport
        self._begun = time.perf_counter()
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        took = time.perf_counter() - self._begun
        self._buffer = b""
        self._seen.answered(self, int(head[9:12]), took)

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.lost(self)


class Observations:
    """Who is free, and what was seen."""

    def __init__(self, status: int) -> None:
        self._status = status
        self.free: deque[Connection] = deque()
        self.took: list[float] = []
        self.errors = 0
        self.in_flight = 0

    def answered(self, connection: Connection, status: int, took: float) -> None:
        self.in_flight -= 1
        self.took.append(took * 1000)
        self.errors += status != self._status
        self.free.append(connection)

    def lost(self, connection: Connection) -> None:
        if connection in self.free:
            self.free.remove(connection)
        else:  # under a request
            self.in_flight -= 1
            self.errors += 1


def requests(wanted: dict[str, Any], count: int) -> list[bytes]:
    """The bytes of all requests, in the order in which wrk.lua has them too."""
    with open(wanted["people"], encoding="ascii") as file:  # noqa: PTH123 - a name out of JSON
        users = [line.split() for line in file]
    content = wanted["content"].encode()
    before, mark, after = content.partition(b"o=- ")
    apart, uses = wanted["apart"], wanted["uses"]
    made = []
    for number in range(count):
        ahead = (uses - 1 - number % uses) * (apart // uses)
        address, token = users[(wanted["first"] + number // uses + ahead) % len(users)]
        head = (
            f"{wanted['method']} {wanted['path']} HTTP/1.1\r\nhost: 127.0.0.1:{wanted['port']}\r\n"
            "origin: https://app.bench.example\r\naccept: */*\r\n"
            f"x-forwarded-for: {address}\r\nauthorization: Bearer {token}\r\n"
        )
        if wanted["media_type"]:
            head += f"content-type: {wanted['media_type']}\r\ncontent-length: {len(content)}\r\n"
        # As in wrk.lua: another offer each time, of the same length.
        body = before + mark + b"%010d" % (wanted["first"] * 100_000 + number) + after[10:] if mark else content
        made.append(head.encode() + b"\r\n" + body)
    return made


async def run(wanted: dict[str, Any]) -> dict[str, float]:
    """Send them all."""
    loop = asyncio.get_running_loop()
    rate, seconds = wanted["rate"], wanted["seconds"]
    waiting = deque(requests(wanted, int(rate * seconds)))
    seen = Observations(wanted["status"])

    async def connect() -> Connection:
        _, made = await loop.create_connection(lambda: Connection(seen), "127.0.0.1", wanted["port"])
        return made

    async def connect_and_send(content: bytes) -> None:
        (await connect()).send(content)

    seen.free.extend([await connect() for _ in range(WARM_CONNECTIONS)])
    total, sent, late, more = len(waiting), 0, [], []
    begun = time.perf_counter()
    while waiting:
        now = time.perf_counter()
        due = min(total, int((now - begun) * rate) + 1)
        if sent < due:
            late.append((now - begun - sent / rate) * 1000)
        while sent < due:
            sent += 1
            seen.in_flight += 1
            if seen.free:
                seen.free.popleft().send(waiting.popleft())
            elif seen.in_flight < MAX_CONNECTIONS:
                more.append(loop.create_task(connect_and_send(waiting.popleft())))
            else:
                waiting.popleft()
                seen.in_flight -= 1
                seen.errors += 1
        await asyncio.sleep(max(0.0, begun + sent / rate - time.perf_counter()))
    ended = time.perf_counter()
    while seen.in_flight and time.perf_counter() - ended < LAST_SECONDS:  # noqa: ASYNC110 - nothing else waits
        await asyncio.sleep(0.01)
    if percentile(late, 99) > LATE_MS:
        print(f"the generator was late by {percentile(late, 99):.0f} ms", file=sys.stderr)
        sys.exit(1)
    return {
        "requests": total,
        "seconds": ended - begun,
        "p50_ms": percentile(seen.took, 50),
        "p99_ms": percentile(seen.took, 99),
        "max_ms": max(seen.took, default=0.0),
        "errors": seen.errors + seen.in_flight,
    }


if __name__ == "__main__":
    gc.disable()  # its pauses would be taken for the subject's
    print(orjson.dumps(uvloop.run(run(orjson.loads(sys.stdin.buffer.read())))).decode())
