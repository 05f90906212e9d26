"""Results of the calls as values. Fields that a newer service adds are ignored."""

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
class StreamedDecision:
    """A decision in the stream."""

    event_id: str
    """Pass it as `last_event_id` to resume after this decision."""
    decision: Summary


@frozen
class PurgedDecisions:
    """Notice in the stream that retention deleted decisions after the last event."""

    event_id: str
    decisions: int
    """Upper bound of their number."""


StreamItem = StreamedDecision | PurgedDecisions


@frozen
class StoredHost:
    """A version of the host facts of a source."""

    source: str
    version: int
    """From 1, incremented with every change."""
    digest: str
    """Content hash of the facts."""
    changed_at: str
    """RFC 3339, UTC."""
    host: dict[str, Any]
    """The facts."""


@frozen
class HostEntry:
    """Host facts in a list, without the facts."""

    source: str
    version: int
    """The newest."""
    changed_at: str
    """RFC 3339, UTC."""
    bytes: int
    """Length of the facts as JSON."""


@frozen
class HostList:
    """A page of the list of hosts."""

    hosts: tuple[HostEntry, ...]
    next: str | None
    """`cursor` of the next page; None: last page."""


@frozen
class PoisonedPage:
    """A page that a decision poisoned."""

    physical_address: Hex64
    """Bytes."""
    shift: int
    """log2 of its size in bytes."""


@frozen
class PoisonedPages:
    """The pages of a machine that decisions poisoned since it was started."""

    source: str
    pages: tuple[PoisonedPage, ...]


@frozen
class PoisonedEntry:
    """A poisoned page with its source."""

    source: str
    physical_address: Hex64
    """Bytes."""
    shift: int
    """log2 of its size in bytes."""


@frozen
class PoisonedList:
    """A page of the list of poisoned pages."""

    pages: tuple[PoisonedEntry, ...]
    next: str | None
    """`cursor` of the next page of the list; None: last page."""


@frozen
class Purge:
    """Decisions that retention deleted together."""

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
    """Size, retention and purges of a store."""

    decisions: int
    bytes: int
    oldest: str | None
    newest: str | None
    """When the oldest and the newest decision were made; None without decisions."""
    retention_days: float | None
    """Older decisions are purged; None: never."""
    retention_bytes: int | None
    """The oldest decisions are purged while the store is larger; None: never."""
    purges: tuple[Purge, ...]
    """Latest first."""


@frozen
class DecodeResult:
    """Fields of a status block or CPER record."""

    status_block: dict[str, Any]
    """Valid as the `status_block` of an event; encodes to the same bytes."""
    readings: tuple[dict[str, Any], ...]
    """For each section: its name, and the meanings of codes and bits."""
    record: dict[str, Any] | None = None
    """Header and section descriptors of a CPER record."""
    notification: str | None = None
    """Notification type of a CPER record, as name or GUID."""
    encoding: str | None = None
    """`hexadecimal` if text was read as such."""


@frozen
class Health:
    """Whether the service accepts events."""

    ready: bool
    problem: Problem | None
    """Why it is not ready."""
