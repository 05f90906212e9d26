"""Metrics for whoever is on call, in Prometheus' formats. What each answers: docs/operations.md.

An application has a registry of its own. What happens is counted as it happens; what is (the queue, the store, the disk) is read when
somebody asks. Labels take few values: route templates, never paths; series of kernels, never releases.
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
from ras_triage.service.telemetry.allocator import holdings

METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
"""A method that is none of these counts as `other`."""

_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
_GROUPS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_NEWEST_MINOR: Final = 19
"""Linux counts a major release's series up to this one."""
_CLOSED: Final = ("limit", "evicted", "idle", "head_timeout", "answer_timeout", "body_unread", "malformed", "tls", "descriptors")
_ALARMING: Final = ("internal", "busy", "store-unavailable", "store-damaged")
"""Problems that alerts wait for. They are there from the start, at 0: of a series that begins with 1 Prometheus sees no increase."""

_STAGES: Final = ("decide", "store", "import")
"""Of defects; there from the start for the same reason."""


disable_created_metrics()  # type: ignore[no-untyped-call] # a time of birth for each series answers no question


class WriterFigures(Protocol):
    """What is to be known of the decisions that wait to be written."""

    @property
    def queue_entries(self) -> int:
        """Decisions that are not on disk yet."""

    @property
    def queue_bytes(self) -> int:
        """Their bytes, events and decisions together."""

    @property
    def oldest_unanswered_s(self) -> float:
        """Seconds that the oldest of them has waited; 0 where none waits."""

    @property
    def last_failure(self) -> str | None:
        """Why the last write failed, a probe included; None where it succeeded."""


class Writer(Protocol):
    """The writer of the store."""

    @property
    def figures(self) -> WriterFigures:
        """As they are now."""


class StoreFigures(Protocol):
    """How much a store holds."""

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


class Sized(Protocol):
    """A store, as far as it is measured."""

    def size(self) -> StoreFigures:
        """How much there is. Raises LoggableError."""


class Metrics:
    """An application's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.under_way = 0
        """Requests that are being answered; changed by the event loop's thread alone."""
        self.connections = 0
        """Open connections; changed by the event loop's thread alone."""
        self._request = lru_cache(maxsize=1024)(self._requests().labels)
        self._problem = lru_cache(maxsize=256)(
            Counter("ras_triage_problems", "Refusals, by type; a batch's items among them", ["type"], registry=self.registry).labels
        )
        for kind in _ALARMING:
            self._problem(kind)
        self._decision = lru_cache(maxsize=4096)(self._decisions())
        self._panics = Counter("ras_triage_panics", "Decisions that a machine panics, whatever the policy", registry=self.registry)
        self._repeats = Counter("ras_triage_repeats", "Events that had been decided before", registry=self.registry)
        self._item = lru_cache(maxsize=16)(
            Counter("ras_triage_batch_items", "Events of batches, by what became of them", ["outcome"], registry=self.registry).labels
        )
        self._defect = lru_cache(maxsize=16)(
            Counter("ras_triage_defects", "Events that ran into a defect of the service", ["stage"], registry=self.registry).labels
        )
        for stage in _STAGES:
            self._defect(stage)
        self._received = Counter("ras_triage_received_bytes", "Bytes of request bodies, as they came in", registry=self.registry)
        self._sent = Counter("ras_triage_sent_bytes", "Bytes of response bodies", registry=self.registry)
        self._closed = Counter("ras_triage_closed_connections", "Connections that the service ended", ["reason"], registry=self.registry)
        for reason in _CLOSED:
            self._closed.labels(reason)
        self._commit_time, self._commit_size = self._commits()
        self._failures = Counter("ras_triage_store_failures", "Writes and reads that the store refused", ["error"], registry=self.registry)
        self._purged = Counter("ras_triage_purged_decisions", "Decisions that retention took away", ["reason"], registry=self.registry)
        self._runtime = _Runtime()
        self.registry.register(_Application(self))
        self.registry.register(self._runtime)
        ProcessCollector(registry=self.registry)

    def _requests(self) -> Histogram:
        name, what = "ras_triage_request_duration_seconds", "From the first header to the last byte of the answer"
        return Histogram(name, what, ["method", "route", "status"], buckets=_LATENCIES, registry=self.registry)

    def _decisions(self) -> Callable[[str, str], Counter]:
        family = Counter("ras_triage_decisions", "Decisions that were made and kept", ["action", "policy"], registry=self.registry)
        return lambda action, policy: family.labels(action, policy_label(policy))

    def _commits(self) -> tuple[Histogram, Histogram]:
        time, size = "ras_triage_commit_duration_seconds", "ras_triage_commit_entries"
        return (
            Histogram(time, "How long a commit of decisions took", buckets=_LATENCIES, registry=self.registry),
            Histogram(size, "Decisions that one commit wrote", buckets=_GROUPS, registry=self.registry),
        )

    def requested(self, method: str, route: str, status: int, duration_s: float, received: int, sent: int) -> None:
        """A request was answered, or its client went away (499)."""
        self._request(method if method in METHODS else "other", route, str(status)).observe(duration_s)
        if received:
            self._received.inc(received)
        if sent:
            self._sent.inc(sent)

    def refused(self, kind: str) -> None:
        """A problem of this type was answered. The types are this service's own, so they are few."""
        self._problem(kind.rpartition(":")[2]).inc()

    def closed(self, reason: str) -> None:
        """The service closed a connection, or could not accept one."""
        self._closed.labels(reason).inc()

    def decided(self, action: str, policy: str) -> None:
        """An event was decided and its decision kept; neither for a repeat nor for `dry_run`."""
        self._decision(action, policy).inc()
        if action == Action.PANIC:
            self._panics.inc()

    def repeated(self) -> None:
        """An event was answered with the decision made when it came first."""
        self._repeats.inc()

    def batched(self, outcome: Literal["decided", "repeat", "problem"]) -> None:
        """An event of a batch has its result."""
        self._item(outcome).inc()

    def defect(self, stage: str) -> None:
        """An event ran into a defect."""
        self._defect(stage).inc()

    def committed(self, entries: int, duration_s: float) -> None:
        """The writer made this many decisions durable at once. With 0 it wrote something else, which is not counted."""
        if entries:
            self._commit_time.observe(duration_s)
            self._commit_size.observe(entries)

    def store_failed(self, error: Exception) -> None:
        """The store refused to write or to read."""
        self._failures.labels(type(error).__name__).inc()

    def purged(self, reason: Literal["age", "size"], decisions: int) -> None:
        """Retention took this many away."""
        self._purged.labels(reason).inc(decisions)

    def watch(self, writer: Writer, store: Sized, folder: Path | None) -> None:
        """Read these whenever somebody asks, instead of those before. `folder` is where the store's file is; None where it has none."""
        self._runtime.watched = (writer, store, folder)

    def watch_streams(self, figures: Callable[[], tuple[int, int]]) -> None:
        """Read the numbers of event streams and of their filters whenever somebody asks."""
        self._runtime.streams = figures

    def watch_memory(self, returned: Callable[[], int]) -> None:
        """Read the memory that was returned to the kernel whenever somebody asks."""
        self._runtime.returned = returned

    def render(self, accept: str) -> tuple[bytes, str]:
        """All of them now, in the format that an `Accept` header asks for, and its media type. Reads the store: not for the event loop."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


@lru_cache(maxsize=4096)
def policy_label(name: str) -> str:
    """A policy as a label: `uniform`, `linux-<series>`, `linux-other` for a series that nobody has seen, `custom`."""
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
    """What is known without a store."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield _gauge("requests_under_way", "Requests that are being answered, streams among them", self._metrics.under_way)
        yield _gauge("connections", "Connections that are open", self._metrics.connections)
        build = GaugeMetricFamily("ras_triage_build_info", "What runs", labels=["version", "python"])
        build.add_metric([installed_version(), platform.python_version()], 1)
        yield build
        if (held := holdings()) is not None:
            yield _gauge("allocator_used_bytes", "Bytes that the C allocator has handed out", held.used)
            yield _gauge("allocator_free_bytes", "Bytes that the C allocator holds free, pages that it returned among them", held.free)


class _Runtime(Collector):
    """The queue, the store and its disk, as they are when they are asked for."""

    def __init__(self) -> None:
        self.watched: tuple[Writer, Sized, Path | None] | None = None
        self.streams: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.returned: Callable[[], int] = lambda: 0

    def collect(self) -> Iterator[Metric]:
        if self.watched is None:
            return
        writer, store, folder = self.watched
        yield from _queue(writer.figures)
        yield from _streams(*self.streams())
        yield from _store_size(store)
        if folder is not None:
            yield from _disk(folder)
        what = "Memory returned to the kernel after a load"
        yield CounterMetricFamily("ras_triage_returned_memory_bytes", what, value=self.returned())


def _queue(figures: WriterFigures) -> Iterator[Metric]:
    yield _gauge("queue_entries", "Decisions that wait to be written", figures.queue_entries)
    yield _gauge("queue_bytes", "Bytes of the decisions that wait to be written", figures.queue_bytes)
    yield _gauge("oldest_unanswered_seconds", "How long the oldest of them has waited", figures.oldest_unanswered_s)
    yield _gauge("ready", "1 where the store's last write succeeded, a probe's included", figures.last_failure is None)


def _streams(subscribers: int, filters: int) -> Iterator[Metric]:
    yield _gauge("streams", "Event streams that are open", subscribers)
    yield _gauge("stream_filters", "Different filters of open event streams", filters)


def _store_size(store: Sized) -> Iterator[Metric]:
    try:
        size = store.size()
    except LoggableError:
        return
    yield _gauge("store_decisions", "Decisions that are kept", size.decisions)
    yield _gauge("store_bytes", "What they take on disk", size.bytes)
    yield _gauge("store_wal_bytes", "Length of the store's write-ahead log", size.log_bytes)
    yield _gauge("store_lost_decisions", "Decisions that were kept and are lost, on record", size.lost)
    if size.oldest_ms is not None:
        yield _gauge("store_oldest_timestamp_seconds", "When the oldest of them was decided, since 1970", size.oldest_ms / 1000)


def _disk(folder: Path) -> Iterator[Metric]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    yield _gauge("disk_free_bytes", "Free on the file system of the store", usage.free)
    yield _gauge("disk_total_bytes", "Size of the file system of the store", usage.total)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ras_triage_{name}", what, value=float(value))
