"""One error record of a kernel log, from its first line to the reading.

Two records are never made one: a line that the record cannot have at this point, after what it has already, begins another.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from ras_triage.models.event import Event
from ras_triage.models.formats.items import FoundError, Position, UnreadableRecord
from ras_triage.models.formats.kernel_log.grammar import HEAD, OPEN_HEADS, SEVERITIES
from ras_triage.models.formats.kernel_log.lines import LogLine
from ras_triage.models.formats.kernel_log.section_builder import BuiltSection, build_section
from ras_triage.models.formats.kernel_log.section_lines import Named, SectionLines, is_complete
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION
from ras_triage.models.host import Host
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import (
    AssumedField,
    ObservedAction,
    ObservedMemoryFailure,
    ObservedMessage,
    ObservedPanic,
    ObservedSignal,
    ObservedSoftOffline,
    group_actions,
)
from ras_triage.models.records.block_fields import StructuredBlock, encode_structured
from ras_triage.models.records.guid import guid
from ras_triage.models.severity import Severity, ghes_severity, severity_name

FORMAT: Final = "kernel_log"

MAX_LINES_APART: Final = 2000
"""Lines between two of one record, or between a record and what the kernel said of it, beyond which they are taken for strangers."""
_RECORD_SECONDS: Final = 10.0
"""A record is printed in one go, though a serial console may be slow."""
_FOLLOW_UP_SECONDS: Final = 5.0
"""Below the 10 seconds in which the same record again is not printed but may be handled."""
_CLOCK_SLACK: Final = 1.0
"""Seconds by which stamps of different CPUs may disagree."""
_NEXT_LINES: Final = 3
_PANIC_LINES: Final = 50
_MAX_SECTIONS: Final = 1024
"""More do not fit into a block of 64 KiB."""
_MAX_SEEN: Final = 1000
_LINE_SIZE: Final = 200
"""Bytes that a line takes beside its text."""

_UNTOLD: Final = (
    "flags of the sections, containment warning and threshold among them: the kernel does not print them",
    "how long the block was, and raw data behind its sections",
)
_LEVELS: Final = {0: Severity.FATAL, 3: Severity.RECOVERABLE, 4: Severity.CORRECTED}
"""The log level at which a severity is printed (`__ghes_panic`, `__ghes_print_estatus`); informational goes with corrected."""


class LogRecord:
    """A record that is being read."""

    __slots__ = (
        "_corrected",
        "_current",
        "_index",
        "_is_full",
        "_next_index",
        "_source_id",
        "_stamp",
        "block_severity",
        "first",
        "has_unknown_severity",
        "is_closed",
        "kernel",
        "last",
        "lost",
        "machine",
        "named",
        "sections",
        "seen",
        "sequence",
        "size",
        "when",
    )  # fmt: skip

    def __init__(self, line: LogLine, kernel: str | None, frames: Counter[int]) -> None:
        """`frames` counts the open records that name each page frame."""
        self.first = self.last = line
        self.machine = line.machine
        self.sequence = line.sequence
        self.kernel = kernel
        self.size = 0
        """Bytes of what is held of it, roughly."""
        self.is_closed = False
        """Whether the machine has been booted since."""
        self.when: datetime | None = line.when
        self.block_severity: int | None = None
        self.has_unknown_severity = False
        self.sections: list[SectionLines] = []
        self.named = Named(everywhere=frames)
        """What its sections name."""
        self.lost: list[str] = []
        self.seen: list[ObservedAction] = []
        self._source_id: int | None = None
        self._is_full = False
        self._current: SectionLines | None = None
        """The section at hand, which may be one too many to be kept."""
        self._corrected = False
        self._index = -1
        """The last that was printed."""
        self._next_index = 0
        self._stamp: tuple[bytes, bool] | None = None

    def takes(self, line: LogLine, head: re.Match[str] | None) -> bool:
        """Whether a line with this record's number can be one of its own; `head` is what `HEAD` makes of it."""
        if line.number - self.last.number > MAX_LINES_APART or not _follows(self.last, line, _RECORD_SECONDS):
            return False
        kind = head.lastgroup if head else None
        if kind is None and self.sequence is None and line.number - self.last.number > _NEXT_LINES:
            return is_complete(line.text)  # other drivers print `[Hardware Error]: ` too
        if kind == "start":
            return False
        if kind in ("corrected", "severity"):
            known = self.block_severity is not None or self.has_unknown_severity
            return not (self.sections or self._stamp or known or (kind == "corrected" and self._corrected))
        if kind == "error":
            assert head is not None
            return int(head["index"]) > self._index
        return True

    def add(self, line: LogLine, head: re.Match[str] | None) -> None:
        """Take a line; `head` is what `HEAD` makes of it."""
        self.last = line
        self.size += len(line.text) + _LINE_SIZE
        if head is None and " #" in line.text and not is_complete(line.text):
            line = replace(line, text=line.text.partition(" #")[0].rstrip())  # somebody noted something behind it
            head = HEAD.fullmatch(line.text)
        if head is None:
            self._add_body(line)
            return
        kind = head.lastgroup or ""
        if kind in OPEN_HEADS and not line.is_whole:
            self._lose(f"`{line.text[:80]}`: cut")
            return
        self._add_head(kind, head, line)

    def _add_body(self, line: LogLine) -> None:
        if self.sections or is_complete(line.text):
            self._section(line).add(line.text, line.is_whole)
        else:
            self._lose(f"`{line.text[:80]}`: not understood")

    def _add_head(self, kind: str, head: re.Match[str], line: LogLine) -> None:
        if kind == "start":
            self._source_id = int(head["source"])
        elif kind == "corrected":
            self._corrected = True
        elif kind == "severity":
            self.block_severity = SEVERITIES[head["block"]]
            self.has_unknown_severity = self.block_severity is None
        elif kind == "stamp":
            self._stamp = _timestamp(head["time"]), head["precise"] == "precise"
        elif kind == "error":
            self._begin_section(line, int(head["index"]), SEVERITIES[head["section"]])
        else:
            self._add_to_section(kind, head, line)

    def _add_to_section(self, kind: str, head: re.Match[str], line: LogLine) -> None:
        section = self._section(line)
        if section.is_past(kind):
            section = self._begin_section(line, None, None)
        if kind == "type":
            section.name_by_words(head["name"])
        elif kind == "unknown":
            section.name_by_guid(guid(head["guid"]))
        elif kind == "length":
            section.length = int(head["bytes"], 16)
        elif kind == "fru_id":
            section.fru_id = guid(head["fru_guid"])
        else:
            section.fru_text = head["fru"]

    def _section(self, line: LogLine) -> SectionLines:
        """The section at hand, or one whose beginning is missing: its timestamp comes before everything else."""
        current = self._current if self._stamp is None else None
        return self._begin_section(line, None, None) if current is None else current

    def _begin_section(self, line: LogLine, index: int | None, severity: int | None) -> SectionLines:
        if index is not None and index > self._next_index:
            missing = f"section {self._next_index}" if index == self._next_index + 1 else f"sections {self._next_index} to {index - 1}"
            self._lose(f"{missing}: not printed")
        if index is None and (self.sections or self._source_id is not None):
            self._lose("the beginning of a section: its line is missing")
        self._index = self._index if index is None else index
        self._next_index = (self._next_index if index is None else index) + 1
        is_kept = len(self.sections) < _MAX_SECTIONS
        section = self._current = SectionLines(line.number, index, severity, named=self.named if is_kept else Named())
        if self._stamp is not None:
            section.timestamp, section.is_precise = self._stamp
            self._stamp = None
        if is_kept:
            self.sections.append(section)
        elif not self._is_full:
            self._is_full = True
            self._lose(f"everything behind the first {_MAX_SECTIONS} sections")
        return section

    def _lose(self, what: str) -> None:
        if len(self.lost) < _MAX_SEEN:
            self.lost.append(what)

    def see(self, seen: ObservedAction) -> None:
        """Take something that the kernel did about it."""
        if len(self.seen) < _MAX_SEEN:
            self.seen.append(seen)
            self.size += len(seen.said) + _LINE_SIZE

    def refuse(self, text: str) -> None:
        """Take the kernel's word that it prints no more of the section."""
        if self._current is not None:
            self._current.refuse(text)

    # what the kernel did about it

    def explains(self, seen: ObservedAction, line: LogLine, is_newest: bool) -> bool:
        """Whether a line speaks of this record: by address, or because nothing else can have come between."""
        apart = line.number - self.last.number
        if not 0 <= apart <= MAX_LINES_APART or not _follows(self.last, line, _FOLLOW_UP_SECONDS):
            return False
        pfn = frame_of(seen)
        if pfn is not None:
            return pfn in self.named.frames
        if isinstance(seen, ObservedPanic):
            return seen.cause == "ghes" and self._is_last_word(apart, is_newest)
        return isinstance(seen, ObservedMessage) and self._is_noted(seen, apart, is_newest)

    def _is_last_word(self, apart: int, is_newest: bool) -> bool:
        """Whether a panic right behind the record is its doing (`__ghes_panic` prints the record and panics)."""
        return is_newest and apart <= _PANIC_LINES and self.block_severity in (None, Severity.FATAL)

    def _is_noted(self, note: ObservedMessage, apart: int, is_newest: bool) -> bool:
        if note.about == "address":
            return note.address is not None and note.address in self.named.addresses
        if note.about == "panic":
            return self._is_last_word(apart, is_newest)
        if note.about == "error_type":
            return is_newest and apart <= _NEXT_LINES and note.error_type in self.named.error_types
        return False

    # the reading

    def finish(self, notification: NotificationType | None) -> FoundError | UnreadableRecord:
        """What the record comes to."""
        place = Position(line=self.first.number)
        guessed = {index for index, section in enumerate(self.sections) if section.settle()}
        typed = [section for section in self.sections if section.type is not None]
        knows_severity = self.block_severity is not None or self.has_unknown_severity or self._corrected
        if not typed and not knows_severity:
            return UnreadableRecord(place, f"{self._name()} has neither a severity nor a section", FORMAT)
        assumed = [
            AssumedField("/notification/type", notification or DEFAULT_NOTIFICATION, "a kernel log does not tell how it was notified")
        ]
        if notification is not None:
            assumed.clear()
        severity = self._severity(assumed)
        built = self._build(assumed, guessed)
        try:
            event = self._event(notification, severity, built, assumed)
        except (ValidationError, ValueError) as error:
            return UnreadableRecord(place, f"{self._name()} does not fit into a status block: {_first_line(error)}", FORMAT)
        lost = [*_UNTOLD, *self._untold(), *self.lost, *(what for section in built for what in section.lost)]
        observed = group_actions(self.seen) if self.seen else None
        return FoundError(event, FORMAT, place, tuple(assumed), tuple(dict.fromkeys(lost)), observed)

    def _name(self) -> str:
        return "a record" if self.sequence is None else f"record {{{self.sequence}}}"

    def _severity(self, assumed: list[AssumedField]) -> int:
        """The block's severity, or what stands in for it."""
        if self.block_severity is not None:
            return self.block_severity
        if self._corrected:
            return Severity.CORRECTED  # the sentence is printed for this severity and no other
        taken, why = self._likely_severity()
        assumed.append(AssumedField("/status_block/severity", severity_name(taken), why))
        return taken

    def _likely_severity(self) -> tuple[int, str]:
        if self.has_unknown_severity:
            return 4, "the kernel prints `unknown` for every number above 3"
        if self.first.level in _LEVELS:
            return _LEVELS[self.first.level], f"the line that tells it is missing; the record was logged at level {self.first.level}"
        told = [section.severity for section in self.sections if section.severity is not None]
        if told:
            return max(told, key=ghes_severity), "the line that tells it is missing; the worst of the sections"
        return Severity.RECOVERABLE, "the line that tells it is missing, and nothing else tells it"

    def _build(self, assumed: list[AssumedField], guessed: set[int]) -> list[BuiltSection]:
        built: list[BuiltSection] = []
        for index, section in enumerate(self.sections):
            if section.type is None:
                self._lose(_untyped(section))
                continue
            at = f"/status_block/sections/{len(built)}"
            if index in guessed:
                because = f"the log says `{section.name}`" if section.name else "the line that tells the type is missing"
                assumed.append(
                    AssumedField(f"{at}/type", section.kind or "", f"{because}; its fields are printed in no other kind of section")
                )
            if section.severity is None:
                assumed.append(AssumedField(f"{at}/severity", "that of the block", "the log does not tell it"))
            built.append(build_section(section))
            assumed += [AssumedField(f"{at}/{name}", taken, why) for name, taken, why in built[-1].assumed]
        return built

    def _event(self, notification: NotificationType | None, severity: int, built: list[BuiltSection], assumed: list[AssumedField]) -> Event:
        because = "the kernel does not print it"
        assumed.append(AssumedField("/status_block/block_status", "by severity and number of sections", because))
        if built:
            assumed.append(AssumedField("/status_block/sections/*/flags", "none is set", because))
            assumed.append(AssumedField("/status_block/sections/*/revision", "0x300", because))
        is_of_this_boot = self._source_id is not None or self.sequence is not None  # else it may come from BERT
        facts: dict[str, Any] = {"kernel": self.kernel} if self.kernel and is_of_this_boot else {}
        numbering = frozenset().union(*(section.numbering for section in built))
        if len(numbering) == 1:
            facts["arm_error_types"] = next(iter(numbering))
            why = "so the kernel that printed the record reads them; firmware may number them otherwise"
            assumed.append(AssumedField("/host/arm_error_types", facts["arm_error_types"], why))
        sections: tuple[Any, ...] = tuple(section.section for section in built)
        block = StructuredBlock.model_construct(severity=severity, sections=sections)
        return Event(
            source=self.first.host,
            time=self.when,
            notification=Notification(type=notification or DEFAULT_NOTIFICATION, source_id=self._source_id),
            status_block=encode_structured(block),
            host=Host(**facts),
        )

    def _untold(self) -> list[str]:
        """What is missing of the record's frame."""
        missing = []
        if self._source_id is None:
            missing.append("the error source: no line tells it, as for records of the boot before (BERT)")
        if not self.sections:
            missing.append("the sections: no line of them is there")
        elif self.sections[0].index is None:
            missing.append("the beginning of the first section")
        return missing


def frame_of(seen: ObservedAction) -> int | None:
    """The page frame that something is about."""
    return (
        seen.pfn if isinstance(seen, (ObservedMemoryFailure, ObservedSignal, ObservedSoftOffline, ObservedMessage, ObservedPanic)) else None
    )


def names_memory(seen: ObservedAction) -> bool:
    """Return whether something names the memory that it is about; what does not can only be about the record right before it."""
    return frame_of(seen) is not None or (isinstance(seen, ObservedMessage) and seen.address is not None)


def _follows(before: LogLine, line: LogLine, seconds: float) -> bool:
    """Whether a line can have been written within `seconds` of an earlier one by the same boot of the same machine."""
    if before.uptime is not None and line.uptime is not None:
        return -_CLOCK_SLACK <= line.uptime - before.uptime <= seconds
    if before.when is not None and line.when is not None:
        return timedelta(seconds=-_CLOCK_SLACK) <= line.when - before.when <= timedelta(seconds=seconds)
    return True


def _timestamp(text: str) -> bytes:
    """8 bytes of BCD (UEFI 2.10 N.2.1) from `2026-11-22 10:00:00`, valid or not."""
    century, year, month, day, hour, minute, second = (text[at : at + 2] for at in (0, 2, 5, 8, 11, 14, 17))
    return bytes.fromhex(second + minute + hour + "00" + day + month + year + century)


def _untyped(section: SectionLines) -> str:
    what = f"section type `{section.name}` is not known" if section.name else "a section whose type was not printed"
    shown = "; ".join(f"`{text[:80]}`" for text, _ in section.unplaced[:5])
    return f"{what}: {shown}" if shown else what


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"])
    return str(error)
