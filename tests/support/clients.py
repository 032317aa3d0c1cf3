"""The table of clients: every client and path of docs/clients.md, and what the tests in tests/e2e saw of each.

A test tells of one by the fixture `client`, which also gives it the mark `client`. `pytest --clients` prints the table
at its end and fails if a row is missing, or has not passed.
"""

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
HEAD = ("client", "version", "path", "connected", "result")
_CELL = re.compile(r"(?P<before>.*?) ?(?P<version>\d+(?:\.\d+)+)(?P<after>.*)")


@dataclass(frozen=True, slots=True)
class Client:
    """A row of the page."""

    version: str
    paths: tuple[str, ...]


def clients(page: str) -> dict[str, Client]:
    """The clients of the page by their names, which are the first cells without version and backticks."""
    lines = iter(page.splitlines())
    next(line for line in lines if line.startswith("| client | paths |"))
    next(lines)
    found = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cell, paths = (one.strip().replace("`", "") for one in line.split("|")[1:3])
        parts = _CELL.fullmatch(cell)
        name, version = (parts["before"] + parts["after"], parts["version"]) if parts else (cell, "")
        found[name] = Client(version, tuple(paths.split(", ")))
    return found


KNOWN = clients(PAGE.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Try:
    """A test in which a client was to connect."""

    client: str
    path: str
    ms: int | None
    """From asking for a token to connected, or, where an example does more, to its answer; None: it never was."""
    passed: bool


def tries(reports: Iterable[pytest.TestReport]) -> Iterator[Try]:
    for report in reports:
        for name, told in report.user_properties:
            if name == "client" and isinstance(told, Mapping):
                yield Try(**told, passed=report.passed)


def table(known: Mapping[str, Client], tried: Iterable[Try]) -> tuple[list[str], bool]:
    """The lines of the table, and whether every client has passed on each of its paths."""
    tried = list(tried)
    rows, is_whole = [HEAD], True
    for name, client in known.items():
        for path in client.paths:
            mine = [one for one in tried if (one.client, one.path) == (name, path)]
            times = [one.ms for one in mine if one.ms is not None]
            passed = bool(mine) and all(one.passed and one.ms is not None for one in mine)
            is_whole &= passed
            result = "passed" if passed else "failed" if mine else "missing"
            connected = f"{round(statistics.median(times))} ms" if times else "–"
            rows.append((name, client.version or "–", path, connected, result))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = []
    for row in rows:
        name, version, path, connected, result = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"{name}  {version}  {path}  {connected.strip().rjust(widths[3])}  {result}".rstrip())
    return lines, is_whole


class Table:
    """The plugin of `--clients`."""

    def __init__(self) -> None:
        self._reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._reports.append(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        lines, is_whole = table(KNOWN, tries(self._reports))
        reporter.write_line("")  # after the dots
        reporter.write_sep("=", "clients")
        for line in lines:
            reporter.write_line(line)
        if not is_whole and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def mark(items: Iterable[pytest.Item]) -> None:
    """The mark `client` for every test that uses the fixture of tests/e2e."""
    for item in items:
        if "e2e" in item.path.parts and "client" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.client)
