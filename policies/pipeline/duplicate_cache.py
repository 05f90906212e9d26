"""Duplicate cache of the records that the GHES driver printed."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable
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


class PastRecord(NamedTuple):
    """A record that was handled before."""

    content: Hashable
    """Equal for equal records."""
    at_ms: int
    printed: bool


class _Slot(NamedTuple):
    content: Hashable
    added_ms: int
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
    """Return whether a record is in the cache after `recent`, which may be in any order."""
    past = [PastRecord(record_content(record.status_block), -record.age_ms, record.printed) for record in recent]
    return cached_age(record_content(status_block), 0, past) is not None


def cached_age(content: Hashable, now_ms: int, past: Iterable[PastRecord]) -> int | None:
    """Return how long a record has been in the cache, in ms; None: it is not there. Mirrors `ghes_estatus_cached`.

    Only a printed record is added. The duplicates of a record in the cache count for it.
    """
    slots: list[_Slot | None] = [None] * SLOTS
    for record in sorted(past, key=lambda record: record.at_ms):
        if _look_up(slots, record.content, record.at_ms) is None and record.printed:
            _add(slots, record.content, record.at_ms)
    return _look_up(slots, content, now_ms)


def _look_up(slots: list[_Slot | None], content: Hashable, now: int) -> int | None:
    """Return the age of a record in the cache, and count it: the first slot with the same content decides, even if it has expired."""
    for index, slot in enumerate(slots):
        if slot is not None and slot.content == content:
            slots[index] = slot._replace(duplicates=slot.duplicates + 1)
            age = now - slot.added_ms
            return age if age < MAX_AGE_MS else None
    return None


def _add(slots: list[_Slot | None], content: Hashable, now: int) -> None:
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
