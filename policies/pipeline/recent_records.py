"""Records that a machine handled recently, from one event to the next."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from ras_triage.models.records.handled_record import RecordKey, ReportedRecord
from ras_triage.models.records.status_block import StatusBlock
from ras_triage.models.severity import Severity
from ras_triage.policies.pipeline.duplicate_cache import MAX_AGE_MS, cached_age, record_content

HISTORY_MS: Final = 2 * MAX_AGE_MS
"""Age up to which a record may still decide what is in the cache."""
HISTORY_LENGTH: Final = 32
"""Records of a machine that are remembered at most, the newest."""
WINDOW_MS: Final = 5_000
BURST: Final = 2
"""Rate limit of printed records: at most `BURST` in each window (`ghes_print_estatus`)."""

_CORRECTED: Final = frozenset({Severity.CORRECTED, Severity.INFORMATIONAL})


class HandledRecord(NamedTuple):
    """A record of the past, and what the kernel did with it."""

    content: bytes
    at_ms: int
    printed: bool
    corrected: bool
    window_ms: int
    """Start of its window of the rate limit; of a duplicate, that is not printed anyway, its own time."""
    duplicate: bool


def record_key(block: StatusBlock) -> RecordKey:
    """Return what is remembered of a record."""
    length, data = record_content(block)
    content = hashlib.blake2b(data, digest_size=16, salt=length.to_bytes(4)).digest()
    return RecordKey(content, block.error_severity in _CORRECTED)


def duplicate_age(history: tuple[HandledRecord, ...], key: RecordKey, at_ms: int) -> int | None:
    """Return the age in ms of the record that makes this one a duplicate; None: it is none. `history` is in the order of time."""
    if key.content not in [record.content for record in history]:
        return None
    return cached_age(key.content, at_ms, _before(history, at_ms))


def _before(history: tuple[HandledRecord, ...], at_ms: int) -> list[HandledRecord]:
    """Return the records that may still matter at a time."""
    return [record for record in history if at_ms - HISTORY_MS < record.at_ms <= at_ms]


def add_record(history: tuple[HandledRecord, ...], record: ReportedRecord, age: int | None) -> tuple[HandledRecord, ...]:
    """Return the history with a further record, and without those that no longer matter. Mirrors `ghes_print_estatus`.

    `age`: `duplicate_age` of the record in this history.
    """
    key, at_ms = record
    before = _before(history, at_ms)
    if age is not None:
        added = HandledRecord(key.content, at_ms, False, key.corrected, at_ms, duplicate=True)
    else:
        window = [record for record in before if record.corrected is key.corrected and not record.duplicate]
        start = window[-1].window_ms if window and at_ms - window[-1].window_ms <= WINDOW_MS else at_ms
        printed = sum(record.printed for record in window if record.window_ms == start)
        added = HandledRecord(key.content, at_ms, printed < BURST, key.corrected, start, duplicate=False)
    later = [record for record in history if record.at_ms > at_ms]
    return tuple([*before, added, *later][-HISTORY_LENGTH:])
