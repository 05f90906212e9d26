"""Prometheus metrics; docs/operations.md has the list.

Each application has its own registry. Counters and histograms are updated as things happen; gauges (queue, store, disk) are read at each
scrape. Labels have few values: route templates instead of paths, kernel series instead of releases.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ras_triage.models.decision import Action
from ras_triage.policies.catalog.policies import NEWEST_SERIES, UNIFORM
from ras_triage.policies.catalog.release import parse_release
from ras_triage.service.api.errors import LoggableError
from ras_triage.service.api.version import installed_version
from ras_triage.service.telemetry.allocator import allocator_stats
from ras_triage.service.telemetry.request_metrics import RequestLabels, RequestMetrics

METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
"""Other methods count as `other`."""

_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_GROUPS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_NEWEST_MINOR: Final = 19
"""Largest minor number of a Linux series."""
_CLOSED: Final = ("limit", "evicted", "idle", "head_timeout", "answer_timeout", "body_unread", "malformed", "tls", "descriptors")
_ALARMING: Final = ("internal", "busy", "store-unavailable", "store-damaged")
"""Problems with alerts. Initialised to 0, because Prometheus sees no increase in a series that starts with 1."""

_PURGES: Final = ("age", "size")
_STAGES: Final = ("decide", "store", "import")
"""Stages of defects; initialised to 0 for the same reason."""


disable_created_metrics()  # type: ignore[no-untyped-call] # `_created` series are not used


class WriterStatistics(Protocol):
    """Statistics of the write queue."""

    @property
    def queue_entries(self) -> int:
        """Decisions that are not durable yet."""

    @property
    def queue_bytes(self) -> int:
        """Bytes of their events and decisions."""

    @property
    def oldest_unanswered_s(self) -> float:
        """Age of the oldest of them in seconds; 0: the queue is empty."""

    @property
    def last_failure(self) -> str | None:
        """Reason why the last write (or probe) failed; None: it succeeded."""


class MeasuredWriter(Protocol):
    """The writer of the store."""

    @property
    def statistics(self) -> WriterStatistics:
        """Current statistics."""


class StoreStatistics(Protocol):
    """Size of a store."""

    @property
    def decisions(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def log_bytes(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def oldest_ms(self) -> int | None: ...


class MeasuredStore(Protocol):
    """Store whose size can be measured."""

    def size(self) -> StoreStatistics:
        """Return the size. Raises LoggableError."""


class Metrics:
    """An application's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_progress = 0
        """Concurrent requests; changed only in the event loop's thread."""
        self.connections = 0
        """Open connections; changed only in the event loop's thread."""
        self._requests = RequestMetrics(_LATENCIES)
        self.registry.register(self._requests)
        self._problem = lru_cache(maxsize=256)(
            Counter("ras_triage_problems", "Problems by type, including those of batch items", ["type"], registry=self.registry).labels
        )
        for kind in _ALARMING:
            self._problem(kind)
        self._decision = lru_cache(maxsize=4096)(self._decisions())
        self._panics = Counter("ras_triage_panics", "Decisions with the action panic, all policies", registry=self.registry)
        self._repeats = Counter("ras_triage_repeats", "Repeats of events that were decided before", registry=self.registry)
        self._item = lru_cache(maxsize=16)(
            Counter(
                "ras_triage_batch_items", "Events of batches: decided, repeat, dry_run or problem", ["outcome"], registry=self.registry
            ).labels
        )
        self._defect = lru_cache(maxsize=16)(
            Counter("ras_triage_defects", "Events that failed because of a defect, by stage", ["stage"], registry=self.registry).labels
        )
        for stage in _STAGES:
            self._defect(stage)
        self._closed = Counter("ras_triage_closed_connections", "Connections closed by the service", ["reason"], registry=self.registry)
        for reason in _CLOSED:
            self._closed.labels(reason)
        self._commit_time, self._commit_size = self._commits()
        self._failures = Counter("ras_triage_store_failures", "Failed reads and writes of the store", ["error"], registry=self.registry)
        self._purged = Counter("ras_triage_purged_decisions", "Decisions purged by retention", ["reason"], registry=self.registry)
        for reason in _PURGES:
            self._purged.labels(reason)
        self._runtime = _Runtime()
        self.registry.register(_Application(self))
        self.registry.register(self._runtime)
        ProcessCollector(registry=self.registry)

    def _decisions(self) -> Callable[[str, str], Counter]:
        family = Counter("ras_triage_decisions", "Stored decisions, by action and policy", ["action", "policy"], registry=self.registry)
        return lambda action, policy: family.labels(action, policy_label(policy))

    def _commits(self) -> tuple[Histogram, Histogram]:
        time, size = "ras_triage_commit_duration_seconds", "ras_triage_commit_entries"
        return (
            Histogram(time, "Duration of a commit of decisions", buckets=_LATENCIES, registry=self.registry),
            Histogram(size, "Decisions per commit", buckets=_GROUPS, registry=self.registry),
        )

    def count_request(self, method: str, route: str, status: int, duration_s: float, received: int, sent: int) -> None:
        """Count a request; status 499: the client disconnected."""
        labels = RequestLabels(method if method in METHODS else "other", route, str(status))
        self._requests.count(labels, duration_s, received, sent)

    def count_problem(self, kind: str) -> None:
        """Count a problem response by type."""
        self._problem(kind.rpartition(":")[2]).inc()

    def count_closed_connection(self, reason: str) -> None:
        """Count a connection that the service closed or could not accept."""
        self._closed.labels(reason).inc()

    def count_decision(self, action: str, policy: str) -> None:
        """Count a stored decision; not for repeats and dry runs."""
        self._decision(action, policy).inc()
        if action == Action.PANIC:
            self._panics.inc()

    def count_repeat(self) -> None:
        """Count a repeat."""
        self._repeats.inc()

    def count_batch_event(self, outcome: Literal["decided", "repeat", "dry_run", "problem"]) -> None:
        """Count an event of a batch."""
        self._item(outcome).inc()

    def count_defect(self, stage: str) -> None:
        """Count an event that failed because of a defect."""
        self._defect(stage).inc()

    def observe_commit(self, entries: int, duration_s: float) -> None:
        """Record a commit of decisions; with 0 entries it was another write, which is not counted."""
        if entries:
            self._commit_time.observe(duration_s)
            self._commit_size.observe(entries)

    def count_store_failure(self, error: Exception) -> None:
        """Count a failed read or write of the store."""
        self._failures.labels(type(error).__name__).inc()

    def count_purge(self, reason: Literal["age", "size"], decisions: int) -> None:
        """Count purged decisions."""
        self._purged.labels(reason).inc(decisions)

    def set_store_source(self, writer: MeasuredWriter, store: MeasuredStore, folder: Path | None) -> None:
        """Set the sources of the gauges. `folder`: directory of the store's file; None: no file."""
        self._runtime.watched = (writer, store, folder)

    def set_stream_source(self, statistics: Callable[[], tuple[int, int]]) -> None:
        """Set the source for the numbers of event streams and filters."""
        self._runtime.streams = statistics

    def set_memory_source(self, returned: Callable[[], int]) -> None:
        """Set the source for the memory returned to the kernel."""
        self._runtime.returned = returned

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format of an `Accept` header, and the media type. Reads the store: do not call it in the event loop."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


@lru_cache(maxsize=4096)
def policy_label(name: str) -> str:
    """Return the label of a policy: `uniform`, `linux-<series>`, `linux-other` for an unknown series, `custom`."""
    if name == UNIFORM:
        return name
    try:
        major, minor = parse_release(name.removeprefix("linux-")).series if name.startswith("linux-") else (0, 0)
    except ValueError:
        return "custom"
    if not major:
        return "custom"
    return f"linux-{major}.{minor}" if (major, minor) <= NEWEST_SERIES and minor <= _NEWEST_MINOR else "linux-other"


class _Application(Collector):
    """Collector of gauges that need no store."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield _gauge("requests_under_way", "Requests in progress, including streams", self._metrics.in_progress)
        yield _gauge("connections", "Open connections", self._metrics.connections)
        build = GaugeMetricFamily("ras_triage_build_info", "Version of the service and of Python", labels=["version", "python"])
        build.add_metric([installed_version(), platform.python_version()], 1)
        yield build
        if (held := allocator_stats()) is not None:
            yield _gauge("allocator_used_bytes", "Bytes allocated through the C allocator", held.used)
            yield _gauge("allocator_free_bytes", "Free bytes of the C allocator, including returned pages", held.free)


class _Runtime(Collector):
    """Collector of gauges of the queue, the store and its disk."""

    def __init__(self) -> None:
        self.watched: tuple[MeasuredWriter, MeasuredStore, Path | None] | None = None
        self.streams: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.returned: Callable[[], int] = lambda: 0

    def collect(self) -> Iterator[Metric]:
        if self.watched is None:
            return
        writer, store, folder = self.watched
        yield from _queue(writer.statistics)
        yield from _streams(*self.streams())
        yield from _store_size(store)
        if folder is not None:
            yield from _disk(folder)
        what = "Memory returned to the kernel after a load"
        yield CounterMetricFamily("ras_triage_returned_memory_bytes", what, value=self.returned())


def _queue(statistics: WriterStatistics) -> Iterator[Metric]:
    yield _gauge("queue_entries", "Decisions in the write queue", statistics.queue_entries)
    yield _gauge("queue_bytes", "Bytes of events and decisions in the write queue", statistics.queue_bytes)
    yield _gauge("oldest_unanswered_seconds", "Age of the oldest decision in the write queue", statistics.oldest_unanswered_s)
    yield _gauge("ready", "1: the last write of the store succeeded, including probes; else 0", statistics.last_failure is None)


def _streams(subscribers: int, filters: int) -> Iterator[Metric]:
    yield _gauge("streams", "Open event streams", subscribers)
    yield _gauge("stream_filters", "Distinct filters of open event streams", filters)


def _store_size(store: MeasuredStore) -> Iterator[Metric]:
    try:
        size = store.size()
    except LoggableError:
        return
    yield _gauge("store_decisions", "Decisions in the store", size.decisions)
    yield _gauge("store_bytes", "Size of the store without free pages", size.bytes)
    yield _gauge("store_wal_bytes", "Length of the store's write-ahead log", size.log_bytes)
    yield _gauge("store_lost_decisions", "Lost decisions, as accepted by an operator", size.lost)
    if size.oldest_ms is not None:
        yield _gauge("store_oldest_timestamp_seconds", "Time of the oldest decision, in seconds since 1970", size.oldest_ms / 1000)


def _disk(folder: Path) -> Iterator[Metric]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    yield _gauge("disk_free_bytes", "Free bytes of the store's file system", usage.free)
    yield _gauge("disk_total_bytes", "Size of the store's file system", usage.total)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ras_triage_{name}", what, value=float(value))
