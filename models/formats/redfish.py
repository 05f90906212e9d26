"""Redfish log entries and events with CPER records: parser and writer.

Schemas: DSP8010 LogEntry 1.15 and Event 1.8. `DiagnosticDataType` is ignored: some BMCs label complete records as `CPERSection`, so the
kind of the payload is detected from its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from ras_triage.models.event import Event
from ras_triage.models.formats.cper import read_payload, unpack_payload, write_record
from ras_triage.models.formats.json_text import JsonObject, find, find_text, read_documents, shorten
from ras_triage.models.formats.record_context import RecordContext, to_notification
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord, iterate_guarded, stated_assumptions
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.cper_record import decode_record, notification_name
from ras_triage.models.records.guid import NULL, Guid, guid, guid_text, section_name
from ras_triage.models.scalars import encode_base64
from ras_triage.models.severity import Severity, severity_name
from ras_triage.models.times import to_utc, utc_text

FORMAT = "redfish"

_RECORD, _SECTION = "CPER", "CPERSection"
_SIGNATURES = ("Q1BFU", "43504552", "0x43504552", "0X43504552")
"""Starts of a CPER record in base64 and in hexadecimal."""
_OEM = "RasTriage"
_OEM_PATH = f"Oem.{_OEM}.Event"
_NOTIFICATION = "/notification/type"
_NOT_IN_OEM = {"status_block", "time", "host"}
_LOG_SEVERITIES: dict[int, str] = {
    Severity.FATAL: "Critical",
    Severity.RECOVERABLE: "Critical",
    Severity.CORRECTED: "OK",
    Severity.INFORMATIONAL: "OK",
}
"""Redfish log severity (Resource.Health)."""


def read_redfish(data: bytes, *, notification: Notification | NotificationType | None = None) -> Iterator[FoundError | UnreadableRecord]:
    """Yield the errors of a LogEntry, a LogEntryCollection (`Members`), an event (`Events`), an array of these, or JSON lines.

    The payload of an event or of a `LogEntry` embedded in it is used. Entries without CPER data are skipped; if no entry has any, that is
    reported as unreadable.
    """
    override = to_notification(notification)
    for line, document in read_documents(data):
        if isinstance(document, ValueError):
            yield UnreadableRecord(_place(line, None), shorten(str(document)), FORMAT)
        else:
            yield from _read_document(document, line, override)


def _place(line: int | None, pointer: str | None) -> Position:
    return Position(line=line, item=pointer, offset=0 if line is None and pointer is None else None)


def _read_document(document: Any, line: int | None, override: Notification | None) -> Iterator[FoundError | UnreadableRecord]:
    seen = found = 0
    for pointer, entry in _entries(document, ""):
        seen += 1
        if _is_about_cper(entry):
            found += 1
            place = _place(line, pointer)
            yield from iterate_guarded(_read_entry(entry, RecordContext(FORMAT, place, override)), place, FORMAT)
    if not found:
        yield UnreadableRecord(_place(line, ""), f"none of {seen} entries has CPER data", FORMAT)


def _entries(document: Any, pointer: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield the log entries and event records of a document, each with its JSON pointer; nesting is limited by the JSON parser."""
    if isinstance(document, list):
        for index, element in enumerate(document):
            yield from _entries(element, f"{pointer}/{index}")
    if not isinstance(document, dict):
        return
    lists = [key for key in ("Members", "Events") if isinstance(document.get(key), list)]
    for key in lists:
        yield from _entries(document[key], f"{pointer}/{key}")
    if lists:
        return
    entry = document.get("LogEntry")
    if isinstance(entry, dict) and _is_about_cper(entry) and not document.get("DiagnosticData"):
        yield f"{pointer}/LogEntry", entry
    else:
        yield pointer, document


def _is_about_cper(entry: JsonObject) -> bool:
    if entry.get("DiagnosticDataType") in (_RECORD, _SECTION) or isinstance(entry.get("CPER"), dict):
        return True
    return (find_text(entry, "DiagnosticData") or "").lstrip().startswith(_SIGNATURES)


def _read_entry(entry: JsonObject, context: RecordContext) -> Iterator[FoundError | UnreadableRecord]:
    payload = entry.get("DiagnosticData")
    if not payload:
        yield UnreadableRecord(context.place, _why_no_payload(entry), FORMAT)
        return
    if not isinstance(payload, str):
        yield UnreadableRecord(context.place, "`DiagnosticData`: expected a string", FORMAT)
        return
    try:
        data = unpack_payload(payload)
    except ValueError as error:
        yield UnreadableRecord(context.place, f"`DiagnosticData`: {error}", FORMAT)
        return
    section_type, notification_type = _guid(entry, "CPER.SectionType"), _guid(entry, "CPER.NotificationType")
    context = replace(context, section_type=section_type, notification_type=notification_type, times=tuple(_times(entry)))
    for number, found in enumerate(read_payload(data, context)):
        trust = number == 0 and context.notification is None
        yield _complete(found, entry, data, trust=trust) if isinstance(found, FoundError) else found


def _why_no_payload(entry: JsonObject) -> str:
    """Return the reason why an entry has no payload, with the CPER details that it has."""
    if (uri := find_text(entry, "AdditionalDataURI")) is not None:
        size = find(entry, "AdditionalDataSizeBytes")
        length = f" ({size} bytes)" if isinstance(size, int) else ""
        return f"the CPER record{length} is not in the entry; fetch it from `{shorten(uri)}`"
    details = ", ".join(_cper_details(entry))
    return f"the entry has no `DiagnosticData`; it only has {details}" if details else "the entry has no `DiagnosticData`"


def _cper_details(entry: JsonObject) -> Iterator[str]:
    if (kind := _guid(entry, "CPER.NotificationType")) is not None:
        yield f"notification type `{notification_name(kind)}`"
    if (kind := _guid(entry, "CPER.SectionType")) is not None:
        yield f"section type `{section_name(kind)}`"
    if severity := find_text(entry, "Severity"):
        yield f"log severity `{shorten(severity)}`"


def _guid(entry: JsonObject, path: str) -> Guid | None:
    text = find_text(entry, path)
    try:
        return None if text is None else guid(text)
    except ValueError:
        return None


def _times(entry: JsonObject) -> Iterator[datetime]:
    """Yield the times of the entry in UTC, likeliest first; times without a time zone are ignored."""
    for key in ("EventTimestamp", "Created"):
        try:
            time = datetime.fromisoformat(find_text(entry, key) or "")
            if time.tzinfo is not None:
                yield to_utc(time)
        except ValueError:
            continue


def _complete(found: FoundError, entry: JsonObject, data: bytes, *, trust: bool) -> FoundError:
    """Return the error with the losses of its entry and, if `trust` is set, with the event that ras-triage exported into it."""
    found = replace(found, lost=(*found.lost, *_lost(entry, data)))
    own = find(entry, _OEM_PATH)
    if not trust or not isinstance(own, dict):
        return found
    try:
        oem_event = Event.model_validate({key: value for key, value in own.items() if key not in _NOT_IN_OEM})
    except ValidationError:
        return replace(found, lost=(*found.lost, f"`{_OEM_PATH}`: not a valid event"))
    return _merge_oem_event(found, oem_event)


def _merge_oem_event(found: FoundError, oem_event: Event) -> FoundError:
    """Return the record's error with the facts of the exported event; the record's notification type takes precedence."""
    assumed = tuple(one for one in found.assumed if one.field != _NOTIFICATION)
    states_notification = len(assumed) == len(found.assumed)
    event = found.event.model_copy(update={"id": oem_event.id, "source": oem_event.source, "policy": oem_event.policy})
    if not states_notification or oem_event.notification.type == event.notification.type:
        event = event.model_copy(update={"notification": oem_event.notification})
    known = {one.field for one in assumed} | ({_NOTIFICATION} if states_notification else set())
    stated = tuple(one for one in stated_assumptions(oem_event) if one.field not in known)
    return replace(found, event=event, assumed=(*assumed, *stated))


def _lost(entry: JsonObject, data: bytes) -> Iterator[str]:
    label = entry.get("DiagnosticDataType")
    if label == _SECTION and data.startswith(b"CPER"):
        yield f"the label `{label}`: the payload is a complete record"
    if find(entry, _OEM_PATH) is None:
        if isinstance(identity := entry.get("@odata.id") or entry.get("Id"), str):
            yield f"the entry's identity `{shorten(identity)}`"
        if severity := find_text(entry, "Severity"):
            yield f"the log severity `{shorten(severity)}`"
    if isinstance(find(entry, "CPER.Oem"), dict):
        yield "the vendor data in `CPER/Oem`"


def write_redfish(event: Event) -> JsonObject:
    """Return a Redfish LogEntry (DSP8010 LogEntry 1.15) with the event's CPER record in `DiagnosticData`, ready for JSON encoding.

    Facts that a record has no field for (id, source, policy and the notification) are written under `Oem/RasTriage`; raw data, entry
    timestamps and host facts are not. Raises ValueError and MalformedBytes like `write_record`.
    """
    data = write_record(event)
    record = decode_record(data)
    time = None if event.time is None else utc_text(event.time)
    section_type = record.sections[0].section_type if record.sections else None
    entry: JsonObject = {
        "@odata.type": "#LogEntry.v1_15_0.LogEntry",
        "Id": event.id,
        "Name": "Hardware error",
        "EntryType": "Event",
        "Severity": _LOG_SEVERITIES.get(record.severity, "Critical"),
        "Created": time,
        "EventTimestamp": time,
        "Message": f"Hardware error, {severity_name(record.severity)}",
        "DiagnosticDataType": _RECORD,
        "DiagnosticData": encode_base64(data),
        "CPER": {
            "NotificationType": None if record.notification_type == NULL else guid_text(record.notification_type),
            "SectionType": None if section_type is None else guid_text(section_type),
        },
        "Oem": {_OEM: {"Event": event.model_dump(mode="json", exclude=_NOT_IN_OEM, exclude_none=True)}},
    }
    entry["CPER"] = {key: value for key, value in entry["CPER"].items() if value is not None}
    return {key: value for key, value in entry.items() if value is not None}
