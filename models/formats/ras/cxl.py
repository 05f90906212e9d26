"""CXL trace events as CXL sections.

Sources: drivers/cxl/core/trace.h, and ras-cxl-handler.c of rasdaemon 0.8.5.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from ras_triage.models.formats.ras.traced_event import InvalidFieldError, TracedError, blob, integer, quoted, read_time, text
from ras_triage.models.observed import AssumedField
from ras_triage.models.severity import Severity

_SEVERITIES = {
    "informational": Severity.INFORMATIONAL,
    "warning": Severity.CORRECTED,
    "failure": Severity.RECOVERABLE,
    "fatal": Severity.FATAL,
}
"""CPER severities for the CXL event logs (CXL 3.1 8.2.9.2.2). The scales differ, so each use is listed as an assumption."""
_ALL_ONES = (1 << 64) - 1
_HOST = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
_CXL_DEVICE = 2
"""Agent type of a CXL device (UEFI 2.10 N.2.13)."""
_RAS = struct.Struct("<6I64s")
"""CXL RAS capability: uncorrectable status, mask and severity, correctable status and mask, control, header log (CXL 3.1 8.2.4.17)."""
_HEADER_LOG_LENGTH = 64

_HEADER = (
    ("event_flags", "hdr_flags", 24),
    ("event_handle", "hdr_handle", 16),
    ("event_related_handle", "hdr_related_handle", 16),
    ("event_length", "hdr_length", 8),
    ("maintenance_operation_class", "hdr_maint_op_class", 8),
    ("maintenance_operation_subclass", "hdr_maint_op_sub_class", 8),
    ("ld_id", "hdr_ld_id", 16),
    ("head_id", "hdr_head_id", 8),
)
_MEDIA = (
    ("memory_event_descriptor", "descriptor", 8),
    ("memory_event_type", "type", 8),
    ("transaction_type", "transaction_type", 8),
    ("channel", "channel", 8),
    ("rank", "rank", 8),
)
_DRAM = (
    ("nibble_mask", "nibble_mask", 24),
    ("bank_group", "bank_group", 8),
    ("bank", "bank", 8),
    ("row", "row", 24),
    ("column", "column", 16),
)
_MODULE = (
    ("device_event_type", "event_type", 8),
    ("health_status", "health_status", 8),
    ("media_status", "media_status", 8),
    ("life_used", "life_used", 8),
    ("device_temperature", "device_temp", 16),
    ("dirty_shutdown_count", "dirty_shutdown_cnt", 32),
    ("corrected_volatile_error_count", "cor_vol_err_cnt", 32),
    ("corrected_persistent_error_count", "cor_per_err_cnt", 32),
    ("additional_status", "add_status", 8),
)
"""Section field, rasdaemon column, and field width in bits."""
_LATER = ("sub_type", "sub_channel", "cme_threshold_ev_flags", "cme_count", "cvme_count", "event_sub_type")
"""Columns of CXL 3.1 and 3.2 fields that the section layout does not have."""

TraceFields = Mapping[str, object]


def read_general_media(fields: TraceFields) -> TracedError:
    """Parse a `cxl_general_media_event` with the column names of rasdaemon. Raises InvalidFieldError."""
    section = _numbers(fields, (*_MEDIA, ("memory_device", "device", 24))) | _dpa(fields) | _bytes(fields, "component_id", "comp_id", 16)
    return _component("cxl_general_media", fields, section)


def read_dram(fields: TraceFields) -> TracedError:
    """Parse a `cxl_dram_event` with the column names of rasdaemon. Raises InvalidFieldError."""
    section = _numbers(fields, (*_MEDIA, *_DRAM)) | _dpa(fields) | _bytes(fields, "correction_mask", "cor_mask", 32)
    return _component("cxl_dram", fields, section)


def read_memory_module(fields: TraceFields) -> TracedError:
    """Parse a `cxl_memory_module_event` with the column names of rasdaemon. Raises InvalidFieldError."""
    return _component("cxl_memory_module", fields, _numbers(fields, _MODULE))


def read_aer_uncorrectable(fields: TraceFields) -> TracedError:
    """Parse a `cxl_aer_ue_event` with the column names of rasdaemon. Raises InvalidFieldError."""
    first = integer(fields, "first_error", 32) or 0
    control = first.bit_length() - 1 if first else 0
    log = _swapped(blob(fields, "header_log")[:_HEADER_LOG_LENGTH])
    registers = _RAS.pack(integer(fields, "error_status", 32) or 0, 0, 0, 0, 0, control, log)
    because = "the trace has no severity; the kernel survived the uncorrectable error, so recoverable is assumed"
    assumed = (AssumedField("/status_block/sections/0/severity", "recoverable", because),)
    return _protocol(fields, Severity.RECOVERABLE, registers, assumed)


def read_aer_correctable(fields: TraceFields) -> TracedError:
    """Parse a `cxl_aer_ce_event` with the column names of rasdaemon. Raises InvalidFieldError."""
    return _protocol(fields, Severity.CORRECTED, _RAS.pack(0, 0, 0, integer(fields, "error_status", 32) or 0, 0, 0, b""), ())


def _protocol(fields: TraceFields, severity: int, registers: bytes, assumed: tuple[AssumedField, ...]) -> TracedError:
    section: dict[str, Any] = {"type": "cxl_protocol", "agent_type": _CXL_DEVICE, "error_log": registers}
    host = text(fields, "host") or ""
    lost = [
        "mask, severity and control registers: written as 0",
        f"the memory device {quoted(text(fields, 'memdev') or '')}",
    ]
    if match := _HOST.fullmatch(host):
        segment, bus, device, function = (int(part, 16) for part in match.groups())
        section["agent_address"] = segment << 24 | bus << 16 | device << 8 | function
    else:
        lost.append(f"the agent address: {quoted(host)} is not a PCI function")
    if serial := integer(fields, "serial"):
        section["serial_number"] = serial
    taken = AssumedField("/status_block/sections/0/agent_type", str(_CXL_DEVICE), "the kernel traces the error at a memory device")
    return TracedError(section, severity, tuple(lost), (taken, *assumed))


def _swapped(log: bytes) -> bytes:
    """Return the header log in register byte order: rasdaemon stores each word big-endian."""
    padded = log.ljust(_HEADER_LOG_LENGTH, b"\0")
    return struct.pack("<16I", *struct.unpack(">16I", padded))


def _component(kind: str, fields: TraceFields, body: dict[str, Any]) -> TracedError:
    section: dict[str, Any] = {"type": kind, **_numbers(fields, _HEADER), **body, **_device(text(fields, "host") or "")}
    if serial := integer(fields, "serial"):
        section["serial_number"] = serial
    if (moment := read_time(text(fields, "hdr_ts"))) is not None and moment.timestamp() > 0:
        section["event_timestamp"] = int(moment.timestamp()) * 10**9
    log_name = (text(fields, "log_type") or "").strip().lower()
    severity = _SEVERITIES.get(log_name)
    assumed: tuple[AssumedField, ...] = ()
    if severity is not None:
        because = f"from the CXL event log `{log_name}`; CXL and CPER severities differ"
        assumed = (AssumedField("/status_block/sections/0/severity", Severity(severity).name.lower(), because),)
    return TracedError(section, severity, _component_lost(fields), assumed)


def _component_lost(fields: TraceFields) -> tuple[str, ...]:
    lost = ["the event's validity flags: invalid fields are stored as 0", "fractions of a second of the event's time"]
    hpa = integer(fields, "hpa")
    if hpa and hpa != _ALL_ONES:
        lost.append(f"the host physical address {hpa:#x}: the section has only the device physical address")
    lost += [f"`{name}` {number}" for name in _LATER if (number := integer(fields, name, 32))]
    if name := text(fields, "memdev"):
        lost.append(f"the memory device {quoted(name)}")
    return tuple(lost)


def _device(host: str) -> dict[str, Any]:
    match = _HOST.fullmatch(host)
    return dict(zip(("segment", "bus", "device", "function"), (int(part, 16) for part in match.groups()), strict=True)) if match else {}


def _dpa(fields: TraceFields) -> dict[str, Any]:
    """Return the device physical address with its flags in bits 5:0, as in the record; the trace has them separately."""
    address = integer(fields, "dpa")
    return {} if address is None else {"device_physical_address": address & ~0x3F | (integer(fields, "dpa_flags", 32) or 0) & 0x3F}


def _numbers(fields: TraceFields, table: tuple[tuple[str, str, int], ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, column, bits in table:
        number = integer(fields, column, 32)
        if number is None:
            continue
        if bits == 16 and number >> 16 == 0xFFFF:
            number &= 0xFFFF  # a negative temperature
        if number >> bits:
            raise InvalidFieldError(f"`{column}`: {number} does not fit into {bits} bits")
        found[field] = number
    return found


def _bytes(fields: TraceFields, field: str, column: str, length: int) -> dict[str, Any]:
    data = blob(fields, column)
    if data and len(data) != length:
        raise InvalidFieldError(f"`{column}`: expected {length} bytes, got {len(data)}")
    return {field: data} if data else {}
