"""CPER severities and the order in which Linux ranks them."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache


class Severity(IntEnum):
    """Error severity of a status block or section (UEFI 2.10 N.2.1, ACPI 6.5 18.3.2.7.1). The numbers are not an order."""

    RECOVERABLE = 0
    FATAL = 1
    CORRECTED = 2
    INFORMATIONAL = 3


class GhesSeverity(IntEnum):
    """What Linux makes of a CPER severity (`ghes_severity`, Linux 5.10 to 7.3): here the numbers are an order."""

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
    """Rank a 32-bit CPER severity; a value off the list ranks as the worst."""
    return _RANK.get(value, GhesSeverity.PANIC)  # type: ignore[call-overload, no-any-return]


SEVERITY_NAMES = tuple(severity.name.lower() for severity in Severity)


@lru_cache(maxsize=1024)
def severity_name(value: int) -> str:
    """The severity's name, or its number for a value off the list."""
    try:
        return Severity(value).name.lower()
    except ValueError:
        return str(value)
