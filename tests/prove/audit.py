"""The proof of what docs/audit.md promises: kill -9, tampering, a full disk, totals, and what it costs.

`python -m tests.prove.audit [--full] [--write]`; `make prove-audit` does both. Exit code 1 if a bound is broken.
"""

import argparse
import asyncio
import contextlib
import hashlib
import logging
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from switchboard import logs
from switchboard.audit.anchors import Anchor
from switchboard.audit.chain import CLOSING, Chain, Link, own_record
from switchboard.audit.verify import verify
from tests.prove import service
from tests.prove.client import Caller, Reply
from tests.prove.machine import machine
from tests.prove.service import Replica, Result, Say, ground, new_offer, table
from tests.support.chains import KEY, chain_of, decision, written

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof" / "audit.md"
CONNECTIONS = 16
FILE_RATIO, FSYNC_RATIO = 0.9, 0.6
ATTEMPTS = 200  # of each kind of tampering
GIGABYTE = 10**9
SPEED_MB = 150  # per second of one core; two of them outrun most disks that are rented with a machine
BUSY = 48  # callers: enough that the service never waits for one
WARM = 2  # rounds that do not count


def policy() -> dict[str, Any]:
    """One tenant with both kinds of delivery."""
    tree = service.policy(acme=service.tenant())
    presets = tree["tenants"]["acme"]["presets"]
    presets["direct"] = {**presets["talk"], "delivery": "direct"}
    return tree


@dataclass
class Load:
    """Requests of all kinds over some connections, and what came of them."""

    port: int
    tokens: Sequence[str]
    answers: Counter[int] = field(default_factory=Counter)
    credentials: set[str] = field(default_factory=set)
    """SHA-256 of what was handed out."""
    calls: set[str] = field(default_factory=set)
    """Ids of calls whose answer was handed out."""

    async def run(self, seconds: float, *, connections: int = CONNECTIONS) -> None:
        """Ask until the time is up, or the service is gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for number in range(connections):
                    group.create_task(self._ask_on(number))

    async def one(self, caller: Caller, kind: int, token: str) -> int:
        """One request; one in three is for a call, one for the provider's secret, one for a grant."""
        if kind % 3 == 0:
            reply = await caller.offer(token, new_offer())
            if reply.status == 201:
                self.calls.add(reply.headers["location"].rpartition("/")[2])
        else:
            reply = await caller.ask("GET", "/token" if kind % 3 == 1 else "/token?preset=direct", token)
            if reply.status == 200:
                self.credentials.add(hashlib.sha256(reply.json["value"].encode()).hexdigest())
        self.answers[reply.status] += 1
        return reply.status

    async def _ask_on(self, number: int) -> None:
        with contextlib.suppress(OSError, EOFError):
            async with Caller(self.port) as caller:
                while True:
                    token = self.tokens[number % len(self.tokens)]
                    await self.one(caller, number, token)
                    number += 1

    @property
    def handed_out(self) -> int:
        return len(self.credentials) + len(self.calls)

    def unaccounted(self, records: Sequence[dict[str, Any]]) -> set[str]:
        """What was handed out and is not on record as allowed."""
        allowed = [one for one in records if one.get("outcome") == "allowed"]
        on_record = {one.get("credential_sha256") for one in allowed} | {one.get("call_id") for one in allowed}
        return (self.credentials | self.calls) - on_record


def records_in(*files: Path) -> list[dict[str, Any]]:
    """What is whole in some files."""
    found = []
    for file in files:
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(orjson.JSONDecodeError):
                found.append(orjson.loads(line))
    return found


def tokens(count: int) -> list[str]:
    return [service.new_user("acme").token for _ in range(count)]


# kill -9


def prove_kills(say: Say, *, runs: int) -> Result:
    """A service is killed at any moment under load; what its callers hold must be on record."""
    kinds: dict[str, dict[str, str]] = {
        "a file": {},
        "a file, with `SWITCHBOARD_AUDIT_FSYNC=1`": {"audit_fsync": "1"},
        "standard output": {"audit": "stdout"},
    }
    seen = {kind: Counter[str]() for kind in kinds}
    with ground(policy()) as place, tempfile.TemporaryDirectory() as folder:
        known = tokens(200)
        for number in range(runs):
            kind = list(kinds)[number % len(kinds)]
            file = Path(folder) / f"{number}.jsonl"
            replica = place.add(**{"audit": f"file:{file}", "redis_url": "", **kinds[kind]})
            replica.start()
            replica.until_ready()
            load = Load(replica.port, known)
            uvloop.run(_killed(replica, load, random.uniform(0.02, 0.5)))
            if kind == "standard output":
                file.write_bytes(_as_it_came(replica.process.lines["stdout"]))
            verdict = verify([file], [KEY])
            seen[kind] += Counter(
                kills=1,
                handed_out=load.handed_out,
                unaccounted=len(load.unaccounted(records_in(file))),
                torn=len(verdict.notes),
                tampering=sum(one.kind != "unclosed" for one in verdict.problems),
            )
            file.unlink()
            if (number + 1) % 20 == 0 or number + 1 == runs:
                say(f"{number + 1} of {runs} kills")
    names = ("kills", "handed_out", "unaccounted", "torn", "tampering")
    rows = [[kind, *(count[name] for name in names)] for kind, count in seen.items()]
    columns = ("audit to", "kills", "handed out", "not on record", "torn last lines", "crashes called tampering")
    result = Result(table(*columns, rows=rows))
    for kind, count in seen.items():
        result.bound(count["unaccounted"] == 0, f"{kind}: {count['unaccounted']} credentials are not on record")
        result.bound(count["tampering"] == 0, f"{kind}: {count['tampering']} crashes were called tampering")
        result.bound(count["handed_out"] > count["kills"], f"{kind}: only {count['handed_out']} were handed out")
    return result


async def _killed(replica: Replica, load: Load, seconds: float) -> None:
    asking = asyncio.create_task(load.run(30))
    while not load.answers:  # noqa: ASYNC110 - the load tells by counting
        await asyncio.sleep(0.001)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(replica.kill)
    await asyncio.wait_for(asking, 10)


def _as_it_came(lines: Sequence[str]) -> bytes:
    """Standard output, of which only the last line can be without an end."""
    return "\n".join(lines).encode() + (b"\n" if lines[-1].endswith('"}') else b"")


# Tampering


def prove_tampering(say: Say, *, attempts: int) -> Result:
    """Each kind, at random places of a log of three chains in three files, with an anchor for each chain."""
    rows = []
    result = Result()
    with tempfile.TemporaryDirectory() as folder:
        for kind, (tamper, expected) in TAMPERINGS.items():
            named = 0
            for _ in range(attempts):
                chains = [chain_of(random.randint(5, 40)) for _ in range(3)]
                anchors = [_anchor(chain[-1]) for chain in chains]
                lines = [line for chain in chains for line in chain]
                # The first chain and the last go over the end of a file, some records from their own ends.
                cuts = len(chains[0]) // 2, len(lines) - len(chains[2]) // 2
                wanted = tamper(lines)
                parts = lines[: cuts[0]], lines[cuts[0] : cuts[1]], lines[cuts[1] :]
                files = [written(Path(folder) / str(number), part) for number, part in enumerate(parts)]
                problems = verify(files, [KEY], anchors=anchors).problems
                named += bool(problems) and (problems[0].kind, problems[0].chain, problems[0].seq) == wanted
            rows.append([kind, f"`{expected}`", attempts, named])
            result.bound(named == attempts, f"{kind}: {named} of {attempts} were named")
            say(f"{kind}: {named} of {attempts}")
    result.lines = table("what was done", "named", "times", "named right", rows=rows)
    return result


Wanted = tuple[str, str | None, int | None]


def _anchor(line: bytes) -> Anchor:
    record = orjson.loads(line)
    return Anchor(record["chain"], record["seq"], record["hash"], record["time"], "prover")


def _id(line: bytes) -> tuple[str, int]:
    record = orjson.loads(line)
    return record["chain"], record["seq"]


def _inside(lines: Sequence[bytes]) -> int:
    """A place of a decision: neither the first nor the last record of its chain."""
    return random.choice([n for n, line in enumerate(lines) if b'"action":"audit.' not in line])


def _edit(lines: list[bytes]) -> Wanted:
    place = _inside(lines)
    wanted = ("edited", *_id(lines[place]))
    lines[place] = lines[place].replace(b'"tenant":"acme"', b'"tenant":"acne"')
    return wanted


def _remove(lines: list[bytes]) -> Wanted:
    return ("removed", *_id(lines.pop(_inside(lines))))


def _exchange(lines: list[bytes]) -> Wanted:
    place = random.choice([n for n in range(len(lines) - 1) if _id(lines[n])[0] == _id(lines[n + 1])[0]])
    lines[place : place + 2] = lines[place + 1], lines[place]
    return ("reordered", *_id(lines[place]))


def _repeat(lines: list[bytes]) -> Wanted:
    place = _inside(lines)
    lines.insert(place + 1, lines[place])
    return ("duplicated", *_id(lines[place]))


def _insert(lines: list[bytes]) -> Wanted:
    forged = lines[_inside(lines)].replace(b'"outcome":"allowed"', b'"outcome":"denied"')
    lines.insert(_inside(lines), forged)
    return ("inserted", None, None)


def _cut(lines: list[bytes]) -> Wanted:
    chain = _id(lines[-1])[0]
    own = [n for n, line in enumerate(lines) if _id(line)[0] == chain]
    place = random.choice(own[1:])
    del lines[place:]
    return ("cut", *_id(lines[-1]))


def _lose(lines: list[bytes]) -> Wanted:
    chain = random.choice([_id(line)[0] for line in lines])
    lines[:] = [line for line in lines if _id(line)[0] != chain]
    return ("missing", chain, None)


TAMPERINGS: dict[str, tuple[Callable[[list[bytes]], Wanted], str]] = {
    "one word of a record changed": (_edit, "edited"),
    "a record taken out": (_remove, "removed"),
    "two neighbours exchanged": (_exchange, "reordered"),
    "a record repeated": (_repeat, "duplicated"),
    "a changed copy put in": (_insert, "inserted"),
    "the end cut off, with an anchor": (_cut, "cut"),
    "a whole chain taken out, with an anchor": (_lose, "missing"),
}


def prove_speed(say: Say, *, size: int) -> Result:
    """`switchboard audit verify` on one large file, beside reading it and doing nothing; neither is in memory."""
    commands = {
        "read alone (`cat`)": ["cat"],
        "`switchboard audit verify`": [sys.executable, "-m", "switchboard", "audit", "verify"],
    }
    found: dict[str, list[tuple[float, float]]] = {what: [] for what in commands}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.jsonl"
        say(f"writing {size / 1e6:.0f} MB")
        records = _long_chain(file, size)
        actual = file.stat().st_size
        for _ in range(3):
            for what, command in commands.items():
                _forget(file)
                found[what].append(_timed([*command, str(file)]))
        say(", ".join(f"{what}: {min(times)[0]:.1f} s" for what, times in found.items()))
    rows = []
    for what, times in found.items():
        wall, cpu = min(times)
        rows.append([what, f"{wall:.1f} s", f"{actual / wall / 1e6:,.0f} MB/s", f"{cpu:.1f} s of CPU"])
    result = Result(table(f"{records:,} records, {actual / 1e6:,.0f} MB", "best of 3", "speed", "work", rows=rows))
    rate = actual / min(cpu for _, cpu in found["`switchboard audit verify`"]) / 1e6
    if size >= GIGABYTE:
        result.bound(rate >= SPEED_MB, f"verified {rate:.0f} MB per second of one core")
    return result


def _timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds on the wall, and of work, of the command and what it started."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    env = {**os.environ, "SWITCHBOARD_AUDIT_KEY": KEY.decode()}
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=env)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _long_chain(file: Path, size: int) -> int:
    chain, link, count = Chain(KEY), Link(), 0
    with file.open("wb") as target:
        while target.tell() < size:
            line, link = chain.seal(decision(count), link)
            target.write(line)
            count += 1
        target.write(chain.seal(own_record(CLOSING), link)[0])
        os.fsync(target.fileno())
    return count + 1


def _forget(file: Path) -> None:
    """Have the kernel read it from the disk again."""
    with file.open("rb") as held:
        os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# A full disk


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A tmpfs of 4 MB, if this machine lets us mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass
class Full:
    """What was seen while the disk was full, and afterwards."""

    refused: int = 0
    handed_out: int = 0
    asked: float = 0
    """Requests that reached the provider."""
    longest: float = 0.0
    """Milliseconds until a refusal."""
    ready: dict[str, Any] = field(default_factory=dict)
    back_after: float = 0.0
    """Milliseconds from the moment when there was room again."""


def prove_full_disk(say: Say, *, tmpfs: bool, seconds: float) -> Result:
    """The disk of the audit fills up under load, stays full, and has room again."""
    with ground(policy()) as place, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with small_disk(folder) if tmpfs else contextlib.nullcontext(False) as mounted:
            file, ballast = folder / "audit.jsonl", folder / "ballast"
            if mounted:
                ballast.write_bytes(bytes(2 * 1024 * 1024))
            replica = place.add(audit=f"file:{file}", redis_url="")
            place.start()
            load = Load(replica.port, tokens(200))
            if not mounted:
                _bound_files(replica, file.stat().st_size + 200_000 + random.randrange(1000))
            say("filling it")
            free = ballast.unlink if mounted else lambda: _bound_files(replica, resource.RLIM_INFINITY)
            seen = uvloop.run(_filled(replica, load, free, seconds))
            assert replica.process.stop(signal.SIGTERM) == 0
            records, verdict = records_in(file), verify([file], [KEY])
            on_record = {one.get("call_id") for one in records}
            open_calls = {call.id for call in place.calls().values() if call.ended_at is None}
    what = "a tmpfs of 4 MB, half of it another file" if mounted else "a file that may not grow (`RLIMIT_FSIZE`)"
    rows: list[Sequence[object]] = [
        ["where", what],
        ["503 `audit_unavailable` while full", seen.refused],
        ["handed out while full", seen.handed_out],
        ["requests to the provider while full", f"{seen.asked:.0f}"],
        ["longest wait for a refusal", f"{seen.longest:.0f} ms"],
        ["`/readyz` meanwhile", f"200 `{orjson.dumps(seen.ready).decode()}`"],
        ["handed out again after there was room", f"{seen.back_after:.0f} ms"],
        ["handed out and not on record, of all", len(load.unaccounted(records))],
        ["calls left open that are not on record", len(open_calls - on_record)],
        ["what `switchboard audit verify` says", "no problem" if not verdict.problems else verdict.problems[0].text],
    ]
    result = Result(table("", "", rows=rows))
    resumed = sum(one.get("action") == "audit.resume" for one in records)
    result.bound(seen.refused > 0, "nobody was refused")
    result.bound(not seen.handed_out, f"{seen.handed_out} credentials were handed out while the disk was full")
    result.bound(not seen.asked, f"the provider was asked {seen.asked:.0f} times while the disk was full")
    result.bound(not load.unaccounted(records), "something was handed out that is not on record")
    result.bound(not open_calls - on_record, "a call was left open that is not on record")
    result.bound(not verdict.problems, f"verify says {verdict.problems[:1]}")
    result.bound(resumed == 1, f"{resumed} records say that writing was resumed")
    return result


def _bound_files(replica: Replica, size: int) -> None:
    resource.prlimit(replica.process.popen.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def _filled(replica: Replica, load: Load, free: Callable[[], None], seconds: float) -> Full:
    seen = Full()
    asking = asyncio.create_task(load.run(300))
    while not load.answers[503]:  # noqa: ASYNC110 - the load tells by counting
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.5)  # what was under way when it filled up
    before, handed_out, asked = load.answers[503], load.handed_out, await _asked(replica)
    async with Caller(replica.port) as caller:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter()
            assert (await caller.ask("GET", "/token", load.tokens[0])).status == 503
            seen.longest = max(seen.longest, (time.perf_counter() - begin) * 1000)
            await asyncio.sleep(0.02)
        ready = await caller.ask("GET", "/readyz", "")
        assert ready.status == 200
        seen.ready = ready.json
    seen.refused = load.answers[503] - before
    seen.handed_out = load.handed_out - handed_out
    seen.asked = await _asked(replica) - asked
    handed_out, begin = load.handed_out, time.perf_counter()
    free()
    while load.handed_out == handed_out:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)
    seen.back_after = (time.perf_counter() - begin) * 1000
    await asyncio.sleep(0.5)
    asking.cancel()
    await asyncio.wait([asking])
    return seen


async def _asked(replica: Replica) -> float:
    """How often the provider was asked to mint or to open a call."""
    samples = await asyncio.to_thread(samples_of, replica, "switchboard_provider_request_duration_seconds_count")
    return sum(count for labels, count in samples if labels["operation"] in ("mint", "call"))


def samples_of(replica: Replica, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each sample of a metric."""
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(replica.metrics)
        for sample in family.samples
        if sample.name == name
    ]


# Totals


def prove_totals(say: Say, *, requests: int) -> Result:
    """Requests of all kinds, and then: each is one record and one count, whatever became of it."""
    with ground(policy()) as place, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.jsonl"
        # Rotated on the way, so that a record that rotation lost would be missing here.
        replica = place.add(audit=f"file:{file}", redis_url="", audit_rotate_bytes=str(max(100_000, requests * 50)))
        (port,) = place.start()
        answers = uvloop.run(_mixed(port, requests, say))
        counted = {
            tuple(labels[name] for name in ("action", "tenant", "outcome", "reason")): int(value)
            for labels, value in samples_of(replica, "switchboard_decisions_total")
        }
        ((_, written_records),) = samples_of(replica, "switchboard_audit_records_total")
        assert replica.process.stop(signal.SIGTERM) == 0
        files = sorted(Path(folder).iterdir())
        verdict = verify(files, [KEY])
        recorded = Counter(
            tuple(str(record.get(name, "")) for name in ("action", "tenant", "outcome", "reason"))
            for record in records_in(*files)
            if not record["action"].startswith("audit.")
        )
    rows = [
        [f"`{action}`", outcome, f"`{reason}`", f"{counted.get(kind, 0):,}", f"{recorded[kind]:,}"]
        for kind in sorted({*counted, *recorded})
        for action, _, outcome, reason in [kind]
    ]
    rows.append(["all", "", "", f"{sum(counted.values()):,}", f"{recorded.total():,}"])
    result = Result(table("action", "outcome", "reason", "metric", "records", rows=rows))
    said = "no problem" if not verdict.problems else verdict.problems[0].text
    result.lines += [
        "",
        f"{answers.total():,} requests, {len(files)} files; `switchboard audit verify` says: {said}.",
    ]
    result.bound(counted == dict(recorded), "metrics and records differ")
    result.bound(recorded.total() == written_records == requests, f"{recorded.total()} records of {requests} requests")
    result.bound(not verdict.problems, f"verify says {verdict.problems[:1]}")
    result.bound(len(files) > 1, "nothing was rotated")
    return result


# Of twenty: a call, what is no offer, two for the provider's secret, five more that are refused, eleven for grants.
KINDS: Sequence[Callable[[Caller, str], Awaitable[Reply]]] = (
    lambda caller, token: caller.offer(token, new_offer()),
    lambda caller, token: caller.offer(token, b"v=0\r\n"),
    *[lambda caller, token: caller.ask("GET", "/token?preset=direct", token)] * 2,
    lambda caller, token: caller.ask("GET", "/token?preset=nonsense", token),
    *[lambda caller, token: caller.ask("GET", "/token", token[:-8])] * 3,
    lambda caller, token: caller.ask("DELETE", "/sdp/rtc_nobodys", token),
    *[lambda caller, token: caller.ask("GET", "/token", token)] * 11,
)


async def _mixed(port: int, requests: int, say: Say) -> Counter[int]:
    known = tokens(500)
    answers: Counter[int] = Counter()

    async def one(caller: Caller, number: int) -> None:
        reply = await KINDS[number % len(KINDS)](caller, known[number % len(known)])
        answers[reply.status] += 1
        if answers.total() % (requests // 4) == 0:
            say(f"{answers.total():,} of {requests:,} requests")

    async def ask_on(first: int) -> None:
        async with Caller(port) as caller:
            for number in range(first, requests, CONNECTIONS):
                await one(caller, number)

    async with asyncio.TaskGroup() as group:
        for first in range(CONNECTIONS):
            group.create_task(ask_on(first))
    return answers


# What it costs


def prove_throughput(say: Say, *, rounds: int, seconds: float) -> Result:
    """Requests per second with each kind of audit, taken in turn; the request is the cheapest that is recorded."""
    kinds: dict[str, dict[str, str]] = {
        "`file:/dev/null`": {"audit": "file:/dev/null"},
        "a file": {},
        "a file, with `SWITCHBOARD_AUDIT_FSYNC=1`": {"audit_fsync": "1"},
    }
    null, plain, synced = kinds
    with ground(policy()) as place, tempfile.TemporaryDirectory() as folder:
        for number, settings in enumerate(kinds.values()):
            place.add(**{"audit": f"file:{folder}/{number}.jsonl", "redis_url": "", **settings})
        ports = dict(zip(kinds, place.start(), strict=True))
        rates = uvloop.run(_rates(ports, rounds, seconds, say))
        cpu = [f"{_cpu_seconds(replica) / _answers(replica) * 1e6:.0f} µs" for replica in place.replicas]
    typical = {kind: statistics.median(rates[kind]) for kind in kinds}
    ratio = {kind: typical[kind] / typical[null] for kind in kinds}
    rows = [
        [kind, f"{typical[kind]:,.0f}/s", spent, f"{ratio[kind]:.2f}", bound]
        for kind, bound, spent in zip(kinds, ("–", FILE_RATIO, FSYNC_RATIO), cpu, strict=True)
    ]
    result = Result(table("audit to", "requests", "CPU per request", "to `/dev/null`", "bound", rows=rows))
    result.bound(ratio[plain] >= FILE_RATIO, f"to a file: {ratio[plain]:.2f}")
    result.bound(ratio[synced] >= FSYNC_RATIO, f"with fsync: {ratio[synced]:.2f}")
    return result


def _answers(replica: Replica) -> float:
    return sum(count for _, count in samples_of(replica, "switchboard_decisions_total"))


def _cpu_seconds(replica: Replica) -> float:
    """All that the process has used, its start included."""
    fields = Path(f"/proc/{replica.process.popen.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _rates(ports: Mapping[str, int], rounds: int, seconds: float, say: Say) -> dict[str, list[float]]:
    """Answers per second at each port in turn, again and again.

    Turns are short, and each time in another order, so that what else the machine does meets them all.
    """
    known = tokens(200)
    rates: dict[str, list[float]] = {kind: [] for kind in ports}
    async with contextlib.AsyncExitStack() as stack:
        callers = {
            kind: [await stack.enter_async_context(Caller(port)) for _ in range(BUSY)] for kind, port in ports.items()
        }
        for number in range(rounds + WARM):
            order = list(ports)
            for kind in order[number % len(order) :] + order[: number % len(order)]:
                rates[kind].append(await _rate(callers[kind], known, seconds))
            if (number + 1) % 20 == 0:
                say(f"{number + 1} rounds: {', '.join(f'{statistics.median(one):.0f}/s' for one in rates.values())}")
    return {kind: found[WARM:] for kind, found in rates.items()}


async def _rate(callers: Sequence[Caller], known: Sequence[str], seconds: float) -> float:
    answered = 0
    begin = time.perf_counter()

    async def ask_on(caller: Caller, number: int) -> None:
        nonlocal answered
        while time.perf_counter() < begin + seconds:
            assert await caller.token(known[number % len(known)]) == 200
            number += 1
            answered += 1

    async with asyncio.TaskGroup() as group:
        for number, caller in enumerate(callers):
            group.create_task(ask_on(caller, number))
    return answered / (time.perf_counter() - begin)


def _page(parts: dict[str, Result]) -> str:
    throughput, kills, tampering, speed, full, totals = parts.values()
    return "\n".join(
        [
            "# Proof: audit",
            "",
            "Written by `make prove-audit`; [audit](../audit.md) says what it means. Everything ran on one machine:",
            "",
            *machine(),
            "",
            "## kill -9",
            "",
            f"`switchboard serve` with {CONNECTIONS} callers who ask for grants, the provider's secrets and calls,",
            "killed at a random moment. Not on record: what a caller holds and no whole record speaks of.",
            "",
            *kills.lines,
            "",
            "## Tampering",
            "",
            "At random places of three chains in three files. Right means: kind, chain and record of the first",
            "problem.",
            "",
            *tampering.lines,
            "",
            "## Speed",
            "",
            f"In turn; the file was not in memory, as far as a program can see to that. Bound: {SPEED_MB} MB",
            "per second of one core; all cores are used.",
            "",
            *speed.lines,
            "",
            "## A full disk",
            "",
            *full.lines,
            "",
            "## Totals",
            "",
            *totals.lines,
            "",
            "## What it costs",
            "",
            f"Three services, in memory; {BUSY} callers on the same machine ask one after the other for grants,",
            "0.4 s each time and in turn. Medians of all rounds, and their ratios.",
            "",
            *throughput.lines,
            "",
        ]
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.prove.audit", description=__doc__)
    parser.add_argument("--full", action="store_true", help="200 kills, 100,000 requests; a quarter of an hour")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    chosen = parser.parse_args()
    logs.configure("info")
    logging.getLogger().handlers = []
    say, full = service.say_on_stderr, chosen.full
    parts = {
        "What it costs": prove_throughput(say, rounds=100 if full else 20, seconds=0.4),
        "kill -9": prove_kills(say, runs=200 if full else 6),
        "Tampering": prove_tampering(say, attempts=ATTEMPTS if full else 20),
        "Speed": prove_speed(say, size=2 * GIGABYTE if full else GIGABYTE // 10),
        "A full disk": prove_full_disk(say, tmpfs=True, seconds=5 if full else 2),
        "Totals": prove_totals(say, requests=100_000 if full else 2000),
    }
    return service.tell(_page(parts), parts, PAGE, write=chosen.write)


if __name__ == "__main__":
    sys.exit(main())
