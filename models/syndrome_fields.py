"""Complete field decoding of ESR_ELx and VSESR_EL2 (Arm ARM DDI 0487, D24.2).

`encode_syndrome(decode_syndrome(value)) == value` for every 64-bit value: reserved bits set are fields too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from ras_triage.models.frozen import frozen
from ras_triage.models.syndrome import DFSC_ASYNCHRONOUS, FSC_SEA, ExceptionClass

SyndromeKind = Literal["esr", "vsesr"]
"""`esr`: ESR_ELx of an exception. `vsesr`: VSESR_EL2, the syndrome of a virtual SError to be taken."""

VSESR_BITS: Final = 25
"""Bits of VSESR_EL2: IDS and ISS, no exception class."""

_ESR: Final = "DDI 0487, D24.2 ESR_ELx"
_VSESR: Final = "DDI 0487, D24.2 VSESR_EL2"
_SERROR: Final = f"{_ESR}, ISS encoding for an SError exception"
_DATA: Final = f"{_ESR}, ISS encoding for an exception from a Data Abort"
_INSTRUCTION: Final = f"{_ESR}, ISS encoding for an exception from an Instruction Abort"

_DATA_ABORTS: Final = (ExceptionClass.DATA_ABORT_LOWER, ExceptionClass.DATA_ABORT_SAME)
_INSTRUCTION_ABORTS: Final = (ExceptionClass.INSTRUCTION_ABORT_LOWER, ExceptionClass.INSTRUCTION_ABORT_SAME)


@frozen
class SyndromeField:
    """One field of a syndrome, with its architectural name."""

    name: str
    high: int
    """Highest bit, 0 to 63."""
    low: int
    """Lowest bit."""
    value: int
    meaning: str
    section: str
    """Section of the Arm ARM that defines it."""
    reserved: bool = False
    """The bits are RES0 in this syndrome, but set."""

    @property
    def bits(self) -> str:
        """Return the bit range in Arm ARM notation: `12:10`, or `24` for a single bit."""
        return str(self.high) if self.high == self.low else f"{self.high}:{self.low}"


@frozen
class Syndrome:
    """The fields of a 64-bit syndrome, highest first. RES0 bits are included only if they are set."""

    kind: SyndromeKind
    fields: tuple[SyndromeField, ...]

    def __getitem__(self, name: str) -> int:
        """Return the value of a field by name; 0 if this syndrome does not have it."""
        return next((field.value for field in self.fields if field.name == name), 0)


class _FieldSpec(NamedTuple):
    """A field of a syndrome layout with the meaning of its value."""

    name: str
    high: int
    low: int
    meaning: str
    section: str
    is_res0: bool = False
    """RES0 because of the values of other fields."""


def guess_kind(value: int) -> SyndromeKind:
    """Return `vsesr` for a value that fits into VSESR_EL2, else `esr`: ESR_ELx of a hardware error always has an exception class."""
    return "vsesr" if value < 1 << VSESR_BITS else "esr"


def decode_syndrome(value: int, kind: SyndromeKind | None = None) -> Syndrome:
    """Decode a 64-bit value; without a `kind` it is guessed. Never fails, even for values that no CPU reports."""
    kind = kind or guess_kind(value)
    layout = _vsesr(value) if kind == "vsesr" else _esr(value)
    return Syndrome(kind, tuple(_fields(value, layout)))


def encode_syndrome(syndrome: Syndrome) -> int:
    """Return the 64-bit value. Raises ValueError if a field value is too wide."""
    encoded = 0
    for field in syndrome.fields:
        if field.value >> (field.high - field.low + 1):
            raise ValueError(f"`{field.name}`: {field.value:#x} does not fit into bits {field.bits}")
        encoded |= field.value << field.low
    return encoded


def syndrome_summary(syndrome: Syndrome) -> str:
    """Return a one-line summary of a syndrome."""
    if syndrome.kind == "vsesr":
        return f"virtual SError: {_serror_summary(syndrome)}"
    exception_class = syndrome["EC"]
    if exception_class == ExceptionClass.SERROR:
        return f"SError: {_serror_summary(syndrome)}"
    name = exception_class_name(exception_class)
    if exception_class in _DATA_ABORTS:
        return f"{name}: {fault_status(syndrome['DFSC'])}{_address(syndrome, 'DFSC')}"
    if exception_class in _INSTRUCTION_ABORTS:
        return f"{name}: {fault_status(syndrome['IFSC'])}{_address(syndrome, 'IFSC')}"
    return name


def _serror_summary(syndrome: Syndrome) -> str:
    if syndrome["IDS"]:
        return "implementation-defined syndrome"
    if syndrome["DFSC"] != DFSC_ASYNCHRONOUS:
        return _serror_status(syndrome["DFSC"])
    return _AET.get(syndrome["AET"], _AET_RESERVED)


def _address(syndrome: Syndrome, code: str) -> str:
    if syndrome[code] != FSC_SEA:
        return ""
    return ", the fault address is not valid" if syndrome["FnV"] else ", the fault address is valid"


def _fields(value: int, layout: Iterator[_FieldSpec]) -> Iterator[SyndromeField]:
    """Yield the fields of a layout, and a RES0 field for each gap with bits set."""
    next_bit = 63
    for spec in layout:
        yield from _gap(value, next_bit, spec.high + 1, spec.section)
        part = _bits(value, spec.high, spec.low)
        yield SyndromeField(spec.name, spec.high, spec.low, part, spec.meaning, spec.section, spec.is_res0 and part != 0)
        next_bit = spec.low - 1
    yield from _gap(value, next_bit, 0, _ESR)


def _gap(value: int, high: int, low: int, section: str) -> Iterator[SyndromeField]:
    if low <= high and (part := _bits(value, high, low)):
        yield SyndromeField("RES0", high, low, part, "reserved bits set", section, reserved=True)


def _bits(value: int, high: int, low: int) -> int:
    return value >> low & (1 << high - low + 1) - 1


def _choose(bit: int, no: str, yes: str) -> str:
    return yes if bit else no


# ESR_ELx


def _esr(esr: int) -> Iterator[_FieldSpec]:
    yield _FieldSpec("ISS2", 55, 32, "further syndrome of some data aborts", _ESR)
    exception_class = _bits(esr, 31, 26)
    yield _FieldSpec("EC", 31, 26, exception_class_name(exception_class), _ESR)
    yield _FieldSpec("IL", 25, 25, _choose(_bits(esr, 25, 25), "16-bit instruction", "32-bit instruction, or none"), _ESR)
    if exception_class == ExceptionClass.SERROR:
        yield from _serror(esr)
    elif exception_class in _DATA_ABORTS:
        yield from _data_abort(esr)
    elif exception_class in _INSTRUCTION_ABORTS:
        yield from _instruction_abort(esr)
    else:
        yield _FieldSpec("ISS", 24, 0, "depends on the exception class", _ESR)


def _vsesr(vsesr: int) -> Iterator[_FieldSpec]:
    """Yield the fields of VSESR_EL2 for a guest in AArch64 state, whose ESR_EL1 gets these 25 bits unchanged."""
    for spec in _serror(vsesr):
        yield spec._replace(section=f"{_VSESR}; {_SERROR}")


# SError

_AET: Final = {
    0: "UC, uncontainable: the error may have spread; panic",
    1: "UEU, unrecoverable: contained, but the context cannot continue; end the process or guest",
    2: "UEO, restartable: contained, and the context can continue; log it",
    3: "UER, recoverable: contained and precise; repair it, or end the process or guest",
    6: "CE, corrected: log it",
}
_AET_RESERVED: Final = "reserved value: treat as UC, uncontainable"
_WRITE_UPDATE: Final = {
    0: "not a store, or the location may have been updated",
    2: "a store that did not update the location",
    3: "a store that updated the location",
}


def _serror(esr: int) -> Iterator[_FieldSpec]:
    if _bits(esr, 24, 24):
        yield _FieldSpec("IDS", 24, 24, "bits 23:0 are implementation defined", _SERROR)
        yield _FieldSpec("IMPLEMENTATION DEFINED", 23, 0, "no architected format", _SERROR)
        return
    code = _bits(esr, 5, 0)
    yield _FieldSpec("IDS", 24, 24, "bits 23:0 have the architected format", _SERROR)
    yield _FieldSpec("ELS", 18, 18, "exception level and security state of the error's source (FEAT_RASv2)", _SERROR)
    yield _FieldSpec("WU", 17, 16, f"write update (FEAT_RASv2): {_WRITE_UPDATE.get(_bits(esr, 17, 16), 'reserved value')}", _SERROR)
    yield _FieldSpec("VFV", 15, 15, _choose(_bits(esr, 15, 15), "FAR_ELx is not valid", "FAR_ELx is valid (FEAT_RASv2)"), _SERROR)
    yield _FieldSpec("PFV", 14, 14, _choose(_bits(esr, 14, 14), "PFAR_ELx is not valid", "PFAR_ELx is valid (FEAT_PFAR)"), _SERROR)
    synchronised = _choose(_bits(esr, 13, 13), "no implicit error synchronisation", "taken at an implicit error synchronisation event")
    yield _only_asynchronous("IESB", 13, 13, synchronised, code)
    yield _only_asynchronous("AET", 12, 10, _AET.get(_bits(esr, 12, 10), _AET_RESERVED), code)
    yield _only_asynchronous("EA", 9, 9, "external abort type, implementation defined", code)
    yield _FieldSpec("WnRV", 7, 7, _choose(_bits(esr, 7, 7), "WnR is not valid", "WnR is valid (FEAT_RASv2)"), _SERROR)
    written = _choose(_bits(esr, 6, 6), "a read", "a write")
    valid = bool(_bits(esr, 7, 7))
    yield _FieldSpec("WnR", 6, 6, written if valid else "not meaningful: WnRV is 0", _SERROR, not valid)
    yield _FieldSpec("DFSC", 5, 0, _serror_status(code), _SERROR)


def _only_asynchronous(name: str, high: int, low: int, meaning: str, code: int) -> _FieldSpec:
    is_res0 = code != DFSC_ASYNCHRONOUS
    return _FieldSpec(name, high, low, "not meaningful: DFSC is not 0x11" if is_res0 else meaning, _SERROR, is_res0)


def _serror_status(code: int) -> str:
    return {0x00: "uncategorised error", DFSC_ASYNCHRONOUS: "asynchronous SError exception"}.get(code, "reserved value")


# Aborts

_SET: Final = {0: "UER, recoverable", 2: "UC, uncontainable", 3: "UEO, restartable"}
_SIZE: Final = ("byte", "halfword", "word", "doubleword")


def _data_abort(esr: int) -> Iterator[_FieldSpec]:
    code = _bits(esr, 5, 0)
    if _bits(esr, 24, 24):
        yield from _described_access(esr)
    else:
        yield from _undescribed_access(esr, code)
    yield _FieldSpec("VNCR", 13, 13, _choose(_bits(esr, 13, 13), "not an access through VNCR_EL2", "an access through VNCR_EL2"), _DATA)
    yield from _error_fields(esr, code, _DATA)
    yield _FieldSpec("CM", 8, 8, _choose(_bits(esr, 8, 8), "no cache maintenance", "cache maintenance or address translation"), _DATA)
    yield _s1ptw(esr, _DATA)
    yield _FieldSpec("WnR", 6, 6, _choose(_bits(esr, 6, 6), "a read", "a write"), _DATA)
    yield _FieldSpec("DFSC", 5, 0, fault_status(code), _DATA)


def _described_access(esr: int) -> Iterator[_FieldSpec]:
    """Yield the fields in bits 24:14 with ISV set: bits 23:14 describe the access of the instruction."""
    yield _FieldSpec("ISV", 24, 24, "bits 23:14 describe the access", _DATA)
    yield _FieldSpec("SAS", 23, 22, f"access size: {_SIZE[_bits(esr, 23, 22)]}", _DATA)
    yield _FieldSpec("SSE", 21, 21, _choose(_bits(esr, 21, 21), "no sign extension", "sign extension"), _DATA)
    yield _FieldSpec("SRT", 20, 16, f"register {_bits(esr, 20, 16)}", _DATA)
    yield _FieldSpec("SF", 15, 15, _choose(_bits(esr, 15, 15), "32-bit register", "64-bit register"), _DATA)
    yield _FieldSpec("AR", 14, 14, _choose(_bits(esr, 14, 14), "no acquire or release semantics", "acquire or release semantics"), _DATA)


def _undescribed_access(esr: int, code: int) -> Iterator[_FieldSpec]:
    """Yield the fields in bits 24:14 with ISV clear, which later extensions of the architecture define."""
    yield _FieldSpec("ISV", 24, 24, "the access is not described", _DATA)
    external = code == FSC_SEA
    updated = f"write update (FEAT_RASv2): {_WRITE_UPDATE.get(_bits(esr, 17, 16), 'reserved value')}"
    yield _FieldSpec("WU", 17, 16, updated if external else "not meaningful: not an external abort", _DATA, not external)
    yield _FieldSpec("FnP", 15, 15, _choose(_bits(esr, 15, 15), "FAR_ELx is precise", "FAR_ELx is not precise"), _DATA)
    yield _FieldSpec("PFV", 14, 14, _choose(_bits(esr, 14, 14), "PFAR_ELx is not valid", "PFAR_ELx is valid (FEAT_PFAR)"), _DATA)


def _instruction_abort(esr: int) -> Iterator[_FieldSpec]:
    code = _bits(esr, 5, 0)
    yield _FieldSpec("PFV", 14, 14, _choose(_bits(esr, 14, 14), "PFAR_ELx is not valid", "PFAR_ELx is valid (FEAT_PFAR)"), _INSTRUCTION)
    yield from _error_fields(esr, code, _INSTRUCTION)
    yield _s1ptw(esr, _INSTRUCTION)
    yield _FieldSpec("IFSC", 5, 0, fault_status(code), _INSTRUCTION)


def _error_fields(esr: int, code: int, section: str) -> Iterator[_FieldSpec]:
    """Yield the error fields that data and instruction aborts share."""
    external = code == FSC_SEA
    kind = _bits(esr, 12, 11)
    if external:
        yield _FieldSpec("SET", 12, 11, f"synchronous error type: {_SET.get(kind, 'reserved value')}", section)
    elif section is _DATA and (code < 0x10 or code == 0x35):
        yield _FieldSpec("LST", 12, 11, "load/store type (FEAT_LS64)", section)
    else:
        yield _FieldSpec("SET", 12, 11, "not meaningful: not an external abort on the access itself", section, is_res0=True)
    validity = _choose(_bits(esr, 10, 10), "FAR_ELx is valid", "FAR_ELx is not valid")
    yield _FieldSpec("FnV", 10, 10, validity if external else "not meaningful: the fault status code is not 0x10", section, not external)
    yield _FieldSpec("EA", 9, 9, "external abort type, implementation defined", section)


def _s1ptw(esr: int, section: str) -> _FieldSpec:
    walk = _choose(_bits(esr, 7, 7), "not on a stage 2 walk for stage 1", "a stage 2 fault on a stage 1 table walk")
    return _FieldSpec("S1PTW", 7, 7, walk, section)


def _levels(words: str, first: int, levels: tuple[int, ...] = (0, 1, 2, 3)) -> dict[int, str]:
    return {first + index: f"{words}, level {level}" for index, level in enumerate(levels)}


_ON_WALK: Final = "synchronous external abort on a table walk"
_PARITY_ON_WALK: Final = "synchronous parity or ECC error on a table walk"
_GRANULE: Final = "granule protection fault on a table walk"

_FAULT_STATUS: Final = {
    **_levels("address size fault", 0x00),
    **_levels("translation fault", 0x04),
    **_levels("access flag fault", 0x08),
    **_levels("permission fault", 0x0C),
    0x10: "synchronous external abort, not on a table walk",
    0x11: "synchronous tag check fault",
    **_levels(_ON_WALK, 0x12, (-2, -1, 0, 1, 2, 3)),
    0x18: "synchronous parity or ECC error, not on a table walk",
    **_levels(_PARITY_ON_WALK, 0x1B, (-1, 0, 1, 2, 3)),
    0x21: "alignment fault",
    **_levels(_GRANULE, 0x22, (-2, -1, 0, 1, 2, 3)),
    0x28: "granule protection fault, not on a table walk",
    0x29: "address size fault, level -1",
    0x2A: "translation fault, level -2",
    0x2B: "translation fault, level -1",
    0x2C: "address size fault, level -2",
    0x30: "TLB conflict abort",
    0x31: "unsupported atomic hardware update",
    0x34: "implementation defined: lockdown",
    0x35: "implementation defined: unsupported exclusive or atomic access",
}


# Exception classes


def _by_origin(words: str, first: int) -> dict[int, str]:
    return {first: f"{words} from a lower exception level", first + 1: f"{words} from the same exception level"}


_EXCEPTION_CLASSES: Final = {
    0x00: "unknown reason",
    0x01: "trapped WFI, WFE, WFIT or WFET",
    0x03: "trapped MCR or MRC, coprocessor 15",
    0x04: "trapped MCRR or MRRC, coprocessor 15",
    0x05: "trapped MCR or MRC, coprocessor 14",
    0x06: "trapped LDC or STC",
    0x07: "trapped SVE, Advanced SIMD or floating point",
    0x08: "trapped VMRS",
    0x09: "trapped pointer authentication instruction",
    0x0A: "trapped ST64BV, ST64BV0, ST64B or LD64B, or another instruction without its own class",
    0x0C: "trapped MRRC, coprocessor 14",
    0x0D: "branch target exception",
    0x0E: "illegal execution state",
    0x11: "SVC, AArch32",
    0x12: "HVC, AArch32",
    0x13: "SMC, AArch32",
    0x14: "trapped MSRR, MRRS or 128-bit system instruction",
    0x15: "SVC, AArch64",
    0x16: "HVC, AArch64",
    0x17: "SMC, AArch64",
    0x18: "trapped MSR, MRS or system instruction",
    0x19: "trapped SVE access",
    0x1A: "trapped ERET, ERETAA or ERETAB",
    0x1B: "transactional memory exception",
    0x1C: "pointer authentication failure",
    0x1D: "trapped SME access",
    0x1E: "granule protection check exception",
    0x1F: "implementation defined exception to EL3",
    **_by_origin("instruction abort", 0x20),
    0x22: "PC alignment fault",
    **_by_origin("data abort", 0x24),
    0x26: "SP alignment fault",
    0x27: "memory operation exception",
    0x28: "trapped floating point, AArch32",
    0x2C: "trapped floating point, AArch64",
    0x2D: "guarded control stack exception",
    0x2F: "SError exception",
    **_by_origin("breakpoint", 0x30),
    **_by_origin("software step", 0x32),
    **_by_origin("watchpoint", 0x34),
    0x38: "BKPT, AArch32",
    0x3A: "vector catch, AArch32",
    0x3C: "BRK, AArch64",
    0x3D: "profiling exception",
}


def fault_status(code: int) -> str:
    """Return the meaning of a 6-bit DFSC or IFSC of an abort."""
    return _FAULT_STATUS.get(code, "reserved value")


def exception_class_name(exception_class: int) -> str:
    """Return the name of a 6-bit ESR_ELx.EC."""
    return _EXCEPTION_CLASSES.get(exception_class, "reserved value")
