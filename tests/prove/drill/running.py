"""One fault under load, from before it begins until every call is over: what was asked, and what came of it."""

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from switchboard.audit.verify import verify
from tests.prove.audit import records_in
from tests.prove.calls.books import Books, left_behind, read_books, until, warm
from tests.prove.drill.faults import CALL_SECONDS, REPLICAS, STEP_SECONDS, Fault, Stage, stage
from tests.prove.drill.judging import Answer, Window, judge, longest_decision, recovered_after
from tests.prove.drill.load import Load
from tests.prove.service import Replica, Say
from tests.support.chains import KEY

CALM_SECONDS = 4.0
ROW = 5  # successes, one after the other, of each kind at each replica
LOOK_SECONDS = 0.25
MOST_RECOVERY_SECONDS = 20.0
AFTER_SECONDS = 1.0
LATE_SECONDS = 5.0
OVER_SECONDS = CALL_SECONDS + 20.0  # for every call and slot to be gone, with those of lost processes
SIGNS: Mapping[str, Callable[[Replica], bool]] = {
    "redis": lambda replica: "redis" in replica.degraded,
    "audit": lambda replica: "audit" in replica.degraded,
    "config": lambda replica: "config" in replica.degraded,
    "key set": lambda replica: replica.metric("switchboard_jwks_refresh_total", outcome="failed") > 0,
    "clock": lambda replica: abs(replica.ahead) > STEP_SECONDS - 2,
}
"""How a replica shows what is the matter."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one fault showed; times in seconds."""

    fault: Fault
    lasted: float
    verdicts: Counter[str]
    refusals: Counter[str]
    wrong: Counter[str]
    unaccounted: int
    late: int
    latest: float
    longest: float
    recovery: float | None
    amiss: Sequence[str]
    """Whatever else is not as it should be."""

    @property
    def is_busy(self) -> bool:
        """Whether the machine kept a replica from a Redis that was well, and nothing else was wrong."""
        return bool(self.wrong) and all(text.endswith(": 503 degraded") for text in self.wrong)


def drill(fault: Fault, say: Say, *, seconds: float) -> Found:
    """Run one fault.

    Args:
        seconds: for how long it is kept up.
    """
    with stage(fault) as on:
        on.place.start()
        found = asyncio.run(_drill(on, fault, seconds))
    say(f"{fault.what}: {dict(found.verdicts)}, {dict(found.refusals)}")
    return found


async def _drill(on: Stage, fault: Fault, seconds: float) -> Found:
    await warm(on.place)
    load = Load([replica.port for replica in on.place.replicas])
    asking = asyncio.create_task(load.run())
    await asyncio.sleep(CALM_SECONDS)

    begin = time.monotonic()
    await asyncio.to_thread(fault.begin, on)
    amiss = list[str]()
    if not fault.ends_itself:
        await asyncio.sleep(seconds / 2)
        load.leaves_calls = False  # what was left until now is enough, and is waited for in the end
        await asyncio.sleep(seconds / 2)
        amiss = await asyncio.to_thread(_signs, on, fault)
    await asyncio.to_thread(fault.end, on)
    end, ended_at = time.monotonic(), time.time()

    load.leaves_calls = False
    recovery = await _recovered(load, end)
    await asyncio.sleep(max(0.0, end + AFTER_SECONDS - time.monotonic()))
    load.is_over = True
    await asking
    await until(lambda: not left_behind(on.place.redis), OVER_SECONDS)
    books = await read_books(on.place)
    window = Window(begin, end, fault.within)
    lates = late_seconds(books, ended_at if fault.of_provider else None)
    if not any(entry.register.ended_by == "deadline" for entry in books.entries):
        amiss.append("no call came to its deadline")
    amiss += await asyncio.to_thread(_left, on)
    judged = [(answer, judge(answer, fault.allowed, window, victim=fault.victim)) for answer in load.answers]
    refusals = Counter(answer.text for answer, verdict in judged if verdict == "refused")
    if bool(refusals) != fault.is_refused:
        amiss.append("nobody was refused" if fault.is_refused else "somebody was refused")
    return Found(
        fault,
        lasted=window.end - window.begin,
        verdicts=Counter(str(verdict) for _, verdict in judged),
        refusals=refusals,
        wrong=Counter(_told(answer, window) for answer, verdict in judged if verdict == "wrong"),
        unaccounted=len(load.unaccounted(records_in(*on.audit_files))),
        late=sum(one > LATE_SECONDS for one in lates),
        latest=max(lates, default=0.0),
        longest=longest_decision(load.answers, but=fault.victim if fault.allowed else None, window=window),
        recovery=recovery,
        amiss=amiss,
    )


def _signs(on: Stage, fault: Fault) -> list[str]:
    """What is missing of how the fault should look: then it was none."""
    if not fault.sign:
        return []
    replicas = on.place.replicas if fault.victim is None else [on.victim]
    return [
        f"nothing is seen of the fault at replica {replica.port}"
        for replica in replicas
        if not SIGNS[fault.sign](replica)
    ]


async def _recovered(load: Load, end: float) -> float | None:
    while (after := recovered_after(load.answers, end, row=ROW, replicas=REPLICAS)) is None:
        if time.monotonic() > end + MOST_RECOVERY_SECONDS:
            return None
        await asyncio.sleep(LOOK_SECONDS)
    return after


def _left(on: Stage) -> list[str]:
    """What is wrong with what is left, when all is over: in the register, and on record."""
    left = left_behind(on.place.redis)
    amiss = [f"left in the register: {left}"] if left else []
    for replica in on.place.replicas:
        replica.process.stop(signal.SIGTERM)
    problems = [one for one in verify(on.audit_files, [KEY]).problems if one.kind != "unclosed"]  # as one was killed
    return amiss + [f"the audit does not verify: {one}" for one in problems[:1]]


def late_seconds(books: Books, provider_back_at: float | None) -> list[float]:
    """Of each call, seconds from when it had to end, or could be ended again, until the provider was told.

    Args:
        provider_back_at: unix time from which on the provider answers again.
    """
    lates = [entry.late for entry in books.entries]
    if provider_back_at is not None:
        back = provider_back_at
        lates = [
            min(late, _since(entry.provider.ended_at, back)) for entry, late in zip(books.entries, lates, strict=True)
        ]
    return lates


def _since(ended_at: float | None, moment: float) -> float:
    return math.inf if ended_at is None else ended_at - moment


def _told(answer: Answer, window: Window) -> str:
    """A wrong answer, in words."""
    if answer.answered < window.begin:
        when = "before"
    elif answer.sent > window.end:
        when = f"{answer.sent - window.end:.0f} s after"
    else:
        when = "meanwhile"
    return f"{answer.kind}, {when}, replica {answer.replica}: {answer.text}"
