"""Metrics as a scraper wants them: OpenMetrics with exemplars if it asks for that, else the Prometheus text format."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from switchboard.metrics.families import Family

LINES = 32  # encoded at a time: a fraction of a millisecond
BUSY_SECONDS = 0.001  # after which others are let on
END = b"# EOF\n"


Page: TypeAlias = tuple[bytes, str]
"""What a scraper gets, and its content type."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Metrics that the library can encode."""

    metrics: Sequence[Metric]

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self.metrics


Encode = Callable[[Collector], bytes]


def encoder_for(accept: str) -> tuple[Encode, str]:
    """What writes metrics for a scraper that accepts this, and the content type."""
    try:
        return choose_encoder(accept)
    except TypeError:  # it names a version that is none
        return choose_encoder("")


class OwnPage:
    """The metrics of this process, written on its event loop in small steps with requests in between.

    Not in a thread: that would hold the interpreter for 5 ms at a time, once for each event that the loop waits for.
    """

    def __init__(self, families: Iterable[Family[Any]]) -> None:
        self._families = tuple(families)
        self._one_at_a_time = asyncio.Lock()  # the steps of several scrapers would add up

    async def __call__(self, accept: str) -> Page:
        """The metrics as they stand, in the best form that a scraper accepts by its header `Accept`."""
        encode, content_type = encoder_for(accept)
        parts: list[bytes] = []
        async with self._one_at_a_time:
            began = time.perf_counter()
            for family in self._families:
                for number, piece in enumerate(family.pieces(LINES)):
                    parts.append(_written(encode, piece, with_head=number == 0))
                    if time.perf_counter() - began > BUSY_SECONDS:
                        await asyncio.sleep(0)
                        began = time.perf_counter()
        return b"".join([*parts, encode(Collected(()))]), content_type


def _written(encode: Encode, piece: Metric, *, with_head: bool) -> bytes:
    text = encode(Collected((piece,))).removesuffix(END)
    while not with_head and text.startswith(b"#"):
        text = text.partition(b"\n")[2]
    return text
