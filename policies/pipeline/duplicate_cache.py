"""Duplicate cache of the records that the GHES driver printed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from ras_triage.models.host import RecentRecord
from ras_triage.models.records.status_block import HEADER_LENGTH

SLOTS: Final = 4
"""GHES_ESTATUS_CACHES_SIZE"""
MAX_AGE_MS: Final = 10_000
"""GHES_ESTATUS_IN_CACHE_MAX_NSEC"""

NS_PER_MS: Final = 1_000_000
_HEADER: Final = struct.Struct("<IIII")


class RecordContent(NamedTuple):
    """What the cache compares of two records."""

    length: int
    """As the header claims it, bytes."""
    data: bytes
    """Without trailing zeroes: bytes that the sender does not have read as zero."""


class _Slot(NamedTuple):
    content: RecordContent
    added_ms: int
    """Minus the age of the record that was added."""
    duplicates: int
    """Since it was added."""


def record_content(status_block: bytes) -> RecordContent:
    """Return what the cache compares. Mirrors `cper_estatus_len`, in 32-bit arithmetic."""
    _, raw_offset, raw_length, data_length = _HEADER.unpack(status_block[: _HEADER.size].ljust(_HEADER.size, b"\0"))
    length = claimed_length(raw_offset, raw_length, data_length)
    return RecordContent(length, status_block[:length].rstrip(b"\0"))


def claimed_length(raw_offset: int, raw_length: int, data_length: int) -> int:
    """Return the length that a header claims, in the kernel's 32-bit arithmetic (`cper_estatus_len`)."""
    return (raw_offset + raw_length if raw_length else HEADER_LENGTH + data_length) & 0xFFFFFFFF


def is_duplicate(status_block: bytes, recent: Iterable[RecentRecord]) -> bool:
    """Return whether the cache holds this record. Mirrors `ghes_estatus_cached`.

    `recent`: the records handled before, in any order. Only a printed one is added; the duplicates of one in the cache count for it.
    """
    slots: list[_Slot | None] = [None] * SLOTS
    for record in sorted(recent, key=lambda record: -record.age_ms):
        content, now = record_content(record.status_block), -record.age_ms
        if not _look_up(slots, content, now) and record.printed:
            _add(slots, content, now)
    return _look_up(slots, record_content(status_block), 0)


def _look_up(slots: list[_Slot | None], content: RecordContent, now: int) -> bool:
    """Return whether a record is a duplicate, and count it: the first slot with the same content decides, even if it has expired."""
    for index, slot in enumerate(slots):
        if slot is not None and slot.content == content:
            slots[index] = slot._replace(duplicates=slot.duplicates + 1)
            return now - slot.added_ms < MAX_AGE_MS
    return False


def _add(slots: list[_Slot | None], content: RecordContent, now: int) -> None:
    """Add a printed record. Mirrors `ghes_estatus_cache_add`.

    It takes the first slot that is free or expired, else the one with the longest time for each occurrence: age / (duplicates + 1).
    """
    longest, victim = 0, None
    for index, slot in enumerate(slots):
        if slot is None or now - slot.added_ms >= MAX_AGE_MS:
            victim = index
            break
        period = (now - slot.added_ms) * NS_PER_MS // (slot.duplicates + 1)
        if period > longest:
            longest, victim = period, index
    if victim is not None:
        slots[victim] = _Slot(content, now, 0)
