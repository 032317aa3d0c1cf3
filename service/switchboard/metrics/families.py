"""Metrics with bounded labels, on top of prometheus-client: how many series there are does not depend on who calls."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

OTHER = "other"
MOST = {Counter: 20_000, Gauge: 20_000, Histogram: 2_000}
"""Series of one metric at most; one of a histogram has a line for each bucket."""

C = TypeVar("C", Counter, Gauge, Histogram)


class Shown:
    """The names that are label values: the first so many; all others are `other` together.

    They are told beforehand, in the policy's order, and not found as requests come: so every worker shows the same.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def add(self, names: Iterable[str]) -> None:
        """Show these as well, as far as there is room."""
        for name in names:
            if len(self._names) >= self._most:
                return
            self._names.add(name)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def label(self, name: str | None) -> str:
        """The label value that stands for a name; empty for none."""
        if name is None:
            return ""
        return name if name in self._names else OTHER


class Family(Generic[C]):
    """One metric and its series by label values. Beyond `most` of them, what is new counts as `other`.

    The library keeps the series as well, but finds one more slowly, and shows only all of them at once.
    """

    def __init__(self, collector: C, label_names: Sequence[str], *, most: int | None = None) -> None:
        self._collector: C = collector
        self._label_names = label_names
        self._most = MOST[type(collector)] if most is None else most
        self._series: dict[tuple[str, ...], C] = {}
        if not label_names:
            self._series[()] = collector

    def of(self, *values: str) -> C:
        """The series with these label values, in the order of the label names."""
        return self._series.get(values) or self._new(values)

    def pieces(self, lines: int) -> Iterator[Metric]:
        """The metric as it stands, in pieces of about so many lines; the first may be empty."""
        piece = self._empty()
        for values, series in list(self._series.items()):
            labels = dict(zip(self._label_names, values, strict=True))
            for seen in series.collect():
                piece.samples += [sample._replace(labels=labels | sample.labels) for sample in seen.samples]
            if len(piece.samples) >= lines:
                yield piece
                piece = self._empty()
        yield piece

    def _empty(self) -> Metric:
        described: Iterable[Metric] = self._collector.describe()
        return next(iter(described))

    def _new(self, values: tuple[str, ...]) -> C:
        if len(self._series) >= self._most:
            values = (OTHER,) * len(values)
        return self._series.setdefault(values, self._collector.labels(*values))
