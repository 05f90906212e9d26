"""What the service answers, as values. A field that a newer service adds is passed over."""

from __future__ import annotations

from typing import Any

from models.decision import PolicyRef
from models.scalars import Hex64
from models.value import value
from service.problems import Problem


@value
class Summary:
    """What a list of decisions shows of one."""

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
    """Of the status block; None where there was none."""
    sections: tuple[str, ...]
    """Names or GUIDs, each once."""
    physical_addresses: tuple[str, ...]
    """Bytes, each once, in hexadecimal; of very many the first."""


@value
class Page:
    """Decisions, newest first."""

    decisions: tuple[Summary, ...]
    next: str | None
    """The cursor that the next page is asked for with; None: there are no more."""


@value
class Group:
    """How many decisions share these values."""

    values: dict[str, str | None]
    count: int


@value
class Bucket:
    """One span of time."""

    start: str
    """RFC 3339, UTC."""
    count: int
    groups: tuple[Group, ...]


@value
class Stats:
    """Counts over time. Spans without a decision are left out."""

    bucket_s: int
    """Seconds that a span lasts."""
    group_by: tuple[str, ...]
    buckets: tuple[Bucket, ...]


@value
class Decided:
    """A decision was made, and is the next in the stream."""

    event_id: str
    """Watching goes on behind this one when it is given as `last_event_id`."""
    decision: Summary


@value
class Purged:
    """Retention took away some of the decisions between the `last_event_id` that was asked for and what follows."""

    event_id: str
    decisions: int
    """At most so many."""


Watched = Decided | Purged


@value
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


@value
class PoisonedPage:
    """Memory that a decision took out of use."""

    physical_address: Hex64
    """Bytes."""
    shift: int
    """log2 of its size in bytes."""


@value
class PoisonedPages:
    """The pages that decisions poisoned on one machine since it was last known to start."""

    source: str
    pages: tuple[PoisonedPage, ...]


@value
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


@value
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


@value
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


@value
class Health:
    """Whether the service takes decisions."""

    ready: bool
    problem: Problem | None
    """Why not."""
