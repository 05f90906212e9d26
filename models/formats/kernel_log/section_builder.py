"""Sections of a structured status block from the lines that a kernel printed of them.

A field is there if its line is. Where one validation bit vouches for several fields it is set only if all of those that the kernel prints
are there, except for the AER registers: the kernel prints some of them, and that only where the bit is set.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from ras_triage.models.formats.kernel_log.grammar import ARM_FLAG_PLACE, CONTEXT_TYPES, FIRMWARE_RECORD_TYPES
from ras_triage.models.formats.kernel_log.section_lines import Fields, HexDump, SectionLines
from ras_triage.models.records.block_fields import OpaqueSection
from ras_triage.models.records.guid import FIRMWARE_RECORD_REFERENCE, guid
from ras_triage.models.sections.arm_processor import ArmContext, ArmErrorInfo
from ras_triage.models.sections.layout import Layout
from ras_triage.models.sections.pcie import AER_INFO_VALID, DEVICE_ID_VALID
from ras_triage.models.sections.registry import SECTIONS
from ras_triage.models.sections.section import BodySection

_MAX_FRU_TEXT: Final = 20
_ARM_RUNNING_STATE_VALID: Final = 1 << 2
_ARM_VENDOR_VALID: Final = 1 << 3
_CXL_DEVICE_ID_VALID: Final = 1 << 2
_CXL_RAS_REGISTERS: Final = 6
_CXL_RAS_LENGTH: Final = 88
_CXL_CAPABILITY_LENGTH: Final = 60
_UEFI_2_10_TYPES: Final = 0x1E


class BuiltSection(NamedTuple):
    """A section, and what is to be said of it."""

    section: BodySection | OpaqueSection
    assumed: tuple[tuple[str, str, str], ...]
    """Field within the section, what was taken, and why."""
    lost: tuple[str, ...]
    numbering: frozenset[str]
    """How ARM error types are numbered, as far as the log tells: `legacy`, `uefi-2.10`."""


class _Work:
    """What a builder writes down beside the fields."""

    def __init__(self, lines: SectionLines) -> None:
        self.assumed: list[tuple[str, str, str]] = []
        self.lost = list(lines.lost)
        self.numbering: set[str] = set()

    def fit(self, layout: Layout, fields: Fields) -> Fields:
        """The fields that the layout has and that fit into it."""
        widths = {item.name: item.width for item in layout.items}
        fitting: Fields = {}
        for name, number in fields.items():
            if name not in widths:
                continue
            if isinstance(number, int) and (number < 0 or number >> widths[name]):
                self.lost.append(f"`{name}`: {number} does not fit into {widths[name]} bits")
            else:
                fitting[name] = number
        return fitting


def build_section(lines: SectionLines) -> BuiltSection:
    """The section as far as the log tells it. Its type has to be known."""
    work = _Work(lines)
    if lines.kind is None or _is_refused_whole(lines):
        section: dict[str, Any] = _opaque(lines, work)
    else:
        section = _BUILDERS[lines.kind](lines, work)
    section |= _entry(lines, work)
    if lines.refusals:
        work.lost.append(f"the kernel refused the section as malformed: {'; '.join(lines.refusals)}")
    numbering = frozenset(work.numbering)
    return BuiltSection(_made(section), tuple(work.assumed), tuple(work.lost), numbering)


_EMPTY: Final[dict[str, BodySection]] = {name: section.model_construct(type=name) for name, section in SECTIONS.items()}
_EMPTY_OPAQUE: Final = OpaqueSection.model_construct(type=b"")
_EMPTY_INFO: Final = ArmErrorInfo.model_construct()


def _made(section: dict[str, Any]) -> BodySection | OpaqueSection:
    """The section's value; every field fits, so there is nothing to validate."""
    if isinstance(section["type"], bytes):
        return _EMPTY_OPAQUE.model_copy(update=section)
    if section["type"] == "arm_processor":
        section["error_infos"] = tuple(_EMPTY_INFO.model_copy(update=info) for info in section["error_infos"])
        section["contexts"] = tuple(ArmContext.model_construct(**context) for context in section["contexts"])
    return _EMPTY[section["type"]].model_copy(update=section)


def _is_refused_whole(lines: SectionLines) -> bool:
    """Whether the kernel printed nothing of a section because it is too short."""
    return bool(lines.refusals) and not lines.fields and lines.kind != "arm_processor"


def _entry(lines: SectionLines, work: _Work) -> dict[str, Any]:
    """The data entry around the section."""
    entry: dict[str, Any] = {"timestamp_precise": lines.is_precise}
    told = {"severity": lines.severity, "fru_id": lines.fru_id, "timestamp": lines.timestamp}
    entry |= {name: told_value for name, told_value in told.items() if told_value is not None}
    if lines.fru_text is not None and len(lines.fru_text) <= _MAX_FRU_TEXT:
        entry["fru_text"] = lines.fru_text
    elif lines.fru_text is not None:
        work.lost.append("`fru_text` is longer than its field")
    return entry


def _opaque(lines: SectionLines, work: _Work) -> dict[str, Any]:
    """A section that the kernel prints as bytes, or not at all."""
    assert lines.type is not None
    dump = lines.dumps.get("payload", HexDump())
    payload = b"" if lines.is_in_words else bytes(dump.data if lines.length is None else dump.data[: lines.length])
    if lines.length is not None and len(payload) < lines.length:
        work.lost.append(f"section body: {len(payload)} of {lines.length} bytes were printed")
    elif lines.length is None:
        work.lost.append("section body: the kernel prints nothing of it that could be read back")
    return {"type": lines.type, "payload": payload}


def _memory(lines: SectionLines, work: _Work) -> dict[str, Any]:
    fields = dict(lines.fields)
    row = fields.get("row")
    if isinstance(row, int) and row >> 16:
        fields |= {"row": row & 0xFFFF, "extended_row_bits": row >> 16}
        if row >> 18:
            work.lost.append(f"`row`: {row} does not fit into 18 bits")
            del fields["row"], fields["extended_row_bits"]
    _settle_bank(fields, work)
    if "dimm" in fields:
        work.lost.append("`module_handle`: the kernel prints the name of the slot in its place")
    fields = work.fit(SECTIONS["memory"].LAYOUT, fields)
    return {"type": "memory", **fields}


def _settle_bank(fields: Fields, work: _Work) -> None:
    """The bank is printed whole and in its halves; where they contradict each other none of them is sure."""
    bank = fields.get("bank")
    halves = {"bank_group": 8, "bank_address": 0}
    if isinstance(bank, int) and any(name in fields and fields[name] != bank >> shift & 0xFF for name, shift in halves.items()):
        for name in ("bank", *halves):
            fields.pop(name, None)
        work.lost.append("`bank`: it contradicts its own group or address")


def _pcie(lines: SectionLines, work: _Work) -> dict[str, Any]:
    layout, fields = SECTIONS["pcie"].LAYOUT, dict(lines.fields)
    if all(f"tlp_{word}" in fields for word in range(4)):
        fields["aer_header_log"] = 0
    low, high = fields.get("serial_low"), fields.get("serial_high")
    if isinstance(low, int) and isinstance(high, int):
        fields["serial_number"] = high << 32 | low if low >> 32 == 0 else 1 << 64
    section: dict[str, Any] = {"type": "pcie", **work.fit(layout, fields)}
    if "aer_header_log" in section:
        section["aer_header_log"] = struct.pack("<4I", *(lines.fields[f"tlp_{word}"] for word in range(4)))
    if "class_code" in section:
        work.assumed.append(("class_code", "highest byte first", "kernels before 5.8 print its bytes the other way round"))
    doubtful = 0
    group = ("vendor_id", "device_id", "class_code", "function", "device", "segment", "bus", "secondary_bus", "slot")
    doubtful |= _doubt(section, group, DEVICE_ID_VALID, work)
    if any(name.startswith("aer_") for name in section):
        doubtful |= _doubt(section, ("aer_uncorrectable_status", "aer_uncorrectable_mask"), AER_INFO_VALID, work)
        work.assumed.append(("aer_capabilities_and_control", "0, like every AER register that is not printed", "the kernel prints a few"))
    else:
        work.lost.append("the AER registers: the kernel prints them for fatal sections only, so whether there are any is not known")
    work.lost.append("`capability_structure`: the kernel does not print it")
    return _with_doubts(section, layout, doubtful)


def _doubt(section: dict[str, Any], group: tuple[str, ...], bit: int, work: _Work) -> int:
    """The bit, if some but not all of the fields are there that it vouches for."""
    there = [name for name in group if name in section]
    if not there or len(there) == len(group):
        return 0
    missing = ", ".join(f"`{name}`" for name in group if name not in section)
    work.lost.append(f"{missing}: not printed, so the validation bit of the fields beside is left clear")
    return bit


def _with_doubts(section: dict[str, Any], layout: Layout, doubtful: int, *, also: int = 0) -> dict[str, Any]:
    """The section with its validation bits spelled out, where they do not just follow from the fields."""
    if doubtful:
        vouched = also
        for item in layout.items:
            vouched |= item.valid if item.name in section else 0
        section["validation_bits"] = vouched & ~doubtful
    return section


def _generic_processor(lines: SectionLines, work: _Work) -> dict[str, Any]:
    work.lost.append("`cpu_brand`: the kernel does not print it")
    return {"type": "generic_processor", **work.fit(SECTIONS["generic_processor"].LAYOUT, lines.fields)}


def _arm_processor(lines: SectionLines, work: _Work) -> dict[str, Any]:
    layout, fields = SECTIONS["arm_processor"].LAYOUT, dict(lines.fields)
    for name in ("psci_state", "section_length"):
        number = fields.get(name)
        if isinstance(number, int) and -(1 << 31) <= number < 0:
            fields[name] = number & 0xFFFFFFFF  # printed as if it were signed
    section: dict[str, Any] = {"type": "arm_processor", **work.fit(layout, fields)}
    if "midr_el1" not in section:
        work.assumed.append(("midr_el1", "0", "its line is missing, and no validation bit tells that it is absent"))
    section["error_infos"] = [info for fields in lines.infos if (info := _error_info(fields, work)) is not None]
    if section["error_infos"]:
        why = "the kernel prints the count without looking at the bit"
        work.assumed.append(("error_infos/*/validation_bits", "the bit of the error count is set", why))
        work.lost.append("version and length of error information structures")
    section["contexts"] = [context for words, dump in lines.contexts if (context := _context(words, dump, work)) is not None]
    vendor = _vendor_info(lines, work)
    if vendor is not None:
        section["vendor_info"] = vendor
    _settle_refused(section, lines, work)
    doubtful = _doubt(section, ("running_state", "psci_state"), _ARM_RUNNING_STATE_VALID, work)
    return _with_doubts(section, layout, doubtful, also=0 if vendor is None else _ARM_VENDOR_VALID)


def _settle_refused(section: dict[str, Any], lines: SectionLines, work: _Work) -> None:
    """A section whose length or counts the kernel found wrong keeps them, and nothing else is known of it."""
    if "err_info_num" in section:
        size = lines.fields.get("size")
        stated = f" of {size} bytes" if isinstance(size, int) else ""
        work.lost.append(f"the malformed section{stated}: its MIDR, stated length and error count are printed, and nothing else")
    elif lines.refusals:
        work.lost.append("section body: the kernel printed nothing from the context on that it refused")


def _error_info(fields: Fields, work: _Work) -> dict[str, Any] | None:
    kind = fields.get("error_type", fields.get("legacy_type"))
    info: dict[str, Any] = {"error_type": kind}
    if not isinstance(kind, int):
        work.lost.append("an error information structure whose type was not printed")
        return None
    if isinstance(errors := fields.get("errors"), int) and errors > 0:
        info["multiple_error"] = errors - 1
    flags = sum(1 << bit for bit in range(4) if f"place_{ARM_FLAG_PLACE + bit}" in fields)
    if flags:
        info["flags"] = flags
    names = ("error_information", "virtual_fault_address", "physical_fault_address")
    info |= {name: fields[name] for name in names if name in fields}
    fitting: dict[str, Any] = {**work.fit(ArmErrorInfo.LAYOUT, info)}
    if "error_type" not in fitting:
        return None
    work.numbering |= _numbering("legacy_type" in fields, kind)
    return fitting


def _numbering(is_legacy: bool, kind: int) -> set[str]:
    """How the kernel read an error type, where that is a reading that makes sense."""
    if is_legacy:
        return {"legacy"} if kind < 4 else set()
    if kind == 0:
        return {"legacy"}  # no bit is set: only the older numbering has such a type
    return {"uefi-2.10"} if kind & ~_UEFI_2_10_TYPES == 0 else set()


def _context(words: str | None, dump: HexDump, work: _Work) -> dict[str, Any] | None:
    if words not in CONTEXT_TYPES:
        work.lost.append("a context whose type was not printed" if words is None else f"a context of type `{words}`")
        return None
    if dump.is_broken:
        work.lost.append(f"registers of a context: {len(dump.data)} bytes were printed without a gap")
    return {"type": CONTEXT_TYPES.index(words), "registers": bytes(dump.data)}


def _vendor_info(lines: SectionLines, work: _Work) -> bytes | None:
    length, dump = lines.fields.get("vendor_bytes"), lines.dumps.get("vendor", HexDump())
    if not isinstance(length, int):
        return None
    data = bytes(dump.data[: max(length, 0)])
    if len(data) < length:
        work.lost.append(f"vendor information: {len(data)} of {length} bytes were printed")
    why = "the kernel prints what lies behind the contexts without looking at the bit"
    work.assumed.append(("vendor_info", "its validation bit is set", why))
    return data


def _firmware_record_reference(lines: SectionLines, work: _Work) -> dict[str, Any]:
    """The body in bytes: how much of it is structure hangs on the revision (`cper_print_fw_err`)."""
    fields = lines.fields
    words, revision = fields.get("record_type"), fields.get("record_revision")
    if words not in FIRMWARE_RECORD_TYPES or not isinstance(revision, int) or not 0 <= revision < 256:
        work.lost.append("section body: record type and revision were not printed as numbers")
        return {"type": FIRMWARE_RECORD_REFERENCE, "payload": b""}
    head = struct.pack("<BB6x", FIRMWARE_RECORD_TYPES.index(str(words)), revision)
    identifier, name = fields.get("record_id"), fields.get("record_guid")
    if revision == 0 and isinstance(identifier, int):
        head += struct.pack("<Q", identifier)
    elif revision == 2 and isinstance(name, str):
        head += bytes(8) + guid(name)
    elif revision != 1:
        work.lost.append("section body: it is known up to the record identifier, which was not printed")
        return {"type": FIRMWARE_RECORD_REFERENCE, "payload": head}
    work.lost.append("how long the section is: rows missing at its end leave no trace")
    return {"type": FIRMWARE_RECORD_REFERENCE, "payload": head + bytes(lines.dumps.get("payload", HexDump()).data)}


def _cxl_protocol(lines: SectionLines, work: _Work) -> dict[str, Any]:
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
    section: dict[str, Any] = {"type": "cxl_protocol", **work.fit(layout, fields)}
    capability = lines.dumps.get("payload", HexDump()).data
    if len(capability) == _CXL_CAPABILITY_LENGTH:
        section["capability_structure"] = bytes(capability)
    elif capability:
        work.lost.append(f"`capability_structure`: {len(capability)} of {_CXL_CAPABILITY_LENGTH} bytes were printed")
    section |= _cxl_log(lines, work)
    group = ("vendor_id", "device_id", "subsystem_vendor_id", "subsystem_id", "class_code", "slot")
    return _with_doubts(section, layout, _doubt(section, group, _CXL_DEVICE_ID_VALID, work), also=_cxl_behind(section))


def _cxl_behind(section: dict[str, Any]) -> int:
    return ("dvsec" in section and 1 << 5) | ("error_log" in section and 1 << 6)


def _cxl_log(lines: SectionLines, work: _Work) -> dict[str, Any]:
    """DVSEC and error log, whole or not at all."""
    parts: dict[str, Any] = {}
    dvsec = bytes(lines.dumps.get("dvsec", HexDump()).data)
    length = lines.fields.get("dvsec_length")
    if isinstance(length, int) and len(dvsec) == length:
        parts["dvsec"] = dvsec
    elif isinstance(length, int):
        work.lost.append(f"`dvsec`: {len(dvsec)} of {length} bytes were printed")
    registers = [lines.fields.get(f"ras_{number}") for number in range(_CXL_RAS_REGISTERS)]
    words = [register for register in registers if isinstance(register, int)]
    log = struct.pack(f"<{len(words)}I", *words) + bytes(lines.dumps.get("header_log", HexDump()).data)
    length = lines.fields.get("error_log_length")
    if length == len(log) == _CXL_RAS_LENGTH and len(words) == _CXL_RAS_REGISTERS:
        parts["error_log"] = log
    elif isinstance(length, int):
        work.lost.append(f"`error_log`: {length} bytes of which the kernel did not print all")
    return parts


_BUILDERS: Final = {
    "memory": _memory,
    "pcie": _pcie,
    "generic_processor": _generic_processor,
    "arm_processor": _arm_processor,
    "firmware_record_reference": _firmware_record_reference,
    "cxl_protocol": _cxl_protocol,
}
