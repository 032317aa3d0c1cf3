"""The parts of a run that compare subjects: closed loop, thousands in flight, latency at half load."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from tests.bench import cores, load
from tests.bench.cores import Busy
from tests.bench.figures import Results, Sample, median_of
from tests.bench.ground import Ground, Served
from tests.bench.load import Ask, Seen
from tests.bench.nginx import DELAY_SECONDS
from tests.bench.people import USES, People
from tests.bench.people import one as one_of
from tests.bench.program import Failed
from tests.bench.subjects import BY_NAME, DIRECT, Subject
from tests.prove.service import Say

CONNECTIONS = 32
SATURATED = 0.9  # a subject whose core is less busy than this waits for somebody else
DISTURBED = 0.25  # interrupts of the loopback network are a part of it
OVERLOADED = 0.95  # generator, provider and Redis: above this they may be what bounds a figure
REDIS_AWAY = "Redis is away"  # as the service's log has it
AT_REST = 0.2  # of a core, that a subject uses at the most before it is measured
SETTLE_SECONDS = 20.0
QUIET = 0.10  # of the machine's cores, before anything runs


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    warm_seconds: float
    in_flight: tuple[int, ...] = (1000, 5000)
    in_flight_rounds: int = 3
    latency_rounds: int = 3


@dataclass(frozen=True, slots=True)
class Bench:
    """What every part works with; `results` is what they fill."""

    ground: Ground
    people: People
    plan: Plan
    results: Results
    say: Say


def check_capacity(bench: Bench, *, noisy: bool) -> None:
    """Before anything is compared: is the machine quiet, and are generator and provider fast enough?

    Raises:
        Failed: figures would mean nothing.
    """
    before = Busy.now(bench.ground.cores.all)
    time.sleep(2)
    busy = Busy.now(bench.ground.cores.all).share_since(before)
    bench.results.capacity["busy_before"] = busy
    if busy > QUIET:
        problem = f"the machine is busy by {busy:.0%} before anything runs"
        if not noisy:
            raise Failed(f"{problem}: end what else runs, or say --noisy for figures that only show that it works")
        bench.results.unsound.append(problem)
    on = bench.ground.cores.others
    seconds = max(2.0, min(bench.plan.seconds, 4.0))
    at_once = load.closed(
        bench.ground.provider_port, DIRECT, bench.people, connections=CONNECTIONS, seconds=seconds, on=on
    )
    bench.results.capacity["at_once_per_second"] = at_once.per_second
    bench.say(f"provider and generator alone: {at_once.per_second:,.0f}/s, p99 {at_once.p99_ms:.1f} ms")
    if at_once.errors:
        raise Failed(f"the provider that is to answer at once gave {at_once.errors} errors")
    for count in bench.plan.in_flight:
        seen = load.closed(
            bench.ground.slow_port, DIRECT, bench.people, connections=count, seconds=max(seconds, 3), on=on
        )
        ideal = count / DELAY_SECONDS
        bench.results.capacity[f"in_flight_{count}"] = {"share": seen.per_second / ideal, "p99_ms": seen.p99_ms}
        bench.say(f"{count:,} in flight at the slow provider alone: {seen.per_second:,.0f}/s, p99 {seen.p99_ms:.0f} ms")
        # The first second is taken by connecting; a subject never sees more than a few thousand a second anyway.
        if seen.errors or seen.per_second < 0.8 * min(ideal, 10_000):
            problem = f"{count} in flight: the slow provider alone gives {seen.per_second:.0f}/s, {seen.errors} errors"
            raise Failed(problem)


def check_subjects(bench: Bench, subjects: Sequence[Subject]) -> None:
    """Each is asked once, so that half an hour is not lost to one that cannot run.

    Raises:
        Failed: it does not start, or answers otherwise than it should.
    """
    for subject in subjects:
        served = subject.start(bench.ground, False)
        try:
            load.try_once(served.port, *asked(bench, subject, served))
        except Failed as error:
            raise Failed(f"{subject.name}: {error}") from None
        finally:
            served.program.stop()


def measure_closed(bench: Bench, subjects: Sequence[Subject]) -> None:
    """All subjects in turn, each started anew, several rounds."""
    for number in range(bench.plan.rounds):
        # Each round begins with another one, so that what the machine does meanwhile meets them all.
        turn = number % len(subjects)
        for subject in (*subjects[turn:], *subjects[:turn]):
            sample = measured(bench, subject, connections=CONNECTIONS, slow=False)
            bench.results.closed.setdefault(subject.name, []).append(asdict(sample))
            bench.say(f"round {number + 1} of {bench.plan.rounds}: {subject.name}: {_told(sample)}")


def measure_in_flight(bench: Bench, subjects: Sequence[Subject]) -> None:
    """A thousand and more at once, against the provider that takes its time."""
    chosen = [subject for subject in subjects if subject.in_flight]
    for count in bench.plan.in_flight:
        for number in range(bench.plan.in_flight_rounds if count == min(bench.plan.in_flight) else 1):
            for subject in chosen:
                sample = measured(bench, subject, connections=count, slow=True)
                bench.results.in_flight.setdefault(str(count), {}).setdefault(subject.name, []).append(asdict(sample))
                bench.say(f"{count:,} in flight, round {number + 1}: {subject.name}: {_told(sample)}")


def callers(bench: Bench, subject: Subject) -> People:
    """Who asks it: the users, or somebody with the one key that it takes."""
    if subject.bearer is None:
        return bench.people
    file = bench.ground.folder / f"callers-{subject.name}"
    file.write_text(f"10.0.0.1 {subject.bearer}\n")
    return People(file, 1)


def asked(bench: Bench, subject: Subject, served: Served) -> tuple[Ask, People]:
    """What it is asked, and by whom."""
    if not subject.of_call:
        return subject.ask, callers(bench, subject)
    address, token = one_of(bench.people)
    file = bench.ground.folder / f"callers-{subject.name}"
    file.write_text(f"{address} {token}\n")
    caller = People(file, 1)
    call = load.try_once(served.port, BY_NAME["sdp"].ask, caller).headers["location"]
    return replace(subject.ask, path=subject.ask.path.format(call=call)), caller


def measured(bench: Bench, subject: Subject, *, connections: int, slow: bool) -> Sample:
    """Start, warm, measure, stop one subject."""
    bench.ground.forget()
    served = subject.start(bench.ground, slow)
    try:
        ask, people = asked(bench, subject, served)
        load.try_once(served.port, ask, people)
        # Those in flight take as long to begin as they are many.
        warm_seconds = bench.plan.warm_seconds + (2.0 if slow else 0.0)
        on = bench.ground.cores.others
        warm = load.closed(served.port, ask, people, connections=connections, seconds=warm_seconds, on=on)
        first = load.after([warm], in_flight=connections)
        settle(served)
        sample, seen = under_load(bench, served, ask, people, connections=connections, first=first)
    finally:
        served.program.stop()
    if load.jwts_used_up(seen.requests + first * USES, bench.people) and subject.ours:
        bench.results.unsound.append(f"{subject.name}: {seen.requests} requests used JWTs more often than five times")
    if sample.errors and subject.ours:
        told = ", ".join(f"{count} × {status}" for status, count in served.program.refusals().most_common())
        bench.say(f"{subject.name}: its log has {told or 'no refusal'}")
    if given_up := served.program.says(REDIS_AWAY):
        bench.results.unsound.append(
            f"{subject.name}, {connections} at once: Redis was given up {given_up} times, so quotas were kept in memory"
        )
    if subject.saturates and sample.foreign > DISTURBED:
        bench.results.unsound.append(
            f"{subject.name}, {connections} at once: somebody else used {sample.foreign:.0%} of its core"
        )
    if subject.saturates and not slow and sample.core < SATURATED and sample.others > OVERLOADED:
        bench.results.unsound.append(
            f"{subject.name}: its core was busy by {sample.core:.0%}, that of generator, provider and Redis by "
            f"{sample.others:.0%}: they bounded it"
        )
    return sample


def settle(served: Served) -> None:
    """Wait until it rests: a generator that ends leaves requests behind, and their calls are hung up."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        before = cores.cpu_seconds(served.program.pid)
        time.sleep(0.25)
        if cores.cpu_seconds(served.program.pid) - before < 0.25 * AT_REST:
            return


def under_load(
    bench: Bench, served: Served, ask: Ask, people: People, *, connections: int, first: int
) -> tuple[Sample, Seen]:
    """A closed loop on a subject that is warm."""
    cpu, redis_cpu = cores.cpu_seconds(served.program.pid), cores.cpu_seconds(bench.ground.redis_pid)
    scripts, kept = _scripts(bench.ground), _redis_bytes(bench.ground)
    core, others = Busy.now(bench.ground.cores.subject), Busy.now(bench.ground.cores.others)
    on = bench.ground.cores.others
    seen = load.closed(
        served.port, ask, people, connections=connections, seconds=bench.plan.seconds, on=on, first=first
    )
    others_share = Busy.now(bench.ground.cores.others).share_since(others)
    cpu = cores.cpu_seconds(served.program.pid) - cpu
    many = max(1, seen.requests)
    sample = Sample(
        per_second=max(0, seen.requests - seen.errors) / seen.seconds,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        max_ms=seen.max_ms,
        errors=seen.errors,
        requests=seen.requests,
        core=cpu / seen.seconds,
        foreign=max(0.0, (Busy.now(bench.ground.cores.subject).worked - core.worked - cpu) / seen.seconds),
        others=others_share,
        cpu_us=cpu / many * 1e6,
        redis_us=(cores.cpu_seconds(bench.ground.redis_pid) - redis_cpu) / many * 1e6,
        redis_scripts=(_scripts(bench.ground) - scripts) / many,
        redis_bytes=(_redis_bytes(bench.ground) - kept) / many,
        memory_mb=cores.megabytes(served.program.pid, "VmHWM"),
        ready_seconds=served.ready_seconds,
    )
    return sample, seen


def measure_latency(bench: Bench, subjects: Sequence[Subject]) -> None:
    """Half of what the closed loop reached, in an open loop: through our subjects, and past them in the same round."""
    on = bench.ground.cores.others
    for subject in (one for one in subjects if one.ours):
        known = bench.results.closed.get(subject.name)
        for number in range(bench.plan.latency_rounds):
            bench.ground.forget()
            served = subject.start(bench.ground, False)
            try:
                warm = load.closed(
                    served.port,
                    subject.ask,
                    bench.people,
                    connections=CONNECTIONS,
                    seconds=max(3, bench.plan.warm_seconds),
                    on=on,
                )
                rate = (median_of(known, "per_second") if known else warm.per_second) / 2
                first = load.after([warm], in_flight=CONNECTIONS)
                seconds = bench.plan.seconds
                through = load.paced(
                    served.port, subject.ask, bench.people, rate=rate, seconds=seconds, on=on, first=first
                )
                # With the service beside it, which now has nothing to do: as much in the way as before.
                past = load.paced(
                    bench.ground.provider_port,
                    subject.direct,
                    bench.people,
                    rate=rate,
                    seconds=seconds,
                    on=on,
                    first=first,
                )
            finally:
                served.program.stop()
            bench.results.latency.setdefault(subject.name, []).append(
                {
                    "rate": rate,
                    "p50_ms": through.p50_ms,
                    "p99_ms": through.p99_ms,
                    "max_ms": through.max_ms,
                    "direct_p50_ms": past.p50_ms,
                    "direct_p99_ms": past.p99_ms,
                    "errors": through.errors + past.errors,
                }
            )
            bench.say(
                f"half load, round {number + 1}: {subject.name} at {rate:,.0f}/s: p50 {through.p50_ms:.2f} ms, "
                f"p99 {through.p99_ms:.2f} ms; past it {past.p50_ms:.2f} and {past.p99_ms:.2f} ms"
            )


def _scripts(ground: Ground) -> int:
    """How many scripts Redis has run."""
    stats = ground.redis.do("INFO", "commandstats")
    names = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")
    return sum(int(stats[name]["calls"]) for name in names if name in stats)


def _redis_bytes(ground: Ground) -> int:
    """What Redis holds."""
    return int(ground.redis.do("INFO", "memory")["used_memory"])


def _told(sample: Sample) -> str:
    return (
        f"{sample.per_second:,.0f}/s, p50 {sample.p50_ms:.1f} ms, p99 {sample.p99_ms:.1f} ms, {sample.errors} errors, "
        f"{sample.memory_mb:.0f} MB, ready after {sample.ready_seconds:.2f} s"
    )
