"""ARM processor trace events (`arm_event`) as ARM processor sections.

Source: include/ras/ras_event.h. Linux 6.17 and earlier trace the section header only; some distribution kernels traced the whole section
before that.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from ras_triage.models.formats.ras.traced_event import TracedError, blob, integer, section_severity, text
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.guid import ARM_PROCESSOR
from ras_triage.models.sections.arm_processor import CONTEXT_HEADER_LENGTH, ERROR_INFO_LENGTH, HEADER_LENGTH, ArmErrorInfo

_HEADER = struct.Struct("<IHHIB3xQQII")
_CONTEXT_SIZE = struct.Struct("<4xI")
_MPIDR_VALID, _AFFINITY_VALID, _RUNNING_VALID, _VENDOR_VALID = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_NONE_8, _NONE_32 = 0xFF, 0xFFFFFFFF
_MAX_COUNT = 0xFFFF

_TYPE_BITS = {"cache error": 1 << 1, "TLB error": 1 << 2, "bus error": 1 << 3, "micro-architectural error": 1 << 4}
"""Error type bits of UEFI 2.9A by the names of rasdaemon 0.8.1 and later (`arm_proc_error_type_strs`, ras-arm-handler.c)."""
_FLAG_BITS = {"first error": 1 << 0, "last error": 1 << 1, "propagated error": 1 << 2, "overflow": 1 << 3}


def read_arm_event(fields: Mapping[str, object]) -> TracedError:
    """Parse an `arm_event` with the column names of rasdaemon.

    Trace text also has `severity` (Linux's GHES severity, 0 to 3) and `midr`, which rasdaemon does not store. Raises InvalidFieldError.
    """
    rank = integer(fields, "severity", 32)
    infos, lost = _error_infos(fields)
    contexts, count, cut = _contexts(blob(fields, "context_info"))
    vendor = blob(fields, "vendor_info")
    header, assumed = _header(fields, len(infos) // ERROR_INFO_LENGTH, count, len(infos) + len(contexts), vendor)
    if fields.get("midr") is None:
        lost += ("MIDR: written as 0",)
    if cut:
        lost += (f"{cut} bytes after the last complete context",)
    section: dict[str, Any] = {"type": ARM_PROCESSOR, "payload": header + infos + contexts + vendor}
    lost += ("the section's validation bits: invalid fields are traced as 0 or as all ones",)
    return TracedError(section, None if rank is None else section_severity(rank), lost, assumed)


def _header(fields: Mapping[str, object], infos: int, contexts: int, behind: int, vendor: bytes) -> tuple[bytes, tuple[AssumedField, ...]]:
    mpidr = integer(fields, "mpidr") or 0
    affinity = _affinity(integer(fields, "affinity", 32))
    running, psci = integer(fields, "running_state", 32), integer(fields, "psci_state", 32)
    is_running_valid = running not in (None, _NONE_32)
    valid = (
        (_MPIDR_VALID if mpidr else 0)
        | (0 if affinity == _NONE_8 else _AFFINITY_VALID)
        | (_RUNNING_VALID if is_running_valid else 0)
        | (_VENDOR_VALID if vendor else 0)
    )
    header = _HEADER.pack(
        valid,
        infos,
        contexts,
        HEADER_LENGTH + behind + len(vendor),
        0 if affinity == _NONE_8 else affinity,
        mpidr,
        integer(fields, "midr") or 0,
        running or 0 if is_running_valid else 0,
        psci or 0 if is_running_valid else 0,
    )
    if not vendor:
        return header, ()
    because = "the kernel traces all bytes behind the contexts without checking the validation bit"
    return header, (AssumedField("/status_block/sections/0/vendor_info", "valid", because),)


def _affinity(stored: int | None) -> int:
    """Return 8 bits, 0xff for none; rasdaemon releases stored the value signed (-1) or unsigned (255)."""
    return _NONE_8 if stored is None or stored > 0xFF else stored


def _error_infos(fields: Mapping[str, object]) -> tuple[bytes, tuple[str, ...]]:
    """Return the complete error information structures, and what is lost."""
    data = blob(fields, "err_info")
    if not data:
        return _from_scalars(fields)
    whole = min(len(data) // ERROR_INFO_LENGTH, _MAX_COUNT) * ERROR_INFO_LENGTH
    if whole == len(data):
        return data, ()
    return data[:whole], (f"{len(data) - whole} bytes after the last complete error information structure",)


def _from_scalars(fields: Mapping[str, object]) -> tuple[bytes, tuple[str, ...]]:
    """Return the last error information structure, which rasdaemon stores in separate columns."""
    values = {
        "error_information": integer(fields, "error_info"),
        "virtual_fault_address": integer(fields, "virt_fault_addr"),
        "physical_fault_address": integer(fields, "phy_fault_addr"),
        "flags": _bits(text(fields, "error_flags"), _FLAG_BITS),
    }
    nonzero: dict[str, Any] = {name: number for name, number in values.items() if number}
    kind = _bits(text(fields, "error_type"), _TYPE_BITS)
    if not nonzero and not kind:
        return b"", ("the error information structures: not recorded by this kernel or rasdaemon",)
    count = integer(fields, "error_count", 32)
    if count and count - 1 <= _MAX_COUNT:
        nonzero["multiple_error"] = count - 1
    lost = ("all error information structures except the last, and its fields that are 0",)
    return ArmErrorInfo(error_type=kind, **nonzero).encode(), lost


def _bits(printed: str | None, names: Mapping[str, int]) -> int:
    return sum(bit for name, bit in names.items() if name in (printed or ""))


def _contexts(data: bytes) -> tuple[bytes, int, int]:
    """Return the complete contexts, their count, and the number of bytes left after them."""
    offset = count = 0
    while offset + CONTEXT_HEADER_LENGTH <= len(data) and count < _MAX_COUNT:
        end = offset + CONTEXT_HEADER_LENGTH + int(_CONTEXT_SIZE.unpack_from(data, offset)[0])
        if end > len(data):
            break
        offset, count = end, count + 1
    return data[:offset], count, len(data) - offset
