"""Load on a subject: closed by wrk (as many as fit), open by `tests.bench.paced` (so many a second, come what may)."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import orjson

from tests.bench.cores import pinned
from tests.bench.people import APART, USES, People, one
from tests.bench.program import Failed

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("wrk.lua")
OFFER = ROOT / "service/switchboard/data/sample-offer.sdp"
ANSWER_SECONDS = (
    60  # with 5,000 in flight at a subject that does 3,000 a second, nobody waits longer unless it is stuck
)
SESSION = {"session": {"type": "realtime", "model": "gpt-realtime-2.1"}}


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request, and the status that is right."""

    method: str
    path: str
    body: Literal["empty", "offer", "json", "heartbeat"] = "empty"
    status: int = 200

    @property
    def content(self) -> bytes:
        """An example of its body."""
        return {
            "empty": b"",
            "offer": OFFER.read_bytes(),
            "json": orjson.dumps(SESSION),
            "heartbeat": orjson.dumps({"event": "alive"}),
        }[self.body]

    @property
    def media_type(self) -> str:
        return "application/sdp" if self.body == "offer" else "application/json"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a load. Times are milliseconds from a request's sending to its whole answer."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    """Refused, broken off or not answered in time."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def try_once(port: int, ask: Ask, people: People) -> httpx.Response:
    """One request, so that a mistake of set-up is told in words.

    Raises:
        Failed: the status is another one.
    """
    address, token = one(people)
    headers = {"authorization": f"Bearer {token}", "x-forwarded-for": address, "origin": "https://app.bench.example"}
    if ask.body != "empty":
        headers["content-type"] = ask.media_type
    url = f"http://127.0.0.1:{port}{ask.path}"
    with httpx.Client(trust_env=False, timeout=30) as client:
        answer = client.request(ask.method, url, headers=headers, content=ask.content)
    if answer.status_code != ask.status:
        raise Failed(f"{ask.method} {ask.path} gives {answer.status_code} instead of {ask.status}: {answer.text[:500]}")
    return answer


def closed(
    port: int,
    ask: Ask,
    people: People,
    *,
    connections: int,
    seconds: float,
    on: frozenset[int],
    first: int = 0,
    uses: int = USES,
    apart: int = APART,
) -> Seen:
    """Keep so many requests in flight.

    Args:
        first: the user who begins.
        uses: how often each JWT is used.
        apart: after how many others it comes again. Users begin at different times: of all requests, one in `uses` has
            a JWT that was not seen before, at any time.

    Raises:
        Failed: wrk could not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(ask.content)
        command = [
            *pinned(on),
            *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"),
            *("--timeout", f"{ANSWER_SECONDS}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--"),
            *(ask.method, ask.path, ask.body, str(people.file), str(first), str(uses), str(apart), str(body)),
        ]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    told = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode or not told:
        raise Failed(f"wrk ended with {ran.returncode}: {ran.stdout[-500:]} {ran.stderr[-500:]}")
    found = orjson.loads(told[0])
    errors = found.pop("refused") + found.pop("broken") + found.pop("timed_out")
    if not found["requests"]:
        found |= {"p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
        errors = connections  # nobody was answered at all
    return Seen(errors=errors, **found)


def paced(
    port: int, ask: Ask, people: People, *, rate: float, seconds: float, on: frozenset[int], first: int = 0
) -> Seen:
    """Send so many a second, whatever comes back.

    Raises:
        Failed: the generator fell behind or could not run.
    """
    wanted = {
        "port": port,
        "method": ask.method,
        "path": ask.path,
        "status": ask.status,
        "media_type": ask.media_type if ask.body != "empty" else "",
        "content": ask.content.decode(),
        "people": str(people.file),
        "first": first,
        "uses": USES,
        "apart": APART,
        "rate": rate,
        "seconds": seconds,
    }
    command = [*pinned(on), sys.executable, "-m", "tests.bench.paced"]
    ran = subprocess.run(
        command, input=orjson.dumps(wanted), capture_output=True, check=False, timeout=seconds + 120, cwd=ROOT
    )
    if ran.returncode:
        raise Failed(f"the open loop ended with {ran.returncode}: {ran.stderr.decode()[-1000:]}")
    return Seen(**orjson.loads(ran.stdout))


def users_of(requests: float, *, uses: int = USES, apart: int = APART) -> int:
    """How many users so many requests need: those who begin, and those who are still coming back."""
    return -(-int(requests) // uses) + (uses - 1) * (apart // uses)


def jwts_used_up(requests: int, people: People) -> bool:
    """Whether there were more requests than users had for, so that some JWT was used more often than meant."""
    return users_of(requests) > people.count


def after(seen: Sequence[Seen], *, in_flight: int, uses: int = USES) -> int:
    """The user who begins after these loads, so that everybody comes back as if there had been one load.

    Args:
        seen: what came of them.
        in_flight: how many requests were under way when each of them ended, and were not counted.
        uses: how often each JWT is used.
    """
    return sum((one.requests + in_flight) // uses for one in seen)
