"""A batch's bytes to its items, without reading more than an item at a time.

Items are cut out, not understood: what is in them is checked when they are decided, so that one that is no event fails alone.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from ras_triage.service.api.problems import ErrorDetail, Problem, ProblemError, invalid_batch, too_large

RawItem = bytes | ProblemError
"""An item's own bytes, or why it is not read."""

_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_WITHIN: Final = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_BETWEEN: Final = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)
"""Up to the next byte that can end an item, strings taken whole; or up to the beginning of a string whose end did not come yet."""
_REST_OF_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""Up to the quote that ends a string."""

_OPEN, _END, _COMMA, _QUOTE = b"[{", b"]"[0], b","[0], b'"'[0]


class ItemSplitter(Protocol):
    """Takes a batch's bytes as they come and gives its items as they are complete."""

    def feed(self, data: bytes) -> list[RawItem]:
        """The items that these bytes complete."""

    def finish(self) -> list[RawItem]:
        """What is left when there are no more bytes."""

    @property
    def broken(self) -> bool:
        """Whether the rest cannot be told apart any more; the last item said why."""

    @property
    def incomplete(self) -> int:
        """Bytes that are held until their item is complete."""


class NdjsonSplitter:
    """Newline-delimited JSON. A blank line is no item."""

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
    """The elements of a JSON array."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._start = self._at = self._offset = 0
        """Where the element begins, and how far it was looked through, in `data`; where `data` begins, in the batch."""
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
        if self._stage == "behind":
            self._expect_nothing(items)
        self._drop()
        return items

    @property
    def incomplete(self) -> int:
        return len(self._data)

    def finish(self) -> list[RawItem]:
        if self.broken or self._stage == "behind":
            return []
        end = self._offset + len(self._data)
        return [self._break(f"byte {end}: the array ends too early", end)]

    def _open(self, items: list[RawItem]) -> None:
        text = self._data.lstrip()
        if not text:
            self._start = len(self._data)
            return
        place = len(self._data) - len(text)
        if not text.startswith(b"["):
            items.append(self._break(f"byte {self._offset + place}: expected `[`, the beginning of an array", self._offset + place))
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
        """Go on to the next byte that can end an item; whether it is there. No byte is looked at twice, however small the pieces are."""
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
        self._stage = "behind"
        self._at += 1
        self._start = self._at

    def _limit_waiting(self) -> None:
        """Let go of an element that is too long."""
        if self._at - self._start > self._limit:
            self._too_long, self._start = True, self._at

    def _expect_nothing(self, items: list[RawItem]) -> None:
        rest = self._data[self._start :].lstrip()
        if rest:
            place = self._offset + len(self._data) - len(rest)
            items.append(self._break(f"byte {place}: there is something behind the array", place))
        self._start = self._at = len(self._data)

    def _drop(self) -> None:
        """Forget the bytes that are done with."""
        del self._data[: self._start]
        self._at -= self._start
        self._offset += self._start
        self._start = 0

    def _break(self, detail: str, offset: int) -> ProblemError:
        self.broken = True
        return ProblemError(_invalid(detail, offset))


def _invalid(detail: str, offset: int) -> Problem:
    return invalid_batch(detail, (ErrorDetail("", detail, offset=offset),))
