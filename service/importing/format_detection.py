"""Detection of an imported file's format by its first bytes."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any, Final

from pydantic_core import from_json

from ras_triage.models.formats.encoded_bytes import is_encoded, unpack_words
from ras_triage.models.formats.json_text import BYTE_ORDER_MARK
from ras_triage.models.formats.kernel_log.journal import BEFORE, is_entry
from ras_triage.models.formats.log_envelopes import is_envelope, is_wrapped
from ras_triage.models.formats.ras.mc_ctl import HEADINGS
from ras_triage.models.records.cper_record import SIGNATURE
from ras_triage.service.importing.signatures import SQLITE


class InputFormat(StrEnum):
    """Format of a file that can be imported."""

    EVENT = "event"
    """Events of ras-triage: one, a JSON array, or one per line."""
    CPER = "cper"
    """CPER records, a status block, or pstore's records, as bytes, hexadecimal, base64 or memory words."""
    REDFISH = "redfish"
    LIBCPER = "libcper"
    QMP = "qmp"
    QEMU_ARGUMENT = "qemu_argument"
    """The base64 of QEMU's `cper` argument."""
    KERNEL_LOG = "kernel_log"
    JOURNAL = "journal"
    """Output of `journalctl -o json`."""
    COLLECTED_LOG = "collected_log"
    """Log lines as log collectors store them, each in an envelope."""
    RAS_TRACE = "ras_trace"
    RAS_MC_CTL = "ras_mc_ctl"
    """Output of `ras-mc-ctl --errors`."""
    RASDAEMON = "rasdaemon"
    """An SQLite database."""


STREAMED: Final = frozenset({InputFormat.KERNEL_LOG, InputFormat.JOURNAL, InputFormat.COLLECTED_LOG, InputFormat.RAS_TRACE})
"""Formats that are read line by line, but for collected logs in one JSON document or with the newest line first.

These and all other formats except the database are read into memory.
"""

HEAD_BYTES: Final = 64 << 10
"""Bytes that detection examines."""

_KERNEL: Final = re.compile(rb"\[Hardware Error\]|Linux version |Memory failure: 0x|Kernel panic - not syncing")
_KERNEL_LINE: Final = re.compile(
    rb"\[[ +]*\d{1,10}\.\d{6}[\] ]|\bkernel(?:\[\d{1,10}\])?: |^\[[^\]\n]{16,40} \d{4}[\] ]|^\d{4}-\d\d-\d\dT[\d:]{8},\d{6}[+-]"
    rb"|^(?:\d\.[^\s,]{1,64},)?\d{1,4},\d{1,20},\d{1,20},[^;\n]{0,64};",
    re.MULTILINE,
)
"""Line prefixes of dmesg in its time formats, of journald and syslog, and of /dev/kmsg."""
_TRACE: Final = re.compile(
    rb"(?:^|\s|\]|\b(?:ras|cxl):)(?:mc_event|aer_event|arm_event|non_standard_event|extlog_mem_event|memory_failure_event|cxl_[a-z_]{3,32}):?\s"
)
_BASE64: Final = re.compile(rb"[0-9A-Za-z+/]+={0,2}")
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_JSON: Final = re.compile(rb"(?:\[\s*)*\{\s*(?:[\"}]|\Z)")
"""An object or an array of objects. `[   12.345678]` and `{1}[Hardware Error]` start lines of kernel logs."""

_KEYS: Final = (
    (InputFormat.REDFISH, ("@odata.id", "@odata.type", "DiagnosticData", "DiagnosticDataType", "Members", "Events", "LogEntry", "CPER")),
    (InputFormat.LIBCPER, ("sectionDescriptors", "sectionDescriptor", "sections", "section", "header")),
    (InputFormat.QMP, ("execute", "return", "QMP", "exec-oob")),
)
"""JSON members that identify a format; a document with none of them is an event or a journal entry."""


def detect_format(head: bytes, *, is_whole: bool = True) -> InputFormat:
    """Detect the format by the first bytes of a file, or all of it. The fallback for text is a kernel log."""
    if head.startswith(SQLITE):
        return InputFormat.RASDAEMON
    if head.startswith(SIGNATURE):
        return InputFormat.CPER
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    json_text = text[BEFORE.match(text).end() :]  # type: ignore[union-attr] # always matches
    if _JSON.match(json_text) and (document := _document(json_text)) is not None:
        return _of_json(document)
    return _of_text(text, is_whole=is_whole)


def _of_text(text: bytes, *, is_whole: bool) -> InputFormat:
    found = _KERNEL.search(text) or _TRACE.search(text)
    if is_wrapped(text[: _line_end(text, 0)]) or (found is not None and is_wrapped(_line_at(text, found.end()))):
        return InputFormat.COLLECTED_LOG
    if found is not None:
        return log_format(text)
    if HEADINGS.search(text):
        return InputFormat.RAS_MC_CTL
    return InputFormat.CPER if _is_encoded(text, is_whole=is_whole) or _is_binary(text) else InputFormat.KERNEL_LOG


def log_format(text: bytes) -> InputFormat:
    """Return the format of log lines: a trace, if there is no kernel message about an error among them."""
    is_trace = _KERNEL.search(text) is None and _TRACE.search(text) is not None
    return InputFormat.RAS_TRACE if is_trace else InputFormat.KERNEL_LOG


def _line_at(text: bytes, offset: int) -> bytes:
    return text[text.rfind(b"\n", 0, offset) + 1 : _line_end(text, offset)]


def _line_end(text: bytes, offset: int) -> int:
    end = text.find(b"\n", offset)
    return len(text) if end < 0 else end


def _is_encoded(text: bytes, *, is_whole: bool) -> bool:
    """Return whether text is encoded binary data; for the start of a file, whether it may be."""
    if not text:
        return False
    if is_whole:
        return is_encoded(text) or unpack_words(text) is not None
    lines = text[: text.rfind(b"\n") + 1] or text
    packed = b"".join(lines.split())
    return _BASE64.fullmatch(packed) is not None or unpack_words(lines) is not None


def _is_binary(text: bytes) -> bool:
    """Return whether data is binary: more than 2 % control characters. A log of a serial console has a few."""
    return len(_BINARY.findall(text)) * 50 > len(text)


def _document(text: bytes) -> Any:
    """Return the first JSON value, possibly truncated; None: there is none."""
    written = text.decode("utf-8", "replace")
    try:
        return json.JSONDecoder().raw_decode(written)[0]
    except (ValueError, RecursionError):
        pass
    try:
        return from_json(text, allow_partial=True)
    except ValueError:
        return None if text[:1] == b"[" else {}


def _of_json(document: Any) -> InputFormat:
    whole = document
    while isinstance(document, list) and document:
        document = document[0]
    members = set(document) if isinstance(document, dict) else set()
    if "specversion" in members and ("data_base64" in members or isinstance(document.get("data"), dict)):
        return InputFormat.EVENT
    for form, names in _KEYS:
        if not members.isdisjoint(names):
            return form
    if is_entry(members):
        return InputFormat.JOURNAL
    return InputFormat.COLLECTED_LOG if "notification" not in members and is_envelope(whole) else InputFormat.EVENT


def is_kernel_log(head: bytes) -> bool:
    """Return whether some of the lines are kernel messages, with or without an error."""
    return _KERNEL.search(head) is not None or _KERNEL_LINE.search(head) is not None
