"""What a browser saw of its call: said by the browser, so it is shown to operators and never trusted for limits."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Report:
    """One report. Times are milliseconds, `loss` is the lost share of packets, `audio_seconds` what was heard."""

    event: Literal["connected", "failed", "alive", "ended"]
    ms_to_connected: float | None = None
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    loss: float | None = None
    audio_seconds: float | None = None
