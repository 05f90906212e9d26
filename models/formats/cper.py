"""CPER parser and writer: records, status blocks and single sections.

The kind of the bytes follows from their content: a record begins with its signature (UEFI 2.10 table N.1), a status block (ACPI 6.5
18.3.2.7.1) has consistent lengths, and a section with a descriptor begins with a section descriptor (UEFI 2.10 N.2.2) that points behind
itself, as libcper and PLDM pass on single sections. Anything else is the body of a section whose type the caller must specify.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import MAX_BLOCK_BYTES, Event
from ras_triage.models.formats.encoded_bytes import unpack_text, unpack_words
from ras_triage.models.formats.record_context import CPER_TYPES, DEFAULT_SEVERITY, RecordContext, choose_notification, to_notification
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord, read_guarded
from ras_triage.models.formats.status_blocks import BlockSpan, find_blocks, is_status_block
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.block_fields import default_block_status, is_plausible_block
from ras_triage.models.records.cper_record import (
    DESCRIPTOR_LENGTH,
    HEADER_LENGTH,
    RECORD_REVISION,
    SECTION_REVISION,
    SIGNATURE,
    TIMESTAMP_VALID,
    CperRecord,
    SectionDescriptor,
    decode_record,
    encode_record,
    from_status_block,
    notification_name,
    to_status_block,
    unpack_descriptor,
)
from ras_triage.models.records.guid import NULL, SECTION_NAMES, Guid, guid, guid_text, section_name
from ras_triage.models.records.status_block import HEADER_LENGTH as BLOCK_HEADER_LENGTH
from ras_triage.models.records.status_block import parse_block
from ras_triage.models.scalars import AmbiguousEncoding, HexadecimalBytes, decode_text
from ras_triage.models.sections.fields import encode_timestamp, read_timestamp

FORMAT = "cper"

_SIGNATURE = re.compile(rb"CPER..\xff\xff\xff\xff", re.DOTALL)
_RECORD_LENGTH = struct.Struct("<I")
_RECORD_LENGTH_OFFSET = 20
_BLOCK_STATUS = struct.Struct("<I")
_RECORD_FLAGS = {1: "recovered", 2: "previous error", 4: "simulated"}
_MAX_REVISIONS = 4
_SECTION_GUIDS = {name: value for value, name in SECTION_NAMES.items()}


def read_cper(
    data: bytes,
    *,
    notification: Notification | NotificationType | None = None,
    section_type: str | None = None,
    severity: int | None = None,
) -> Iterator[FoundError | UnreadableRecord]:
    """Yield the errors of CPER records, a status block or a single section; hexadecimal, base64 and word dumps are decoded first.

    Several records may follow each other. `section_type` is a GUID or a name such as `memory`, for bytes that are the body of a section;
    `severity` is its CPER severity, if known. Raises ValueError for an unknown `section_type`.
    """
    kind = None if section_type is None else section_guid(section_type)
    context = RecordContext(FORMAT, Position(offset=0), to_notification(notification), section_type=kind, severity=severity)
    try:
        unpacked = unpack_encoded(data, is_section=kind is not None)
    except AmbiguousEncoding as error:
        yield UnreadableRecord(context.place, str(error), FORMAT)
        return
    for found in read_payload(unpacked, context):
        yield _with_encoding(found) if _is_hexadecimal(unpacked) else found


def _with_encoding(found: FoundError | UnreadableRecord) -> FoundError | UnreadableRecord:
    """Return an error with the assumption that its text is hexadecimal."""
    return replace(found, assumed=(*found.assumed, _HEXADECIMAL)) if isinstance(found, FoundError) else found


_HEXADECIMAL: Final = AssumedField("/status_block", "hexadecimal", "the text has only hexadecimal digits, and could be base64")


def section_guid(text: str) -> Guid:
    """Return the section type for a name or the text of a GUID. Raises ValueError for any other text."""
    try:
        return _SECTION_GUIDS.get(text) or guid(text)
    except ValueError:
        raise ValueError(f"unknown section type `{text}`; expected a name such as `memory`, or a GUID") from None


def unpack_encoded(data: bytes, *, is_section: bool = False) -> bytes:
    """Decode `data` if it is hexadecimal, base64 or a word dump; otherwise return it unchanged.

    Words of eight digits are bytes in order if that gives a record or a status block, else 32-bit little-endian words. Raises
    AmbiguousEncoding for text that could be hexadecimal or base64, and is no record, status block or section in either. Of the body of a
    section (`is_section`), hexadecimal is assumed then.
    """
    if _SIGNATURE.match(data) or b"\0" in data:
        return data
    words = unpack_words(data)
    if words is not None and not is_status_block(words):
        words = None
    try:
        packed = unpack_text(data, _is_hexadecimal if is_section else _is_plausible, RECORD_OR_BLOCK)
    except AmbiguousEncoding:
        if words is None:
            raise
        return words
    if words is not None and (packed is None or not (_SIGNATURE.match(packed) or is_status_block(packed))):
        return words
    return data if packed is None else packed


def unpack_payload(text: str) -> bytes:
    """Decode the base64 or hexadecimal of a record, a status block or a section in a JSON document. Raises ValueError."""
    return decode_text("".join(text.split()), _is_plausible, RECORD_OR_BLOCK)


RECORD_OR_BLOCK: Final = "a CPER record or a status block"


def is_record_or_block(data: bytes) -> bool:
    """Return whether the bytes begin with the signature of a record, or can begin a status block."""
    return data.startswith(SIGNATURE) or is_plausible_block(data)


def _is_plausible(data: bytes) -> bool:
    return is_record_or_block(data) or _parse_descriptor(data, None) is not None


def _is_hexadecimal(data: bytes) -> bool:
    return isinstance(data, HexadecimalBytes)


def read_payload(data: bytes, context: RecordContext) -> Iterator[FoundError | UnreadableRecord]:
    """Yield the errors of binary data, whose kind is detected from the content."""
    if data.startswith(SIGNATURE):
        yield from _read_records(data, context)
    elif (blocks := find_blocks(data))[0]:
        yield from _read_blocks(data, *blocks, context)
    else:
        yield read_guarded(partial(_read_other, data, context), context.place, context.format)


def _read_other(data: bytes, context: RecordContext) -> FoundError | UnreadableRecord:
    """Parse bytes that are neither CPER records nor status blocks."""
    if (descriptor := _parse_descriptor(data, context.section_type)) is not None:
        return _read_described(data, descriptor, context)
    if context.section_type is not None:
        return _read_body(data, context.section_type, context)
    return UnreadableRecord(context.place, _unknown_bytes_reason(data), context.format)


def _unknown_bytes_reason(data: bytes) -> str:
    if not data:
        return "the input is empty"
    if not any(data):
        return "all bytes are zero: no error is pending in such a status block"
    fault = parse_block(data[:MAX_BLOCK_BYTES]).format_error
    why = f" (parsed as one: {fault.detail}, byte {fault.offset}, `{fault.field}`)" if fault and len(data) >= BLOCK_HEADER_LENGTH else ""
    return f"the bytes are neither a CPER record nor a status block{why}; for the body of a section, specify the section type"


def _read_records(data: bytes, context: RecordContext) -> Iterator[FoundError | UnreadableRecord]:
    """Parse consecutive records, skipping bytes between them, in one pass."""
    start: int | None = 0
    while start is not None:
        end, following = _record_end(data, start)
        record = context.at(start)
        yield read_guarded(partial(_read_one_record, data[start:end], record), record.place, record.format)
        start = following


def _record_end(data: bytes, start: int) -> tuple[int, int | None]:
    """Return the end of the record's bytes, and the start of the next record.

    The stated length is used if a record or the end of the input follows it. Otherwise the record extends to the next signature, so that a
    wrong length affects only its own record, and no byte belongs to two records.
    """
    stated = data[start + _RECORD_LENGTH_OFFSET : start + _RECORD_LENGTH_OFFSET + 4]
    end = start + _RECORD_LENGTH.unpack(stated.ljust(4, b"\0"))[0]
    if start + HEADER_LENGTH <= end < len(data) and _SIGNATURE.match(data, end):
        return end, end
    if end == len(data):
        return end, None
    found = _SIGNATURE.search(data, start + len(SIGNATURE))
    return (found.start(), found.start()) if found else (len(data), None)


def _read_one_record(data: bytes, context: RecordContext) -> FoundError | UnreadableRecord:
    try:
        return read_record(decode_record(data), context)
    except MalformedBytes as error:
        return _to_unreadable(error, context)


def _to_unreadable(error: MalformedBytes, context: RecordContext) -> UnreadableRecord:
    where = "" if error.section is None else f"section {error.section}: "
    return UnreadableRecord(context.at(error.offset).place, f"{where}{error.detail} (`{error.field}`)", context.format)


def read_record(record: CperRecord, context: RecordContext) -> FoundError | UnreadableRecord:
    """Convert a CPER record to an error, with the losses of fields that an event does not have.

    Raises MalformedBytes if sections overlap.
    """
    block = to_status_block(record)
    if len(block) > MAX_BLOCK_BYTES:
        return UnreadableRecord(context.place, _too_long(len(block)), context.format)
    notification, assumed = choose_notification(context, record.notification_type)
    time, assumed_time = _choose_time(record, context)
    event = Event(notification=notification, status_block=block, time=time)
    return FoundError(event, context.format, context.place, assumed + assumed_time, tuple(_losses(record)))


def _too_long(length: int) -> str:
    return f"the sections give a status block of {length} bytes; expected at most {MAX_BLOCK_BYTES}"


def _choose_time(record: CperRecord, context: RecordContext) -> tuple[datetime | None, tuple[AssumedField, ...]]:
    """Return the record's time, or a time of the context if it is the same second with a time zone or the record has none."""
    own = _own_time(record)
    zoned = next((time for time in context.times if own is None or time.replace(microsecond=0) == own), None)
    if own is None or zoned is not None:
        return zoned, ()
    text = own.isoformat().replace("+00:00", "Z")
    return own, (AssumedField("/time", text, "a CPER timestamp has no time zone; UTC is assumed"),)


def _own_time(record: CperRecord) -> datetime | None:
    return read_timestamp(record.timestamp) if record.validation_bits & TIMESTAMP_VALID else None


def _losses(record: CperRecord) -> Iterator[str]:
    """Yield a phrase for each record field that an event does not have."""
    if record.notification_type not in (*CPER_TYPES.values(), NULL):
        yield f"the notification type `{notification_name(record.notification_type)}`"
    if record.validation_bits & TIMESTAMP_VALID and _own_time(record) is None:
        yield f"the record's timestamp: not a date (bytes `{record.timestamp.hex()}`)"
    ids = {"platform id": record.platform_id, "partition id": record.partition_id, "creator id": record.creator_id}
    yield from (f"the {name} `{guid_text(value)}`" for name, value in ids.items() if value != NULL)
    numbers = {"record id": record.record_id, "persistence information": record.persistence_information}
    yield from (f"the {name} `{value:#x}`" for name, value in numbers.items() if value)
    if record.flags:
        names = [name for bit, name in _RECORD_FLAGS.items() if record.flags & bit]
        yield f"the record's flags `{record.flags:#x}`" + (f" ({', '.join(names)})" if names else "")
    if record.revision != RECORD_REVISION:
        yield f"the record's revision `{record.revision:#06x}`"
    if others := {section.revision for section in record.sections} - {SECTION_REVISION}:
        yield "the section descriptors' revision " + ", ".join(f"`{revision:#06x}`" for revision in sorted(others)[:_MAX_REVISIONS])
    if any(section.flags >> 8 for section in record.sections):
        yield "the section flags above bit 7"
    if any(record.reserved):
        yield "reserved bytes of the record header"
    if behind := record.headers_length + len(record.body) - record.record_length:
        yield f"{behind} bytes after the record" if behind > 0 else f"{-behind} bytes of the stated record length: missing"


def _read_blocks(data: bytes, spans: list[BlockSpan], rest: int | None, context: RecordContext) -> Iterator[FoundError | UnreadableRecord]:
    """Parse status blocks that follow each other, as in the boot error region. `rest`: offset of other bytes behind them.

    Linux clears the block status of a record of the previous boot after it has printed it, and of no other.
    """
    if context.notification is None and len(spans) > 1 and any(span.is_cleared for span in spans):
        context = replace(context, notification=Notification(type=NotificationType.BERT))
    is_of_previous_boot = context.notification is not None and context.notification.type is NotificationType.BERT
    for span in spans:
        block = context.at(span.start)
        is_last = span is spans[-1] and rest is None
        content = data[span.start :] if is_last else data[span.start : span.end]
        if span.is_cleared and not is_of_previous_boot:
            yield UnreadableRecord(block.place, _CLEARED, block.format)
        else:
            yield read_guarded(partial(_read_block, content, block, is_cleared=span.is_cleared), block.place, block.format)
    if rest is not None:
        what = f"{len(data) - rest} bytes behind the status block are neither padding nor a status block"
        yield UnreadableRecord(context.at(rest).place, what, context.format)


_CLEARED = (
    "no error is pending in the status block: its `block_status` is 0; Linux clears that of a record of the previous boot when it has"
    " printed it: for such a record, specify the notification type `bert`"
)


def _read_block(data: bytes, context: RecordContext, *, is_cleared: bool) -> FoundError | UnreadableRecord:
    if len(data) > MAX_BLOCK_BYTES:
        return UnreadableRecord(
            context.place, f"the status block has {len(data)} bytes; expected at most {MAX_BLOCK_BYTES}", context.format
        )
    notification, assumed = choose_notification(context, None)
    missing = BLOCK_HEADER_LENGTH + int.from_bytes(data[12:16], "little") - len(data)
    lost = (f"the block's last {missing} bytes: missing, read as zero",) if missing > 0 else ()
    if is_cleared:
        data = _pending(data)
        why = "from severity and number of sections: Linux has cleared it after it printed the record"
        assumed = (*assumed, AssumedField("/status_block/block_status", f"{_BLOCK_STATUS.unpack_from(data)[0]:#x}", why))
    event = Event(notification=notification, status_block=data, time=next(iter(context.times), None))
    return FoundError(event, context.format, context.place, assumed, lost)


def _pending(data: bytes) -> bytes:
    """Return a block with the block status that its severity and number of sections give."""
    block = parse_block(data)
    return _BLOCK_STATUS.pack(default_block_status(block.error_severity, len(block.entries))) + data[_BLOCK_STATUS.size :]


def _parse_descriptor(data: bytes, section_type: Guid | None) -> SectionDescriptor | None:
    """Return the section descriptor at the start of a single section; None unless its type is the specified one or a known one."""
    if len(data) < DESCRIPTOR_LENGTH:
        return None
    descriptor = unpack_descriptor(data)
    offset, length, kind = descriptor.section_offset, descriptor.section_length, descriptor.section_type
    if offset < DESCRIPTOR_LENGTH or offset + length > len(data) or (kind != section_type and kind not in SECTION_NAMES):
        return None
    return descriptor


def _read_described(data: bytes, descriptor: SectionDescriptor, context: RecordContext) -> FoundError | UnreadableRecord:
    start = descriptor.section_offset
    return read_record(single_section_record(descriptor, data[start : start + descriptor.section_length]), context)


def _read_body(data: bytes, section_type: Guid, context: RecordContext) -> FoundError | UnreadableRecord:
    if not data:
        return UnreadableRecord(context.place, f"the `{section_name(section_type)}` section has no bytes", context.format)
    severity = DEFAULT_SEVERITY if context.severity is None else context.severity
    descriptor = SectionDescriptor(section_offset=0, section_length=len(data), section_type=section_type, severity=severity)
    found = read_record(single_section_record(descriptor, data), context)
    if isinstance(found, UnreadableRecord):
        return found
    assumed = found.assumed if context.severity is not None else (*found.assumed, assume_severity("not in a section body"))
    return FoundError(found.event, found.format, found.place, assumed, ("the section's flags, FRU and timestamp",))


def assume_severity(because: str) -> AssumedField:
    """Return the assumption of the default severity for the block and its section."""
    return AssumedField("/status_block/severity", DEFAULT_SEVERITY.name.lower(), because)


def single_section_record(descriptor: SectionDescriptor, body: bytes) -> CperRecord:
    """Return a record with one section."""
    offset = HEADER_LENGTH + DESCRIPTOR_LENGTH
    placed = descriptor.model_copy(update={"section_offset": offset, "section_length": len(body)})
    return CperRecord.model_construct(severity=descriptor.severity, record_length=offset + len(body), sections=(placed,), body=body)


def write_record(event: Event, *, record_id: int = 0, creator_id: Guid = NULL) -> bytes:
    """Encode an event as a CPER record (UEFI 2.10 N.2): sections with severities, flags and FRUs, and the time in UTC in whole seconds.

    The notification type is written if CPER has it. If the event has no time, or one of the same second, the record gets the first
    timestamp of the data entries. Block status, raw data, timestamps of single entries and host facts are not written. Raises ValueError
    for an event without a status block, and MalformedBytes with offset, section and field for an incomplete or malformed block.
    """
    if event.status_block is None:
        raise ValueError("an event without a `status_block` cannot be written as a CPER record")
    notification_type = CPER_TYPES.get(event.notification.type, NULL)
    record = from_status_block(event.status_block, notification_type, record_id=record_id, creator_id=creator_id)
    second = None if event.time is None else event.time.replace(microsecond=0)
    if second is not None and second != _own_time(record):
        stamp = {"timestamp": encode_timestamp(second), "timestamp_precise": False}
        record = record.model_copy(update={**stamp, "validation_bits": record.validation_bits | TIMESTAMP_VALID})
    return encode_record(record)
