"""Kept decisions as lists, statistics and the stream show them."""

from __future__ import annotations

from ras_triage.models.decision import PolicyRef
from ras_triage.models.frozen import frozen


@frozen
class SummaryJson:
    """A decision in a list."""

    id: str
    """UUID version 7."""
    decided_at: str
    """RFC 3339, UTC."""
    source: str | None
    event_id: str | None
    """The sender's own."""
    event_key: str
    policy: PolicyRef
    action: str
    certainty: str
    notification: str
    severity: str | None
    """Of the status block; null where there was none."""
    sections: tuple[str, ...]
    """Names or GUIDs, each once."""
    physical_addresses: tuple[str, ...]
    """Bytes, each once; of very many the first."""


@frozen
class PageJson:
    """Decisions, newest first."""

    decisions: tuple[SummaryJson, ...]
    next: str | None
    """The `cursor` of the next page; null: there are no more."""
    damaged: int = 0
    """Decisions that belong here and are left out, because their rows in the store are damaged."""


@frozen
class BucketJson:
    """One span of time."""

    start: str
    """RFC 3339, UTC."""
    count: int
    """All groups together."""
    groups: tuple[dict[str, str | int | None], ...]
    """A value for each field grouped by, and the `count` of decisions that share them."""


@frozen
class StatsJson:
    """Counts over time; spans in which nothing was decided are left out."""

    bucket_s: int
    """Seconds."""
    group_by: tuple[str, ...]
    buckets: tuple[BucketJson, ...]
