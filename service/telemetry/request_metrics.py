"""Durations and sizes of requests as Prometheus metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_LABELS: Final = ("method", "route", "status")


class RequestLabels(NamedTuple):
    """Labels of a request."""

    method: str
    route: str
    status: str


class RequestMetrics(Collector):
    """Collector of what requests took.

    Requests are counted in the event loop's thread only: those of the library take a lock for each value, and ten times as long.
    """

    def __init__(self, bounds_s: Sequence[float]) -> None:
        """`bounds_s`: upper bounds of the buckets of durations, in seconds."""
        self._bounds = tuple(bounds_s)
        self._counts: dict[RequestLabels, list[int]] = {}
        """Requests by bucket; the last one has no bound."""
        self._seconds: dict[RequestLabels, float] = {}
        self._received = self._sent = 0

    def count(self, labels: RequestLabels, duration_s: float, received: int, sent: int) -> None:
        """Count a request; `received` and `sent` are the bytes of its bodies."""
        counts = self._counts.get(labels)
        if counts is None:
            counts, self._seconds[labels] = [0] * (len(self._bounds) + 1), 0.0
            self._counts[labels] = counts
        counts[bisect_left(self._bounds, duration_s)] += 1
        self._seconds[labels] += duration_s
        self._received += received
        self._sent += sent

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; called by the registry, in any thread."""
        what = "Request duration, from the first header to the last byte of the response"
        durations = HistogramMetricFamily("ras_triage_request_duration_seconds", what, labels=_LABELS)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, counts in list(self._counts.items()):
            durations.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), self._seconds[labels])
        yield durations
        yield CounterMetricFamily("ras_triage_received_bytes", "Bytes of request bodies, before decompression", value=self._received)
        yield CounterMetricFamily("ras_triage_sent_bytes", "Bytes of response bodies", value=self._sent)
