"""Kernel printk formats of error records, in print order.

Two generations are in use. Where they differ, both are listed: locations (`node: 1` up to 5.19, `node:1` since 6.0), the memory error
status (a number, or text followed by the number), ARM error types (`0, cache error`, or `0x02: cache error` since 6.19 and in the stable
releases with that back-port).

Sources: `cper_estatus_print` and what it calls in drivers/firmware/efi/cper.c, cper-arm.c and cper_cxl.c, and `__ghes_print_estatus` in
drivers/acpi/apei/ghes.c, Linux 5.4 to 7.3.

A format is written as in the source, with the fields in braces: `{d:name}` decimal, `{x:name}` hexadecimal of any length,
`{xN:name}` `0x` and N digits, `{hN:name}` N digits, `{w:name}` a word, `{t:name}` any text, `{g:name}` a GUID, `{}` redundant text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ras_triage.models.frozen import frozen
from ras_triage.models.records.guid import (
    ARM_PROCESSOR,
    CXL_DRAM,
    CXL_GENERAL_MEDIA,
    CXL_MEMORY_MODULE,
    CXL_PROTOCOL,
    FIRMWARE_RECORD_REFERENCE,
    GENERIC_PROCESSOR,
    MEMORY,
    PCIE,
    Guid,
    guid,
)

_TOKEN = re.compile(r"\{(?:([dxhwtg])(\d*):(\w+))?\}")
_GUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@frozen
class PrintkFormat:
    """One printk format."""

    pattern: re.Pattern[str]
    bases: tuple[tuple[str, int], ...]
    """The base of each numeric field; a field that is not listed is text."""
    first_word: str
    """The start of the line, up to the first space."""
    is_open: bool
    """Whether the format ends in a number of variable length, or in free text."""

    def read(self, text: str) -> dict[str, int | str] | None:
        """Parse a line; return its fields, or None if it does not match this format."""
        found = self.pattern.fullmatch(text)
        if found is None:
            return None
        fields: dict[str, int | str] = dict(found.groupdict())
        for name, base in self.bases:
            fields[name] = int(fields[name], base)  # type: ignore[arg-type]
        return fields


def _token(kind: str, digits: str, name: str) -> str:
    if not kind:
        return ".*"
    width = f"{{{digits}}}" if digits else "{1,16}"
    body = {"d": r"-?\d{1,20}", "x": f"0x[0-9a-f]{width}", "h": f"[0-9a-f]{width}", "w": r"\w+", "t": ".+", "g": _GUID}[kind]
    return f"(?P<{name}>{body})"


def _format(text: str) -> PrintkFormat:
    parts, bases, end, last = "", [], 0, None
    for last in _TOKEN.finditer(text):
        kind, digits, name = last.groups()
        parts += re.escape(text[end : last.start()]) + _token(kind, digits, name)
        if kind in ("d", "x", "h"):
            bases.append((name, 10 if kind == "d" else 16))
        end = last.end()
    is_open = last is not None and end == len(text) and (last[1] in ("d", "t") or (last[1] in ("x", "h") and not last[2]))
    return PrintkFormat(re.compile(parts + re.escape(text[end:])), tuple(bases), text.partition(" ")[0], is_open)


Grammar = tuple[tuple[PrintkFormat, ...], ...]
"""Alternative formats by print order: no line is followed by one of a lower order; alternatives of one order exclude each other."""


def _grammar(*formats: str | tuple[str, ...]) -> Grammar:
    return tuple(tuple(map(_format, (line,) if isinstance(line, str) else line)) for line in formats)


SEVERITIES: Final = {"recoverable": 0, "fatal": 1, "corrected": 2, "info": 3, "unknown": None}
"""`severity_strs`; any other number is printed as `unknown`."""

HEAD: Final = re.compile(
    r"(?P<start>Hardware error from APEI Generic Hardware Error Source: (?P<source>\d{1,5}))"
    r"|(?P<corrected>It has been corrected by h/w and requires no further action)"
    r"|(?P<severity>event severity:? (?P<block>recoverable|fatal|corrected|info|unknown))"
    r"|(?P<stamp>(?:(?P<precise>precise|imprecise) )?tstamp: (?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d))"
    r"|(?P<error>Error (?P<index>\d{1,5}), type: (?P<section>recoverable|fatal|corrected|info|unknown))"
    rf"|(?P<fru_id>fru_id: (?P<fru_guid>{_GUID}))"
    r"|(?P<fru_text>fru_text: (?P<fru>.*))"
    r"|(?P<type>section_type: (?P<name>.+))"
    rf"|(?P<unknown>section type: unknown, (?P<guid>{_GUID}))"
    r"|(?P<length>section length: (?P<bytes>0x[0-9a-f]{1,8}))"
)
"""Record and section header lines (`__ghes_print_estatus`, `cper_estatus_print`, `cper_estatus_print_section`)."""


@lru_cache(maxsize=256)
def match_head(text: str) -> re.Match[str] | None:
    """Return the match of `HEAD`; the records of a log repeat most of these lines."""
    return HEAD.fullmatch(text)


OPEN_HEADS: Final = frozenset({"start", "fru_text", "length", "type"})
"""Header lines that end in a number of variable length, or in free text."""

DUMP: Final = re.compile(r"(?P<at>[0-9a-f]{8}): (?P<words>(?:[0-9a-f]{8}(?: |$)){1,4}|(?:[0-9a-f]{2}(?: |$)){1,16})(?:\s.*)?")
"""`print_hex_dump` in groups of four bytes, or of one where the row length is not a multiple of four."""

REFUSALS: Final = re.compile(
    r"section length: (?P<section_length>-?\d{1,10})(?:, CPER size: (?P<size>\d{1,10}))?"
    r"|(?P<verdict>section length is too (?:small|big))|firmware-generated error record is incorrect"
    r"|ERR_INFO_NUM is (?P<err_info_num>\d{1,5})|(?P<context>Invalid context type: \d{1,5} \(max: \d{1,3}\))"
)
"""Messages of `cper_print_proc_arm` about a section that it does not print."""

FIRMWARE_WARNINGS: Final = re.compile(r"\[Firmware Warn\]: ?(error section length is too small|valid bits set for fields beyond structure)")
"""Messages about a section that the kernel does not print; they carry no record number."""

LOCATION: Final = re.compile(r"(?:[a-z_]+: ?(?:0x[0-9a-f]{0,16}|\d{1,10})\s+)*[a-z_]+: ?(?:0x[0-9a-f]{0,16}|\d{1,10})")
"""`cper_mem_err_location`: one line, which the kernel's buffer may truncate."""
LOCATION_ITEM: Final = re.compile(r"([a-z_]+): ?(0x[0-9a-f]{16}|\d{1,10})(?!\S)")
LOCATION_FIELDS: Final = {
    "node": "node",
    "card": "card",
    "module": "module",
    "rank": "rank",
    "bank": "bank",
    "bank_group": "bank_group",
    "bank_address": "bank_address",
    "device": "device",
    "row": "row",
    "column": "column",
    "bit_position": "bit_position",
    "requestor_id": "requestor_id",
    "responder_id": "responder_id",
    "target_id": "target_id",
    "chip_id": "chip_identification",
}
"""Field names in the log and in the specification, in print order."""

_MEMORY = _grammar(
    ("error_status: {x16:error_status}", "error_status: {} ({x16:error_status})"),
    "physical_address: {x16:physical_address}",
    "physical_address_mask: {x16:physical_address_mask}",
    (),  # the location
    "error_type: {d:memory_error_type}, {}",
    (
        "DIMM location: not present. DMI handle: {x4:module_handle}",
        "DIMM location: not present. DMI handle:{x4:module_handle}",
        "DIMM location: {t:dimm}",
    ),
)
LOCATION_ORDER: Final = 3

_PCIE = _grammar(
    "port_type: {d:port_type}, {}",
    "version: {d:version_major}.{d:version_minor}",
    "command: {x4:command}, status: {x4:status}",
    "device_id: {h4:segment}:{h2:bus}:{h2:device}.{h:function}",
    "slot: {d:slot}",
    "secondary_bus: {x2:secondary_bus}",
    "vendor_id: {x4:vendor_id}, device_id: {x4:device_id}",
    "class_code: {h6:class_code}",
    "serial number: {x:serial_low}, {x:serial_high}",
    "bridge: secondary_status: {x4:bridge_secondary_status}, control: {x4:bridge_control}",
    "aer_cor_status: {x8:aer_correctable_status}, aer_cor_mask: {x8:aer_correctable_mask}",
    "aer_uncor_status: {x8:aer_uncorrectable_status}, aer_uncor_mask: {x8:aer_uncorrectable_mask}",
    "aer_uncor_severity: {x8:aer_uncorrectable_severity}",
    "TLP Header: {h8:tlp_0} {h8:tlp_1} {h8:tlp_2} {h8:tlp_3}",
)

_NAMED_BITS = "|".join((
    "cache error", "TLB error", "bus error", "micro-architectural error", "restartable", "precise IP", "overflow", "corrected",
))  # fmt: skip
_GENERIC_PROCESSOR = _grammar(
    "processor_type: {d:processor_type}, {}",
    "processor_isa: {d:processor_isa}, {}",
    "error_type: {x2:processor_error_type}",
    "operation: {d:operation}, {}",
    "flags: {x2:processor_flags}",
    "level: {d:level}",
    "version_info: {x16:cpu_version}",
    "processor_id: {x16:processor_id}",
    "target_address: {x16:target_address}",
    "requestor_id: {x16:requestor_id}",
    "responder_id: {x16:responder_id}",
    "IP: {x16:instruction_pointer}",
)

_ARM = _grammar(
    "MIDR: {x16:midr_el1}",
    "Multiprocessor Affinity Register (MPIDR): {x16:mpidr_el1}",
    "error affinity level: {d:error_affinity_level}",
    "running state: {x:running_state}",
    "Power State Coordination Interface state: {d:psci_state}",
    "Error info structure {d:info}:",
    "num errors: {d:errors}",
    "first error captured",
    "last error captured",
    "propagated error captured",
    "overflow occurred, error info is incomplete",
    ("error_type: {x2:error_type}: {}", "error_type: {x2:error_type}:", "error_type: {d:legacy_type}, {}"),
    "error_info: {x16:error_information}",
    (),  # the error information decoded into words
    "virtual fault address: {x16:virtual_fault_address}",
    "physical fault address: {x16:physical_fault_address}",
    "Context info structure {d:context}:",
    "register context type: {t:registers}",
    "Vendor specific error info has {d:vendor_bytes} bytes:",
)
ARM_INFO_ORDERS: Final = range(5, 16)
"""Print orders of one error information structure; they repeat for each structure."""
ARM_FLAG_ORDER: Final = 7
"""Print order of the lowest flag; the others follow bit by bit."""
ARM_CONTEXT_ORDER: Final = 16

_ARM_WORDS = re.compile(
    r"transaction type: .*|(?:[\w -]+, )?operation type: .*|(?:cache|TLB) level: \d|affinity level at which the bus error occurred: \d"
    r"|processor context (?:not )?corrupted|the error has (?:not )?been corrected|PC is (?:im)?precise"
    r"|Program execution can be restarted reliably at .*|participation type: .*|request timed out|address space: .*"
    r"|memory access attributes:0x[0-9a-f]+|access mode: (?:normal|secure)"
)

CONTEXT_TYPES: Final = (
    "AArch32 general purpose registers",
    "AArch32 EL1 context registers",
    "AArch32 EL2 context registers",
    "AArch32 secure context registers",
    "AArch64 general purpose registers",
    "AArch64 EL1 context registers",
    "AArch64 EL2 context registers",
    "AArch64 EL3 context registers",
    "Misc. system register structure",
)
"""`arm_reg_ctx_strs`"""

FIRMWARE_RECORD_TYPES: Final = (
    "IPF SAL Error Record",
    "SOC Firmware Error Record Type1 (Legacy CrashLog Support)",
    "SOC Firmware Error Record Type2",
)
"""`fw_err_rec_type_strs`"""

_FIRMWARE = _grammar(
    "Firmware Error Record Type: {t:record_type}",
    "Revision: {d:record_revision}",
    ("Record Identifier: {g:record_guid}", "Record Identifier: {h:record_id}"),
)

_CXL_PROTOCOL = _grammar(
    "agent_type: {d:agent_type}, {}",
    ("agent_address: {h4:segment}:{h2:bus}:{h2:device}.{h:function}", "rcrb_base_address: {x16:rcrb}"),
    "slot: {d:slot}",
    "vendor_id: {x4:vendor_id}, device_id: {x4:device_id}",
    "sub_vendor_id: {x4:subsystem_vendor_id}, sub_device_id: {x4:subsystem_id}",
    "class_code: {h4:class_code}",
    "lower_dw: {x8:serial_low}, upper_dw: {x8:serial_high}",
    "DVSEC length: {x4:dvsec_length}",
    "CXL DVSEC:",
    "Error log length: {x4:error_log_length}",
    "CXL Error Log:",
    "cxl_ras_uncor_status: {x8:ras_0}",
    "cxl_ras_uncor_mask: {x8:ras_1}",
    "cxl_ras_uncor_severity: {x8:ras_2}",
    "cxl_ras_cor_status: {x8:ras_3}",
    "cxl_ras_cor_mask: {x8:ras_4}",
    "cap_control: {x8:ras_5}",
    "Header Log Registers:",
)

GRAMMARS: Final[dict[str, Grammar]] = {
    "memory": _MEMORY,
    "pcie": _PCIE,
    "arm_processor": _ARM,
    "generic_processor": _GENERIC_PROCESSOR,
    "firmware_record_reference": _FIRMWARE,
    "cxl_protocol": _CXL_PROTOCOL,
}
"""Grammars by section name on the wire."""

WORDS: Final[dict[str, re.Pattern[str]]] = {
    "arm_processor": _ARM_WORDS,
    "generic_processor": re.compile(rf"(?:{_NAMED_BITS})(?:, (?:{_NAMED_BITS}))*"),
}
"""Lines that repeat in words what an earlier line printed as a number."""

SECTION_TYPES: Final[dict[str, tuple[str | None, Guid]]] = {
    "memory error": ("memory", MEMORY),
    "PCIe error": ("pcie", PCIE),
    "ARM processor error": ("arm_processor", ARM_PROCESSOR),
    "general processor error": ("generic_processor", GENERIC_PROCESSOR),
    "Firmware Error Record Reference": ("firmware_record_reference", FIRMWARE_RECORD_REFERENCE),
    "CXL Protocol Error": ("cxl_protocol", CXL_PROTOCOL),
    "CXL General Media Event": (None, CXL_GENERAL_MEDIA),
    "CXL DRAM Event": (None, CXL_DRAM),
    "CXL Memory Module Event": (None, CXL_MEMORY_MODULE),
    "IA32/X64 processor error": (None, guid("dc3ea0b0-a144-4797-b95b-53fa242b6e1d")),
}
"""The kernel's name of a section: the grammar of its fields, if there is one, and the section type."""
