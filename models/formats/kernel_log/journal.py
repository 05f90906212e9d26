"""journald JSON (`journalctl -o json` and its variants) as kernel log lines.

The variants are `json-pretty`, `json-seq` and `json-sse`. Fields are those of systemd.journal-fields(7); entries that are not from the
kernel are skipped.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic_core import from_json

from ras_triage.models.formats.json_text import JsonObject

MAX_UNREADABLE: Final = 1000
"""Unreadable lines whose numbers are kept; further ones are only counted."""

MAX_ENTRY: Final = 64 << 10
"""Bytes of an entry printed over several lines; journald truncates a kernel message far earlier."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEFORE: Final = re.compile(rb"\s*(?:\x1e|data: )?\s*")
"""Prefix of an entry in `json-seq` and `json-sse`."""
_MICROSECONDS = re.compile(r"\d{1,17}")
_PRIORITY = re.compile(r"[0-7]")


def is_entry(members: Iterable[str]) -> bool:
    """Return whether an object with these members is a journal entry."""
    return not {"__REALTIME_TIMESTAMP", "__CURSOR", "_TRANSPORT"}.isdisjoint(members)


@dataclass(slots=True)
class UnreadableLines:
    """Lines that cannot be parsed."""

    numbers: deque[int] = field(default_factory=deque)
    """Line numbers, from 1, until the caller removes them."""
    more: int = 0
    """Unreadable lines that were counted only, because `numbers` was full."""

    def add(self, number: int) -> None:
        """Record a line number, or count it if there are too many."""
        if len(self.numbers) < MAX_UNREADABLE:
            self.numbers.append(number)
        else:
            self.more += 1


def to_kernel_lines(lines: Iterable[bytes], unreadable: UnreadableLines) -> Iterator[bytes]:
    """Yield one kernel log line for each journal line, empty if there is none, so that line numbers stay the same.

    Lines that cannot be parsed are added to `unreadable`.
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
        yield _kernel_line(text, number, unreadable)
    if pieces:
        unreadable.add(number)


def _kernel_line(text: bytes, number: int, unreadable: UnreadableLines) -> bytes:
    if not text:
        return b"\n"
    try:
        entry: Any = from_json(text, cache_strings="none")
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        unreadable.add(number)
        return b"\n"
    return kernel_line(entry)


def kernel_line(entry: JsonObject) -> bytes:
    """Return the kernel log line of a journal entry, empty if there is none."""
    message = _message(entry.get("MESSAGE"))
    if entry.get("_TRANSPORT", "kernel") != "kernel" or message is None:
        return b"\n"
    return f"{_level(entry)}{_origin(entry)}{_uptime(entry)}".encode("latin-1", "replace") + b" ".join(message.splitlines()) + b"\n"


def _message(found: Any) -> bytes | None:
    """Return the message bytes: journald writes a message that is not UTF-8 as a list of bytes, and null if it is too long."""
    if isinstance(found, str):
        return found.encode("utf-8", "surrogatepass")
    try:
        return bytes(found) if isinstance(found, list) else None
    except (TypeError, ValueError):
        return None


def _level(entry: JsonObject) -> str:
    priority = str(entry.get("PRIORITY"))
    return f"<{priority}>" if _PRIORITY.fullmatch(priority) else ""


def _origin(entry: JsonObject) -> str:
    """Return the time and host prefix, if the entry has both in journald's form."""
    host, timestamp = entry.get("_HOSTNAME"), str(entry.get("__REALTIME_TIMESTAMP"))
    if not isinstance(host, str) or not host or any(map(str.isspace, host)) or not _MICROSECONDS.fullmatch(timestamp):
        return ""
    time = _EPOCH + timedelta(microseconds=int(timestamp))
    return f"{time.isoformat(timespec='microseconds')} {host} kernel: "


def _uptime(entry: JsonObject) -> str:
    uptime = str(entry.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    return f"[{int(uptime) / 1e6:12.6f}] " if _MICROSECONDS.fullmatch(uptime) else ""
