"""Parsers for the text of each RAS trace event, as printed by Linux and rasdaemon.

Fields have the names of rasdaemon's columns. Every function raises InvalidFieldError if the text is not that of its event. Patterns are
bounded, so that hostile text takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ras_triage.models.formats.ras.traced_event import InvalidFieldError
from ras_triage.models.records.guid import SECTION_NAMES, guid, guid_text
from ras_triage.models.sections.memory import ERROR_TYPES
from ras_triage.models.severity import Severity

_STATED_LENGTH = "stated_length_"
"""Prefix of a field that holds the stated length of another one, in bytes."""


def missing_blob_bytes(fields: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    """Yield the names of blobs with fewer bytes than stated, and the number of missing bytes."""
    for name, stated in fields.items():
        data = fields.get(name.removeprefix(_STATED_LENGTH))
        if name.startswith(_STATED_LENGTH) and isinstance(stated, int) and isinstance(data, bytes) and len(data) < stated:
            yield name.removeprefix(_STATED_LENGTH), stated - len(data)


def _match(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str]:
    match = pattern.search(text)
    if match is None:
        raise InvalidFieldError(f"no {what}")
    return match


_MC_HEAD = re.compile(r"(\d{1,10}) (Corrected|Uncorrected|Deferred|Fatal|Info) errors?:")
_MC_TAIL = re.compile(
    r"\(mc: ?(-?\d{1,10})(?: location: ?(-?\d{1,10})(?::(-?\d{1,10}))?(?::(-?\d{1,10}))?)?(?: address: ?(0x[0-9a-f]{1,16}))?"
    r" grain: ?(-?\d{1,20})(?: syndrome: ?(0x[0-9a-f]{1,16}))?"
)


def parse_mc_event(text: str) -> dict[str, object]:
    """Parse `1 Corrected error: msg on label (mc:0 location:0:0:-1 address:0x.. grain:8 syndrome:0x0 detail)`.

    The kernel prints the grain in bytes, rasdaemon its log2; the field holds the log2.
    """
    head = _match(_MC_HEAD, text, "`error:` after a count and a type")
    tail = _MC_TAIL.search(text, head.end())
    if tail is None:
        raise InvalidFieldError("no `(mc:` with a grain: the text is truncated")
    message, _, label = text[head.end() : tail.start()].rpartition(" on ")
    detail = text[tail.end() :].strip()
    is_kernels = text.startswith("(mc:", tail.start()) and text[tail.start() + 4] != " "
    return {
        "err_count": int(head[1]),
        "err_type": head[2],
        "err_msg": message.strip(),
        "label": label.strip(),
        "mc": int(tail[1]),
        "top_layer": _integer(tail[2]),
        "middle_layer": _integer(tail[3]),
        "lower_layer": _integer(tail[4]),
        "address": tail[5],
        "grain": _log2(int(tail[6])) if is_kernels else int(tail[6]),
        "syndrome": tail[7],
        "driver_detail": detail.removesuffix(")"),
    }


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def _log2(grain: int) -> int:
    return max(grain, 1).bit_length() - 1


_AER_KERNEL = re.compile(r"(\S{1,64}) (\S{1,16}) Bus Error: severity=(Corrected|Fatal|Uncorrected, non-fatal), ")
_AER_TYPES = ("Uncorrected (Non-Fatal)", "Uncorrected (Fatal)", "Corrected")
_AER_IDS = re.compile(r" ?\([^()]{0,512}vendor_id: (0x[0-9a-f]{1,4}|0) device_id: (0x[0-9a-f]{1,4}|0)\)")


def parse_aer_event(text: str) -> dict[str, object]:
    """Parse `0000:01:00.0 PCIe Bus Error: severity=Fatal, name|name, TLP Header={..}`, or rasdaemon's `0000:01:00.0 name Corrected`."""
    if match := _AER_KERNEL.search(text):
        return {"dev_name": match[1], "err_type": match[3], "err_msg": text[match.end() :].strip()}
    body = text.strip()
    kind = next((name for name in _AER_TYPES if body.endswith(name)), None)
    if kind is None:
        raise InvalidFieldError("no severity at the end, and no `Bus Error: severity=`")
    device, _, message = body.removesuffix(kind).strip().partition(" ")
    fields: dict[str, object] = {"dev_name": device, "err_type": kind, "err_msg": message.strip()}
    if ids := _AER_IDS.match(message[:600]):
        fields |= {"vendor_id": ids[1], "device_id": ids[2], "err_msg": message[ids.end() :].strip()}
    return fields


_ARM_FIELDS = {
    "affinity": re.compile(r"\baffinity(?: level)?: (-?\d{1,10})\b"),
    "running_state": re.compile(r"\brunning[ _]state: (-?\d{1,10})\b"),
    "psci_state": re.compile(r"\b(?:PSCI state|psci_state): (-?\d{1,10})\b"),
    "severity": re.compile(r"\berror: (\d{1,3})\b"),
}
_ARM_REGISTERS = {
    "mpidr": re.compile(r"\bMPIDR: (?:0x)?([0-9a-fA-F]{1,16})\b"),
    "midr": re.compile(r"\bMIDR: (?:0x)?([0-9a-fA-F]{1,16})\b"),
}
_ARM_BLOBS = {
    "err_info": "ARM Processor Err Info",
    "context_info": "ARM Processor Err Context Info",
    "vendor_info": "Vendor Specific Err Info",
}
_ARM_SEVERITY = re.compile(r"\bseverity: (Informational|Corrected|Recoverable|Fatal)\b")
_RANKS = {"Informational": 0, "Corrected": 1, "Recoverable": 2, "Fatal": 3}
_LENGTH = re.compile(r" data len: (\d{1,10})")
_RAW = re.compile(r" raw data: ((?:[0-9a-fA-F]{2}[ ,]{0,2}){0,200000})")
_DUMP = re.compile(r"(?<![0-9a-fA-F])([0-9a-fA-F]{8}):((?: {1,2}[0-9a-fA-F]{8}){1,4})(?![0-9a-fA-F])")


def parse_arm_event(text: str) -> dict[str, object]:
    """Parse `cpu: 0; error: 2; affinity level: 0; MPIDR: ..`, or rasdaemon's `affinity: 0 MPIDR: 0x..` with dumps on the lines after it.

    If both are present, the kernel's raw data take precedence: rasdaemon's dump omits up to three bytes at its end.
    """
    fields: dict[str, object] = {name: int(match[1]) for name, pattern in _ARM_FIELDS.items() if (match := pattern.search(text))}
    fields |= {name: int(match[1], 16) for name, pattern in _ARM_REGISTERS.items() if (match := pattern.search(text))}
    if "mpidr" not in fields:
        raise InvalidFieldError("no `MPIDR:`")
    if "severity" not in fields and (match := _ARM_SEVERITY.search(text)):
        fields["severity"] = _RANKS[match[1]]
    for name, title in _ARM_BLOBS.items():
        fields |= _blob(text, name, title)
    return fields


def _blob(text: str, name: str, title: str) -> dict[str, object]:
    fields: dict[str, object] = {}
    at = text.find(title + " data len:")
    if at < 0 or not (length := _LENGTH.match(text, at + len(title))):
        return fields
    fields[_STATED_LENGTH + name] = int(length[1])
    raw = text.find(title + " raw data:")
    if raw >= 0 and (match := _RAW.match(text, raw + len(title))):
        fields[name] = bytes.fromhex(match[1].replace(",", " "))
    else:
        following = min((end for other in _ARM_BLOBS.values() if (end := text.find(other, length.end())) >= 0), default=len(text))
        fields[name] = _dumped(text[length.end() : following])[: int(length[1])]
    return fields


def _dumped(text: str) -> bytes:
    """Return the bytes of rasdaemon's dump (`display_raw_data`): 32-bit little-endian words; up to three bytes at its end are not printed.

    Parsing stops at the first line whose offset does not continue the dump.
    """
    data = bytearray()
    for offset, line in _DUMP.findall(text):
        if int(offset, 16) != len(data):
            break
        for word in line.split():
            data += bytes.fromhex(word)[::-1]
    return bytes(data)


_GUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_NS_KERNEL = re.compile(rf"severity: (\d{{1,3}}); sec type: ?({_GUID}); FRU: ({_GUID}) (.{{0,64}}); data len: ?(\d{{1,10}}); raw data: ?")
_NS_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[ ,]{0,2}){0,200000}")
_NS_DAEMON = re.compile(
    rf"\b(Informational|Corrected|Recoverable|Fatal) section type: (Ampere Specific Error|{_GUID})"
    rf" fru text: (.{{0,64}}?) fru id: ({_GUID})  length: (\d{{1,10}})"
)
_AMPERE = "e8ed898d-df16-43cc-8ecc-54f060ef157f"
_NAMES = ("Informational", "Corrected", "Recoverable", "Fatal")
_MAX_RANK = len(_NAMES) - 1


def parse_non_standard_event(text: str) -> dict[str, object]:
    """Parse `severity: 2; sec type:<guid>; FRU: <guid> text; data len:8; raw data:..`, or rasdaemon's text followed by a dump.

    The kernel prints the GUID's bytes in record order (`%pU`), rasdaemon prints the GUID's text form.
    """
    if match := _NS_KERNEL.search(text):
        raw = _NS_HEX.match(text, match.end())
        return {
            "severity": _NAMES[min(int(match[1]), _MAX_RANK)],
            "sec_type": _printed_guid(match[2]),
            "fru_id": _printed_guid(match[3]),
            "fru_text": match[4].strip(),
            "error": bytes.fromhex(raw[0].replace(",", " ")) if raw else b"",
            _STATED_LENGTH + "error": int(match[5]),
        }
    match = _match(_NS_DAEMON, text, "`sec type:` and no `section type:`")
    return {
        "severity": match[1],
        "sec_type": guid(_AMPERE if match[2].startswith("Ampere") else match[2]),
        "fru_text": match[3],
        "fru_id": guid(match[4]),
        "error": _dumped(text[match.end() :])[: int(match[5])],
        _STATED_LENGTH + "error": int(match[5]),
    }


def _printed_guid(text: str) -> bytes:
    """Return the 16 record bytes of a GUID printed in record order.

    Tools that format the event themselves print the GUID's text form instead: it is used if only that one is a known section type.
    """
    in_order = bytes.fromhex(text.replace("-", ""))
    return guid(text) if guid_text(guid(text)) in _KNOWN and in_order not in SECTION_NAMES else in_order


_KNOWN = {guid_text(value) for value in SECTION_NAMES}

_EXTLOG = re.compile(
    r"\{?(\d{1,10})\}? (recoverable|fatal|corrected|info|informational|unknown|unknown-severity) error: ([^:]{0,64}?) physical addr: "
    r"(?:0x)?([0-9a-f]{1,16}) (?:\(mask lsb: ([0-9a-f]{1,2})\)|mask: 0x([0-9a-f]{1,16}))"
)
_EXTLOG_FRU = re.compile(rf"FRU: ({_GUID}) ?(.{{0,20}})")
_EXTLOG_DAEMON_FRU = re.compile(rf"(?:\([^()]{{0,512}}\))? ?(.{{0,20}}?) ?({_GUID})")
_SEVERITIES = {"recoverable": 0, "fatal": 1, "corrected": 2, "info": 3, "informational": 3}
_TYPES = {name.lower(): number for number, name in enumerate(ERROR_TYPES)}
_ALL_ONES = (1 << 64) - 1


def parse_extlog_mem_event(text: str) -> dict[str, object]:
    """Parse `{1} corrected error: type physical addr: .. (mask lsb: c) location FRU: <guid> text`, or rasdaemon's `1 corrected ..`."""
    match = _match(_EXTLOG, text, "`physical addr:` after a severity")
    severity = _SEVERITIES.get(match[2])
    fields: dict[str, object] = {
        "error_count": int(match[1]),
        "severity": None if severity is None else int(Severity(severity)),
        "etype": _TYPES.get(match[3].strip().lower()),
        "address": int(match[4], 16),
        "pa_mask_lsb": int(match[5], 16) if match[5] else _lowest(int(match[6], 16)),
    }
    rest = text[match.end() :]
    if fru := _EXTLOG_FRU.search(rest):
        fields |= {"location": rest[: fru.start()], "fru_id": guid(fru[1]), "fru_text": fru[2].strip()}
    elif fru := _EXTLOG_DAEMON_FRU.search(rest):
        fields |= {"location": rest[: fru.start(1)], "fru_text": fru[1].strip(), "fru_id": guid(fru[2])}
    return fields


def _lowest(mask: int) -> int:
    """Return the lowest set bit of rasdaemon's mask (`err_mask`); 0xff (none) for a mask of all ones."""
    return 0xFF if mask in (0, _ALL_ONES) else (mask & -mask).bit_length() - 1


_MF_KERNEL = re.compile(r"pfn (0x[0-9a-f]{1,16}|0): recovery action for ([^:]{1,80}): (\w{1,32})")
_MF_DAEMON = re.compile(r"pfn=(0x[0-9a-f]{1,16}) page_type=(.{1,80}?) action_result=(\w{1,32})")


def parse_memory_failure_event(text: str) -> dict[str, object]:
    """Parse `pfn 0x1: recovery action for dirty LRU page: Recovered`, or rasdaemon's `pfn=0x1 page_type=.. action_result=..`."""
    match = _MF_KERNEL.search(text) or _match(_MF_DAEMON, text, "`pfn`, page type and result")
    return {"pfn": match[1], "page_type": match[2], "action_result": match[3]}
