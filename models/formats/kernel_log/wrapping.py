"""Joining of log lines that mail or a terminal has wrapped.

An unmarked line (no timestamp, host or record number) continues the line before only if the joined line is one that the kernel prints, or
matches better than the first line alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ras_triage.models.formats.kernel_log.actions import read_action
from ras_triage.models.formats.kernel_log.aer_lines import read_aer
from ras_triage.models.formats.kernel_log.exception_lines import read_exception, read_task
from ras_triage.models.formats.kernel_log.grammar import HEAD, SECTION_TYPES
from ras_triage.models.formats.kernel_log.lines import LogLine, parse_line, strip_quoting
from ras_triage.models.formats.kernel_log.section_lines import has_unknown_name, is_number_list, is_section_line
from ras_triage.models.observed import ObservedMessage, ObservedPanic

_MAX_PIECES: Final = 8
"""Pieces that one line may have been wrapped into."""
_MAX_JOINED: Final = 2048
"""Bytes of a joined line; the kernel's own lines are shorter than 1024, and so are prefixes."""
_WRAP_WIDTH: Final = 68
"""Columns from which mail programs wrap a line."""
_FREE_TEXT: Final = "fru_text:"
_LONGEST_FREE_TEXT: Final = len("fru_text: ") + 20
"""The text itself has 20 bytes (ACPI 6.5 table 18.12)."""
_DIGITS: Final = (re.compile(r"\d+"), re.compile("[0-9a-f]+"))

_UNKNOWN, _PARTIAL, _COMPLETE = 0, 1, 2


class PendingLine:
    """A line that may be continued by the next one."""

    __slots__ = ("_is_whole", "_line", "_number", "_pieces", "_recognition", "_text", "last")

    def __init__(self, text: str, line: LogLine) -> None:
        self._text = text
        self._pieces: list[str] = []
        self._number = self.last = line.number
        """Numbers of the first and the last line that it was joined from."""
        self._is_whole = line.is_whole
        self._line: LogLine | None = line
        """None: joined, and not parsed since."""
        self._recognition: int | None = None

    @property
    def line(self) -> LogLine:
        """Return the parsed line."""
        if self._line is None:
            self._line = parse_line(self._text, self._number, is_whole=self._is_whole)
        return self._line

    def join(self, text: str, number: int, *, is_whole: bool, is_candidate: bool) -> bool:
        """Join the unmarked next line if it is, or may be, a continuation; return whether it was joined.

        `is_candidate`: the next line may also be relevant by itself.
        """
        if number != self.last + 1 or len(self._pieces) >= _MAX_PIECES or not strip_quoting(text):
            return False
        if len(self._text) + len(text) > _MAX_JOINED:
            return False
        if self._text.endswith("=") and not self._pieces:
            self._set_text(self._text[:-1] + text, None, number)
            self._is_whole = is_whole
            return True
        if self._recognition is None:
            self._recognition = _recognise(self.line)
        if self._recognition == _COMPLETE:
            return self._extend(text, number, is_whole=is_whole)
        pieces = [*self._pieces, strip_quoting(text).rstrip()]
        for whole in (" ".join((self._text.rstrip(), *pieces)), self._text + "".join(pieces)):
            line = parse_line(whole, self._number, is_whole=is_whole)
            if _recognise(line) > self._recognition:
                self._set_text(whole, line, number)
                return True
        if is_candidate:
            return False
        self._pieces, self.last = pieces, number
        return True

    def _set_text(self, text: str, line: LogLine | None, number: int) -> None:
        self._text, self._line, self.last = text, line, number
        self._pieces, self._recognition = [], None

    def _extend(self, text: str, number: int, *, is_whole: bool) -> bool:
        """Do the same as `join` for a line that is complete but may continue."""
        if not self.line.is_record:
            return False
        rest = strip_quoting(text).rstrip()
        breaks_number = self._text[-1].isdigit() and rest[0].isdigit()
        if len(self._text.rstrip()) + 1 + len(rest.split()[0]) > _WRAP_WIDTH:
            whole = self._text + rest if breaks_number and ":" in rest else self._text.rstrip() + " " + rest
            line = parse_line(whole, self._number, is_whole=is_whole)
            if is_number_list(self.line.text) and is_number_list(line.text):
                self._set_text(whole, line, number)
                return True
            if self.line.text.startswith(_FREE_TEXT) and len(self.line.text.rstrip()) + 1 + len(rest.split()[0]) <= _LONGEST_FREE_TEXT:
                self._mark_incomplete()
        if any(_recognise(parse_line(self._text + digits, self._number)) == _COMPLETE for digits in _first_digits(rest)):
            self._mark_incomplete()  # a terminal may have wrapped within the number
        return False

    def _mark_incomplete(self) -> None:
        """Mark the end of the line as uncertain: the next line may belong to it."""
        self._line = replace(self.line, is_whole=False)


def _first_digits(text: str) -> Iterator[str]:
    """Yield the digits at the start of a text that may continue a number of the line before."""
    return (digits[0] for pattern in _DIGITS if (digits := pattern.match(text)))


def _recognise(line: LogLine) -> int:
    """Return how well a line matches what the kernel prints."""
    if line.is_record:
        return _recognise_record_line(line.text)
    if read_exception(line.text, line.number) or read_aer(line.text, line.number) or read_task(line.text):
        return _COMPLETE
    action = read_action(line.text, line.number)
    if action is None:
        return _UNKNOWN
    is_open = isinstance(action, ObservedMessage) or (isinstance(action, ObservedPanic) and action.cause is None)
    return _PARTIAL if is_open else _COMPLETE


def _recognise_record_line(text: str) -> int:
    head = HEAD.fullmatch(text)
    if head is not None:
        return _PARTIAL if head.lastgroup == "type" and head["name"] not in SECTION_TYPES else _COMPLETE
    if not is_section_line(text):
        return _UNKNOWN
    return _PARTIAL if has_unknown_name(text) else _COMPLETE
