"""`switchboard audit show`: records found again, by tenant, outcome, user and time, as a table or as they are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from switchboard.audit.reading import parsed

# What tells one decision from another at a glance; `--json` shows the rest.
COLUMNS: Mapping[str, int] = {
    "time": 24,
    "action": 12,
    "outcome": 7,
    "reason": 20,
    "tenant": 12,
    "preset": 12,
    "user_key": 12,
    "call_id": 28,
    "request_id": 0,
}
CUT = ("user_key",)  # twelve characters tell users apart; the filter takes the begin of a key as well


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted: those for which everything that is given holds."""

    tenant: str | None = None
    outcome: str | None = None
    action: str | None = None
    call_id: str | None = None
    user_key: str | None = None
    """May be the begin of one."""
    since: str | None = None
    until: str | None = None
    """As records have it; the moment itself is not included."""

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is wanted."""
        time = str(record.get("time", ""))
        return (
            all(
                wanted is None or record.get(name) == wanted
                for name, wanted in (
                    ("tenant", self.tenant),
                    ("outcome", self.outcome),
                    ("action", self.action),
                    ("call_id", self.call_id),
                )
            )
            and (self.user_key is None or str(record.get("user_key", "")).startswith(self.user_key))
            and (self.since is None or time >= self.since)
            and (self.until is None or time < self.until)
        )


def wanted(lines: Iterable[bytes], which: Filter) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    """The lines that are wanted, each with its fields; what is no record is left out."""
    for line in lines:
        record = parsed(line)
        if "action" in record and which.takes(record):
            yield line, record


def header() -> str:
    """The table's first line."""
    return _row({name: name for name in COLUMNS})


def row(record: Mapping[str, Any]) -> str:
    """A record's line in the table."""
    shown = {name: str(record.get(name, "–")) for name in COLUMNS}
    return _row({name: text[: COLUMNS[name]] if name in CUT else text for name, text in shown.items()})


def _row(cells: Mapping[str, str]) -> str:
    return "  ".join(text.ljust(COLUMNS[name]) for name, text in cells.items()).rstrip()
