"""Lines that mail or a terminal has broken in two, put together again.

A line without a stamp, a host or a record's number is the rest of the line before only if both make a line that the kernel prints, or a
better one than the first alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ras_triage.models.formats.kernel_log.actions import read_action
from ras_triage.models.formats.kernel_log.grammar import HEAD, SECTION_TYPES
from ras_triage.models.formats.kernel_log.lines import LogLine, parse_line, strip_quoting
from ras_triage.models.formats.kernel_log.section_lines import is_complete, is_list, names_nothing
from ras_triage.models.observed import ObservedMessage

_MAX_PIECES: Final = 8
"""Into which a line may have been broken."""
_MAX_JOINED: Final = 2048
"""Bytes of a line that is put together; the kernel's own lines end before 1024, and what stands before them is shorter."""
_WRAP_WIDTH: Final = 68
"""Columns from which on mail breaks a line."""
_FREE_TEXT: Final = "fru_text:"
_DIGITS: Final = (re.compile(r"\d+"), re.compile("[0-9a-f]+"))

_NOTHING, _VAGUE, _COMPLETE = 0, 1, 2


class HeldLine:
    """A line that waits for what may be the rest of it."""

    __slots__ = ("_is_whole", "_line", "_number", "_pieces", "_sense", "_text", "last")

    def __init__(self, text: str, line: LogLine) -> None:
        self._text = text
        self._pieces: list[str] = []
        self._number = self.last = line.number
        """The first and the last line that were taken for a part of it."""
        self._is_whole = line.is_whole
        self._line: LogLine | None = line
        """None: it was put together, and not read since."""
        self._sense: int | None = None

    @property
    def line(self) -> LogLine:
        """What it comes to."""
        if self._line is None:
            self._line = parse_line(self._text, self._number, self._is_whole)
        return self._line

    def join(self, text: str, number: int, is_whole: bool, is_candidate: bool) -> bool:
        """Whether the unmarked line behind it is, or may be, a part of it; `is_candidate`: it may also mean something by itself."""
        if number != self.last + 1 or len(self._pieces) >= _MAX_PIECES or not strip_quoting(text):
            return False
        if len(self._text) + len(text) > _MAX_JOINED:
            return False
        if self._text.endswith("=") and not self._pieces:
            self._become(self._text[:-1] + text, None, number)
            self._is_whole = is_whole
            return True
        if self._sense is None:
            self._sense = _sense(self.line)
        if self._sense == _COMPLETE:
            return self._extend(text, number, is_whole)
        pieces = [*self._pieces, strip_quoting(text).rstrip()]
        for whole in (" ".join((self._text.rstrip(), *pieces)), self._text + "".join(pieces)):
            line = parse_line(whole, self._number, is_whole)
            if _sense(line) > self._sense:
                self._become(whole, line, number)
                return True
        if is_candidate:
            return False
        self._pieces, self.last = pieces, number
        return True

    def _become(self, text: str, line: LogLine | None, number: int) -> None:
        self._text, self._line, self.last = text, line, number
        self._pieces, self._sense = [], None

    def _extend(self, text: str, number: int, is_whole: bool) -> bool:
        """The same for a line that could stand as it is, but might go on."""
        if not self.line.is_record:
            return False
        rest = strip_quoting(text).rstrip()
        breaks_number = self._text[-1].isdigit() and rest[0].isdigit()
        if len(self._text.rstrip()) + 1 + len(rest.split()[0]) > _WRAP_WIDTH:
            whole = self._text + rest if breaks_number and ":" in rest else self._text.rstrip() + " " + rest
            line = parse_line(whole, self._number, is_whole)
            if is_list(self.line.text) and is_list(line.text):
                self._become(whole, line, number)
                return True
            if self.line.text.startswith(_FREE_TEXT):
                self._doubt()
        if any(_sense(parse_line(self._text + digits, self._number)) == _COMPLETE for digits in _first_digits(rest)):
            self._doubt()  # a terminal may have broken the number
        return False

    def _doubt(self) -> None:
        """Whether the next line belongs to it or not, neither is sure."""
        self._line = replace(self.line, is_whole=False)


def _first_digits(text: str) -> Iterator[str]:
    """What a text begins with that may belong to a number before it."""
    return (digits[0] for pattern in _DIGITS if (digits := pattern.match(text)))


def _sense(line: LogLine) -> int:
    """How much sense a line makes."""
    if line.is_record:
        return _sense_of_record(line.text)
    seen = read_action(line.text, line.number)
    if seen is None:
        return _NOTHING
    return _VAGUE if isinstance(seen, ObservedMessage) else _COMPLETE


def _sense_of_record(text: str) -> int:
    head = HEAD.fullmatch(text)
    if head is not None:
        return _VAGUE if head.lastgroup == "type" and head["name"] not in SECTION_TYPES else _COMPLETE
    if not is_complete(text):
        return _NOTHING
    return _VAGUE if names_nothing(text) else _COMPLETE
