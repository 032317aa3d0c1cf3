"""A report as text for people, as JSON, and as Prometheus takes it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import click
from prometheus_client.core import CollectorRegistry, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from switchboard.console.telling import table
from switchboard.probe.steps import Outcome, Report

COLUMNS = ("STEP", "OUTCOME", "SECONDS", "DETAIL", "REQUEST")
COLOURS: dict[Outcome, str] = {"passed": "green", "failed": "red", "skipped": "yellow"}


def as_text(report: Report) -> str:
    """A table of steps, and one sentence."""
    rows = [
        (one.step, one.outcome, f"{one.seconds:.3f}" if one.request_id else "", one.detail, one.request_id or "")
        for one in report.results
    ]
    lines = [*_coloured(table(COLUMNS, rows), report), "", f"{report.url}: {_counted(report)}"]
    if report.left_open:
        lines.append(click.style(left_open_text(report.left_open), fg="red"))
    return "\n".join(lines)


def left_open_text(left_open: tuple[str, ...]) -> str:
    """What a probe could not hang up, and who will."""
    return f"Not hung up: {', '.join(left_open)}. The service ends each call at its deadline: `switchboard calls`."


def as_json(report: Report) -> dict[str, Any]:
    """Everything, for machines."""
    return {
        "url": report.url,
        "ok": report.exit_code == 0,
        "reached": report.reached,
        "started_at": report.started_at,
        "seconds": report.seconds,
        "steps": [asdict(result) for result in report.results],
        "left_open": list(report.left_open),
    }


def as_prometheus(report: Report) -> str:
    """Prometheus text, for node_exporter's textfile collector or a Pushgateway."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(report))
    return generate_latest(registry).decode()


class _Collected(Collector):
    """A report as a collector: gauges without the files that workers share theirs by."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        report = self._report
        tried = [result for result in report.results if result.outcome != "skipped"]
        yield GaugeMetricFamily(
            "switchboard_probe_success",
            "1 if every step that was tried passed, and every call was hung up.",
            value=report.exit_code == 0,
        )
        yield _by_step(
            "switchboard_probe_step_success",
            "1 if the step passed; steps that were skipped have no value.",
            ((one.step, float(one.outcome == "passed")) for one in tried),
        )
        yield _by_step(
            "switchboard_probe_step_duration_seconds",
            "How long the step took.",
            ((one.step, one.seconds) for one in tried),
        )
        yield GaugeMetricFamily(
            "switchboard_probe_calls_left_open", "Calls that could not be hung up.", value=len(report.left_open)
        )
        yield GaugeMetricFamily(
            "switchboard_probe_end_timestamp_seconds",
            "When the run was over.",
            value=report.started_at + report.seconds,
        )


def _by_step(name: str, documentation: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=["step"])
    for step, value in values:
        family.add_metric([step], value)
    return family


def _counted(report: Report) -> str:
    counts = {
        outcome: sum(result.outcome == outcome for result in report.results)
        for outcome in ("passed", "failed", "skipped")
    }
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)


def _coloured(lines: list[str], report: Report) -> list[str]:
    head, *rows = lines
    return [
        head,
        *(
            row.replace(f"  {one.outcome}", f"  {click.style(one.outcome, fg=COLOURS[one.outcome])}", 1)
            for row, one in zip(rows, report.results, strict=True)
        ),
    ]
