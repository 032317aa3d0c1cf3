"""Which answer is right under which fault, as data, and the one judge of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["right", "refused", "wrong"]

RIGHT: Mapping[str, frozenset[str]] = {
    "grant": frozenset({"200"}),
    "secret": frozenset({"200"}),
    "offer": frozenset({"201"}),
    "offer by grant": frozenset({"201"}),
    "read": frozenset({"200 open"}),
    "list": frozenset({"200 listed"}),
    "end": frozenset({"200 ended"}),
    # If the call of that grant is still open, its user has as many as may be as well.
    "used grant": frozenset({"401 grant_used", "429 too_many_calls"}),
    "second offer": frozenset({"429 too_many_calls"}),
    "forged": frozenset({"401 invalid_token"}),
    "unknown key": frozenset({"401 invalid_token"}),
    "expired": frozenset({"401 expired_token"}),
    "foreign": frozenset({"401 unknown_issuer"}),
}
"""What each kind of request gets when all is well: a status, and the code of a refusal or the state of a call."""

BAD_TOKENS = frozenset({"forged", "unknown key", "expired", "foreign"})
SUCCESSES = frozenset({"grant", "secret", "offer", "offer by grant", "read", "list", "end"})
ASKS_PROVIDER = frozenset({"secret", "offer", "offer by grant", "end"})
OFFERS = frozenset({"offer", "offer by grant", "used grant", "second offer"})
NEEDS_REGISTER = OFFERS | {"read", "list", "end"}
DECISIONS = frozenset(RIGHT) - {"read", "list"}

NO_ANSWERS = ("not connected", "cut off", "no answer in time")
"""What a caller sees of a replica that is not there."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer that the contract allows under a fault: to which kinds, and whether by the replica at fault only."""

    text: str
    kinds: frozenset[str]
    by_victim_only: bool = False


NONE: Sequence[Refusal] = ()
# docs/limits.md, "When Redis goes": no grant and no capped call begins, and other replicas' calls cannot be found.
REDIS_AWAY = (Refusal("503 degraded", NEEDS_REGISTER),)
# docs/operations.md, "When a provider fails"; while it is taken to be down, offers are refused before anything else.
PROVIDER_BROKEN = (
    Refusal("502 provider_unavailable", ASKS_PROVIDER),
    Refusal("504 provider_timeout", ASKS_PROVIDER),
    Refusal("503 provider_busy", ASKS_PROVIDER | OFFERS),
)
PROVIDER_BUSY = (Refusal("503 provider_busy", ASKS_PROVIDER),)
# docs/operations.md, "Start": a process that never had the keys of an issuer; bad tokens of that issuer are the same.
NO_KEYS = (Refusal("503 degraded", (frozenset(RIGHT) - BAD_TOKENS) | {"forged", "unknown key"}, by_victim_only=True),)
# docs/audit.md: what cannot be recorded is not handed out. Reading is no decision.
AUDIT_UNAVAILABLE = (Refusal("503 audit_unavailable", DECISIONS),)
REPLICA_GONE = tuple(Refusal(text, frozenset(RIGHT), by_victim_only=True) for text in NO_ANSWERS)
# What it was doing when it stood still had no answer from Redis in time.
REPLICA_FROZEN = (*REPLICA_GONE, Refusal("503 degraded", NEEDS_REGISTER, by_victim_only=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came of it; times by the monotonic clock of who asked."""

    kind: str
    replica: int
    sent: float
    answered: float
    text: str

    @property
    def is_right(self) -> bool:
        return self.text in RIGHT[self.kind]


@dataclass(frozen=True, slots=True)
class Window:
    """When a fault may show: from its begin until some seconds after its end."""

    begin: float
    end: float
    within: float

    def touches(self, answer: Answer) -> bool:
        return answer.answered >= self.begin and answer.sent <= self.end + self.within


def judge(answer: Answer, allowed: Sequence[Refusal], window: Window, *, victim: int | None) -> Verdict:
    """Whether an answer is what it should be.

    Args:
        allowed: what the fault excuses.
        window: while it does.
        victim: the number of the replica at fault, if it is one.
    """
    if answer.is_right:
        return "right"
    if not window.touches(answer):
        return "wrong"
    for refusal in allowed:
        here = not refusal.by_victim_only or answer.replica == victim
        if here and answer.text == refusal.text and answer.kind in refusal.kinds:
            return "refused"
    return "wrong"


def recovered_after(answers: Sequence[Answer], end: float, *, row: int, replicas: int) -> float | None:
    """Seconds from the end of a fault until every replica does right again by every kind that can succeed.

    Args:
        answers: in the order in which they came.
        end: of the fault; what was sent before it does not count.
        row: so many successes, one after the other, show it; the first of them is when.

    Returns:
        None if that has not been seen yet.
    """
    latest = 0.0
    for replica in range(replicas):
        for kind in SUCCESSES:
            own = [one for one in answers if one.sent >= end and (one.kind, one.replica) == (kind, replica)]
            run: list[Answer] = []
            for one in own:
                run = [*run, one] if one.is_right else []
                if len(run) == row:
                    break
            else:
                return None
            latest = max(latest, run[0].answered - end)
    return latest


def longest_decision(answers: Sequence[Answer], *, but: int | None, window: Window) -> float:
    """The longest time in seconds until an answer that did not wait for the provider.

    Args:
        but: a replica that stood still or was gone, and is left out while it was.
    """
    decisions = (
        one.answered - one.sent
        for one in answers
        if (one.kind not in ASKS_PROVIDER or one.text in ("503 degraded", "503 audit_unavailable"))
        and one.text not in NO_ANSWERS
        and not (one.replica == but and window.touches(one))
    )
    return max(decisions, default=0.0)
