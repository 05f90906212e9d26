"""Responses for lists, statistics and the stream of decisions."""

from __future__ import annotations

from ras_triage.models.decision import PolicyRef
from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import HexText, TimeText


@frozen
class SummaryJson:
    """A decision in a list."""

    id: str
    """UUID version 7."""
    decided_at: TimeText
    """RFC 3339, UTC."""
    source: str | None
    """The event's `source`; null: it had none."""
    event_id: str | None
    """The event's `id`, given by the sender."""
    event_key: str
    """Content hash of the event."""
    policy: PolicyRef
    """The policy that made the decision."""
    action: str
    """Action of the decision."""
    certainty: str
    """`certain` or `depends`."""
    notification: str
    """Notification type of the event."""
    severity: str | None
    """Severity of the status block; null: no status block."""
    sections: tuple[str, ...]
    """Distinct names or GUIDs of section types."""
    physical_addresses: tuple[HexText, ...]
    """Distinct addresses in bytes, the first of very many."""


@frozen
class PageJson:
    """Decisions, newest first."""

    decisions: tuple[SummaryJson, ...]
    """At most `limit` decisions."""
    next: str | None
    """`cursor` of the next page; null: last page."""
    damaged: int = 0
    """Number of decisions that are missing from this page because their rows are corrupt."""


@frozen
class BucketJson:
    """One bucket of time."""

    start: TimeText
    """RFC 3339, UTC."""
    count: int
    """Decisions in the bucket."""
    groups: tuple[dict[str, str | int | None], ...]
    """For each group, the values of the fields it is grouped by, and the `count`."""


@frozen
class StatsJson:
    """Counts over time; empty buckets are left out, unless they are asked for."""

    bucket_s: int
    """Seconds."""
    group_by: tuple[str, ...]
    """The fields by which the counts are grouped."""
    buckets: tuple[BucketJson, ...]
    """Buckets, oldest first."""
