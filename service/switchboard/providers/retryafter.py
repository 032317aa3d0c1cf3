"""How long a provider asks to wait: `retry-after-ms` (OpenAI's own), or `Retry-After` (RFC 9110, section 10.2.3)."""

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

MAX_SECONDS = 3600.0
MAX_DIGITS = 9  # more is no time but an attack on who parses it


def retry_after(headers: Mapping[str, str], *, default: float = 0.0, clock: Callable[[], float] = time.time) -> float:
    """Seconds to wait, at most an hour; `default` if the headers (lower case) do not say, or say nonsense."""
    in_ms, given = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    if _is_number(in_ms):
        return min(int(in_ms) / 1000, MAX_SECONDS)
    if _is_number(given):
        return min(float(given), MAX_SECONDS)
    try:
        at = parsedate_to_datetime(given).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return default
    return min(max(0.0, at - clock()), MAX_SECONDS)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
