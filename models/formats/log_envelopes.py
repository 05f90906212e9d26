"""Log lines in the envelopes of log collectors: JSON with a text field, CRI.

Docker, containerd, fluentd, fluent-bit, Loki, VictoriaLogs, Elastic, CloudWatch and Kubernetes wrap each line into a JSON object, alone,
behind a prefix, or in the arrays of a query's answer. One rule serves them all: the line is the string of the first known field, and of
several fields, the one with a kernel message. An envelope may hold another one.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Any, Final

from pydantic_core import from_json

from ras_triage.models.formats.json_text import BYTE_ORDER_MARK, JsonObject, find, read_json
from ras_triage.models.formats.kernel_log.journal import UnreadableLines, is_entry, kernel_line
from ras_triage.models.formats.kernel_log.lines import collected_from
from ras_triage.models.formats.kernel_log.reader import MARKS
from ras_triage.models.frozen import frozen

TEXT_FIELDS: Final = (
    *("MESSAGE", "_msg", "log", "message", "msg", "line", "_raw", "textPayload", "@message"),
    *("short_message", "body", "text", "content"),
)
"""Fields with the line, most specific first: journald, VictoriaLogs, Docker, Elastic, fluent-bit, Loki, Splunk, Google, CloudWatch,
GELF and OpenTelemetry."""
_MACHINE_FIELDS: Final = ("host", "hostname", "node_name", "node", "nodename", "instance", "pod_name", "pod", "logStreamName", "name")
"""Fields that name the machine or the pod that the line is from."""
_MACHINE_PARENTS: Final = ("kubernetes", "labels", "stream", "host", "_source", "resource")

_CRI: Final = re.compile(
    rb"\d{4}-\d\d-\d\dT[\d:.]{8,20}(?:Z|[+-]\d\d:\d\d) (?:stdout|stderr) (?P<tag>[FP])(?::\S{1,64})? ?(?P<text>.*)", re.DOTALL
)
"""A line of a container runtime's log file (Kubernetes CRI): time, stream, `F` whole or `P` continued by the next one."""
_LOKI: Final = re.compile(rb'\d{4}-\d\d-\d\dT\S{8,30} \{[\w.]{1,64}="[^{}]{0,2000}\} (?P<text>.*)', re.DOTALL)
"""A line of `logcli query`: time, labels, line."""
_POD: Final = re.compile(rb"\[pod/[^\]\s]{1,300}\] (?P<text>.*)", re.DOTALL)
"""A line of `kubectl logs --prefix`."""
_RUBY: Final = re.compile(rb'"\s?=>\s?')
"""Between name and value where fluent-bit prints an object."""
_OBJECT: Final = b'{"'
_ARRAY: Final = re.compile(rb"\[\s*(?:[\[{]|\Z)")
_TRACE_MARK: Final = b"_event: "
_UPTIME: Final = re.compile(rb"\[\s{0,6}(\d{1,8}\.\d{1,9})\]")
_MAX_DEPTH: Final = 6
_MAX_PARTIAL: Final = 1 << 20
"""Bytes of a line that was split by its container runtime."""
_DOCKER_PIECE: Final = 16_000
"""Docker splits lines at 16 KiB."""
_MAX_BREAKS: Final = 1 << 20
_NEWEST_FIRST: Final = 3
"""Descending times since boot, none ascending, from which a log is taken to have its newest line first."""


@frozen
class WrappedText:
    """The text of one envelope."""

    pointer: str
    """JSON pointer into the document."""
    lines: tuple[bytes, ...]
    """With line ends."""
    machine: str = ""
    is_partial: bool = False
    """Whether the next envelope continues it."""


class AmbiguousText(ValueError):
    """Several fields, none of them known, have a kernel message; the text names them."""


@dataclass(slots=True)
class TextFields:
    """Names of the text field."""

    name: str | None = None
    """The only one, may be a dotted path; None: the known ones."""
    known: list[str] = field(default_factory=lambda: list(TEXT_FIELDS))
    """Known names, to which those are added in which a kernel message was found."""


def find_texts(document: Any, fields: TextFields | None = None) -> Iterator[WrappedText]:
    """Yield the texts of a JSON value in order. Raises AmbiguousText."""
    yield from _texts(document, fields or TextFields(), "", "", 0)


def _texts(value: Any, fields: TextFields, pointer: str, machine: str, depth: int) -> Iterator[WrappedText]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        machine = _machine(value) or machine
        text = _text_of(value, fields)
        if text is not None:
            yield from _unpacked(value, text, fields, pointer, machine, depth)
        has_line = text is not None and has_mark(text)
        children = {key: one for key, one in value.items() if isinstance(one, list) or (text is None and isinstance(one, dict))}
        for key, one in () if has_line else children.items():
            yield from _texts(one, fields, f"{pointer}/{_escaped(key)}", machine, depth + 1)
    elif isinstance(value, list):
        row = _as_row(value)
        if row is not None:
            yield from _texts(row, fields, pointer, machine, depth + 1)
            return
        for index, one in enumerate(value):
            yield from _texts(one, fields, f"{pointer}/{index}", machine, depth if isinstance(one, dict) else depth + 1)


def _escaped(key: str) -> str:
    """Return a key as it is in a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _as_row(value: list[Any]) -> JsonObject | None:
    """Return the columns of a CloudWatch Insights result, or of a Loki value (time in nanoseconds, line); None for any other array."""
    if value and all(isinstance(one, dict) and "field" in one for one in value):
        return {str(one["field"]): one.get("value") for one in value}
    if len(value) > 1 and isinstance(value[0], str) and value[0].isdigit() and isinstance(value[1], str):
        return {"line": value[1]}
    return None


def _text_of(value: JsonObject, fields: TextFields) -> str | None:
    if fields.name is not None:
        named = value.get(fields.name, find(value, fields.name))
        return named if isinstance(named, str) else None
    known = [text for one in fields.known if (text := _string(value.get(one))) is not None]
    marked = next((text for text in known if has_mark(text)), None)
    if marked is not None:
        return marked
    others = [key for key, text in value.items() if isinstance(text, str) and has_mark(text)]
    if len(others) > 1:
        raise AmbiguousText(", ".join(f"`{key}`" for key in others[:4]))
    if not others:
        return next(iter(known), None)
    fields.known.insert(0, others[0])
    return str(value[others[0]])


def _string(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("stringValue")  # OpenTelemetry
    return value if isinstance(value, str) else None


def has_mark(text: str) -> bool:
    """Return whether a text may have a line about a hardware error."""
    data = text.encode("utf-8", "surrogatepass")
    return _TRACE_MARK in data or any(mark in data for mark in MARKS)


def _machine(value: JsonObject) -> str:
    parents = (value, *(parent for name in _MACHINE_PARENTS if isinstance(parent := value.get(name), dict)))
    names = (parent.get(name) for parent in parents for name in _MACHINE_FIELDS if name != "name" or parent is value.get("host"))
    return " ".join(name for name in names if isinstance(name, str))[:200]


def _unpacked(value: JsonObject, text: str, fields: TextFields, pointer: str, machine: str, depth: int) -> Iterator[WrappedText]:
    if is_entry(value):
        yield WrappedText(pointer, (kernel_line(value),), machine)
        return
    data = text.encode("utf-8", "surrogatepass")
    if text.lstrip().startswith("{") and (inner := _object(data)) is not None:
        found = list(_texts(inner, fields, pointer, machine, depth + 1))
        if found:
            yield from found
            return
    is_partial = len(data) >= _DOCKER_PIECE and "stream" in value and not data.endswith(b"\n")
    lines = tuple(line + b"\n" for line in data.splitlines()) or (b"\n",)
    yield WrappedText(pointer, lines, machine, is_partial)


def _object(data: bytes) -> JsonObject | None:
    """Return the JSON object that `data` is, with at most brackets behind it; None: it is none."""
    for text in (data, _RUBY.sub(b'": ', data)) if b"=>" in data else (data,):
        try:
            found = from_json(text, cache_strings="none")
        except ValueError:
            try:
                written = text.decode("utf-8", "replace").strip()
                found, end = json.JSONDecoder().raw_decode(written)
            except (ValueError, RecursionError):
                continue
            if written[end:].strip("], "):
                continue
        if isinstance(found, dict):
            return found
    return None


def is_document(head: bytes) -> bool:
    """Return whether a file is one JSON document, and not one on each line, by its first bytes."""
    first, _, rest = head.removeprefix(BYTE_ORDER_MARK).strip().partition(b"\n")
    if _ARRAY.match(first):
        return True
    if not first.startswith(b"{"):
        return False
    try:
        document = from_json(first, cache_strings="none")
        return not isinstance(document, dict) or (not rest and len(list(islice(find_texts(document), 2))) > 1)
    except ValueError:
        return True


# Lines


def unwrap_line(line: bytes, fields: TextFields) -> list[WrappedText] | None:
    """Return the texts of a line, empty for an object without one; None if the line is broken JSON. Raises AmbiguousText.

    A line without an envelope is its own text.
    """
    if (cri := _CRI.match(line)) is not None:
        rest, is_partial = cri["text"], cri["tag"] == b"P"
    else:
        prefixed = _LOKI.match(line) or _POD.match(line)
        rest, is_partial = (prefixed["text"] if prefixed else line), False
    plain = [WrappedText("", (rest.rstrip(b"\r\n") + b"\n",), is_partial=is_partial)]
    at = rest.find(_OBJECT)
    if at < 0:
        return plain
    is_behind_text = bool(rest[:at].strip())
    found = _object(rest[at:])
    if found is None:
        return plain if is_behind_text else None
    texts = list(find_texts(found, fields))
    if is_behind_text and (not texts or any(mark in rest[:at] for mark in MARKS)):
        return plain  # a message that has JSON in it
    return [replace(text, is_partial=text.is_partial or is_partial) for text in texts]


def is_wrapped(line: bytes) -> bool:
    """Return whether a line has a known envelope with a text."""
    if _CRI.match(line) or _LOKI.match(line) or _POD.match(line):
        return True
    at = line.find(_OBJECT)
    found = _object(line[at:]) if at >= 0 else None
    return found is not None and is_envelope(found)


def is_envelope(document: Any) -> bool:
    """Return whether a JSON value has a text."""
    try:
        return next(find_texts(document), None) is not None
    except AmbiguousText:
        return True


@dataclass(slots=True)
class UnwrappedLog:
    """Log lines from envelopes, with their places and what could not be read."""

    fields: TextFields = field(default_factory=TextFields)
    unreadable: UnreadableLines = field(default_factory=UnreadableLines)
    """Lines that are broken JSON."""
    ambiguous: str | None = None
    """Names of the fields with a kernel message in the first object that has several and none of them known."""
    texts: int = 0
    """Texts that were found."""
    pointers: list[str] | None = None
    """JSON pointer of each line, where the file is one document."""
    _starts: array[int] = field(default_factory=lambda: array("q"))
    _shifts: array[int] = field(default_factory=lambda: array("q"))
    _first: str | None = None
    _count: int | None = None
    """Number of lines, where their order was reversed."""

    def lines(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the log lines of a file with an envelope on each line."""
        out, held = 0, b""
        for number, line in enumerate(lines, 1):
            for text in self._unwrapped(line, number):
                pieces = list(text.lines)
                pieces[0] = held + pieces[0]
                held = b""
                if text.is_partial and len(pieces) == 1 and len(pieces[0]) < _MAX_PARTIAL:
                    held = pieces[0].rstrip(b"\r\n")
                    continue
                for piece in pieces:
                    out += 1
                    self._place(out, number)
                    yield self._marked(text.machine) + piece
        if held:
            yield held + b"\n"

    def _unwrapped(self, line: bytes, number: int) -> list[WrappedText]:
        nothing = [WrappedText("", (b"\n",))]
        if not line.strip():
            return nothing
        try:
            texts = unwrap_line(line, self.fields)
        except AmbiguousText as error:
            self.ambiguous = self.ambiguous or str(error)
            return nothing
        if texts is None:
            self.unreadable.add(number)
        self.texts += len(texts or ())
        return texts or nothing

    def document(self, data: bytes) -> list[bytes]:
        """Return the log lines of a JSON document, oldest first. Raises ValueError if it is not JSON."""
        document = read_json(data)
        try:
            texts = list(find_texts(document, self.fields))
        except AmbiguousText as error:
            texts, self.ambiguous = [], str(error)
        self.texts = len(texts)
        if is_newest_first(line for text in texts for line in text.lines):
            texts.reverse()
        placed = [(text.pointer, self._marked(text.machine) + line) for text in texts for line in text.lines]
        self.pointers = [pointer for pointer, _ in placed]
        return [line for _, line in placed]

    def reversed_lines(self, lines: Iterable[bytes]) -> list[bytes]:
        """Return as `lines`, but the last line first."""
        newest_last = list(self.lines(lines))[::-1]
        self._count = len(newest_last)
        return newest_last

    def number(self, line: int) -> int:
        """Return the line number in the file, from 1, of an unwrapped line."""
        line = line if self._count is None else self._count + 1 - line
        at = bisect_right(self._starts, line) - 1
        return line + self._shifts[at] if at >= 0 else line

    def _place(self, out: int, number: int) -> None:
        shift = number - out
        if shift != (self._shifts[-1] if self._shifts else 0):
            if len(self._starts) >= _MAX_BREAKS:
                del self._starts[: _MAX_BREAKS // 2], self._shifts[: _MAX_BREAKS // 2]
            self._starts.append(out)
            self._shifts.append(shift)

    def _marked(self, machine: str) -> bytes:
        """Return the mark that keeps the lines of several machines apart: none for those of the first one."""
        if self._first is None and machine:
            self._first = machine
        return b"" if machine in ("", self._first) else collected_from(machine)


def is_newest_first(lines: Iterable[bytes]) -> bool:
    """Return whether the times since boot of a log descend: the answers of log stores often begin with the newest line."""
    times = [float(found[1]) for line in lines if (found := _UPTIME.search(line))]
    steps = [after - before for before, after in pairwise(times)]
    return sum(step < 0 for step in steps) >= _NEWEST_FIRST and not any(step > 0 for step in steps)
