"""Handled records, remembered from one event of a machine to the next."""

from __future__ import annotations

from typing import NamedTuple


class RecordKey(NamedTuple):
    """What is remembered of a record."""

    content: bytes
    """Hash of what the kernel's duplicate cache compares."""
    corrected: bool
    """Whether it falls under the rate limit of corrected errors rather than that of the others."""


class ReportedRecord(NamedTuple):
    """A record that the kernel handled."""

    key: RecordKey
    at_ms: int
    """Milliseconds since 1970, UTC."""
