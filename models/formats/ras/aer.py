"""PCIe AER trace events (`aer_event`) as PCIe sections.

Source: include/ras/ras_event.h, Linux 5.10 to 7.3.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from ras_triage.models.formats.ras.traced_event import InvalidFieldError, TracedError, integer, quoted, text
from ras_triage.models.severity import Severity

_DEVICE = re.compile(r"\s*(?:([0-9a-fA-F]{1,4}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])\s*")
_SEVERITIES = {
    "corrected": Severity.CORRECTED,
    "uncorrected (non-fatal)": Severity.RECOVERABLE,
    "uncorrected, non-fatal": Severity.RECOVERABLE,
    "uncorrected (fatal)": Severity.FATAL,
    "fatal": Severity.FATAL,
}
"""Severity texts of rasdaemon and of the kernel."""
_WORD = "(?:0x)?([0-9a-fA-F]{1,8})"
_TLP = re.compile(r"TLP Header[:=] ?\{?" + "[ ,]+".join([_WORD] * 4))
_TLP_WORDS = struct.Struct("<4I")
_NUMBERED = re.compile(r"(?:BIT|bit ?)(\d{1,2})|0x([0-9a-fA-F]{1,8})")
_MAX_NAMES = 64
_MAX_MESSAGE = 4096

_CORRECTABLE = {
    "receiver error": 0,
    "bad tlp": 6,
    "bad dllp": 7,
    "relay_num rollover": 8,
    "replay_num rollover": 8,
    "replay timer timeout": 12,
    "advisory non-fatal": 13,
    "advisory non-fatal error": 13,
    "corrected internal error": 14,
    "corrected internal": 14,
    "header log overflow": 15,
}
_UNCORRECTABLE = {
    "undefined": 0,
    "data link protocol": 4,
    "surprise down": 5,
    "surprise link down": 5,
    "poisoned tlp": 12,
    "flow control protocol": 13,
    "completion timeout": 14,
    "completer abort": 15,
    "unexpected completion": 16,
    "receiver overflow": 17,
    "malformed tlp": 18,
    "ecrc": 19,
    "unsupported request": 20,
    "acs violation": 21,
    "uncorrected internal": 22,
    "uncorrectable internal": 22,
    "mc blocked tlp": 23,
    "atomicop egress blocked": 24,
    "tlp prefix blocked": 25,
    "poisoned tlp egrees blocked": 26,
    "poisoned tlp egress blocked": 26,
}
"""Status bits by name, without a trailing `error`: names of the kernel and of rasdaemon 0.4 to 0.8.5, with their misspellings."""


def read_aer_event(fields: Mapping[str, object]) -> TracedError:
    """Parse an `aer_event` with the column names of rasdaemon. Raises InvalidFieldError."""
    severity_text = text(fields, "err_type") or ""
    severity = _SEVERITIES.get(severity_text.strip().lower())
    section: dict[str, Any] = {"type": "pcie"}
    lost: list[str] = [] if severity is not None else [f"the severity {quoted(severity_text)}"]
    name = text(fields, "dev_name") or ""
    if match := _DEVICE.fullmatch(name[:64]):
        section |= _device(match, fields)
        lost.append("vendor, device id, class, secondary bus and slot if they are 0: they share a validation bit")
    else:
        lost.append(f"the device: {quoted(name)} is not a PCI function")
    message = (text(fields, "err_msg") or "")[:_MAX_MESSAGE]
    status, unknown = _status(message, corrected=severity == Severity.CORRECTED)
    section["aer_correctable_status" if severity == Severity.CORRECTED else "aer_uncorrectable_status"] = status
    lost += [f"the status bit {quoted(name)}" for name in unknown]
    if match := _TLP.search(message):
        section["aer_header_log"] = _TLP_WORDS.pack(*(int(word, 16) for word in match.groups()))
    lost.append("AER registers other than the status, masked status bits, port type, command and status, serial number")
    return TracedError(section, severity, tuple(lost))


def _device(match: re.Match[str], fields: Mapping[str, object]) -> dict[str, Any]:
    segment, bus, device, function = (int(part or "0", 16) for part in match.groups())
    if device >= 32:
        raise InvalidFieldError(f"`dev_name`: device number {device:#x} is above 0x1f")
    ids = {name: number for name in ("vendor_id", "device_id") if (number := integer(fields, name, 16))}
    return {"segment": segment, "bus": bus, "device": device, "function": function, **ids}


def _status(message: str, *, corrected: bool) -> tuple[int, list[str]]:
    """Return the status register for the bit names, and the unknown names."""
    names = _CORRECTABLE if corrected else _UNCORRECTABLE
    status, unknown = 0, []
    for name in re.split(r"[|,]", message.partition("TLP Header")[0])[:_MAX_NAMES]:
        plain = name.strip().lower()
        bit = names.get(plain, names.get(plain.removesuffix(" error").strip()))
        if bit is not None:
            status |= 1 << bit
        elif match := _NUMBERED.fullmatch(name.strip()):
            status |= int(match[2], 16) if match[2] else 1 << min(int(match[1]), 31)
        elif plain:
            unknown.append(name.strip())
    return status, unknown
