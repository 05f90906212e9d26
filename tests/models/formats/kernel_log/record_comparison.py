"""Comparison of parsed errors with the records that were printed."""

from __future__ import annotations

from typing import Any

from ras_triage.models.formats.results import FoundError
from ras_triage.models.records.block_fields import OpaqueSection, decode_structured
from ras_triage.models.records.guid import guid
from tests.models.formats.kernel_log.printed_records import Record

STRUCTURE = {
    "type", "severity", "flags", "revision", "entry_validation_bits", "fru_id", "fru_text", "timestamp", "timestamp_precise", "reserved",
    "trailing", "payload_length", "validation_bits", "err_info_num", "context_info_num", "section_length", "error_infos", "contexts",
    "vendor_info", "dvsec_length", "error_log_length", "version", "length",
}  # fmt: skip
"""Fields that describe the layout of a section, or are compared separately."""


def bcd(text: str) -> bytes:
    """Return the CPER timestamp for a text such as `2026-11-22 10:00:00`."""
    century, year, month, day, hour, minute, second = (text[at : at + 2] for at in (0, 2, 5, 8, 11, 14, 17))
    return bytes.fromhex(second + minute + hour + "00" + day + month + year + century)


def fields_of(section: Any) -> dict[str, Any]:
    """Return the field values of a section, without those that describe its layout."""
    values = {name: value for name, value in dict(section).items() if value is not None and name not in STRUCTURE}
    if values.get("bank") is not None:
        values = {name: value for name, value in values.items() if name not in ("bank_group", "bank_address")}
    if "extended_row_bits" in values:
        values["row"] = values["row"] | values.pop("extended_row_bits") << 16
    return values


def info_of(info: Any) -> dict[str, Any]:
    """Return the field values of an ARM error information structure, including its flags."""
    return fields_of(info) | ({} if info.flags is None else {"flags": info.flags})


def printed_fields(section: Record) -> dict[str, Any]:
    """Return the field values of a printed section."""
    names = {"type", "severity", "fru_id", "fru_text", "time", "precise", "error_infos", "contexts", "vendor_info", "guid", "payload"}
    return {name: value for name, value in section.items() if name not in names | {"trailing"}}


def is_printed(value: dict[str, Any], source: dict[str, Any], *, zero: tuple[str, ...] = ()) -> bool:
    """Return whether every value was printed; fields with a prefix in `zero` may also be zero."""
    return all(source.get(name) == number or (name.startswith(zero) and not any_bit(number)) for name, number in value.items())


def any_bit(value: Any) -> bool:
    return any(value) if isinstance(value, bytes) else bool(value)


def comes_from(section: Any, source: Record) -> bool:
    """Return whether everything in a section of an event is from this printed section."""
    return _entry_comes_from(section, source) and _body_comes_from(section, source)


def _entry_comes_from(section: Any, source: Record) -> bool:
    stamp = bcd(source["time"]) if "time" in source else None
    return (
        (section.fru_id is None or section.fru_id == guid(source.get("fru_id", "0" * 32)))
        and (section.fru_text is None or section.fru_text == source.get("fru_text"))
        and (section.timestamp is None or (section.timestamp == stamp and section.timestamp_precise == source["precise"]))
    )


def _body_comes_from(section: Any, source: Record) -> bool:
    if isinstance(section, OpaqueSection):
        return source["type"] == "unknown" and section.type == guid(source["guid"]) and source["payload"].startswith(section.payload)
    if section.type != source["type"]:
        return source["type"] == "unknown"
    if section.type == "arm_processor":
        return _arm_comes_from(section, source)
    if section.type == "firmware_record_reference":
        zero = ("record_type", "record_revision", "record_id")
        return is_printed(fields_of(section), printed_fields(source) | {"record_revision": 0}, zero=zero) and source["trailing"].startswith(
            section.trailing or b""
        )
    return is_printed(fields_of(section), printed_fields(source), zero=("aer_",))


def _arm_comes_from(section: Any, source: Record) -> bool:
    infos = [info_of(info) for info in section.error_infos]
    return (
        is_printed(fields_of(section), printed_fields(source), zero=("midr_el1",))
        and all(any(_info_comes_from(info, there) for there in source["error_infos"]) for info in infos)
        and all(
            any(context.type == kind and registers.startswith(context.registers) for kind, registers in source["contexts"])
            for context in section.contexts
        )
        and source.get("vendor_info", b"").startswith(section.vendor_info or b"")
    )


def _info_comes_from(info: dict[str, Any], source: Record) -> bool:
    flags = info.pop("flags", 0)
    return flags & ~source.get("flags", 0) == 0 and is_printed(info | {"flags": flags}, source | {"flags": flags})


def is_invented(reading: FoundError, record: Record) -> str | None:
    """Return a value that is neither in the printed record nor an assumption; None if there is none."""
    block = decode_structured(reading.event.status_block or b"")
    assumed = {assumption.field for assumption in reading.assumed}
    if block.severity != record["severity"] and "/status_block/severity" not in assumed:
        return f"block severity {block.severity}"
    if reading.event.notification.source_id not in (None, record["source"]):
        return f"source {reading.event.notification.source_id}"
    for index, section in enumerate(block.sections):
        source = [there for there in record["sections"] if comes_from(section, there)]
        if not source:
            return f"section {index}: {section!r}"
        severities = {there["severity"] for there in source}
        if section.severity not in severities and f"/status_block/sections/{index}/severity" not in assumed:
            return f"severity of section {index}: {section.severity}"
    return None


def is_all_there(reading: FoundError, record: Record) -> str | None:
    """Return a value of a completely printed record that the error lacks; None if there is none."""
    block = decode_structured(reading.event.status_block or b"")
    if reading.event.notification.source_id != record["source"] or len(block.sections) != len(record["sections"]):
        return "source or sections"
    for section, source in zip(block.sections, record["sections"], strict=True):
        carried = fields_of(section)
        for name, value in printed_fields(source).items():
            if name != "record_revision" and carried.get(name) != value:
                return f"`{name}` of {section!r}"
        if section.fru_text != source.get("fru_text") or (section.timestamp is None) == ("time" in source):
            return f"the entry of {section!r}"
        if isinstance(section, OpaqueSection) and section.payload != source["payload"]:
            return f"the payload of {section!r}"
        if source["type"] == "arm_processor":
            infos = [info_of(info) for info in section.error_infos]
            there = (infos, [(context.type, context.registers) for context in section.contexts], section.vendor_info)
            if there != (source["error_infos"], source["contexts"], source.get("vendor_info")):
                return f"the structures of {section!r}"
    return None
