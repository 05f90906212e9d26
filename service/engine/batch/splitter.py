"""Incremental splitters of batches: newline-delimited JSON and JSON arrays.

Items are only delimited here and parsed when they are decided, so that an invalid one fails alone.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from ras_triage.service.api.problems import ErrorDetail, Problem, ProblemError, invalid_batch, too_large

_NO_ARRAY: Final = "expected `[`, the start of an array; for an event on each line, expected `Content-Type: application/x-ndjson`"

RawItem = bytes | ProblemError
"""An item's bytes, or the problem with it."""

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_WITHIN: Final = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_BETWEEN: Final = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)
"""Matches up to the next byte that can end an item, over complete strings; or up to the start of an incomplete string."""
_REST_OF_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""Matches up to the quote that ends a string."""

_OPEN, _END, _COMMA, _QUOTE = b"[{", b"]"[0], b","[0], b'"'[0]


class ItemSplitter(Protocol):
    """Splitter of the bytes of a batch into items."""

    def feed(self, data: bytes) -> list[RawItem]:
        """Add bytes. Return the items that they complete."""

    def finish(self) -> list[RawItem]:
        """Return the last items, at the end of the body."""

    @property
    def broken(self) -> bool:
        """Whether the rest cannot be split; the last item has the problem."""

    @property
    def incomplete(self) -> int:
        """Buffered bytes of the incomplete item."""


class NdjsonSplitter:
    """Splitter of newline-delimited JSON. Blank lines are ignored."""

    broken = False

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[RawItem]:
        first, *others = data.split(b"\n")
        self._rest += first
        items: list[RawItem] = []
        if others:
            *lines, rest = others
            for line in (bytes(self._rest), *lines):
                if not self._skipping and line.strip():
                    items.append(line if len(line) <= self._limit else ProblemError(too_large(self._limit)))
                self._skipping = False
            self._rest = bytearray(rest)
        if len(self._rest) > self._limit and not self._skipping:
            items.append(ProblemError(too_large(self._limit)))
            self._skipping = True
        if self._skipping:
            self._rest.clear()
        return items

    @property
    def incomplete(self) -> int:
        return len(self._rest)

    def finish(self) -> list[RawItem]:
        rest = bytes(self._rest)
        self._rest.clear()
        return [rest] if rest.strip() and not self._skipping else []


class ArraySplitter:
    """Splitter of a JSON array into its elements."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._start = self._at = self._offset = 0
        """Start of the element and scan position in `data`; offset of `data` in the batch."""
        self._depth = 0
        self._in_string = False
        self._stage = "before"
        self._count = 0
        self._too_long = False
        self.broken = False

    def feed(self, data: bytes) -> list[RawItem]:
        self._data += data
        items: list[RawItem] = []
        if self._stage == "before":
            self._open(items)
        if self._stage == "within":
            self._walk(items)
        if self._stage == "after":
            self._expect_nothing(items)
        self._drop()
        return items

    @property
    def incomplete(self) -> int:
        return len(self._data)

    def finish(self) -> list[RawItem]:
        if self.broken or self._stage == "after":
            return []
        end = self._offset + len(self._data)
        return [self._break(f"byte {end}: unexpected end of the array; expected `]`", end)]

    def _open(self, items: list[RawItem]) -> None:
        text = self._data.lstrip()
        if not text:
            self._start = len(self._data)
            return
        place = len(self._data) - len(text)
        if not text.startswith(b"["):
            items.append(self._break(f"byte {self._offset + place}: {_NO_ARRAY}", self._offset + place))
            return
        self._stage, self._start, self._at = "within", place + 1, place + 1

    def _walk(self, items: list[RawItem]) -> None:
        while not self.broken and self._next():
            byte = self._data[self._at]
            if byte == _END and not self._depth:
                self._close(items)
                return
            if byte == _COMMA and not self._depth:
                self._take(items)
            elif byte in _OPEN:
                self._depth += 1
            elif self._depth:
                self._depth -= 1
            self._at += 1
            if not self._depth and self._data[self._at - 1] == _COMMA:
                self._start = self._at
        self._limit_waiting()

    def _next(self) -> bool:
        """Advance to the next byte that can end an item. Return whether there is one. No byte is scanned twice."""
        while True:
            pattern = _REST_OF_STRING if self._in_string else _WITHIN if self._depth else _BETWEEN
            found = pattern.match(self._data, self._at)
            self._at = found.end() if found else self._at
            if self._at == len(self._data) or (self._in_string and self._data[self._at] != _QUOTE):
                return False
            if self._data[self._at] != _QUOTE:
                return True
            self._in_string = not self._in_string
            self._at += 1

    def _take(self, items: list[RawItem]) -> None:
        element = bytes(self._data[self._start : self._at])
        self._count += 1
        items.append(ProblemError(too_large(self._limit)) if self._too_long or len(element) > self._limit else element)
        self._too_long = False

    def _close(self, items: list[RawItem]) -> None:
        if self._count or self._too_long or self._data[self._start : self._at].strip():
            self._take(items)
        self._stage = "after"
        self._at += 1
        self._start = self._at

    def _limit_waiting(self) -> None:
        """Discard the bytes of an element that is too long."""
        if self._at - self._start > self._limit:
            self._too_long, self._start = True, self._at

    def _expect_nothing(self, items: list[RawItem]) -> None:
        rest = self._data[self._start :].lstrip()
        if rest:
            place = self._offset + len(self._data) - len(rest)
            items.append(self._break(f"byte {place}: unexpected data after the array", place))
        self._start = self._at = len(self._data)

    def _drop(self) -> None:
        """Remove processed bytes."""
        del self._data[: self._start]
        self._at -= self._start
        self._offset += self._start
        self._start = 0

    def _break(self, detail: str, offset: int) -> ProblemError:
        self.broken = True
        return ProblemError(_invalid(detail, offset))


def _invalid(detail: str, offset: int) -> Problem:
    return invalid_batch(detail, (ErrorDetail("", detail, offset=offset),))
