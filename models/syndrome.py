"""ESR_ELx fields used by decisions (Arm ARM DDI 0487, D24.2 ESR_ELx)."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

from ras_triage.models.frozen import frozen


class ExceptionClass(IntEnum):
    """ESR_ELx.EC, bits 31:26: the classes of hardware errors."""

    INSTRUCTION_ABORT_LOWER = 0x20
    INSTRUCTION_ABORT_SAME = 0x21
    DATA_ABORT_LOWER = 0x24
    DATA_ABORT_SAME = 0x25
    SERROR = 0x2F


class AsynchronousErrorType(IntEnum):
    """ESR_ELx.AET, bits 12:10 of an SError syndrome; valid only where DFSC is 0x11."""

    UC = 0
    """Uncontainable."""
    UEU = 1
    """Unrecoverable: contained, but the context cannot continue."""
    UEO = 2
    """Restartable: contained, and the context can continue."""
    UER = 3
    """Recoverable: contained and precise; the context can continue once the error is repaired."""
    CE = 6
    """Corrected."""


DFSC_ASYNCHRONOUS = 0x11
"""DFSC of an SError with a valid AET field."""

IDS = 1 << 24
"""Implementation-defined syndrome: the rest of the ISS has no architected format."""

ISS_MASK = (1 << 25) - 1
"""ISS, bits 24:0: the bits of VSESR_EL2."""

SERROR_ESR_BASE = 0xBE000000
"""EC = SError, IL = 1: the bits of a guest's ESR_EL1 above the 25-bit ISS."""
IL = 1 << 25
"""ESR_ELx.IL, the instruction length: always set for an SError."""

S1PTW = 1 << 7
"""In an abort syndrome: fault on the stage 2 translation of a stage 1 table walk."""
FNV = 1 << 10
"""In an abort syndrome: FAR_ELx is not valid."""
SET = 3 << 11
"""In an abort syndrome: synchronous error type."""
VNCR = 1 << 13
"""In a data abort syndrome: access through VNCR_EL2 (nested virtualization)."""

FSC_SEA = 0x10
FSC_PARITY = 0x18
FSC_WALK_LEVEL_MINUS_1 = frozenset({0x13, 0x1B})
FSC_WALK = frozenset({*range(0x14, 0x18), *range(0x1C, 0x20)})


def is_table_walk_fault(fsc: int) -> bool:
    """Return whether a 6-bit fault status code is an external abort or parity error on a translation table walk."""
    return fsc in FSC_WALK or fsc in FSC_WALK_LEVEL_MINUS_1


@frozen
class SErrorSyndrome:
    """Decoded ESR_ELx of an SError (DDI 0487, ISS encoding for an SError exception)."""

    raw: int
    ids: bool
    """Bit 24: implementation-defined syndrome."""
    aet: int
    """Bits 12:10, asynchronous error type."""
    dfsc: int
    """Bits 5:0, data fault status code."""

    @property
    def error_type(self) -> AsynchronousErrorType | None:
        """Return the architected error type; None if the syndrome has none or a reserved value."""
        if self.ids or self.dfsc != DFSC_ASYNCHRONOUS or self.aet not in AsynchronousErrorType._value2member_map_:
            return None
        return AsynchronousErrorType(self.aet)


@frozen
class AbortSyndrome:
    """Decoded ESR_ELx of a synchronous abort (DDI 0487, ISS encodings for data and instruction aborts)."""

    raw: int
    fsc: int
    """Bits 5:0, fault status code."""
    fnv: bool
    """Bit 10: FAR_ELx is not valid."""

    @property
    def is_external(self) -> bool:
        """Return whether the code is a synchronous external abort or parity error, at any table level."""
        return self.fsc in (FSC_SEA, FSC_PARITY) or self.is_on_table_walk

    @property
    def is_on_table_walk(self) -> bool:
        """Return whether the error was on a translation table walk rather than on the access itself."""
        return is_table_walk_fault(self.fsc)


@lru_cache(maxsize=1024)
def serror_syndrome(esr: int) -> SErrorSyndrome:
    """Decode the 64-bit ESR_ELx of an SError."""
    return SErrorSyndrome(raw=esr, ids=bool(esr & IDS), aet=esr >> 10 & 7, dfsc=esr & 0x3F)


@lru_cache(maxsize=1024)
def abort_syndrome(esr: int) -> AbortSyndrome:
    """Decode the 64-bit ESR_ELx of an abort."""
    return AbortSyndrome(raw=esr, fsc=esr & 0x3F, fnv=bool(esr >> 10 & 1))


def serror_iss(error_type: AsynchronousErrorType) -> int:
    """Return the 25-bit ISS (and VSESR_EL2 value) with `error_type` and no other field set."""
    return error_type << 10 | DFSC_ASYNCHRONOUS
