"""libcper JSON parser (openbmc/libcper 7c410e29) for records and single sections.

The CPER record is rebuilt and parsed like any other, so that both give the same event. Data that libcper omits is absent: reserved bytes,
fields whose validation bit is clear, and the bytes of sections that it prints as text only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from ras_triage.models.event import MAX_BLOCK_BYTES
from ras_triage.models.formats.cper import read_record
from ras_triage.models.formats.json_text import JsonObject, find, find_number, find_text, read_documents, shorten
from ras_triage.models.formats.libcper.arm_processor import arm_processor
from ras_triage.models.formats.libcper.sections import READERS, AssumedValue, SectionBody, flags
from ras_triage.models.formats.record_context import DEFAULT_SEVERITY, RecordContext, to_notification
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord, iterate_guarded
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
"""libcper's name of the body of each section type that can be rebuilt."""
_TYPES = {name: kind for kind, name in _NAMES.items() if name != "CxlComponent"}
"""Section type by libcper's body name, where the name is unambiguous."""

_FLAGS = "primary containmentWarning reset errorThresholdExceeded resourceNotAccessible latentError propagated overflow"
_SEVERITIES = {severity.name.lower(): int(severity) for severity in Severity}
_TIMESTAMP = re.compile(r"(\d\d)(\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\+00:00|Z)?")
_NOT_PRINTED = "reserved bytes, and fields whose validation bit is clear: omitted by libcper"
_MAX_SECTIONS = MAX_BLOCK_BYTES // DESCRIPTOR_LENGTH


@frozen
class _Section:
    """One rebuilt section."""

    descriptor: SectionDescriptor
    body: SectionBody
    has_severity: bool


def read_libcper(
    data: bytes,
    *,
    notification: Notification | NotificationType | None = None,
    arm_error_types: ErrorTypeNumbering = "uefi-2.10",
) -> Iterator[FoundError | UnreadableRecord]:
    """Yield the errors of a libcper document, of a JSON array of them, or of JSON lines.

    A section that cannot be rebuilt is reported separately, and the record is read without it. ARM error types are converted by name into
    the numbering `arm_error_types`, which is also set in the event's host facts.
    """
    override = to_notification(notification)
    for line, document in read_documents(data):
        if isinstance(document, ValueError):
            yield UnreadableRecord(Position(offset=0) if line is None else Position(line=line), shorten(str(document)), FORMAT)
            continue
        documents = enumerate(document) if isinstance(document, list) else [(None, document)]
        for index, one in documents:
            pointer = "" if index is None else f"/{index}"
            place = Position(line=line, item=pointer)
            yield from iterate_guarded(_read_document(one, RecordContext(FORMAT, place, override), pointer, arm_error_types), place, FORMAT)


def _read_document(
    document: Any, context: RecordContext, pointer: str, numbering: ErrorTypeNumbering
) -> Iterator[FoundError | UnreadableRecord]:
    pairs = _section_pairs(document)
    if isinstance(pairs, str):
        yield UnreadableRecord(context.place, pairs, FORMAT)
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
            yield UnreadableRecord(Position(line=context.place.line, item=pointer + path), _reason(error), FORMAT)
        if room < 0:
            yield UnreadableRecord(context.place, f"the sections are longer than the {MAX_BLOCK_BYTES} bytes of a status block", FORMAT)
            return
    if not sections:
        return
    try:
        found = read_record(_record(document, sections), context)
    except ValueError as error:
        found = UnreadableRecord(context.place, _reason(error), FORMAT)
    yield found if isinstance(found, UnreadableRecord) else _complete(found, document, sections, lost, numbering)


def _section_pairs(document: Any) -> list[tuple[str, Any, Any]] | str:
    """Return pointer, descriptor and body of each section, or the reason why the document has none."""
    if find(document, "section") is not None:
        return [("/section", find(document, "sectionDescriptor"), find(document, "section"))]
    sections, descriptors = find(document, "sections"), find(document, "sectionDescriptors")
    if not isinstance(sections, list) or not isinstance(descriptors, list):
        return "not a libcper document: expected `sections` with `sectionDescriptors`, or `section`"
    if len(sections) > _MAX_SECTIONS:
        return f"{len(sections)} sections do not fit into the {MAX_BLOCK_BYTES} bytes of a status block"
    if len(sections) != len(descriptors):
        return f"`sections` has {len(sections)} elements and `sectionDescriptors` has {len(descriptors)}; expected the same number"
    if not sections:
        return "the record has no sections"
    return [(f"/sections/{index}", *pair) for index, pair in enumerate(zip(descriptors, sections, strict=True))]


def _reason(error: ValueError) -> str:
    """Return the reason of an error, without the section's content."""
    if not isinstance(error, ValidationError):
        return shorten(str(error))
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = shorten(first["msg"].removeprefix("Value error, "))
    message = message[:1].lower() + message[1:]
    return f"`{where}`: {message}" if where else message


def _read_section(descriptor: Any, section: Any, numbering: ErrorTypeNumbering) -> _Section:
    """Rebuild one section. Raises ValueError or pydantic's ValidationError, a subclass."""
    if not isinstance(section, dict):
        raise ValueError("expected a section to be an object")
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


def _section_type(descriptor: Any, section: JsonObject) -> Guid:
    if (text := find_text(descriptor, "sectionType.data")) is not None:
        try:
            return guid(text)
        except ValueError:
            raise ValueError("`sectionType.data`: expected a GUID") from None
    named = [_TYPES[name] for name in section if name in _TYPES]
    if not named:
        raise ValueError("the section has no type; expected `sectionType.data` or a named body")
    return named[0]


def _read_body(kind: Guid, section: JsonObject, numbering: ErrorTypeNumbering) -> SectionBody:
    """Rebuild the body, which is under libcper's name of it, under `Unknown`, or, in older versions, without a name.

    A section type that cannot be rebuilt gets no bytes: its type, severity and flags are known, and no kernel reads more of it.
    """
    if isinstance(raw := section.get("Unknown"), dict):
        return READERS["Unknown"](raw)
    name = _NAMES.get(kind)
    if name is None:
        because = f"libcper prints `{section_name(kind)}` sections as text, without their bytes"
        return SectionBody(b"", (AssumedValue("payload", "empty", because),))
    body = section.get(name, section)
    if not isinstance(body, dict):
        raise ValueError(f"`{name}`: expected an object")
    return arm_processor(body, numbering) if name == "ArmProcessor" else READERS[name](body)


def _fit(body: SectionBody, length: int) -> SectionBody:
    """Return the body cut to the length in the descriptor, unless that would remove nonzero bytes."""
    if length < len(body.payload) and not any(body.payload[length:]):
        return replace(body, payload=body.payload[:length])
    if length < len(body.payload):
        return replace(body, lost=(*body.lost, f"the stated section length of {length} bytes: the fields need more"))
    missing = f"the section's {'last ' if body.payload else ''}{length - len(body.payload)} bytes: omitted by libcper"
    return replace(body, lost=(*body.lost, missing))


def _severity(part: Any) -> int | None:
    """Return the severity from its number or, without a number, from its name."""
    code = find_number(part, "severity.code", 32)
    return _SEVERITIES.get((find_text(part, "severity.name") or "").lower()) if code is None else code


def _revision(part: Any, default: int) -> int:
    major, minor = find_number(part, "revision.major", 8), find_number(part, "revision.minor", 8)
    return default if major is None or minor is None else major << 8 | minor


def _fru(descriptor: Any) -> dict[str, Any]:
    fru_id, fru_text = find_text(descriptor, "fruID"), find_text(descriptor, "fruText")
    valid = (fru_id is not None) | (fru_text is not None) << 1
    return {"validation_bits": valid, "fru_id": fru_id or NULL, "fru_text": fru_text or ""}


def _record(document: JsonObject, sections: list[_Section]) -> CperRecord:
    """Rebuild the record from its header and sections. Raises ValueError for an invalid header."""
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
    found: FoundError, document: JsonObject, sections: list[_Section], lost: list[str], numbering: ErrorTypeNumbering
) -> FoundError:
    """Return the error with the assumptions and losses of its sections, and with the numbering of ARM error types."""
    assumed = [*found.assumed, *_assumed(document, sections)]
    lost_phrases = [*found.lost, *lost, *(phrase for section in sections for phrase in section.body.lost), _NOT_PRINTED]
    event = found.event
    if any(section.descriptor.section_type == ARM_PROCESSOR for section in sections):
        event = event.model_copy(update={"host": event.host.model_copy(update={"arm_error_types": numbering})})
    return replace(found, event=event, assumed=tuple(assumed), lost=tuple(lost_phrases))


def _assumed(document: JsonObject, sections: list[_Section]) -> Iterator[AssumedField]:
    if _severity(document.get("header")) is None:
        severity = sections[0].descriptor.severity
        yield AssumedField(
            "/status_block/severity", severity_name(severity), "without a record header, the severity of the first section is used"
        )
    for index, section in enumerate(sections):
        pointer = f"/status_block/sections/{index}"
        if not section.has_severity:
            yield AssumedField(f"{pointer}/severity", DEFAULT_SEVERITY.name.lower(), "not in the section descriptor")
        yield from (
            AssumedField(f"{pointer}/{assumption.field}", assumption.assumed, assumption.because) for assumption in section.body.assumptions
        )
