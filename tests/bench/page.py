"""A run as a page: tables for people. `docs/performance.md` says how to read them."""

import math
from collections.abc import Sequence

from tests.bench.figures import GUARDED, TITLES, YARDSTICK, Results, Target, Verdict, added, median_of, ratio
from tests.bench.subjects import BY_NAME
from tests.prove.service import table


def page(results: Results, targets: Sequence[Target], verdicts: Sequence[Verdict] = ()) -> str:
    """Everything that was measured, as Markdown."""
    parts = [
        ["# Proof: performance", "", *_head(results)],
        _unsound(results),
        _closed(results),
        _in_flight(results),
        _latency(results),
        _growth(results),
        _million(results),
        _targets(targets),
        _guard(verdicts),
    ]
    return "\n".join(line for part in parts for line in part)


def _head(results: Results) -> list[str]:
    options = results.options
    return [
        "Written by `make bench`; [performance](../performance.md) says how to read it. Everything ran on one machine:",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in results.machine.items()),
        f"| rounds | {options.get('rounds', '–')} of {options.get('seconds', '–')} s, subjects in turn |",
        f"| provider and generator alone | {results.capacity.get('at_once_per_second', 0):,.0f} requests per second |",
        "",
    ]


def _unsound(results: Results) -> list[str]:
    if not results.unsound:
        return []
    return ["**These figures are not to be trusted:**", "", *(f"- {reason}" for reason in results.unsound), ""]


def _closed(results: Results) -> list[str]:
    if not results.closed:
        return []
    rows = []
    for name, samples in results.closed.items():
        of_bare = ratio(results.closed, name, YARDSTICK)
        ours = name in (*GUARDED, "heartbeat")
        rows.append(
            [
                BY_NAME[name].title,
                f"{median_of(samples, 'per_second'):,.0f}",
                "–" if of_bare is None else f"{of_bare:.3f}",
                f"{median_of(samples, 'p50_ms'):.1f} ms",
                f"{median_of(samples, 'p99_ms'):.1f} ms",
                f"{median_of(samples, 'cpu_us'):.0f} µs",
                f"{median_of(samples, 'redis_us'):.0f} µs" if ours else "–",
                f"{median_of(samples, 'redis_scripts'):.1f}" if ours else "–",
                f"{median_of(samples, 'redis_bytes'):.0f} bytes" if ours else "–",
                f"{max(sample['memory_mb'] for sample in samples):.0f} MB",
                f"{median_of(samples, 'ready_seconds'):.2f} s",
                sum(sample["errors"] for sample in samples),
            ]
        )
    columns = ["subject", "per second", "to bare", "p50", "p99", "processor"]
    columns += ["Redis", "round trips", "kept in Redis", "memory", "cold start", "errors"]
    return ["## 32 connections", "", *table(*columns, rows=rows), ""]


def _in_flight(results: Results) -> list[str]:
    lines = []
    for count, subjects in results.in_flight.items():
        rows = [
            [
                BY_NAME[name].title,
                f"{median_of(samples, 'per_second'):,.0f}",
                f"{median_of(samples, 'p50_ms'):,.0f} ms",
                f"{median_of(samples, 'p99_ms'):,.0f} ms",
                f"{max(sample['memory_mb'] for sample in samples):.0f} MB",
                sum(sample["errors"] for sample in samples),
            ]
            for name, samples in subjects.items()
        ]
        columns = ("subject", "per second", "p50", "p99", "memory", "errors")
        lines += [f"## {int(count):,} in flight, the provider takes 250 ms", "", *table(*columns, rows=rows), ""]
    return lines + _per_flight(results)


def _per_flight(results: Results) -> list[str]:
    """What each further request in flight takes of memory, between the fewest and the most."""
    counts = sorted(results.in_flight, key=int)
    if len(counts) < 2:
        return []
    few, many = results.in_flight[counts[0]], results.in_flight[counts[-1]]
    told = []
    for name in (one for one in few if one in many and one in GUARDED):
        most = [max(sample["memory_mb"] for sample in samples[name]) for samples in (few, many)]
        each = (most[1] - most[0]) * 1024 / (int(counts[-1]) - int(counts[0]))
        told.append(f"{TITLES[name]} {each:.1f} KB")
    return [f"Memory of the process per further request in flight: {', '.join(told)}.", ""] if told else []


def _latency(results: Results) -> list[str]:
    if not results.latency:
        return []
    rows = [
        [
            BY_NAME[name].title,
            f"{median_of(samples, 'rate'):,.0f}",
            *(f"{median_of(samples, f'{one}_ms'):.2f} ms" for one in ("p50", "direct_p50", "p99", "direct_p99")),
            *(f"{added(samples, percent):.2f} ms" for percent in ("p50", "p99")),
        ]
        for name, samples in results.latency.items()
    ]
    columns = ("subject", "per second", "p50", "p50 past it", "p99", "p99 past it", "added p50", "added p99")
    return ["## Half load, open loop", "", *table(*columns, rows=rows), ""]


NAMES = {
    "start_seconds": ("cold start of `serve` to ready", "{:.2f} s"),
    "tenants_start_seconds": ("10,000 tenants with 3 presets each: start", "{:.1f} s"),
    "tenants_memory_mb": ("the same: memory when settled", "{:.0f} MB"),
    "tenants_peak_mb": ("the same: most memory while starting", "{:.0f} MB"),
    "tenants_cost": ("the same: processor per request, to that with 10 tenants", "{:.3f}"),
    "metrics_mb": ("the same: `/metrics`", "{:.2f} MB"),
    "reload_seconds": ("the same: until one changed file holds", "{:.1f} s"),
    "reload_stall_ms": ("the same: longest stall meanwhile", "{:.0f} ms"),
    "users": ("distinct users, each once", "{:,.0f}"),
    "user_bytes": ("memory that each further user leaves", "{:.1f} bytes"),
    "workers_ratio": ("two workers to one", "{:.2f}"),
}


def _growth(results: Results) -> list[str]:
    rows = [
        [what, shape.format(results.growth[name])] for name, (what, shape) in NAMES.items() if name in results.growth
    ]
    return ["## What grows", "", *table("what", "found", rows=rows), ""] if rows else []


USERS, CALL_SECONDS, BEAT_SECONDS, IDLE_SHARE = 1_000_000, 300, 20, 0.5
KEPT_SECONDS = 2 * 3600  # that a call stays in Redis, at the most


def _million(results: Results) -> list[str]:
    """What a million people who are on a call at once would take, by the figures of this run."""
    known = {name: results.closed.get(name) for name in ("grants", "sdp", "heartbeat")}
    if not all(known.values()):
        return []
    calls, beats = USERS / CALL_SECONDS, USERS / BEAT_SECONDS
    # A hang-up asks provider and Redis about as often as an offer does.
    asked = {"grants": calls, "sdp": 2 * calls, "heartbeat": beats}
    rows, cores, redis = [], 0.0, 0.0
    for name, title in (("grants", "grants"), ("sdp", "offers and hang-ups"), ("heartbeat", "heartbeats")):
        cpu, redis_cpu = (median_of(known[name] or (), figure) * asked[name] / 1e6 for figure in ("cpu_us", "redis_us"))
        cores, redis = cores + cpu, redis + redis_cpu
        rows.append([title, f"{asked[name]:,.0f}", f"{cpu:.1f}", f"{redis_cpu:.2f}"])
    rows.append(["together", f"{sum(asked.values()):,.0f}", f"{cores:.1f}", f"{redis:.2f}"])
    kept = (calls * KEPT_SECONDS + USERS) * median_of(known["sdp"] or (), "redis_bytes") / 1e9
    assumed = (
        f"Calls of {CALL_SECONDS // 60} minutes by grants, a heartbeat each {BEAT_SECONDS} s; a hang-up counts as an "
        "offer. A calculation with the figures above, on cores like these:"
    )
    needed = (
        f"With everything half idle: {math.ceil(cores / IDLE_SHARE)} workers, each a core, and a Cluster of "
        f"{math.ceil(redis / IDLE_SHARE)} masters. Calls take {kept:.0f} GB there if each is kept for two hours."
    )
    shown = table("what", "per second", "cores busy", "Redis, cores busy", rows=rows)
    return ["## A million users on a call at once", "", assumed, "", *shown, "", needed, ""]


def _targets(targets: Sequence[Target]) -> list[str]:
    rows = [[one.what, one.bound, one.found, "yes" if one.met else "**no**"] for one in targets]
    return ["## Targets", "", *table("target", "bound", "found", "met", rows=rows), ""] if rows else []


def _guard(verdicts: Sequence[Verdict]) -> list[str]:
    rows = [
        [
            TITLES[one.name],
            f"{one.accepted:.3f}",
            f"{one.now:.3f}",
            f"{one.change:+.0%}",
            "yes" if one.holds else "**no**",
        ]
        for one in verdicts
    ]
    columns = ("to bare Starlette", "accepted", "now", "change", "holds")
    return ["## Guard", "", *table(*columns, rows=rows), ""] if rows else []
