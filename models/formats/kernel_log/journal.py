"""What `journalctl -o json` prints, also in its variants `json-pretty`, `json-seq` and `json-sse`, as lines of a kernel log.

Fields are those of systemd.journal-fields(7); of the entries only the kernel's count.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic_core import from_json

from ras_triage.models.formats.json_text import Object

MAX_REFUSED: Final = 1000
"""Lines that are kept by their number before somebody asks for them."""

MAX_ENTRY: Final = 64 << 10
"""Bytes of an entry that is printed over several lines; journald itself cuts a kernel message far earlier."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEFORE: Final = re.compile(rb"\s*(?:\x1e|data: )?\s*")
"""What stands before an entry in `json-seq` and `json-sse`."""
_MICROSECONDS = re.compile(r"\d{1,17}")
_PRIORITY = re.compile(r"[0-7]")


def is_entry(members: Iterable[str]) -> bool:
    """Whether an object with these members is an entry of a journal."""
    return not {"__REALTIME_TIMESTAMP", "__CURSOR", "_TRANSPORT"}.isdisjoint(members)


@dataclass(slots=True)
class UnreadableLines:
    """Lines that cannot be read."""

    numbers: deque[int] = field(default_factory=deque)
    """From 1, until they are taken out."""
    more: int = 0
    """How many there were beside, while too many were kept."""

    def add(self, number: int) -> None:
        """Keep a line's number, or count it."""
        if len(self.numbers) < MAX_REFUSED:
            self.numbers.append(number)
        else:
            self.more += 1


def to_kernel_lines(lines: Iterable[bytes], refused: UnreadableLines) -> Iterator[bytes]:
    """A line of a kernel log for each line of a journal, empty where there is none in it; so their numbers stay the same.

    Lines that cannot be read are put to `refused`.
    """
    pieces: list[bytes] = []
    size = 0
    for number, line in enumerate(lines, 1):
        text = line[BEFORE.match(line).end() :].rstrip()  # type: ignore[union-attr] # it matches everywhere
        if pieces or text == b"{":
            if text:
                pieces.append(text)
                size += len(text)
            if text != b"}" and size < MAX_ENTRY:
                yield b"\n"
                continue
            text, pieces, size = b"".join(pieces), [], 0
        yield _kernel_line(text, number, refused)
    if pieces:
        refused.add(number)


def _kernel_line(text: bytes, number: int, refused: UnreadableLines) -> bytes:
    if not text:
        return b"\n"
    try:
        entry: Any = from_json(text, cache_strings="none")
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        refused.add(number)
        return b"\n"
    message = _message(entry.get("MESSAGE"))
    if entry.get("_TRANSPORT", "kernel") != "kernel" or message is None:
        return b"\n"
    return f"{_level(entry)}{_origin(entry)}{_uptime(entry)}".encode("latin-1", "replace") + b" ".join(message.splitlines()) + b"\n"


def _message(found: Any) -> bytes | None:
    """journald writes a message that is no UTF-8 as a list of its bytes, and None where it is too long."""
    if isinstance(found, str):
        return found.encode("utf-8", "surrogatepass")
    try:
        return bytes(found) if isinstance(found, list) else None
    except (TypeError, ValueError):
        return None


def _level(entry: Object) -> str:
    priority = str(entry.get("PRIORITY"))
    return f"<{priority}>" if _PRIORITY.fullmatch(priority) else ""


def _origin(entry: Object) -> str:
    """Time and host, where both are told as journald writes them."""
    host, told = entry.get("_HOSTNAME"), str(entry.get("__REALTIME_TIMESTAMP"))
    if not isinstance(host, str) or not host or any(map(str.isspace, host)) or not _MICROSECONDS.fullmatch(told):
        return ""
    time = _EPOCH + timedelta(microseconds=int(told))
    return f"{time.isoformat(timespec='microseconds')} {host} kernel: "


def _uptime(entry: Object) -> str:
    told = str(entry.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    return f"[{int(told) / 1e6:12.6f}] " if _MICROSECONDS.fullmatch(told) else ""
