"""CPER severities and their GHES ranking in Linux."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache


class Severity(IntEnum):
    """Error severity of a status block or section (UEFI 2.10 N.2.1, ACPI 6.5 18.3.2.7.1). The numbers are not a ranking."""

    RECOVERABLE = 0
    FATAL = 1
    CORRECTED = 2
    INFORMATIONAL = 3


class GhesSeverity(IntEnum):
    """Linux's ranking of CPER severities (`ghes_severity`, Linux 5.10 to 7.3), mildest first."""

    NO = 0
    CORRECTED = 1
    RECOVERABLE = 2
    PANIC = 3


_RANK = {
    Severity.RECOVERABLE: GhesSeverity.RECOVERABLE,
    Severity.FATAL: GhesSeverity.PANIC,
    Severity.CORRECTED: GhesSeverity.CORRECTED,
    Severity.INFORMATIONAL: GhesSeverity.NO,
}


def ghes_severity(value: int) -> GhesSeverity:
    """Return the GHES severity for a 32-bit CPER severity; the worst for an unknown value."""
    return _RANK.get(value, GhesSeverity.PANIC)  # type: ignore[call-overload, no-any-return]


SEVERITY_NAMES = tuple(severity.name.lower() for severity in Severity)


@lru_cache(maxsize=1024)
def severity_name(value: int) -> str:
    """Return the name of the severity, or the number of an unknown one."""
    try:
        return Severity(value).name.lower()
    except ValueError:
        return str(value)
