"""Inputs that another command reads, and the command line for them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from io import DEFAULT_BUFFER_SIZE, BufferedReader
from typing import BinaryIO, Final

from pydantic_core import from_json

from ras_triage.service.api.escaping import valid_text
from ras_triage.service.api.problems import ProblemError, unrecognised
from ras_triage.service.cli.inputs import STANDARD_INPUT
from ras_triage.service.importing.signatures import SQLITE, acpi_table, unreadable_file

_FORMATS: Final = {
    "redfish": "a Redfish document",
    "libcper": "a record of libcper in JSON",
    "qmp": "QMP commands",
    "qemu_argument": "an argument of QEMU's `inject-ghes-v2-error`",
    "kernel_log": "a kernel log",
    "journal": "a journal in JSON",
    "collected_log": "a log in the envelopes of a log collector",
    "ras_trace": "a log of trace events",
    "ras_mc_ctl": "the output of `ras-mc-ctl`",
}
"""Formats of `import` that no other command reads."""

_EVENTS: Final = "events, one per line"
_ARRAY: Final = "a JSON array"
_EVENT: Final = "one event over several lines"
_BYTES: Final = "a status block or CPER record"

_READ_BY: Final = {
    "decide": {_EVENT, _BYTES},
    "decide --ndjson": {_EVENTS},
    "decode": {_EVENT, _BYTES},
    "submit": {_EVENTS, _ARRAY},
    "syndrome --ndjson": {_EVENTS},
}
"""Kinds of input that a command reads; `import` reads all."""

_READER: Final = {_EVENTS: "decide --ndjson", _EVENT: "decide", _BYTES: "decide"}
"""The command for an input, if it is not `import`."""

_HEX_DUMP: Final = re.compile(rb"(?:0{8}[: ]|0{7}) +[0-9a-f]{2} ?[0-9a-f]{2} ", re.IGNORECASE)
"""The first bytes of a dump by `xxd`, `hexdump -C` or `od -tx1`."""

_APPLICATION_ID: Final = slice(68, 72)
"""Where an SQLite file has the id of its application (https://www.sqlite.org/fileformat2.html 1.3)."""


def require_known_signature(command: str, path: str, head: bytes) -> None:
    """Raise ProblemError for binary data that is neither a status block nor a record, by its first bytes."""
    require_no_store(path, head)
    if acpi_table(head) == "HEST":
        raise _refusal(command, path, "a HEST, the table of error sources", "decode")
    if (reason := unreadable_file(head)) is not None:
        raise ProblemError(unrecognised(f"{_name(path)}: {reason}"))
    if head.startswith(SQLITE):
        raise _refusal(command, path, "an SQLite database", "import")


def require_no_store(path: str, head: bytes) -> None:
    """Raise ProblemError for the store of a service, by its first bytes."""
    if not head.startswith(SQLITE):
        return
    from ras_triage.service.store.files.database import APPLICATION_ID  # noqa: PLC0415 - other files are refused sooner without it

    if head[_APPLICATION_ID] == APPLICATION_ID.to_bytes(4, "big"):
        raise ProblemError(unrecognised(f"{_name(path)} is the store of a service; use `ras-triage query` or `ras-triage store check`"))


def require_lines(command: str, path: str, stream: BinaryIO) -> None:
    """Raise ProblemError for a stream that another command reads, by its first bytes."""
    head = stream.peek() if isinstance(stream, BufferedReader) else b""
    require_known_signature(command, path, head)
    if head:
        require_kind(command, path, head, is_whole=path != STANDARD_INPUT and len(head) < DEFAULT_BUFFER_SIZE)


@contextmanager
def explained(command: str, path: str, data: bytes) -> Iterator[None]:
    """Name the command that reads an input where `command` raises a ProblemError."""
    try:
        yield
    except ProblemError:
        require_kind(command, path, data, is_whole=True)
        raise


def require_kind(command: str, path: str, head: bytes, *, is_whole: bool) -> None:
    """Raise ProblemError for an input that another command or none reads, by its first bytes."""
    if _HEX_DUMP.match(head):
        raise ProblemError(unrecognised(f"{_name(path)} contains a hex dump with offsets; expected plain hexadecimal, as `xxd -p` writes"))
    kind = _kind(head, is_whole=is_whole)
    if kind is None or kind in _READ_BY[command]:
        return
    raise _refusal(command, path, kind, _READER.get(kind, "import"))


def _refusal(command: str, path: str, kind: str, reader: str) -> ProblemError:
    reader = "import --submit" if command == "submit" and reader != "decode" else reader
    line = valid_text(shlex.join(["ras-triage", *reader.split(), path]))
    return ProblemError(unrecognised(f"{_name(path)} contains {kind}; use `{line}`"))


def _name(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else f"`{valid_text(path)}`"


def _kind(head: bytes, *, is_whole: bool) -> str | None:
    """Return what an input is; None: nothing known."""
    from ras_triage.service.importing.format_detection import InputFormat, detect_format, is_kernel_log  # noqa: PLC0415 - only for errors

    form = detect_format(head, is_whole=is_whole)
    if form is InputFormat.EVENT or (b'"notification"' in head and head.lstrip().startswith(b"{")):
        return _kind_of_json(head)
    if form is InputFormat.CPER:  # of the first bytes of a text nobody knows whether all of it is base64
        return _BYTES if is_whole or b"\0" in head else None
    if form is InputFormat.KERNEL_LOG and not is_kernel_log(head):
        return None
    return _FORMATS.get(form)


def _kind_of_json(text: bytes) -> str | None:
    """Return how events are written; None: text that only looks like events."""
    text = text.strip()
    if text.startswith(b"["):
        return _ARRAY
    first, _, rest = text.partition(b"\n")
    if not rest:
        return None
    if _is_json(first):
        return _EVENTS
    return _EVENT if _is_json(text, allow_partial=True) else None


def _is_json(text: bytes, *, allow_partial: bool = False) -> bool:
    try:
        from_json(text, allow_partial=allow_partial)
    except ValueError:
        return False
    return True
