"""What a reading carries, and whether a record says as much."""

from __future__ import annotations

from typing import Any

from ras_triage.models.formats.items import FoundError
from ras_triage.models.records.block_fields import OpaqueSection, decode_structured
from ras_triage.models.records.guid import guid
from tests.models.formats.kernel_printing import Record

STRUCTURE = {
    "type", "severity", "flags", "revision", "entry_validation_bits", "fru_id", "fru_text", "timestamp", "timestamp_precise", "reserved",
    "trailing", "payload_length", "validation_bits", "err_info_num", "context_info_num", "section_length", "error_infos", "contexts",
    "vendor_info", "dvsec_length", "error_log_length", "version", "length",
}  # fmt: skip
"""Names that say how a section is laid out, or are compared by themselves."""


def bcd(text: str) -> bytes:
    """A CPER timestamp from `2026-11-22 10:00:00`."""
    century, year, month, day, hour, minute, second = (text[at : at + 2] for at in (0, 2, 5, 8, 11, 14, 17))
    return bytes.fromhex(second + minute + hour + "00" + day + month + year + century)


def fields_of(section: Any) -> dict[str, Any]:
    """The values that a section of an event carries, without those that only say how it is laid out."""
    values = {name: value for name, value in dict(section).items() if value is not None and name not in STRUCTURE}
    if values.get("bank") is not None:
        values = {name: value for name, value in values.items() if name not in ("bank_group", "bank_address")}
    if "extended_row_bits" in values:
        values["row"] = values["row"] | values.pop("extended_row_bits") << 16
    return values


def info_of(info: Any) -> dict[str, Any]:
    """The same of an ARM error information structure, whose flags are its own."""
    return fields_of(info) | ({} if info.flags is None else {"flags": info.flags})


def told(section: Record) -> dict[str, Any]:
    """The same of a record that was printed."""
    names = {"type", "severity", "fru_id", "fru_text", "time", "precise", "error_infos", "contexts", "vendor_info", "guid", "payload"}
    return {name: value for name, value in section.items() if name not in names | {"trailing"}}


def is_told(value: dict[str, Any], said: dict[str, Any], *, zero: tuple[str, ...] = ()) -> bool:
    """Whether every value was said; those named in `zero` may be zero without that."""
    return all(said.get(name) == number or (name.startswith(zero) and not any_bit(number)) for name, number in value.items())


def any_bit(value: Any) -> bool:
    return any(value) if isinstance(value, bytes) else bool(value)


def comes_from(section: Any, said: Record) -> bool:
    """Whether everything in a section of an event was printed of this section of a record."""
    return _entry_comes_from(section, said) and _body_comes_from(section, said)


def _entry_comes_from(section: Any, said: Record) -> bool:
    stamp = bcd(said["time"]) if "time" in said else None
    return (
        (section.fru_id is None or section.fru_id == guid(said.get("fru_id", "0" * 32)))
        and (section.fru_text is None or section.fru_text == said.get("fru_text"))
        and (section.timestamp is None or (section.timestamp == stamp and section.timestamp_precise == said["precise"]))
    )


def _body_comes_from(section: Any, said: Record) -> bool:
    if isinstance(section, OpaqueSection):
        return said["type"] == "unknown" and section.type == guid(said["guid"]) and said["payload"].startswith(section.payload)
    if section.type != said["type"]:
        return said["type"] == "unknown"
    if section.type == "arm_processor":
        return _arm_comes_from(section, said)
    if section.type == "firmware_record_reference":
        zero = ("record_type", "record_revision", "record_id")
        return is_told(fields_of(section), told(said) | {"record_revision": 0}, zero=zero) and said["trailing"].startswith(
            section.trailing or b""
        )
    return is_told(fields_of(section), told(said), zero=("aer_",))


def _arm_comes_from(section: Any, said: Record) -> bool:
    infos = [info_of(info) for info in section.error_infos]
    return (
        is_told(fields_of(section), told(said), zero=("midr_el1",))
        and all(any(_info_comes_from(info, there) for there in said["error_infos"]) for info in infos)
        and all(
            any(context.type == kind and registers.startswith(context.registers) for kind, registers in said["contexts"])
            for context in section.contexts
        )
        and said.get("vendor_info", b"").startswith(section.vendor_info or b"")
    )


def _info_comes_from(info: dict[str, Any], said: Record) -> bool:
    flags = info.pop("flags", 0)
    return flags & ~said.get("flags", 0) == 0 and is_told(info | {"flags": flags}, said | {"flags": flags})


def is_invented(reading: FoundError, record: Record) -> str | None:
    """What a reading says that the record does not, and that it does not name as assumed; None where there is nothing."""
    block = decode_structured(reading.event.status_block or b"")
    assumed = {assumption.field for assumption in reading.assumed}
    if block.severity != record["severity"] and "/status_block/severity" not in assumed:
        return f"block severity {block.severity}"
    if reading.event.notification.source_id not in (None, record["source"]):
        return f"source {reading.event.notification.source_id}"
    for index, section in enumerate(block.sections):
        said = [there for there in record["sections"] if comes_from(section, there)]
        if not said:
            return f"section {index}: {section!r}"
        severities = {there["severity"] for there in said}
        if section.severity not in severities and f"/status_block/sections/{index}/severity" not in assumed:
            return f"severity of section {index}: {section.severity}"
    return None


def is_all_there(reading: FoundError, record: Record) -> str | None:
    """What of a record that was printed whole a reading lacks; None where it lacks nothing."""
    block = decode_structured(reading.event.status_block or b"")
    if reading.event.notification.source_id != record["source"] or len(block.sections) != len(record["sections"]):
        return "source or sections"
    for section, said in zip(block.sections, record["sections"], strict=True):
        carried = fields_of(section)
        for name, value in told(said).items():
            if name != "record_revision" and carried.get(name) != value:
                return f"`{name}` of {section!r}"
        if section.fru_text != said.get("fru_text") or (section.timestamp is None) == ("time" in said):
            return f"the entry of {section!r}"
        if isinstance(section, OpaqueSection) and section.payload != said["payload"]:
            return f"the payload of {section!r}"
        if said["type"] == "arm_processor":
            infos = [info_of(info) for info in section.error_infos]
            there = (infos, [(context.type, context.registers) for context in section.contexts], section.vendor_info)
            if there != (said["error_infos"], said["contexts"], said.get("vendor_info")):
                return f"the structures of {section!r}"
    return None
