"""What the service answers, as values. A field that a newer service adds is passed over."""

from __future__ import annotations

from typing import Any

from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import Hex64
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.summaries import BucketJson, PageJson, StatsJson, SummaryJson

Summary = SummaryJson
Page = PageJson
Bucket = BucketJson
Stats = StatsJson


@frozen
class WatchedDecision:
    """A decision was made, and is the next in the stream."""

    event_id: str
    """Watching goes on behind this one when it is given as `last_event_id`."""
    decision: Summary


@frozen
class Purged:
    """Retention took away some of the decisions between the `last_event_id` that was asked for and what follows."""

    event_id: str
    decisions: int
    """At most so many."""


Watched = WatchedDecision | Purged


@frozen
class KeptHost:
    """A version of the facts kept for a source."""

    source: str
    version: int
    """From 1, up with every change."""
    digest: str
    """Content hash of the facts."""
    changed_at: str
    """RFC 3339, UTC."""
    host: dict[str, Any]
    """The facts."""


@frozen
class PoisonedPage:
    """Memory that a decision took out of use."""

    physical_address: Hex64
    """Bytes."""
    shift: int
    """log2 of its size in bytes."""


@frozen
class PoisonedPages:
    """The pages that decisions poisoned on one machine since it was last known to start."""

    source: str
    pages: tuple[PoisonedPage, ...]


@frozen
class Purge:
    """Decisions that retention took away together."""

    at: str
    """RFC 3339, UTC."""
    reason: str
    """`age` or `size`."""
    count: int
    oldest: str
    newest: str
    """When the oldest and the newest of them were decided."""


@frozen
class StoreState:
    """What is kept, and for how long."""

    decisions: int
    bytes: int
    oldest: str | None
    newest: str | None
    """When the oldest and the newest decision were made; None where there is none."""
    retention_days: float | None
    """Older decisions are purged; None: never."""
    retention_bytes: int | None
    """The oldest decisions are purged while the store is larger; None: never."""
    purges: tuple[Purge, ...]
    """Latest first."""


@frozen
class Decoded:
    """Bytes as fields."""

    status_block: dict[str, Any]
    """It can be sent as an event's `status_block` and gives the same bytes."""
    readings: tuple[dict[str, Any], ...]
    """For each section: its name, and what codes and bits mean."""
    record: dict[str, Any] | None = None
    """A CPER record's header and section descriptors."""
    notification: str | None = None
    """A CPER record's notification type, by name or GUID."""


@frozen
class Health:
    """Whether the service takes decisions."""

    ready: bool
    problem: Problem | None
    """Why not."""
