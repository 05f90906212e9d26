"""pstore records in the error record store (ERST).

Source: `erst_writer`, drivers/acpi/apei/erst.c, Linux 5.10 to 7.3. A record contains the end of the kernel log, or an x86 machine check.
Severity, notification type and flags are the same in all of them and do not describe an error; the timestamp is in Unix seconds, where the
specification has BCD.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.records.cper_record import TIMESTAMP_VALID, CperRecord, SectionDescriptor, decode_record
from ras_triage.models.records.guid import guid, guid_text
from ras_triage.models.sections.fields import join_timestamp

PSTORE_CREATOR = guid("75a574e3-5052-4b29-8a8e-be2c6490b89d")
"""`CPER_CREATOR_PSTORE`"""
_DMESG = guid("c197e04e-d545-4a70-9c17-a5549419eb12")
_DMESG_COMPRESSED = guid("4f118707-04dd-4055-b5dd-956d34ddfac6")
_MCE = guid("fe08ffbe-95e4-4be7-bc73-4096044a38fc")

MAX_LOG_BYTES = 1 << 20
"""Most bytes of a decompressed log. The store has 10 to 100 KiB, and pstore assumes a compression ratio of 2.5."""

_ZLIB, _RAW = 15, -15
_HEAD = re.compile(rb"(Panic|Oops|Emergency|Restart|Halt|Poweroff|Shutdown|Unknown)#(\d{1,9}) Part(\d{1,9})\Z")


@frozen
class PstoreRecord:
    """One pstore record."""

    record_id: int
    """u64"""
    time: datetime | None
    """Time of writing; None if the record has no valid time."""
    kind: Literal["kernel_log", "machine_check", "unknown"]
    payload: bytes
    """The section body, unchanged."""
    lines: tuple[bytes, ...] = ()
    """The kernel log, oldest line first, without line endings and without pstore's first line."""
    reason: str | None = None
    """Reason for the dump as pstore names it: `Panic`, `Oops`."""
    dump: int | None = None
    """Number of the dump since boot."""
    part: int | None = None
    """Part of the dump, from 1; part 1 contains the newest lines."""
    is_cut: bool = False
    """Whether the end of the log is missing."""
    lost: tuple[str, ...] = ()


def is_pstore(record: CperRecord) -> bool:
    """Return whether pstore wrote the record; a record that firmware wrote into the store is an ordinary CPER record."""
    return record.creator_id == PSTORE_CREATOR


def read_pstore_record(data: bytes) -> PstoreRecord:
    """Parse a record as read from /dev/erst_dbg; bytes after it are ignored.

    Raises MalformedBytes with offset, section and field, also for a record that pstore did not write.
    """
    record = decode_record(data)
    if not is_pstore(record):
        raise MalformedBytes(f"the record's creator is {guid_text(record.creator_id)}, not pstore", offset=64, field="creator_id")
    if len(record.sections) != 1:
        raise MalformedBytes(f"{len(record.sections)} sections; expected one in a pstore record", offset=10, field="section_count")
    section = record.sections[0]
    payload = record.payload(section)
    time = _unix_time(record)
    lost = () if time is not None else ("the time: not valid in the record",)
    if section.section_type in (_DMESG, _DMESG_COMPRESSED):
        return _kernel_log(record, section, payload, time, lost)
    kind: Literal["machine_check", "unknown"] = "machine_check" if section.section_type == _MCE else "unknown"
    return PstoreRecord(record.record_id, time, kind, payload, lost=lost)


def _unix_time(record: CperRecord) -> datetime | None:
    seconds = int.from_bytes(join_timestamp(record.timestamp, is_precise=record.timestamp_precise), "little")
    if not record.validation_bits & TIMESTAMP_VALID:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _kernel_log(
    record: CperRecord, section: SectionDescriptor, payload: bytes, time: datetime | None, lost: tuple[str, ...]
) -> PstoreRecord:
    text, is_whole = payload, True
    if section.section_type == _DMESG_COMPRESSED:
        try:
            text, is_whole = decompress_log(payload)
        except ValueError as error:
            raise MalformedBytes(str(error), offset=section.section_offset, field="dmesg", section=0) from None
        lost += () if is_whole else ("the end of the log: truncated, or above the size limit",)
    lines = text.rstrip(b"\0").splitlines()
    head = _HEAD.match(lines[0]) if lines else None
    if head is None:
        return PstoreRecord(record.record_id, time, "kernel_log", payload, tuple(lines), is_cut=not is_whole, lost=lost)
    return PstoreRecord(
        record.record_id,
        time,
        "kernel_log",
        payload,
        tuple(lines[1:]),
        reason=head[1].decode(),
        dump=int(head[2]),
        part=int(head[3]),
        is_cut=not is_whole,
        lost=lost,
    )


def decompress_log(data: bytes) -> tuple[bytes, bool]:
    """Decompress a log that pstore wrote, up to `MAX_LOG_BYTES`; also return whether it is complete.

    The format is zlib before Linux 4.18, and raw deflate since then. Raises ValueError for any other: some kernels up to 6.5 were built
    with lzo, lz4, 842 or zstd.
    """
    for window in (_ZLIB, _RAW):
        stream = zlib.decompressobj(window)
        try:
            text = stream.decompress(data, MAX_LOG_BYTES)
        except zlib.error:
            continue
        # Arbitrary bytes can look like raw deflate, so only a stream with an end is accepted.
        if stream.eof or (window == _ZLIB and text) or len(text) == MAX_LOG_BYTES:
            return text, stream.eof
    raise ValueError("unknown compression; expected zlib or deflate")


def log_lines(records: Iterable[PstoreRecord]) -> Iterator[bytes]:
    """Yield the kernel log lines of the records of one boot, oldest first; the parts are sorted."""
    logs = [record for record in records if record.kind == "kernel_log"]
    logs.sort(key=lambda record: (record.dump or 0, -(record.part or 0)))
    for record in logs:
        yield from record.lines
