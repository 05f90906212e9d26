"""libcper's JSON (openbmc/libcper 7c410e29): a whole CPER record, or a single section with its descriptor.

The record is put together again and read as any other, so that the two agree. What libcper leaves out stays out: reserved bytes, fields
whose validation bit is clear, and the bytes of sections that it only tells in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from ras_triage.models.event import MAX_BLOCK_BYTES
from ras_triage.models.formats.cper import read_record
from ras_triage.models.formats.items import FoundError, Position, UnreadableRecord, read_each
from ras_triage.models.formats.json_text import Object, brief, find, find_number, find_text, read_documents
from ras_triage.models.formats.libcper.arm_processor import arm_processor
from ras_triage.models.formats.libcper.sections import READERS, AssumedValue, SectionBody, flags
from ras_triage.models.formats.record_context import DEFAULT_SEVERITY, RecordContext, to_notification
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.cper_record import (
    DESCRIPTOR_LENGTH,
    HEADER_LENGTH,
    PARTITION_ID_VALID,
    PLATFORM_ID_VALID,
    RECORD_REVISION,
    SECTION_REVISION,
    TIMESTAMP_VALID,
    CperRecord,
    SectionDescriptor,
)
from ras_triage.models.records.guid import (
    ARM_PROCESSOR,
    CXL_DRAM,
    CXL_GENERAL_MEDIA,
    CXL_MEMORY_MODULE,
    CXL_PROTOCOL,
    FIRMWARE_RECORD_REFERENCE,
    GENERIC_PROCESSOR,
    MEMORY,
    MEMORY2,
    NULL,
    PCIE,
    Guid,
    guid,
    section_name,
)
from ras_triage.models.sections.fields import NO_TIMESTAMP
from ras_triage.models.severity import Severity, severity_name

FORMAT = "libcper"

ErrorTypeNumbering = Literal["legacy", "uefi-2.10", "uefi-2.11"]

_NAMES: dict[Guid, str] = {
    ARM_PROCESSOR: "ArmProcessor",
    MEMORY: "Memory",
    MEMORY2: "Memory2",
    GENERIC_PROCESSOR: "GenericProcessor",
    PCIE: "Pcie",
    FIRMWARE_RECORD_REFERENCE: "Firmware",
    CXL_PROTOCOL: "CxlProtocol",
    CXL_GENERAL_MEDIA: "CxlComponent",
    CXL_DRAM: "CxlComponent",
    CXL_MEMORY_MODULE: "CxlComponent",
}
"""libcper's name of the body of each section type that can be put together again."""
_TYPES = {name: kind for kind, name in _NAMES.items() if name != "CxlComponent"}
"""The section type that a body's name alone tells."""

_FLAGS = "primary containmentWarning reset errorThresholdExceeded resourceNotAccessible latentError propagated overflow"
_SEVERITIES = {severity.name.lower(): int(severity) for severity in Severity}
_TIMESTAMP = re.compile(r"(\d\d)(\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\+00:00|Z)?")
_DROPPED = "reserved bytes, and fields whose validation bit is clear: libcper leaves them out"
_MAX_SECTIONS = MAX_BLOCK_BYTES // DESCRIPTOR_LENGTH


@frozen
class _Section:
    """One section put together again."""

    descriptor: SectionDescriptor
    body: SectionBody
    severity_told: bool


def read_libcper(
    data: bytes,
    *,
    notification: Notification | NotificationType | None = None,
    arm_error_types: ErrorTypeNumbering = "uefi-2.10",
) -> Iterator[FoundError | UnreadableRecord]:
    """The errors in a document of libcper's, in a JSON list of them, or in one to a line.

    A section that cannot be put together again is reported for itself, and the record is read without it. ARM error types are taken by
    their name and numbered as `arm_error_types` says; the event's host facts say so too.
    """
    told = to_notification(notification)
    for line, document in read_documents(data):
        if isinstance(document, ValueError):
            yield UnreadableRecord(Position(offset=0) if line is None else Position(line=line), brief(str(document)), FORMAT)
            continue
        documents = enumerate(document) if isinstance(document, list) else [(None, document)]
        for index, one in documents:
            pointer = "" if index is None else f"/{index}"
            place = Position(line=line, item=pointer)
            yield from read_each(_read_document(one, RecordContext(FORMAT, place, told), pointer, arm_error_types), place, FORMAT)


def _read_document(
    document: Any, envelope: RecordContext, pointer: str, numbering: ErrorTypeNumbering
) -> Iterator[FoundError | UnreadableRecord]:
    pairs = _pairs(document)
    if isinstance(pairs, str):
        yield UnreadableRecord(envelope.place, pairs, FORMAT)
        return
    sections: list[_Section] = []
    lost: list[str] = []
    room = MAX_BLOCK_BYTES
    for path, descriptor, section in pairs:
        try:
            sections.append(_read_section(descriptor, section, numbering))
            room -= len(sections[-1].body.payload)
        except ValueError as error:
            kind = find_text(descriptor, "sectionType.type") or "unknown"
            lost.append(f"the section at `{path}` ({kind})")
            yield UnreadableRecord(Position(line=envelope.place.line, item=pointer + path), _reason(error), FORMAT)
        if room < 0:
            yield UnreadableRecord(
                envelope.place, f"the sections are longer than the {MAX_BLOCK_BYTES} bytes of an event's status block", FORMAT
            )
            return
    if not sections:
        return
    try:
        found = read_record(_record(document, sections), envelope)
    except ValueError as error:
        found = UnreadableRecord(envelope.place, _reason(error), FORMAT)
    yield found if isinstance(found, UnreadableRecord) else _complete(found, document, sections, lost, numbering)


def _pairs(document: Any) -> list[tuple[str, Any, Any]] | str:
    """The sections with their pointers and descriptors, or why the document has none."""
    if find(document, "section") is not None:
        return [("/section", find(document, "sectionDescriptor"), find(document, "section"))]
    sections, descriptors = find(document, "sections"), find(document, "sectionDescriptors")
    if not isinstance(sections, list) or not isinstance(descriptors, list):
        return "the document is none of libcper's: it has neither `sections` with `sectionDescriptors`, nor a `section`"
    if len(sections) > _MAX_SECTIONS:
        return f"{len(sections)} sections are more than the {MAX_BLOCK_BYTES} bytes of an event's status block can hold"
    if len(sections) != len(descriptors):
        return f"there are {len(sections)} sections and {len(descriptors)} section descriptors"
    if not sections:
        return "the record has no sections"
    return [(f"/sections/{index}", *pair) for index, pair in enumerate(zip(descriptors, sections, strict=True))]


def _reason(error: ValueError) -> str:
    """Why a section cannot be read, without its content."""
    if not isinstance(error, ValidationError):
        return brief(str(error))
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = brief(first["msg"].removeprefix("Value error, "))
    message = message[:1].lower() + message[1:]
    return f"`{where}`: {message}" if where else message


def _read_section(descriptor: Any, section: Any, numbering: ErrorTypeNumbering) -> _Section:
    """One section. Raises ValueError, pydantic's ValidationError among them, where it cannot be put together again."""
    if not isinstance(section, dict):
        raise ValueError("the section is no object")
    kind = _section_type(descriptor, section)
    body = _read_body(kind, section, numbering)
    length = find_number(descriptor, "sectionLength", 32)
    if length is not None and len(body.payload) != length:
        body = _fit(body, length)
    severity = _severity(descriptor)
    placed = SectionDescriptor(
        section_offset=0,
        section_length=len(body.payload),
        revision=_revision(descriptor, SECTION_REVISION),
        section_type=kind,
        severity=DEFAULT_SEVERITY if severity is None else severity,
        flags=flags(descriptor, "flags", _FLAGS) or 0,
        **_fru(descriptor),
    )
    return _Section(placed, body, severity is not None)


def _section_type(descriptor: Any, section: Object) -> Guid:
    if (text := find_text(descriptor, "sectionType.data")) is not None:
        try:
            return guid(text)
        except ValueError:
            raise ValueError("`sectionType.data` is no GUID") from None
    named = [_TYPES[name] for name in section if name in _TYPES]
    if not named:
        raise ValueError("nothing says of what type the section is")
    return named[0]


def _read_body(kind: Guid, section: Object, numbering: ErrorTypeNumbering) -> SectionBody:
    """The body under libcper's name, under `Unknown`, or, as older versions write it, without a name.

    A section of a type that is not put together again stays without bytes: its type, severity and flags are known, and no kernel looks
    for more in it.
    """
    if isinstance(raw := section.get("Unknown"), dict):
        return READERS["Unknown"](raw)
    name = _NAMES.get(kind)
    if name is None:
        because = f"libcper tells `{section_name(kind)}` sections in its own words, and leaves their bytes out"
        return SectionBody(b"", (AssumedValue("payload", "empty", because),))
    body = section.get(name, section)
    if not isinstance(body, dict):
        raise ValueError(f"`{name}` is no object")
    return arm_processor(body, numbering) if name == "ArmProcessor" else READERS[name](body)


def _fit(body: SectionBody, length: int) -> SectionBody:
    """The body with the length that the descriptor states, where nothing is lost by that."""
    if length < len(body.payload) and not any(body.payload[length:]):
        return replace(body, payload=body.payload[:length])
    if length < len(body.payload):
        return replace(body, lost=(*body.lost, f"that the section has only {length} bytes"))
    missing = f"the section's {'last ' if body.payload else ''}{length - len(body.payload)} bytes, which libcper does not show"
    return replace(body, lost=(*body.lost, missing))


def _severity(part: Any) -> int | None:
    """The severity by its number or, where there is none, its name."""
    code = find_number(part, "severity.code", 32)
    return _SEVERITIES.get((find_text(part, "severity.name") or "").lower()) if code is None else code


def _revision(part: Any, default: int) -> int:
    major, minor = find_number(part, "revision.major", 8), find_number(part, "revision.minor", 8)
    return default if major is None or minor is None else major << 8 | minor


def _fru(descriptor: Any) -> dict[str, Any]:
    fru_id, fru_text = find_text(descriptor, "fruID"), find_text(descriptor, "fruText")
    valid = (fru_id is not None) | (fru_text is not None) << 1
    return {"validation_bits": valid, "fru_id": fru_id or NULL, "fru_text": fru_text or ""}


def _record(document: Object, sections: list[_Section]) -> CperRecord:
    """The record that carries the sections. Raises ValueError for a header of the wrong kind."""
    offset = HEADER_LENGTH + DESCRIPTOR_LENGTH * len(sections)
    descriptors: list[SectionDescriptor] = []
    for section in sections:
        descriptors.append(section.descriptor.model_copy(update={"section_offset": offset}))
        offset += len(section.body.payload)
    severity = _severity(document.get("header"))
    return CperRecord(
        severity=sections[0].descriptor.severity if severity is None else severity,
        record_length=offset,
        sections=tuple(descriptors),
        body=b"".join(section.body.payload for section in sections),
        **_header(document.get("header")),
    )


def _header(header: Any) -> dict[str, Any]:
    ids = {"platform_id": ("platformID", PLATFORM_ID_VALID), "partition_id": ("partitionID", PARTITION_ID_VALID)}
    fields: dict[str, Any] = {name: text for name, (key, _) in ids.items() if (text := find_text(header, key)) is not None}
    valid = sum(bit for name, (_, bit) in ids.items() if name in fields)
    if (stamp := _TIMESTAMP.fullmatch(find_text(header, "timestamp") or "")) is not None:
        century, year, month, day, hour, minute, second = (int(part, 16) for part in stamp.groups())
        fields["timestamp"] = bytes((second, minute, hour, 0, day, month, year, century))
        fields["timestamp_precise"] = find(header, "timestampIsPrecise") is True
        valid |= TIMESTAMP_VALID
    return fields | {
        "validation_bits": valid,
        "revision": _revision(header, RECORD_REVISION),
        "timestamp": fields.get("timestamp", NO_TIMESTAMP),
        "creator_id": find_text(header, "creatorID") or NULL,
        "notification_type": find_text(header, "notificationType.guid") or NULL,
        "record_id": find_number(header, "recordID", 64) or 0,
        "flags": find_number(header, "flags.value", 32) or 0,
        "persistence_information": find_number(header, "persistenceInfo", 64) or 0,
    }


def _complete(
    reading: FoundError, document: Object, sections: list[_Section], lost: list[str], numbering: ErrorTypeNumbering
) -> FoundError:
    """The reading with what was taken for the sections, and with what libcper has dropped."""
    assumed = [*reading.assumed, *_assumed(document, sections)]
    dropped = [*reading.lost, *lost, *(phrase for section in sections for phrase in section.body.lost), _DROPPED]
    event = reading.event
    if any(section.descriptor.section_type == ARM_PROCESSOR for section in sections):
        event = event.model_copy(update={"host": event.host.model_copy(update={"arm_error_types": numbering})})
    return replace(reading, event=event, assumed=tuple(assumed), lost=tuple(dropped))


def _assumed(document: Object, sections: list[_Section]) -> Iterator[AssumedField]:
    if _severity(document.get("header")) is None:
        severity = sections[0].descriptor.severity
        yield AssumedField(
            "/status_block/severity", severity_name(severity), "there is no record header: the first section's severity is taken"
        )
    for index, section in enumerate(sections):
        pointer = f"/status_block/sections/{index}"
        if not section.severity_told:
            yield AssumedField(f"{pointer}/severity", DEFAULT_SEVERITY.name.lower(), "the section descriptor does not say it")
        yield from (AssumedField(f"{pointer}/{doubt.field}", doubt.assumed, doubt.because) for doubt in section.body.doubts)
