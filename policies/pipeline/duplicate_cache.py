"""Duplicate cache of the records that the GHES driver printed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from ras_triage.models.host import RecentRecord
from ras_triage.models.records.status_block import HEADER, HEADER_LENGTH, StatusBlock

SLOTS: Final = 4
"""GHES_ESTATUS_CACHES_SIZE"""
MAX_AGE_MS: Final = 10_000
"""GHES_ESTATUS_IN_CACHE_MAX_NSEC"""

_NS_PER_MS: Final = 1_000_000


class RecordContent(NamedTuple):
    """What the cache compares of two records."""

    length: int
    """As the header claims it, bytes."""
    data: bytes
    """Without trailing zeroes: bytes that the sender does not have read as zero."""


class PastRecord(Protocol):
    """A record that was handled before."""

    @property
    def content(self) -> Hashable:
        """Equal for equal records."""

    @property
    def at_ms(self) -> int: ...

    @property
    def printed(self) -> bool: ...


class _RecentRecord(NamedTuple):
    content: RecordContent
    at_ms: int
    printed: bool


@dataclass(slots=True)
class _Slot:
    content: Hashable
    added_ms: int
    duplicates: int = 0
    """Since it was added."""


_TIME: Final = attrgetter("at_ms")


def record_content(block: StatusBlock) -> RecordContent:
    """Return what the cache compares."""
    return _content(block.data, claimed_length(block.raw_data_offset, block.raw_data_length, block.data_length))


def _recent_content(status_block: bytes) -> RecordContent:
    """Return what the cache compares; of a recent record only the header is parsed."""
    _, raw_offset, raw_length, data_length, _ = HEADER.unpack(status_block[:HEADER_LENGTH].ljust(HEADER_LENGTH, b"\0"))
    return _content(status_block, claimed_length(raw_offset, raw_length, data_length))


def _content(status_block: bytes, length: int) -> RecordContent:
    return RecordContent(length, status_block[:length].rstrip(b"\0"))


def claimed_length(raw_offset: int, raw_length: int, data_length: int) -> int:
    """Return the length that a header claims, in the kernel's 32-bit arithmetic (`cper_estatus_len`)."""
    return (raw_offset + raw_length if raw_length else HEADER_LENGTH + data_length) & 0xFFFFFFFF


def is_duplicate(block: StatusBlock, recent: Iterable[RecentRecord]) -> bool:
    """Return whether a record is in the cache after `recent`, which may be in any order."""
    past = [_RecentRecord(_recent_content(record.status_block), -record.age_ms, record.printed) for record in recent]
    return cached_age(record_content(block), 0, past) is not None


def cached_age(content: Hashable, now_ms: int, past: Iterable[PastRecord]) -> int | None:
    """Return how long a record has been in the cache, in ms; None: it is not there. Mirrors `ghes_estatus_cached`.

    Only a printed record is added. The duplicates of a record in the cache count for it.
    """
    slots: list[_Slot | None] = [None] * SLOTS
    for record in sorted(past, key=_TIME):
        if _look_up(slots, record.content, record.at_ms) is None and record.printed:
            _add(slots, record.content, record.at_ms)
    return _look_up(slots, content, now_ms)


def _look_up(slots: list[_Slot | None], content: Hashable, now: int) -> int | None:
    """Return the age of a record in the cache, and count it: the first slot with the same content decides, even if it has expired."""
    for slot in slots:
        if slot is not None and slot.content == content:
            slot.duplicates += 1
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
        period = (now - slot.added_ms) * _NS_PER_MS // (slot.duplicates + 1)
        if period > longest:
            longest, victim = period, index
    if victim is not None:
        slots[victim] = _Slot(content, now)
