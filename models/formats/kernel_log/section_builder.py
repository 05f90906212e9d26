"""Conversion of a section's log lines into a section of a status block.

A field is present if its line is. A validation bit that covers several fields is set only if all of those that the kernel prints are
present. The exception is the AER registers: the kernel prints only some of them, and only if the bit is set.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from ras_triage.models.formats.kernel_log.grammar import ARM_FLAG_ORDER, CONTEXT_TYPES, FIRMWARE_RECORD_TYPES
from ras_triage.models.formats.kernel_log.section_lines import HexDump, LineFields, SectionLines
from ras_triage.models.records.block_fields import OpaqueSection
from ras_triage.models.records.checked_sections import make_section
from ras_triage.models.records.guid import FIRMWARE_RECORD_REFERENCE, guid
from ras_triage.models.sections.arm_processor import ArmErrorInfo
from ras_triage.models.sections.layout import Layout
from ras_triage.models.sections.pcie import AER_INFO_VALID, DEVICE_ID_VALID
from ras_triage.models.sections.registry import SECTIONS
from ras_triage.models.sections.section import StructuredSection
from ras_triage.models.severity import Severity

_MAX_FRU_TEXT: Final = 20
_ARM_RUNNING_STATE_VALID: Final = 1 << 2
_ARM_VENDOR_VALID: Final = 1 << 3
_CXL_DEVICE_ID_VALID: Final = 1 << 2
_CXL_RAS_REGISTERS: Final = 6
_CXL_RAS_LENGTH: Final = 88
_CXL_CAPABILITY_LENGTH: Final = 60
_UEFI_2_10_TYPES: Final = 0x1E
_CORRECTABLE: Final = (Severity.CORRECTED, Severity.INFORMATIONAL)


class BuiltSection(NamedTuple):
    """A section with its assumptions and losses."""

    section: StructuredSection | OpaqueSection
    assumed: tuple[tuple[str, str, str], ...]
    """Field within the section, assumed value, and reason."""
    lost: tuple[str, ...]
    numbering: frozenset[str]
    """Possible numberings of ARM error types as printed: `legacy`, `uefi-2.10`."""


_INFO: Final = "error_info"
_WIDTHS: Final = {
    kind: {field.name: field.width for field in layout.fields}
    for kind, layout in (*((name, section.LAYOUT) for name, section in SECTIONS.items()), (_INFO, ArmErrorInfo.LAYOUT))
}
"""Widths of the fields of a layout in bits, by section name."""


class _Notes:
    """Assumptions and losses that a builder collects."""

    def __init__(self, lines: SectionLines) -> None:
        self.assumed: list[tuple[str, str, str]] = []
        self.lost = list(lines.lost)
        self.numbering: set[str] = set()

    def fit(self, kind: str, fields: LineFields) -> LineFields:
        """Return the fields that the layout of a kind has and whose values fit; record the others as lost."""
        widths = _WIDTHS[kind]
        fitting: LineFields = {}
        for name, number in fields.items():
            if name not in widths:
                continue
            if isinstance(number, int) and (number < 0 or number >> widths[name]):
                self.lost.append(f"`{name}`: {number} does not fit into {widths[name]} bits")
            else:
                fitting[name] = number
        return fitting


def build_section(lines: SectionLines) -> BuiltSection:
    """Return the section that the lines describe. Its type must be known."""
    notes = _Notes(lines)
    if lines.kind is None or _is_refused_whole(lines):
        section: dict[str, Any] = _opaque(lines, notes)
    else:
        section = _BUILDERS[lines.kind](lines, notes)
    section |= _entry(lines, notes)
    if lines.refusals:
        notes.lost.append(f"the kernel refused the section as malformed: {'; '.join(lines.refusals)}")
    numbering = frozenset(notes.numbering)
    return BuiltSection(make_section(section), tuple(notes.assumed), tuple(notes.lost), numbering)


def _is_refused_whole(lines: SectionLines) -> bool:
    """Return whether the kernel printed nothing of a section because it is too short."""
    return bool(lines.refusals) and not lines.fields and lines.kind != "arm_processor"


def _entry(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    """Return the fields of the data entry around the section."""
    entry: dict[str, Any] = {"timestamp_precise": lines.is_precise}
    printed = {"severity": lines.severity, "fru_id": lines.fru_id, "timestamp": lines.timestamp}
    entry |= {name: value for name, value in printed.items() if value is not None}
    if lines.fru_text is not None and len(lines.fru_text) <= _MAX_FRU_TEXT:
        entry["fru_text"] = lines.fru_text
    elif lines.fru_text is not None:
        notes.lost.append("`fru_text` is longer than its field")
    return entry


def _opaque(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    """Return a section that the kernel prints as bytes, or not at all."""
    assert lines.type is not None
    dump = lines.dumps.get("payload", HexDump())
    payload = b"" if lines.is_in_words else bytes(dump.data if lines.length is None else dump.data[: lines.length])
    if lines.length is not None and len(payload) < lines.length:
        notes.lost.append(f"section body: {len(payload)} of {lines.length} bytes were printed")
    elif lines.length is None:
        notes.lost.append("section body: not printed by the kernel in a form that can be parsed")
    return {"type": lines.type, "payload": payload}


def _memory(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    fields = dict(lines.fields)
    row = fields.get("row")
    if isinstance(row, int) and row >> 16:
        fields |= {"row": row & 0xFFFF, "extended_row_bits": row >> 16}
        if row >> 18:
            notes.lost.append(f"`row`: {row} does not fit into 18 bits")
            del fields["row"], fields["extended_row_bits"]
    _drop_contradicting_bank(fields, notes)
    if "dimm" in fields:
        notes.lost.append("`module_handle`: the kernel prints the DIMM slot name instead")
    fields = notes.fit("memory", fields)
    return {"type": "memory", **fields}


def _drop_contradicting_bank(fields: LineFields, notes: _Notes) -> None:
    """Remove the bank if its value contradicts its group or address, which are printed too."""
    bank = fields.get("bank")
    halves = {"bank_group": 8, "bank_address": 0}
    if isinstance(bank, int) and any(name in fields and fields[name] != bank >> shift & 0xFF for name, shift in halves.items()):
        for name in ("bank", *halves):
            fields.pop(name, None)
        notes.lost.append("`bank`: contradicts its group or address")


def _pcie(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    layout, fields = SECTIONS["pcie"].LAYOUT, {**_recovery_registers(lines), **lines.fields}
    if all(f"tlp_{word}" in fields for word in range(4)):
        fields["aer_header_log"] = 0
    low, high = fields.get("serial_low"), fields.get("serial_high")
    if isinstance(low, int) and isinstance(high, int):
        fields["serial_number"] = high << 32 | low if low >> 32 == 0 else 1 << 64
    section: dict[str, Any] = {"type": "pcie", **notes.fit("pcie", fields)}
    if "aer_header_log" in section:
        section["aer_header_log"] = struct.pack("<4I", *(fields[f"tlp_{word}"] for word in range(4)))
    if "class_code" in section:
        notes.assumed.append(("class_code", "highest byte first", "kernels before 5.8 print the bytes in reverse order"))
    unsure_bits = 0
    group = ("vendor_id", "device_id", "class_code", "function", "device", "segment", "bus", "secondary_bus", "slot")
    if not lines.recovery:  # the kernel recovers only a device whose validation bit is set
        unsure_bits |= _partial_group_bit(section, group, DEVICE_ID_VALID, notes)
    if any(name.startswith("aer_") for name in section):
        if not lines.recovery:
            unsure_bits |= _partial_group_bit(section, ("aer_uncorrectable_status", "aer_uncorrectable_mask"), AER_INFO_VALID, notes)
        notes.assumed.append(("aer_capabilities_and_control", "0, like all AER registers not printed", "the kernel prints only some"))
    else:
        why = "the kernel prints AER registers for fatal sections only, and no message of error recovery is in the log"
        notes.assumed.append(("validation_bits", "AER registers not valid", why))
    notes.lost.append("`capability_structure`: not printed by the kernel")
    return _with_validation_bits(section, layout, unsure_bits)


def _recovery_registers(lines: SectionLines) -> LineFields:
    """Return the fields that error recovery prints: the correctable registers for a corrected section (`pci_print_aer`)."""
    printed = dict(lines.recovery)
    is_correctable = lines.severity in _CORRECTABLE and "severity" not in printed
    kind = "correctable" if is_correctable else "uncorrectable"
    names = {"status": f"aer_{kind}_status", "mask": f"aer_{kind}_mask", "severity": "aer_uncorrectable_severity"}
    return {names.get(name, name): number for name, number in printed.items()}


def _partial_group_bit(section: dict[str, Any], group: tuple[str, ...], bit: int, notes: _Notes) -> int:
    """Return `bit` if some but not all of the fields that it covers are present, else 0."""
    there = [name for name in group if name in section]
    if not there or len(there) == len(group):
        return 0
    missing = ", ".join(f"`{name}`" for name in group if name not in section)
    notes.lost.append(f"{missing}: not printed, so the validation bit shared with the other fields is left clear")
    return bit


def _with_validation_bits(section: dict[str, Any], layout: Layout, unsure_bits: int, *, also: int = 0) -> dict[str, Any]:
    """Return the section with explicit validation bits if they do not follow from the fields."""
    if unsure_bits:
        valid_bits = also
        for field in layout.fields:
            valid_bits |= field.valid if field.name in section else 0
        section["validation_bits"] = valid_bits & ~unsure_bits
    return section


def _generic_processor(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    notes.lost.append("`cpu_brand`: not printed by the kernel")
    return {"type": "generic_processor", **notes.fit("generic_processor", lines.fields)}


def _arm_processor(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    layout, fields = SECTIONS["arm_processor"].LAYOUT, dict(lines.fields)
    for name in ("psci_state", "section_length"):
        number = fields.get(name)
        if isinstance(number, int) and -(1 << 31) <= number < 0:
            fields[name] = number & 0xFFFFFFFF  # printed with %d
    section: dict[str, Any] = {"type": "arm_processor", **notes.fit("arm_processor", fields)}
    if "midr_el1" not in section:
        notes.assumed.append(("midr_el1", "0", "its line is missing, and the field has no validation bit"))
    section["error_infos"] = [info for fields in lines.infos if (info := _error_info(fields, notes)) is not None]
    if section["error_infos"]:
        why = "the kernel prints the count without checking the bit"
        notes.assumed.append(("error_infos/*/validation_bits", "the bit of the error count is set", why))
        notes.lost.append("version and length of error information structures")
    section["contexts"] = [context for words, dump in lines.contexts if (context := _context(words, dump, notes)) is not None]
    vendor = _vendor_info(lines, notes)
    if vendor is not None:
        section["vendor_info"] = vendor
    _note_refused_parts(section, lines, notes)
    unsure_bits = _partial_group_bit(section, ("running_state", "psci_state"), _ARM_RUNNING_STATE_VALID, notes)
    return _with_validation_bits(section, layout, unsure_bits, also=0 if vendor is None else _ARM_VENDOR_VALID)


def _note_refused_parts(section: dict[str, Any], lines: SectionLines, notes: _Notes) -> None:
    """Record what is unknown of a section that the kernel refused: only its length and counts were printed."""
    if "err_info_num" in section:
        size = lines.fields.get("size")
        stated = f" of {size} bytes" if isinstance(size, int) else ""
        notes.lost.append(f"the malformed section{stated}: only its MIDR, stated length and error count are printed")
    elif lines.refusals:
        notes.lost.append("section body: not printed from the refused context on")


def _error_info(fields: LineFields, notes: _Notes) -> dict[str, Any] | None:
    kind = fields.get("error_type", fields.get("legacy_type"))
    info: dict[str, Any] = {"error_type": kind}
    if not isinstance(kind, int):
        notes.lost.append("an error information structure without a printed type")
        return None
    if isinstance(errors := fields.get("errors"), int) and errors > 0:
        info["multiple_error"] = errors - 1
    flags = sum(1 << bit for bit in range(4) if f"order_{ARM_FLAG_ORDER + bit}" in fields)
    if flags:
        info["flags"] = flags
    names = ("error_information", "virtual_fault_address", "physical_fault_address")
    info |= {name: fields[name] for name in names if name in fields}
    fitting: dict[str, Any] = {**notes.fit(_INFO, info)}
    if "error_type" not in fitting:
        return None
    notes.numbering |= _numbering(kind, is_legacy="legacy_type" in fields)
    return fitting


def _numbering(kind: int, *, is_legacy: bool) -> set[str]:
    """Return the numbering in which the kernel printed an error type, if the value is valid in it."""
    if is_legacy:
        return {"legacy"} if kind < 4 else set()
    if kind == 0:
        return {"legacy"}  # only the legacy numbering has a type 0
    return {"uefi-2.10"} if kind & ~_UEFI_2_10_TYPES == 0 else set()


def _context(words: str | None, dump: HexDump, notes: _Notes) -> dict[str, Any] | None:
    if words not in CONTEXT_TYPES:
        notes.lost.append("a context without a printed type" if words is None else f"a context of unknown type `{words}`")
        return None
    if dump.is_broken:
        notes.lost.append(f"registers of a context after the first {len(dump.data)} bytes: a row is missing")
    return {"type": CONTEXT_TYPES.index(words), "registers": bytes(dump.data)}


def _vendor_info(lines: SectionLines, notes: _Notes) -> bytes | None:
    length, dump = lines.fields.get("vendor_bytes"), lines.dumps.get("vendor", HexDump())
    if not isinstance(length, int):
        return None
    data = bytes(dump.data[: max(length, 0)])
    if len(data) < length:
        notes.lost.append(f"vendor information: {len(data)} of {length} bytes were printed")
    why = "the kernel prints the bytes behind the contexts without checking the bit"
    notes.assumed.append(("vendor_info", "validation bit set", why))
    return data


def _firmware_record_reference(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    """Return the body as bytes: the length of its structure depends on the revision (`cper_print_fw_err`)."""
    fields = lines.fields
    words, revision = fields.get("record_type"), fields.get("record_revision")
    if words not in FIRMWARE_RECORD_TYPES or not isinstance(revision, int) or not 0 <= revision < 256:
        notes.lost.append("section body: record type or revision not printed in a known form")
        return {"type": FIRMWARE_RECORD_REFERENCE, "payload": b""}
    head = struct.pack("<BB6x", FIRMWARE_RECORD_TYPES.index(str(words)), revision)
    identifier, name = fields.get("record_id"), fields.get("record_guid")
    if revision == 0 and isinstance(identifier, int):
        head += struct.pack("<Q", identifier)
    elif revision == 2 and isinstance(name, str):
        head += bytes(8) + guid(name)
    elif revision != 1:
        notes.lost.append("section body from the record identifier on: not printed")
        return {"type": FIRMWARE_RECORD_REFERENCE, "payload": head}
    notes.lost.append("the section length: missing rows at its end cannot be detected")
    return {"type": FIRMWARE_RECORD_REFERENCE, "payload": head + bytes(lines.dumps.get("payload", HexDump()).data)}


def _cxl_protocol(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    layout, fields = SECTIONS["cxl_protocol"].LAYOUT, dict(lines.fields)
    parts = [fields.get(name) for name in ("segment", "bus", "device", "function")]
    numbers = [part for part in parts if isinstance(part, int)]
    if len(numbers) == len(parts):
        segment, bus, device, function = numbers
        fields["agent_address"] = segment << 24 | bus << 16 | device << 8 | function & 0xFF
    elif "rcrb" in fields:
        fields["agent_address"] = fields["rcrb"]
    low, high = fields.get("serial_low"), fields.get("serial_high")
    if isinstance(low, int) and isinstance(high, int):
        fields["serial_number"] = high << 32 | low
    for name in ("dvsec_length", "error_log_length"):
        fields.pop(name, None)
    section: dict[str, Any] = {"type": "cxl_protocol", **notes.fit("cxl_protocol", fields)}
    capability = lines.dumps.get("payload", HexDump()).data
    if len(capability) == _CXL_CAPABILITY_LENGTH:
        section["capability_structure"] = bytes(capability)
    elif capability:
        notes.lost.append(f"`capability_structure`: {len(capability)} of {_CXL_CAPABILITY_LENGTH} bytes were printed")
    section |= _cxl_log(lines, notes)
    group = ("vendor_id", "device_id", "subsystem_vendor_id", "subsystem_id", "class_code", "slot")
    return _with_validation_bits(
        section, layout, _partial_group_bit(section, group, _CXL_DEVICE_ID_VALID, notes), also=_cxl_behind(section)
    )


def _cxl_behind(section: dict[str, Any]) -> int:
    return ("dvsec" in section and 1 << 5) | ("error_log" in section and 1 << 6)


def _cxl_log(lines: SectionLines, notes: _Notes) -> dict[str, Any]:
    """Return DVSEC and error log, each only if printed completely."""
    parts: dict[str, Any] = {}
    dvsec = bytes(lines.dumps.get("dvsec", HexDump()).data)
    length = lines.fields.get("dvsec_length")
    if isinstance(length, int) and len(dvsec) == length:
        parts["dvsec"] = dvsec
    elif isinstance(length, int):
        notes.lost.append(f"`dvsec`: {len(dvsec)} of {length} bytes were printed")
    registers = [lines.fields.get(f"ras_{number}") for number in range(_CXL_RAS_REGISTERS)]
    words = [register for register in registers if isinstance(register, int)]
    log = struct.pack(f"<{len(words)}I", *words) + bytes(lines.dumps.get("header_log", HexDump()).data)
    length = lines.fields.get("error_log_length")
    if length == len(log) == _CXL_RAS_LENGTH and len(words) == _CXL_RAS_REGISTERS:
        parts["error_log"] = log
    elif isinstance(length, int):
        notes.lost.append(f"`error_log`: not all of its {length} bytes were printed")
    return parts


_BUILDERS: Final = {
    "memory": _memory,
    "pcie": _pcie,
    "generic_processor": _generic_processor,
    "arm_processor": _arm_processor,
    "firmware_record_reference": _firmware_record_reference,
    "cxl_protocol": _cxl_protocol,
}
