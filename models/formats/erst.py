"""What Linux keeps in the error record store: pstore's CPER records (`erst_writer`, drivers/acpi/apei/erst.c, Linux 5.10 to 7.3).

A record holds the end of the kernel's log, or an x86 machine check. Its severity, notification type and flags are the same in every one of
them and say nothing of an error; its time is Unix seconds where the specification has BCD.
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
"""Most that is made of a compressed log. The store is some 10 to 100 KiB, and pstore plans for a log of 2.5 times that."""

_ZLIB, _RAW = 15, -15
_HEAD = re.compile(rb"(Panic|Oops|Emergency|Restart|Halt|Poweroff|Shutdown|Unknown)#(\d{1,9}) Part(\d{1,9})\Z")


@frozen
class StoredRecord:
    """One record of pstore."""

    record_id: int
    """u64"""
    time: datetime | None
    """When it was written; None where the record does not say."""
    kind: Literal["kernel_log", "machine_check", "unknown"]
    payload: bytes
    """The section's body as it stands in the record."""
    lines: tuple[bytes, ...] = ()
    """The kernel log, oldest line first, without line ends and without pstore's own first line."""
    reason: str | None = None
    """Why pstore wrote the log, in its words: `Panic`, `Oops`."""
    dump: int | None = None
    """Which dump since boot."""
    part: int | None = None
    """Which part of the dump, from 1: the first holds the newest lines."""
    is_cut: bool = False
    """Whether the log went on behind its lines."""
    lost: tuple[str, ...] = ()


def is_pstore(record: CperRecord) -> bool:
    """Whether Linux wrote the record for its persistent store; what firmware keeps there is a record like any other."""
    return record.creator_id == PSTORE_CREATOR


def read_stored(data: bytes) -> StoredRecord:
    """The record in `data`, as /dev/erst_dbg hands it out; bytes behind it are not read.

    Raises MalformedBytes with offset, section and field, also where pstore did not write it.
    """
    record = decode_record(data)
    if not is_pstore(record):
        raise MalformedBytes(f"the record's creator is {guid_text(record.creator_id)}, not pstore", offset=64, field="creator_id")
    if len(record.sections) != 1:
        raise MalformedBytes(f"a record of pstore has one section, and this has {len(record.sections)}", offset=10, field="section_count")
    section = record.sections[0]
    payload = record.payload(section)
    time = _unix_time(record)
    lost = () if time is not None else ("the time: the record's is not valid",)
    if section.section_type in (_DMESG, _DMESG_COMPRESSED):
        return _kernel_log(record, section, payload, time, lost)
    kind: Literal["machine_check", "unknown"] = "machine_check" if section.section_type == _MCE else "unknown"
    return StoredRecord(record.record_id, time, kind, payload, lost=lost)


def _unix_time(record: CperRecord) -> datetime | None:
    seconds = int.from_bytes(join_timestamp(record.timestamp, record.timestamp_precise), "little")
    if not record.validation_bits & TIMESTAMP_VALID:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _kernel_log(
    record: CperRecord, section: SectionDescriptor, payload: bytes, time: datetime | None, lost: tuple[str, ...]
) -> StoredRecord:
    text, is_whole = payload, True
    if section.section_type == _DMESG_COMPRESSED:
        try:
            text, is_whole = decompress_log(payload)
        except ValueError as error:
            raise MalformedBytes(str(error), offset=section.section_offset, field="dmesg", section=0) from None
        lost += () if is_whole else ("the end of the log: it is cut, or longer than it may be",)
    lines = text.rstrip(b"\0").splitlines()
    head = _HEAD.match(lines[0]) if lines else None
    if head is None:
        return StoredRecord(record.record_id, time, "kernel_log", payload, tuple(lines), is_cut=not is_whole, lost=lost)
    return StoredRecord(
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
    """A log that pstore compressed, at most `MAX_LOG_BYTES` of it, and whether that is all.

    zlib's format before Linux 4.18, bare deflate since then. Raises ValueError where it is neither: some kernels up to 6.5 were built with
    lzo, lz4, 842 or zstd instead.
    """
    for window in (_ZLIB, _RAW):
        stream = zlib.decompressobj(window)
        try:
            text = stream.decompress(data, MAX_LOG_BYTES)
        except zlib.error:
            continue
        # Bytes without a header are deflate by chance, too: only a stream with an end is one.
        if stream.eof or (window == _ZLIB and text) or len(text) == MAX_LOG_BYTES:
            return text, stream.eof
    raise ValueError("the log is compressed, and neither as zlib nor as deflate")


def log_lines(records: Iterable[StoredRecord]) -> Iterator[bytes]:
    """The kernel log in the records of one boot, oldest line first, ready for a reader of kernel logs: the parts are put in order."""
    logs = [record for record in records if record.kind == "kernel_log"]
    logs.sort(key=lambda record: (record.dump or 0, -(record.part or 0)))
    for record in logs:
        yield from record.lines
