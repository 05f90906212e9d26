"""Memory trace events (`mc_event`, `extlog_mem_event`) as memory sections.

Source: include/ras/ras_event.h, Linux 5.10 to 7.3.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from ras_triage.models.formats.ras.traced_event import InvalidFieldError, TracedError, blob, integer, quoted, text
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.guid import NULL
from ras_triage.models.sections.memory import ERROR_TYPES
from ras_triage.models.severity import Severity

_SEVERITIES = {
    "corrected": Severity.CORRECTED,
    "uncorrected": Severity.RECOVERABLE,
    "deferred": Severity.RECOVERABLE,
    "fatal": Severity.FATAL,
    "info": Severity.INFORMATIONAL,
}
"""CPER severities for `mc_event_error_type` (include/linux/edac.h), the reverse of `ghes_edac_report_mem_error`."""
_ALL_ONES = (1 << 64) - 1
_NO_TYPE = 0xFF
_MAX_DETAIL = 4096

_APEI = "APEI location:"
_LOCATION = re.compile(
    r"\b(node|card|module|rank|bank|bank_group|bank_address|device|row|column|col|bit_position|bit_pos"
    r"|requestor_?id|responder_?id|target_id|chip_id): ?(0[xX][0-9a-fA-F]{1,16}|\d{1,20})\b",
    re.IGNORECASE,
)
_NAMES = {
    **{name: name for name in ("node", "card", "module", "rank", "bank", "bank_group", "bank_address", "device", "row", "column")},
    **{name: name for name in ("bit_position", "requestor_id", "responder_id", "target_id")},
    "col": "column",
    "bit_pos": "bit_position",
    "requestorid": "requestor_id",
    "responderid": "responder_id",
    "chip_id": "chip_identification",
}
"""Fields by their printed names in lower case."""
_STATUS = re.compile(r"\bstatus\((0x[0-9a-fA-F]{1,16})\)|\berror_status: [^()]{0,80}\((0x[0-9a-fA-F]{1,16})\)")
_HANDLE = re.compile(r"\bDMI handle: (0x[0-9a-fA-F]{1,4})\b")
_TYPES = {name.lower(): number for number, name in enumerate(ERROR_TYPES)}


def read_mc_event(fields: Mapping[str, object]) -> TracedError:
    """Parse an `mc_event` with the column names of rasdaemon. Raises InvalidFieldError."""
    section: dict[str, Any] = {"type": "memory"}
    detail = (text(fields, "driver_detail") or "")[:_MAX_DETAIL]
    if detail.startswith(_APEI):
        section |= _apei_fields(detail, text(fields, "err_msg") or "")
    if address := integer(fields, "address"):
        section["physical_address"] = address
    severity, assumed = _mc_severity(text(fields, "err_type"))
    return TracedError(section, severity, _mc_lost(fields, address, detail), assumed)


def _mc_severity(error_type: str | None) -> tuple[int | None, tuple[AssumedField, ...]]:
    name = (error_type or "").strip().lower()
    assumed: tuple[AssumedField, ...] = ()
    if name in ("uncorrected", "deferred"):
        because = f"EDAC reports the error as {name}, which may be recoverable or fatal"
        assumed = (AssumedField("/status_block/sections/0/severity", "recoverable", because),)
    return _SEVERITIES.get(name), assumed


def _mc_lost(fields: Mapping[str, object], address: int | None, detail: str) -> tuple[str, ...]:
    """Return a phrase for each value that an event has no field for."""
    lost = [] if address else ["whether the address is 0 or unknown: both are traced as 0"]
    grain = integer(fields, "grain")
    if grain:
        lost.append(f"the physical address mask: the grain is 2^{grain} bytes, and was rounded differently before Linux 5.6")
    if (count := integer(fields, "err_count", 32)) and count > 1:
        lost.append(f"the error count {count}")
    if label := text(fields, "label"):
        lost.append(f"the DIMM label {quoted(label)}")
    if syndrome := integer(fields, "syndrome"):
        lost.append(f"the ECC syndrome {syndrome:#x}")
    layers = [integer(fields, name, 32) for name in ("top_layer", "middle_layer", "lower_layer")]
    if any(layer is not None and layer < 1 << 31 for layer in layers):
        lost.append("the EDAC layers: their meaning depends on the driver")
    if not detail.startswith(_APEI):
        lost.append("location and error type: the event has no firmware record, or its text is truncated")
        if detail:
            lost.append(f"the driver detail {quoted(detail)}")
    return tuple(lost)


def _apei_fields(detail: str, message: str) -> dict[str, Any]:
    """Return the fields that `ghes_edac` prints (drivers/edac/ghes_edac.c, `cper_mem_err_location`)."""
    fields: dict[str, Any] = location(detail)
    if status := _STATUS.search(detail):
        fields["error_status"] = int(status[1] or status[2], 16)
    if (number := _TYPES.get(message.strip().lower())) is not None:
        fields["memory_error_type"] = number
    return fields


def location(printed: str) -> dict[str, Any]:
    """Parse a printed memory error location, with or without a space after the colon (removed in Linux 6.0).

    `targetID` of kernels before 5.18 is ignored: they print the responder id there. Raises InvalidFieldError for a value that is too wide.
    """
    fields: dict[str, Any] = {}
    for name, number in _LOCATION.findall(printed):
        field = _NAMES.get(name) or _NAMES.get(name.lower())
        if field is not None and field not in fields:
            fields[field] = int(number) if number.isdigit() else int(number, 16)
    if handle := _HANDLE.search(printed):
        fields["module_handle"] = int(handle[1], 16)
    _split_row(fields)
    for name, number in fields.items():
        if number >> _WIDTHS.get(name, 16):
            raise InvalidFieldError(f"`{name}`: {number} does not fit into {_WIDTHS.get(name, 16)} bits")
    return fields


_WIDTHS = {"requestor_id": 64, "responder_id": 64, "target_id": 64, "bank_group": 8, "bank_address": 8, "chip_identification": 3}
_ROW_BITS = 16


def _split_row(fields: dict[str, Any]) -> None:
    """Split the printed row into row and extended bits 17:16 (`cper_get_mem_extension`)."""
    row = fields.get("row", 0)
    if 1 << _ROW_BITS <= row < 1 << _ROW_BITS + 2:
        fields |= {"row": row & (1 << _ROW_BITS) - 1, "extended_row_bits": row >> _ROW_BITS}


_COMPACT = struct.Struct("<Q8HQQQ3H")
_EXTENDED_AT = _COMPACT.size
_COMPACT_FIELDS = (
    ("node", 1 << 3),
    ("card", 1 << 4),
    ("module", 1 << 5),
    ("bank", 1 << 6),
    ("device", 1 << 7),
    ("row", 1 << 8),
    ("column", 1 << 9),
    ("bit_position", 1 << 10),
    ("requestor_id", 1 << 11),
    ("responder_id", 1 << 12),
    ("target_id", 1 << 13),
    ("rank", 1 << 15),
    ("card_handle", 1 << 16),
    ("module_handle", 1 << 17),
)
_EXTENDED_ROW, _BANK_GROUP, _BANK_ADDRESS, _CHIP = 1 << 18, 1 << 19, 1 << 20, 1 << 21


def read_compact(data: bytes) -> dict[str, Any]:
    """Return the valid fields of `struct cper_mem_err_compact` (include/linux/cper.h): 54 bytes, 55 since Linux 5.10.

    Raises InvalidFieldError if it is shorter.
    """
    if len(data) < _COMPACT.size:
        raise InvalidFieldError(f"the location has {len(data)} bytes; expected {_COMPACT.size} or more")
    validation, *values = _COMPACT.unpack_from(data)
    fields = {name: number for (name, bit), number in zip(_COMPACT_FIELDS, values, strict=True) if validation & bit}
    bank = values[3]
    if validation & _BANK_GROUP:
        fields["bank_group"] = bank >> 8
    if validation & _BANK_ADDRESS:
        fields["bank_address"] = bank & 0xFF
    extended = data[_EXTENDED_AT] if len(data) > _EXTENDED_AT else None
    if extended is not None and validation & _EXTENDED_ROW:
        fields["extended_row_bits"] = extended & 3
    if extended is not None and validation & _CHIP:
        fields["chip_identification"] = extended >> 5
    return fields


def read_extlog(fields: Mapping[str, object]) -> TracedError:
    """Parse an `extlog_mem_event` with the column names of rasdaemon; `pa_mask_lsb` is in trace text only. Raises InvalidFieldError."""
    section: dict[str, Any] = {"type": "memory"}
    if data := blob(fields, "cper_data"):
        section |= read_compact(data)
    section |= location(text(fields, "location") or "")
    kind = integer(fields, "etype", 32)
    if kind is not None and kind & 0xFF != _NO_TYPE:
        section["memory_error_type"] = kind & 0xFF
    address = integer(fields, "address")
    if address is not None and address != _ALL_ONES:
        section["physical_address"] = address
    assumed = _add_mask(section, integer(fields, "pa_mask_lsb", 8))
    section |= fru(fields)
    lost = ("the error status",) if assumed else ("the error status", "the physical address mask")
    return TracedError(section, _extlog_severity(fields), lost, assumed)


def _extlog_severity(fields: Mapping[str, object]) -> int | None:
    severity = integer(fields, "severity", 32)
    if severity is not None and severity > Severity.INFORMATIONAL:
        raise InvalidFieldError(f"`severity`: {severity} is not a CPER severity; expected 0 to 3")
    return severity


def _add_mask(section: dict[str, Any], lowest: int | None) -> tuple[AssumedField, ...]:
    if lowest is None or lowest >= 64:
        return ()
    mask = _ALL_ONES & ~((1 << lowest) - 1)
    section["physical_address_mask"] = mask
    because = "the trace has only the lowest bit of the mask; all bits above it are assumed to be set"
    return (AssumedField("/status_block/sections/0/physical_address_mask", hex(mask), because),)


def fru(fields: Mapping[str, object]) -> dict[str, Any]:
    """Return FRU id and text; the kernel traces a null GUID and an empty text if the record has none. Raises InvalidFieldError."""
    found: dict[str, Any] = {}
    identity = blob(fields, "fru_id")
    if identity and len(identity) != len(NULL):
        raise InvalidFieldError(f"`fru_id`: expected {len(NULL)} bytes, got {len(identity)}")
    if identity and identity != NULL:
        found["fru_id"] = identity
    if fru_text := text(fields, "fru_text"):
        found["fru_text"] = fru_text[:20].encode("latin-1", "replace").decode("latin-1")
    return found
