"""Which format a file is in, told by how it begins."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any, Final

from pydantic_core import from_json

from ras_triage.models.formats.encoded_bytes import unpack_text, unpack_words
from ras_triage.models.formats.json_text import BYTE_ORDER_MARK
from ras_triage.models.formats.kernel_log.journal import BEFORE, is_entry
from ras_triage.models.records.cper_record import SIGNATURE
from ras_triage.service.importing.rasdaemon_db import MAGIC


class InputFormat(StrEnum):
    """What can be imported."""

    EVENT = "event"
    """Events of this project: one, a JSON array, or one to a line."""
    CPER = "cper"
    """CPER records, a status block, or pstore's records, as bytes, hexadecimal, base64 or memory words."""
    REDFISH = "redfish"
    LIBCPER = "libcper"
    QMP = "qmp"
    QEMU_ARGUMENT = "qemu_argument"
    """The base64 of QEMU's `cper` argument."""
    KERNEL_LOG = "kernel_log"
    JOURNAL = "journal"
    """What `journalctl -o json` prints."""
    RAS_TRACE = "ras_trace"
    RASDAEMON = "rasdaemon"
    """An SQLite database."""


STREAMED: Final = frozenset({InputFormat.KERNEL_LOG, InputFormat.JOURNAL, InputFormat.RAS_TRACE})
"""Read line by line, however long; of the others, all but the database are held as a whole."""

HEAD_BYTES: Final = 64 << 10
"""What is looked at."""

_KERNEL: Final = re.compile(rb"\[Hardware Error\]|Linux version |Memory failure: 0x|Kernel panic - not syncing")
_KERNEL_LINE: Final = re.compile(
    rb"\[[ +]*\d{1,10}\.\d{6}[\] ]|\bkernel(?:\[\d{1,10}\])?: |^\[[^\]\n]{16,40} \d{4}[\] ]|^\d{4}-\d\d-\d\dT[\d:]{8},\d{6}[+-]"
    rb"|^(?:\d\.[^\s,]{1,64},)?\d{1,4},\d{1,20},\d{1,20},[^;\n]{0,64};",
    re.MULTILINE,
)
"""The stamps of dmesg in its time formats, of journald and syslog, and of /dev/kmsg."""
_TRACE: Final = re.compile(
    rb"(?:^|\s)(?:mc_event|aer_event|arm_event|non_standard_event|extlog_mem_event|memory_failure_event|cxl_[a-z_]{3,32}):?\s"
)
_BASE64: Final = re.compile(rb"[0-9A-Za-z+/]+={0,2}")
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_JSON: Final = re.compile(rb"(?:\[\s*)*\{\s*(?:[\"}]|\Z)")
"""An object, or an array of them. `[   12.345678]` and `{1}[Hardware Error]` begin lines of logs."""
_LETTERS: Final = 4
_MAX_TABLE: Final = 1 << 20
"""Bytes; what is text and begins like a table claims far more."""

_KEYS: Final = (
    (InputFormat.REDFISH, ("@odata.id", "@odata.type", "DiagnosticData", "DiagnosticDataType", "Members", "Events", "LogEntry", "CPER")),
    (InputFormat.LIBCPER, ("sectionDescriptors", "sectionDescriptor", "sections", "section", "header")),
    (InputFormat.QMP, ("execute", "return", "QMP", "exec-oob")),
)
"""Members of a JSON document by which it is known; a document with none of them is an event, or an entry of a journal."""


def detect_format(head: bytes, *, is_whole: bool = True) -> InputFormat:
    """Tell by the first bytes of a file, or by all of it. Whatever is text and nothing else is a log."""
    if head.startswith(MAGIC):
        return InputFormat.RASDAEMON
    if head.startswith(SIGNATURE):
        return InputFormat.CPER
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    json_text = text[BEFORE.match(text).end() :]  # type: ignore[union-attr] # it matches everywhere
    if _JSON.match(json_text) and (document := _document(json_text)) is not None:
        return _of_json(document)
    return _of_text(text, is_whole=is_whole)


def _of_text(text: bytes, *, is_whole: bool) -> InputFormat:
    if _KERNEL.search(text):
        return InputFormat.KERNEL_LOG
    if _TRACE.search(text):
        return InputFormat.RAS_TRACE
    return InputFormat.CPER if _is_encoded(text, is_whole=is_whole) or _is_binary(text) else InputFormat.KERNEL_LOG


def _is_encoded(text: bytes, *, is_whole: bool) -> bool:
    """Whether text is bytes that were written down; of the beginning of one, whether it may be."""
    if not text:
        return False
    if is_whole:
        return unpack_text(text) is not None or unpack_words(text) is not None
    lines = text[: text.rfind(b"\n") + 1] or text
    packed = b"".join(lines.split())
    return _BASE64.fullmatch(packed) is not None or unpack_words(lines) is not None


def _is_binary(text: bytes) -> bool:
    """A log from a serial console has a stray control character; bytes have many."""
    return len(_BINARY.findall(text)) * 50 > len(text)


def _document(text: bytes) -> Any:
    """The first JSON value, as far as it goes; None where there is none."""
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
    while isinstance(document, list) and document:
        document = document[0]
    members = set(document) if isinstance(document, dict) else set()
    for form, names in _KEYS:
        if not members.isdisjoint(names):
            return form
    return InputFormat.JOURNAL if is_entry(members) else InputFormat.EVENT


def is_kernel_log(head: bytes) -> bool:
    """Whether a kernel wrote some of these lines, be there an error in them or not."""
    return _KERNEL.search(head) is not None or _KERNEL_LINE.search(head) is not None


def acpi_table(head: bytes) -> str | None:
    """The signature of the ACPI table that a file is; None where it is none (ACPI 6.5 5.2.6: signature, length, revision, checksum)."""
    signature = head[:_LETTERS]
    if signature not in (b"HEST", b"BERT", b"ERST", b"EINJ") or not 36 <= int.from_bytes(head[4:8], "little") <= _MAX_TABLE:
        return None
    return signature.decode()
