"""Answers of the ops port as text for people; click takes colour away where there is no terminal."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

USER_KEY_SHOWN = 12  # of 64 characters: enough to tell users apart, and to find one in the audit
COLUMNS = ("CALL", "TENANT", "USER", "PRESET", "STARTED (UTC)", "LEFT", "STATE")


def listing_text(listing: Mapping[str, Any]) -> str:
    """A table of open calls, how many there are, and who is suspended."""
    calls, lines = listing["calls"], list[str]()
    if calls:
        lines += [*table(COLUMNS, [_row(call, listing["now"]) for call in calls]), ""]
    if listing["cut"]:
        lines.append(f"These are {len(calls)} of {listing['open_calls']} open calls; see fewer with --tenant.")
    else:
        lines.append(_count(len(calls), "open call") if calls else "No open calls.")
    for state in listing["suspended"]:
        why = "by the policy" if state["suspended_by_policy"] else f"undo: switchboard resume {state['tenant']}"
        left = _count(state["open_calls"], "call")
        lines.append(click.style(f"{state['tenant']} is suspended", fg="red") + f" ({why}); {left} still open")
    return "\n".join(lines)


def call_text(call: Mapping[str, Any]) -> str:
    """What became of a call."""
    after = _span(call["ended_at"] - call["started_at"])
    return f"{call['id']} of {call['tenant']} ended {_time(call['ended_at'])} UTC after {after}, by {call['ended_by']}"


def suspended_text(state: Mapping[str, Any], where: str) -> str:
    """What a suspension means, and how it is undone.

    Args:
        state: of the tenant.
        where: the option that leads to the same service, if one was given.
    """
    tenant = state["tenant"]
    lines = [
        click.style(f"{tenant} is suspended.", bold=True) + " Every replica refuses it within a second.",
        f"Being hung up: {_count(state['open_calls'], 'open call')}. Look: switchboard calls --tenant {tenant}{where}",
        f"Undo: switchboard resume {tenant}{where}",
        "This lasts as long as Redis, or one replica, remembers it. For good: `suspended: true` in the policy.",
    ]
    if state["suspended_by_policy"]:
        lines.append("The policy suspends it as well, which `resume` cannot undo.")
    return "\n".join(lines)


def resumed_text(state: Mapping[str, Any], where: str) -> str:
    """That a tenant is served again; `where` as above."""
    tenant = state["tenant"]
    return (
        click.style(f"{tenant} is served again.", bold=True)
        + " Calls that were to be hung up still are."
        + f"\nUndo: switchboard suspend {tenant}{where}"
    )


def _row(call: Mapping[str, Any], now: float) -> tuple[str, ...]:
    left = call["deadline"] - now
    return (
        call["id"],
        call["tenant"],
        call["user_key"][:USER_KEY_SHOWN],
        call["preset"],
        _time(call["started_at"]),
        _span(left) if left > 0 else "none",
        f"ending: {call['ending']}" if call["ending"] else call["state"],
    )


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of text, the first of which names the columns."""
    widths = [max(len(row[column]) for row in (columns, *rows)) for column in range(len(columns))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)]
    return [click.style(lines[0].rstrip(), bold=True), *(line.rstrip() for line in lines[1:])]


def _time(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M:%S}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
