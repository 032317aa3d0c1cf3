"""Files of chained records, as the service writes them, made quickly and spoilt on purpose."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from switchboard.audit.chain import CLOSING, OPENING, Chain, Link, own_record
from switchboard.audit.judging import Verdict
from switchboard.audit.verify import verify

BEGIN, END = "2026-11-20T09:59:59.999Z", "2026-11-20T11:00:00.000Z"
KEY = b"audit-key-of-the-tests-0123456789abcd"


def decision(number: int = 0, **fields: object) -> bytes:
    """A record without its chain, as the service makes it."""
    record = {
        "time": f"2026-11-20T10:{number // 60000 % 60:02}:{number // 1000 % 60:02}.{number % 1000:03}Z",
        "id": f"{number:024x}",
        "request_id": f"r-{number}",
        "action": "token.mint",
        "outcome": "allowed",
        "reason": "ok",
        "tenant": "acme",
        "user_key": f"{number % 7:064x}",
        "duration_ms": 1.5,
    }
    return orjson.dumps(record | fields)


def chain_of(count: int, *, closed: bool = True, key: bytes = KEY, **opening: object) -> list[bytes]:
    """The lines of a whole chain: an opening record, so many decisions, a closing record; without line ends."""
    chain, link, lines = Chain(key), Link(), []
    records = [own_record(OPENING, **{"time": BEGIN, **opening}), *(decision(number) for number in range(count))]
    for record in [*records, own_record(CLOSING, time=END)] if closed else records:
        line, link = chain.seal(record, link)
        lines.append(line[:-1])
    return lines


def written(path: Path, lines: Sequence[bytes], *, end: bytes = b"\n") -> Path:
    """A file of these lines."""
    path.write_bytes(b"\n".join(lines) + end if lines else b"")
    return path


def chain_id(line: bytes) -> str:
    return str(orjson.loads(line)["chain"])


def found(verdict: Verdict) -> list[tuple[str, int | None, int | None]]:
    """Kind, line and record of each problem."""
    return [(one.kind, one.line, one.seq) for one in verdict.problems]


def verified(*paths: Path, **how: object) -> Verdict:
    return verify(paths, [KEY], **how)  # type: ignore[arg-type]  # whatever a test wants to try
