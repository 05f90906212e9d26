"""ARM processor section of libcper JSON, converted back to bytes.

Source: openbmc/libcper 7c410e29, `sections/cper-section-arm.c`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from ras_triage.models.event import MAX_BLOCK_BYTES
from ras_triage.models.formats.json_text import JsonObject, find, find_bytes, find_number, find_objects, find_text
from ras_triage.models.formats.libcper.sections import AssumedValue, SectionBody, Table, encode, flags, select_fields, validation
from ras_triage.models.sections.arm_processor import (
    CONTEXT_HEADER_LENGTH,
    ERROR_INFO_LENGTH,
    LEGACY_ERROR_TYPES,
    UEFI_2_10_ERROR_TYPES,
    UEFI_2_11_ERROR_TYPES,
)

_TYPE_NAMES = {
    "Cache Error": "cache",
    "TLB Error": "tlb",
    "Bus Error": "bus",
    "Micro-Architectural Error": "micro_architectural",
}
"""libcper's names of the error types, the same in every version; its numbers were 0 to 3 in old versions and are bits 0 to 3 now."""

ERROR_TYPE_NUMBERS: dict[str, dict[str, int]] = {
    "legacy": {name: number for number, name in enumerate(LEGACY_ERROR_TYPES)},
    "uefi-2.10": {name: bit for bit, name in UEFI_2_10_ERROR_TYPES.items()},
    "uefi-2.11": {name: bit for bit, name in UEFI_2_11_ERROR_TYPES.items()},
}
"""Error type byte by numbering and name, for each numbering in use."""

_HEADER: Table = {
    "err_info_num": "errorInfoNum",
    "context_info_num": "contextInfoNum",
    "section_length": "sectionLength",
    "error_affinity_level": "errorAffinity.value",
    "mpidr_el1": "mpidrEl1",
    "midr_el1": "midrEl1",
    "psci_state": "psciState",
}
_HEADER_BITS = "mpidr errorAffinityLevel runningState vendorSpecificInfo"
_ERROR_INFO: Table = {
    "version": "version",
    "length": "length",
    "multiple_error": "multipleError.value",
    "virtual_fault_address": "virtualFaultAddress",
    "physical_fault_address": "physicalFaultAddress",
}
_ERROR_INFO_BITS = "multipleError flags errorInformation virtualFaultAddress physicalFaultAddress"
_ERROR_FLAGS = "firstErrorCaptured lastErrorCaptured propagated overflow"

_INFORMATION = {
    "transactionType.value": (0, 16, 2),
    "operation.value": (1, 18, 4),
    "level": (2, 22, 3),
    "processorContextCorrupt": (3, 25, 1),
    "corrected": (4, 26, 1),
    "precisePC": (5, 27, 1),
    "restartablePC": (6, 28, 1),
    "participationType.value": (7, 29, 2),
    "timedOut": (8, 31, 1),
    "addressSpace.value": (9, 32, 2),
    "memoryAttributes": (10, 34, 9),
    "accessMode.value": (11, 43, 1),
}
"""Validation bit, shift and width of each part of cache, TLB and bus error information (UEFI 2.10 N.2.4.4.1)."""
_INFORMATION_BITS = """transactionType operation level processorContextCorrupt corrected precisePC restartablePC participationType timedOut
    addressSpace memoryAttributes accessMode"""
_ACCESS_MODE_BECAUSE = "libcper writes the access mode under the validation bit of the time-out"

_REGISTERS = {
    0: (4, "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13_sp r14_lr r15_pc"),
    1: (
        4,
        """dfar dfsr ifar isr mair0 mair1 midr mpidr nmrr prrr sctlr_ns spsr spsr_abt spsr_fiq spsr_irq spsr_svc spsr_und tpidrprw
        tpidruro tpidrurw ttbcr ttbr0 ttbr1 dacr""",
    ),
    2: (4, "elr_hyp hamair0 hamair1 hcr hcr2 hdfar hifar hpfar hsr htcr htpidr httbr spsr_hyp vtcr vttbr dacr32_el2"),
    3: (4, "sctlr_s spsr_mon"),
    4: (8, " ".join(f"x{number}" for number in range(31)) + " sp"),
    5: (
        8,
        """elr_el1 esr_el1 far_el1 isr_el1 mair_el1 midr_el1 mpidr_el1 sctlr_el1 sp_el0 sp_el1 spsr_el1 tcr_el1 tpidr_el0 tpidr_el1
        tpidrro_el0 ttbr0_el1 ttbr1_el1""",
    ),
    6: (
        8,
        """elr_el2 esr_el2 far_el2 hacr_el2 hcr_el2 hpfar_el2 mair_el2 sctlr_el2 sp_el2 spsr_el2 tcr_el2 tpidr_el2 ttbr0_el2 vtcr_el2
        vttbr_el2""",
    ),
    7: (8, "elr_el3 esr_el3 far_el3 mair_el3 sctlr_el3 sp_el3 spsr_el3 tcr_el3 tpidr_el3 ttbr0_el3"),
}
"""Register size in bytes and register names in order, by context type (UEFI 2.10 N.2.4.4.2)."""
_MISC = 8
_MRS_ENCODING = {"op2": (0, 3), "crm": (3, 4), "crn": (7, 4), "op1": (11, 3), "o0": (14, 1)}
"""Shift and width of each part of a system register's encoding."""


def arm_processor(body: JsonObject, numbering: str) -> SectionBody:
    """Convert an `ArmProcessor` section (UEFI 2.10 N.2.4.4); `numbering` of its error types is a key of `ERROR_TYPE_NUMBERS`."""
    fields = select_fields(body, _HEADER) | _validation(body)
    if (running := find(body, "running")) is not None:
        fields["running_state"] = int(running is True)
    infos = [_error_info(info, index, numbering) for index, info in enumerate(_structures(body, "errorInfo", ERROR_INFO_LENGTH))]
    contexts, lost = _contexts(_structures(body, "contextInfo", CONTEXT_HEADER_LENGTH))
    fields |= {"error_infos": [info for info, _, _ in infos], "contexts": contexts}
    if (vendor := find_bytes(body, "vendorSpecificInfo.data")) is not None:
        fields["vendor_info"] = vendor
    assumptions = chain.from_iterable(assumptions for _, assumptions, _ in infos)
    lost = [*chain.from_iterable(lost for _, _, lost in infos), *lost]
    return SectionBody(encode("arm_processor", fields), tuple(assumptions), tuple(lost))


def _structures(body: JsonObject, path: str, length: int) -> list[JsonObject]:
    """Return the structures at a path, of at least `length` bytes each. Raises ValueError if they do not fit into a status block."""
    found = find_objects(body, path)
    if len(found) * length > MAX_BLOCK_BYTES:
        raise ValueError(f"`{path}`: {len(found)} structures do not fit into the {MAX_BLOCK_BYTES} bytes of a status block")
    return found


def _validation(body: JsonObject) -> dict[str, int]:
    """Return the validation bits: those that old libcper writes, or else those of the fields present.

    libcper writes the PSCI state even if the bit that it shares with the running state is clear, so its presence is no evidence.
    """
    there = ("mpidrEl1", "errorAffinity", "running", "vendorSpecificInfo")
    return validation(body, _HEADER_BITS) or {"validation_bits": sum(1 << bit for bit, key in enumerate(there) if key in body)}


def _error_info(info: JsonObject, index: int, numbering: str) -> tuple[dict[str, Any], list[AssumedValue], list[str]]:
    """Return the fields of one error information structure, its assumptions, and its losses."""
    fields = select_fields(info, _ERROR_INFO) | validation(info, _ERROR_INFO_BITS)
    if (captured := flags(info, "flags", _ERROR_FLAGS)) is not None:
        fields["flags"] = captured
    fields["error_type"], assumptions = _error_type(info, f"error_infos/{index}/error_type", numbering)
    lost: list[str] = []
    for detail in _details(info):
        fields["error_information"] = _information(detail)
        if "accessMode" in detail and "validationBits" not in detail:
            assumptions.append(AssumedValue(f"error_infos/{index}/error_information", "a valid access mode", _ACCESS_MODE_BECAUSE))
    if find_text(info, "errorType.name") not in ("Cache Error", "TLB Error", "Bus Error"):
        lost.append(f"the error information of structure {index}: libcper omits it for this type")
    return fields, assumptions, lost


def _details(info: JsonObject) -> list[JsonObject]:
    """Return the error information under its single key, `cacheError`, `tlbError` or `busError`. Raises ValueError for any other form."""
    found = find(info, "errorInformation")
    details = list(found.values()) if isinstance(found, dict) else [found] if found else []
    if len(details) > 1 or not all(isinstance(detail, dict) for detail in details):
        raise ValueError("`errorInformation`: expected an object with one object in it")
    return details


def _error_type(info: JsonObject, field: str, numbering: str) -> tuple[int, list[AssumedValue]]:
    """Return the error type byte for its name in the numbering, and the assumption made; without a known name, the number unchanged."""
    number = find_number(info, "errorType.value", 8) or 0
    name = _TYPE_NAMES.get(find_text(info, "errorType.name") or "")
    if name is None:
        return number, [AssumedValue(field, hex(number), "libcper has no name for the type; its number is used unchanged")]
    taken = ERROR_TYPE_NUMBERS[numbering][name]
    because = f"libcper names the type `{name}` with number {number}; the numbers differ between its versions"
    return taken, [AssumedValue(field, f"{taken:#x}, {name} in the numbering {numbering}", because)]


def _information(detail: JsonObject) -> int:
    """Return 64 bits of error information from its parts."""
    bits = 0
    for path, (valid, shift, width) in _INFORMATION.items():
        found = find(detail, path)
        if found is not None:
            part = int(found) if isinstance(found, bool) else find_number(detail, path, width) or 0
            bits |= 1 << valid | part << shift
    stated = validation(detail, _INFORMATION_BITS)
    return bits & ~0xFFFF | stated["validation_bits"] if stated else bits


def _contexts(contexts: list[JsonObject]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the contexts and their losses. Raises ValueError if the register arrays together are longer than a status block."""
    read: list[dict[str, Any]] = []
    lost: list[str] = []
    room = MAX_BLOCK_BYTES
    for index, context in enumerate(contexts):
        size = find_number(context, "registerArraySize", 32) or 0
        room -= size
        if room < 0:
            raise ValueError(f"the register arrays are longer than the {MAX_BLOCK_BYTES} bytes of a status block")
        kind, array = find_number(context, "registerContextType.value", 16), find(context, "registerArray")
        registers = find_bytes(array, "data") or b"".join(_register_bytes(array, kind))
        if len(registers) < size:
            lost.append(f"the last {size - len(registers)} bytes of context {index}: omitted by libcper, read as zero")
        read.append({"version": find_number(context, "version", 16) or 0, "type": kind, "registers": registers.ljust(size, b"\0")})
    return read, lost


def _register_bytes(array: Any, kind: int | None) -> Iterator[bytes]:
    if kind == _MISC:
        encoding = sum(_register(array, f"mrsEncoding.{name}", width) << shift for name, (shift, width) in _MRS_ENCODING.items())
        yield encoding.to_bytes(2, "little")
        yield _register(array, "value", 64).to_bytes(8, "little")
    elif kind in _REGISTERS:
        width, names = _REGISTERS[kind]
        yield from (_register(array, name, width * 8).to_bytes(width, "little") for name in names.split())


def _register(array: Any, path: str, bits: int) -> int:
    found = find_number(array, path, bits)
    if found is None:
        raise ValueError(f"`registerArray.{path}` is missing")
    return found
