"""What the bench's numbers come to: percentiles, medians, ratios, targets, the guard. No measuring here."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_LOSS = 0.15
GUARDED = ("token", "grants", "sdp")
YARDSTICK = "bare"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent are not above (nearest rank); 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one subject."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    requests: int
    core: float
    """Of a core, how much the subject's processes used."""
    foreign: float
    """Of the subject's core, how much somebody else used: interrupts, or a program that should not run now."""
    others: float
    """How busy the other cores were, by whomever."""
    cpu_us: float
    """Of the subject's processes, per request."""
    redis_us: float
    """Of Redis, per request."""
    redis_scripts: float
    """Round trips to Redis per request."""
    redis_bytes: float
    """What a request leaves in Redis: windows of users and tenants, calls."""
    memory_mb: float
    """The most it had, up to the end of the round."""
    ready_seconds: float


def median_of(samples: Sequence[Mapping[str, Any]], name: str) -> float:
    """The median of one figure over rounds."""
    return statistics.median(float(sample[name]) for sample in samples)


@dataclass
class Results:
    """Everything that one run measured, as it goes into the JSON; what was not measured is empty."""

    machine: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    capacity: dict[str, Any] = field(default_factory=dict)
    """What generator and provider do without a subject."""
    closed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Samples by subject, one per round."""
    in_flight: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """By how many (as text) and subject."""
    latency: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """By subject: rate, and p50 and p99 through it (`p50_ms`), past it (`direct_p50_ms`), both in one round."""
    growth: dict[str, Any] = field(default_factory=dict)
    unsound: list[str] = field(default_factory=list)
    """Why figures of this run cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Target:
    """What was promised, what was found."""

    what: str
    bound: str
    found: str
    met: bool


def ratio(closed: Mapping[str, Sequence[Mapping[str, Any]]], over: str, under: str) -> float | None:
    """The median, over rounds, of one subject's speed to another's in the same round; None without both."""
    pairs = zip(closed.get(over, ()), closed.get(under, ()), strict=False)
    ratios = [one["per_second"] / other["per_second"] for one, other in pairs if other["per_second"] > 0]
    return statistics.median(ratios) if ratios else None


def targets(results: Results) -> list[Target]:
    """Those of which something was measured."""
    return [
        *_ratios(results),
        *_in_flight(results),
        *_latency(results),
        *_growth(results.growth),
    ]


# over, under, at least, aim
RATIOS: list[tuple[str, str, float, float | None]] = [
    ("token", "express", 1.5, 2.0),
    ("token", "bare", 0.25, 0.40),
    ("token", "httpx", 8.0, None),
    ("token", "litellm", 15.0, None),
    ("grants", "token", 1.05, 1.3),
    ("sdp", "token", 0.7, None),
]
TITLES = {
    "token": "`/token` direct",
    "grants": "grants",
    "sdp": "`/sdp`",
    "heartbeat": "a heartbeat",
    "bare": "bare Starlette",
    "express": "Express",
    "httpx": "Starlette with httpx",
    "nginx": "nginx",
    "litellm": "LiteLLM",
}


def _ratios(results: Results) -> list[Target]:
    found = []
    for over, under, least, aim in RATIOS:
        value = ratio(results.closed, over, under)
        if value is not None:
            bound = f"≥ {least:g}" + (f" (aim: {aim:g})" if aim else "")
            found.append(Target(f"{TITLES[over]} to {TITLES[under]}", bound, f"{value:.2f}", value >= least))
    for name, samples in results.closed.items():
        if name in GUARDED:
            errors = sum(sample["errors"] for sample in samples)
            found.append(Target(f"{TITLES[name]}: errors", "0", str(errors), errors == 0))
    return found


IDEAL_OF_1000 = 4000.0  # a thousand in flight, each for a quarter of a second


def _in_flight(results: Results) -> list[Target]:
    found = []
    for count, subjects in results.in_flight.items():
        for name, samples in subjects.items():
            if name not in GUARDED:
                continue
            what = f"{TITLES[name]}, {int(count):,} in flight"
            errors = sum(sample["errors"] for sample in samples)
            found.append(Target(f"{what}: errors", "0", str(errors), errors == 0))
            if count == "1000" and name == "token":
                share = median_of(samples, "per_second") / IDEAL_OF_1000
                p99 = median_of(samples, "p99_ms")
                memory = max(sample["memory_mb"] for sample in samples)
                found += [
                    Target(f"{what}: share of the ideal 4,000/s", "≥ 0.75", f"{share:.2f}", share >= 0.75),
                    Target(f"{what}: p99", "< 600 ms", f"{p99:.0f} ms", p99 < 600),
                    Target(f"{what}: memory", "< 200 MB", f"{memory:.0f} MB", memory < 200),
                ]
    return found


def added(samples: Sequence[Mapping[str, float]], percent: str) -> float:
    """Milliseconds that a subject adds: the median over rounds of through it less past it."""
    return statistics.median(sample[f"{percent}_ms"] - sample[f"direct_{percent}_ms"] for sample in samples)


def _latency(results: Results) -> list[Target]:
    found = []
    for name, samples in results.latency.items():
        for percent, most in (("p50", 2.0), ("p99", 6.0)):
            value = added(samples, percent)
            what = f"{TITLES[name]} at half load: added {percent}"
            found.append(Target(what, f"< {most:g} ms", f"{value:.2f} ms", value < most))
        errors = sum(sample["errors"] for sample in samples)
        found.append(Target(f"{TITLES[name]} at half load: errors", "0", f"{errors:.0f}", errors == 0))
    return found


# figure in `growth`, what it is, unit, bound, whether it is met
_Bound = tuple[str, str, str, str, Callable[[float], bool]]
GROWTH: list[_Bound] = [
    ("start_seconds", "cold start of `serve` to ready", "s", "< 1.5 s", lambda x: x < 1.5),
    ("tenants_start_seconds", "10,000 tenants: start", "s", "≤ 10 s", lambda x: x <= 10),
    ("tenants_memory_mb", "10,000 tenants: settled memory", "MB", "< 400 MB", lambda x: x < 400),
    ("tenants_cost", "10,000 tenants: cost of a request to that with 10", "", "≤ 1.05", lambda x: x <= 1.05),
    ("reload_stall_ms", "10,000 tenants: longest stall while one file is reloaded", "ms", "≤ 50 ms", lambda x: x <= 50),
    ("metrics_mb", "10,000 tenants: `/metrics`", "MB", "< 1 MB", lambda x: x < 1),
    ("user_bytes", "memory that each further user leaves", "bytes", "≤ 16 bytes", lambda x: x <= 16),
]
WORKERS_ON_MANY, WORKERS_ON_TWO = 1.7, 1.4


def _growth(growth: Mapping[str, Any]) -> list[Target]:
    found = [
        Target(what, bound, f"{growth[name]:.2f} {unit}".strip(), met(growth[name]))
        for name, what, unit, bound, met in GROWTH
        if name in growth
    ]
    if growth.get("reload_missed"):
        found.append(Target("10,000 tenants: one changed file is taken", "yes", "no", met=False))
    if "workers_ratio" in growth:
        least = WORKERS_ON_MANY if growth["workers_cores"] >= 4 else WORKERS_ON_TWO
        value = growth["workers_ratio"]
        what = f"two workers to one, on {growth['workers_cores']} cores with all else"
        found.append(Target(what, f"≥ {least:g}", f"{value:.2f}", value >= least))
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """The guard's on one subject: its speed to bare Starlette's, accepted and now."""

    name: str
    accepted: float
    now: float

    @property
    def change(self) -> float:
        """-0.15: 15 per cent are lost."""
        return self.now / self.accepted - 1

    @property
    def holds(self) -> bool:
        return self.change >= -MAX_LOSS


def to_accept(results: Results) -> dict[str, Any]:
    """What the guard will hold later runs against.

    Raises:
        ValueError: the run has no ratio to bare Starlette.
    """
    found = {name: ratio(results.closed, name, YARDSTICK) for name in GUARDED}
    ratios = {name: round(value, 4) for name, value in found.items() if value is not None}
    if not ratios:
        raise ValueError("nothing to accept: measure Switchboard and `bare` in one run")
    return {"ratios_to_bare": ratios, "rounds": len(results.closed[YARDSTICK]), "machine": results.machine}


def judge(results: Results, accepted: Mapping[str, Any]) -> list[Verdict]:
    """Each subject that both runs have."""
    verdicts = []
    for name, before in accepted["ratios_to_bare"].items():
        now = ratio(results.closed, name, YARDSTICK)
        if now is not None:
            verdicts.append(Verdict(name, before, now))
    return verdicts
