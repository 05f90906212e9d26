"""Error sources of a HEST as a response."""

from __future__ import annotations

from ras_triage.models.decision import PolicyRef
from ras_triage.models.frozen import frozen
from ras_triage.models.records.error_source import SourceStatus


@frozen
class TableFault:
    """Reason why a kernel reads no source of a table."""

    status: SourceStatus
    """What the kernel does with the table."""
    why: str
    """Reason, for a person."""
    mirrors: str
    """The kernel function that decides it."""


@frozen
class SourceReading:
    """An error source, and what a kernel does with it."""

    offset: int
    """Of the structure, in bytes from the start of the table."""
    type: int
    """ACPI 6.5 18.3.2."""
    source_id: int | None
    """HEST source id; null: the structure has none."""
    notification: str | int | None
    """Notification type; the number of one without a name; null: a source without a notification."""
    status: SourceStatus
    """What the kernel does with the source."""
    why: str
    """Reason, for a person."""
    mirrors: str
    """The kernel function that decides it."""


@frozen
class HestResponse:
    """Error sources of a HEST under a policy."""

    policy: PolicyRef
    """The policy under which the table was read."""
    fault: TableFault | None
    """Why the kernel reads no source at all; null: it reads those whose status says so."""
    sources: tuple[SourceReading, ...]
    """In the order of the table."""
