"""Kernel log messages of PCIe error recovery.

Sources: `pci_print_aer` and `aer_recover_work_func` in drivers/pci/pcie/aer.c, `pcie_do_recovery` in drivers/pci/pcie/err.c, Linux 4.4 to
7.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ras_triage.models.frozen import frozen
from ras_triage.models.observed import ObservedAction, ObservedMessage, ObservedRecovery, RecoveryResult

KEYWORDS: Final = (b"AER", b"aer_", b"PCIe Bus Error")
"""Every line that `read_aer` parses contains one of these."""


@frozen
class AerLine:
    """A line about error recovery of a PCIe function."""

    device: str
    """`segment:bus:device.function`"""
    registers: Mapping[str, int]
    """AER registers of the record, by the names that `pci_print_aer` prints; empty for any other message."""
    action: ObservedAction | None
    """None: the line belongs to the one before."""


_DEVICE = r"(?P<device>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"
_LINE = re.compile(rf"(?:[^\s:]{{1,64}} )?{_DEVICE}: (?P<mark>AER: )?\s*(?P<what>.+)")
_WORD = r"(?:0x)?[0-9a-f]{8}"
_STATUS = re.compile(r"aer_status: 0x(?P<status>[0-9a-f]{8}), aer_mask: 0x(?P<mask>[0-9a-f]{8})")
_SEVERITY = re.compile(r"aer_uncor_severity: 0x(?P<severity>[0-9a-f]{8})")
_HEADER = re.compile("TLP Header: " + " ".join(f"(?P<tlp_{word}>{_WORD})" for word in range(4)) + r"(?: .*)?")
_RECOVERY = re.compile(r"[Dd]evice recovery (?P<result>successful|failed)")
_NATIVE = re.compile(r"PCIe Bus Error: severity=.*")
_OTHER = re.compile(
    r"can't recover .*|broadcast .* message|(?:.* )?link has been reset .*|(?:subordinate )?device reset failed.*"
    r"|.*error(?: message)? received.*",
    re.IGNORECASE,
)
_ABSENT = re.compile(r"AER recover: [Cc]an ?not find pci_dev for (?P<device>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}:[0-7])")
_RESULTS: Final[dict[str, RecoveryResult]] = {"successful": "recovered", "failed": "failed"}


def read_aer(text: str, line: int) -> AerLine | None:
    """Return what a line says about error recovery; None for any other line.

    `text` is the kernel's message without the log prefix.
    """
    if absent := _ABSENT.fullmatch(text):
        device = f"{absent['device'][:-2]}.{absent['device'][-1]}"
        return AerLine(device, {}, ObservedRecovery(line, text, device, "queued"))
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    device, what = match["device"], match["what"]
    if status := _STATUS.fullmatch(what):
        return AerLine(device, _numbers(status), ObservedRecovery(line, text, device, "queued"))
    if more := _SEVERITY.fullmatch(what) or _HEADER.fullmatch(what):
        return AerLine(device, _numbers(more), None)
    if recovery := _RECOVERY.fullmatch(what):
        return AerLine(device, {}, ObservedRecovery(line, text, device, _RESULTS[recovery["result"]]))
    if _NATIVE.fullmatch(what) or (match["mark"] and _OTHER.fullmatch(what)):
        return AerLine(device, {}, ObservedMessage(line, text, "other"))
    return None


def _numbers(match: re.Match[str]) -> dict[str, int]:
    return {name: int(value, 16) for name, value in match.groupdict().items()}
