"""An error record of a kernel log, built line by line.

Two records are never merged: a line that cannot follow the lines so far begins another record.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from ras_triage.models.event import Event
from ras_triage.models.formats.kernel_log.aer_lines import AerLine
from ras_triage.models.formats.kernel_log.boot import Boot
from ras_triage.models.formats.kernel_log.exceptions import LogException
from ras_triage.models.formats.kernel_log.grammar import HEAD, OPEN_HEADS, SEVERITIES
from ras_triage.models.formats.kernel_log.lines import FORMAT, LogLine, follows, memory_size, seconds_between
from ras_triage.models.formats.kernel_log.section_builder import BuiltSection, build_section
from ras_triage.models.formats.kernel_log.section_lines import MatchKeys, SectionLines, is_section_line
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.host import Host
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import (
    AssumedField,
    ObservedAction,
    ObservedMemoryFailure,
    ObservedMessage,
    ObservedPanic,
    ObservedRecovery,
    ObservedSignal,
    ObservedSoftOffline,
    group_actions,
)
from ras_triage.models.records.checked_sections import encode_sections
from ras_triage.models.records.guid import guid
from ras_triage.models.severity import Severity, ghes_severity, severity_name

if TYPE_CHECKING:
    from ras_triage.models.formats.kernel_log.record_templates import RecordTemplate

MAX_LINES_APART: Final = 2000
"""Most lines between two lines of a record, or between a record and a message about it."""
_RECORD_SECONDS: Final = 10.0
"""Longest time between two lines of a record: it is printed at once, but a serial console may be slow."""
_FOLLOW_UP_SECONDS: Final = 5.0
"""Longest time between a record and a message about it; below the 10 s in which Linux handles a repeated record without printing it."""
_ABORT_SECONDS: Final = 0.5
"""Longest time between a record and the abort that it came with: a few milliseconds, or a few lines on a slow serial console."""
_ABORT_LINES: Final = 40
_RECOVERY_SECONDS: Final = 120.0
"""Longest time between a record and the result of its PCIe error recovery: a device may need a minute to leave reset (`pci_dev_wait`)."""
_NEXT_LINES: Final = 3
REPORT_LINES: Final = 256
"""Most lines between a record and a report of the same error: fewer than those after which a record is closed."""
_DEFAULT_PAGE_SIZE: Final = 4096
_PANIC_LINES: Final = 50
_MAX_SECTIONS: Final = 1024
"""More sections do not fit into a block of 64 KiB."""
_MAX_ACTIONS: Final = 1000

_NOT_PRINTED: Final = (
    "section flags such as containment warning and threshold exceeded: not printed by the kernel",
    "the block length, and raw data behind the sections",
)
_LEVELS: Final = {0: Severity.FATAL, 3: Severity.RECOVERABLE, 4: Severity.CORRECTED}
"""Severity by the log level that it is printed at (`__ghes_panic`, `__ghes_print_estatus`); informational has the level of corrected."""


class LogRecord:
    """A record that is being parsed."""

    __slots__ = (
        "_corrected",
        "_current",
        "_index",
        "_is_full",
        "_is_recovered",
        "_is_recovering",
        "_next_index",
        "_poisoned_frames",
        "_source_id",
        "_stamp",
        "actions",
        "addresses",
        "block_severity",
        "boot",
        "exception",
        "first",
        "has_unknown_severity",
        "is_closed",
        "is_of_previous_boot",
        "is_synchronous",
        "last",
        "lost",
        "machine",
        "match_keys",
        "sections",
        "sequence",
        "size",
        "template",
        "when",
    )  # fmt: skip

    def __init__(self, line: LogLine, boot: Boot, frames: Counter[int]) -> None:
        """Begin a record with its first line; `frames` counts the open records that name each page frame."""
        self.first = self.last = line
        self.machine = line.machine
        self.sequence = line.sequence
        self.boot = boot
        self.size = 0
        """Bytes of memory that the record takes, approximately."""
        self.is_closed = False
        """Whether the machine has booted since."""
        self.is_of_previous_boot = False
        """Whether the log says that the records without a number are those of the previous boot (BERT)."""
        self.when: datetime | None = line.when
        self.block_severity: int | None = None
        self.has_unknown_severity = False
        self.sections: list[SectionLines] = []
        self.match_keys = MatchKeys(open_frames=frames)
        """Addresses, page frames and error types of its sections, to match later messages."""
        self.lost: list[str] = []
        self.actions: list[ObservedAction] = []
        self.exception: LogException | None = None
        """The abort that came with the record."""
        self.is_synchronous = False
        """Whether a message proves that the record came with an abort."""
        self._poisoned_frames: set[int] = set()
        self._is_recovering = False
        """Whether a section was handed to PCIe error recovery."""
        self._is_recovered = False
        """Whether the result of PCIe error recovery is known."""
        self._source_id: int | None = None
        self._is_full = False
        self._current: SectionLines | None = None
        """The current section; not in `sections` if there are too many."""
        self._corrected = False
        self._index = -1
        """The last section index that was printed."""
        self._next_index = 0
        self._stamp: tuple[bytes, bool] | None = None
        self.template: RecordTemplate | None = None
        """What this is a copy of; None: of nothing, or lines were added since."""
        self.addresses: tuple[int, ...] = ()
        """Of a copy, in the order of the lines."""

    def copy(self, first: LogLine, last: LogLine, boot: Boot, frames: Counter[int]) -> LogRecord:
        """Return a record with the same lines. The first line of this one has the number 0, and all sections are plain."""
        record = LogRecord(first, boot, frames)
        record.last = last
        record.size = self.size
        record.block_severity = self.block_severity
        record.has_unknown_severity = self.has_unknown_severity
        record.sections = [section.copy(first.number + section.line, record.match_keys) for section in self.sections]
        record.match_keys.error_types |= self.match_keys.error_types
        record._current = record.sections[-1]
        record._source_id = self._source_id
        record._corrected = self._corrected
        record._index = self._index
        record._next_index = self._next_index
        record._stamp = self._stamp
        return record

    def accepts(self, line: LogLine, head: re.Match[str] | None) -> bool:
        """Return whether a line with this record's number can belong to it; `head` is the match of `HEAD`."""
        if line.number - self.last.number > MAX_LINES_APART or not follows(self.last, line, _RECORD_SECONDS):
            return False
        kind = head.lastgroup if head else None
        if kind is None and self.sequence is None and line.number - self.last.number > _NEXT_LINES:
            return is_section_line(line.text)  # other drivers print `[Hardware Error]: ` too
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
        """Add a line; `head` is the match of `HEAD`."""
        self.template = None
        self.last = line
        self.size += memory_size(line.text)
        if head is None and " #" in line.text and not is_section_line(line.text):
            line = replace(line, text=line.text.partition(" #")[0].rstrip())  # a comment added by a person
            head = HEAD.fullmatch(line.text)
        if head is None:
            self._add_body(line)
            return
        kind = head.lastgroup or ""
        if kind in OPEN_HEADS and not line.is_whole:
            self._note_loss(f"`{line.text[:80]}`: truncated")
            return
        self._add_head(kind, head, line)

    def _add_body(self, line: LogLine) -> None:
        if self.sections or is_section_line(line.text):
            self._section(line).add(line.text, is_whole=line.is_whole)
        else:
            self._note_loss(f"`{line.text[:80]}`: unknown line")

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
        if section.is_too_late(kind):
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
        """Return the current section, or begin one whose first line is missing; a timestamp precedes all other lines of a section."""
        current = self._current if self._stamp is None else None
        return self._begin_section(line, None, None) if current is None else current

    def _begin_section(self, line: LogLine, index: int | None, severity: int | None) -> SectionLines:
        if index is not None and index > self._next_index:
            missing = f"section {self._next_index}" if index == self._next_index + 1 else f"sections {self._next_index} to {index - 1}"
            self._note_loss(f"{missing}: not printed")
        if index is None and (self.sections or self._source_id is not None):
            self._note_loss("the first line of a section: missing")
        self._index = self._index if index is None else index
        self._next_index = (self._next_index if index is None else index) + 1
        has_room = len(self.sections) < _MAX_SECTIONS
        section = self._current = SectionLines(line.number, index, severity, match_keys=self.match_keys if has_room else MatchKeys())
        if self._stamp is not None:
            section.timestamp, section.is_precise = self._stamp
            self._stamp = None
        if has_room:
            self.sections.append(section)
        elif not self._is_full:
            self._is_full = True
            self._note_loss(f"all sections after the first {_MAX_SECTIONS}")
        return section

    def _note_loss(self, what: str) -> None:
        if len(self.lost) < _MAX_ACTIONS:
            self.lost.append(what)

    def add_action(self, action: ObservedAction, line: LogLine) -> None:
        """Add an action that the kernel took about this record."""
        self._learn_page_size(action)
        if self._proves_abort(action, line):
            self.is_synchronous = True
            if self._source_id is not None:
                self.boot.synchronous_sources.add(self._source_id)
        if len(self.actions) < _MAX_ACTIONS:
            self.actions.append(action)
            self.size += memory_size(action.said)

    def accepts_recovery(self, found: AerLine, line: LogLine) -> bool:
        """Return whether a message of PCIe error recovery is about this record.

        It names the device of a section or, about the result, the port above it. Registers and a result are printed once for a section.
        """
        if not self.match_keys.devices or not 0 < line.number - self.last.number <= MAX_LINES_APART:
            return False
        section = self.match_keys.devices.get(found.device)
        if found.registers:
            is_new = section is not None and not found.registers.keys() & section.recovery.keys()
            return is_new and follows(self.last, line, _FOLLOW_UP_SECONDS)
        is_subject = section is not None or self._is_recovering
        return is_subject and not self._is_recovered and follows(self.last, line, _RECOVERY_SECONDS)

    def add_recovery(self, found: AerLine, line: LogLine) -> None:
        """Add a message of PCIe error recovery that this record accepts."""
        self.template = None
        if found.registers:
            self.match_keys.devices[found.device].recovery |= found.registers
            self._is_recovering = True
        if found.action is not None:
            self.add_action(found.action, line)
            self._is_recovered = isinstance(found.action, ObservedRecovery) and found.action.result != "queued"

    def _learn_page_size(self, action: ObservedAction) -> None:
        """Set the page size of the machine by a page frame number: it is the address, divided by the size."""
        frame = observed_frame(action)
        size = self.match_keys.frames.get(frame, 0) if frame is not None else 0
        if size.bit_count() == 1 and (size != _DEFAULT_PAGE_SIZE or self.boot.page_size is not None):
            self.boot.page_size = size

    def _proves_abort(self, action: ObservedAction, line: LogLine) -> bool:
        """Return whether an action is taken only for the thread that consumed the error (MF_ACTION_REQUIRED).

        The thread handles the error itself, or it accessed a page that is poisoned already (`kill_accessing_process`). On x86 both may
        come from a machine check beside the record.
        """
        if isinstance(action, ObservedMessage) and action.pfn is not None and action.said.endswith("already hardware poisoned"):
            self._poisoned_frames.add(action.pfn)
        if (
            not isinstance(action, ObservedSignal)
            or action.signal != "SIGBUS"
            or not any(one.kind == "arm_processor" for one in self.sections)
        ):
            return False
        return action.pfn in self._poisoned_frames or line.caller == f"T{action.pid}"

    def add_exception(self, exception: LogException) -> None:
        """Add the abort that came with the record."""
        self.exception = exception
        if exception.taken_from == "user" and self._source_id is not None:
            self.boot.synchronous_sources.add(self._source_id)

    def comes_with(self, exception: LogException) -> bool:
        """Return whether an abort so close to the record is that of its notification (`apei_claim_sea`).

        A record is printed before what the kernel does about the abort; before 4.20 the abort itself is printed first.
        """
        before, after = (self.last, exception.first) if self.first.number < exception.first.number else (exception.last, self.first)
        apart = seconds_between(before, after)
        is_near = after.number - before.number <= (_NEXT_LINES if apart is None else _ABORT_LINES)
        is_notified = self._source_id is not None or self.sequence is not None  # not a record of the previous boot (BERT)
        is_soon = apart is None or -_ABORT_SECONDS <= apart <= _ABORT_SECONDS
        return exception.kind == "sea" and self.exception is None and is_notified and is_near and is_soon

    def refuse(self, text: str) -> None:
        """Add a message that the kernel does not print the rest of the section."""
        self.template = None
        if self._current is not None:
            self._current.refuse(text)

    # Matching of actions

    def is_subject_of(self, action: ObservedAction, line: LogLine, *, is_newest: bool) -> bool:
        """Return whether a line is about this record: by its address, or by its distance where it names none."""
        if self._is_history:
            return False
        apart = line.number - self.last.number
        if not 0 <= apart <= MAX_LINES_APART or not follows(self.last, line, _FOLLOW_UP_SECONDS):
            return False
        pfn = observed_frame(action)
        if pfn is not None:
            return pfn in self.match_keys.frames
        if isinstance(action, ObservedPanic):
            return action.cause == "ghes" and self._is_followed_by_panic(apart, is_newest=is_newest)
        return isinstance(action, ObservedMessage) and self._is_noted(action, apart, is_newest=is_newest)

    def is_reported_by(self, line: LogLine, frames: frozenset[int]) -> bool:
        """Return whether EDAC or a trace event, before or after the record, is about its error; one without an address is if it is near."""
        first, last = (self.last, line) if self.last.number <= line.number else (line, self.first)
        is_near = last.number - first.number <= REPORT_LINES and follows(first, last, _FOLLOW_UP_SECONDS)
        return is_near and not self._is_history and (not frames or not frames.isdisjoint(self.match_keys.frames))

    def _is_followed_by_panic(self, apart: int, *, is_newest: bool) -> bool:
        """Return whether a panic right after the record was caused by it (`__ghes_panic` prints the record and panics)."""
        return is_newest and apart <= _PANIC_LINES and self.block_severity in (None, Severity.FATAL)

    def _is_noted(self, note: ObservedMessage, apart: int, *, is_newest: bool) -> bool:
        if note.about == "address":
            return note.address is not None and note.address in self.match_keys.addresses
        if note.about == "panic":
            return self._is_followed_by_panic(apart, is_newest=is_newest)
        if note.about == "error_type":
            return is_newest and apart <= _NEXT_LINES and note.error_type in self.match_keys.error_types
        return False

    # Conversion to an event

    def finish(self, notification: NotificationType | None) -> FoundError | UnreadableRecord:
        """Return the record as an error with its event, or as unreadable.

        The notification type of a record of the previous boot is not that of the caller, which is about the errors of this one.
        """
        if self.template is not None and not self._came_with_abort():
            found = self.template.finish(self, notification)
            if found is not None:
                return found
        notification = NotificationType.BERT if self._is_history else notification
        place = Position(line=self.first.number)
        inferred = {index for index, section in enumerate(self.sections) if section.infer_type()}
        typed = [section for section in self.sections if section.type is not None]
        has_severity = self.block_severity is not None or self.has_unknown_severity or self._corrected
        if not typed and not has_severity:
            return UnreadableRecord(place, f"{self._name()} has no severity and no section", FORMAT)
        assumed: list[AssumedField] = []
        notified = self._notification(notification, assumed)
        severity = self._severity(assumed)
        built = self._build(assumed, inferred)
        try:
            event = self._event(notified, severity, built, assumed)
        except (ValidationError, ValueError) as error:
            return UnreadableRecord(place, f"{self._name()} does not fit into a status block: {_first_line(error)}", FORMAT)
        lost = [*_NOT_PRINTED, *self._missing_parts(), *self.lost, *(what for section in built for what in section.lost)]
        actions = self.actions
        if self.exception is not None:
            assumed += self.exception.assumed()
            lost += self.exception.lost()
            if self.exception.taken_from == "kernel":
                lost.append("how the record was read: since 5.8 the handler of an abort in the kernel reads no record")
            actions = sorted([*actions, *self.exception.actions], key=attrgetter("line"))
        observed = group_actions(actions) if actions else None
        return FoundError(event, FORMAT, place, tuple(assumed), tuple(dict.fromkeys(lost)), observed)

    @property
    def _is_history(self) -> bool:
        return self.is_of_previous_boot and self._source_id is None

    def _notification(self, known: NotificationType | None, assumed: list[AssumedField]) -> Notification:
        """Return the notification: the caller's, that of an abort beside the record, or else an assumption."""
        is_synchronous = self._came_with_abort()
        if known is None and not is_synchronous:
            why = "a kernel log does not contain the notification type"
            if self.sequence is None and self._source_id is None:
                why += "; without number and source, the record may be of the previous boot (`bert`)"
            assumed.append(AssumedField("/notification/type", DEFAULT_NOTIFICATION, why))
        elif known is None and self._is_handled_beside_oops():
            why = "an abort in the kernel follows at once, but its handler reads no record since 5.8, and this one was handled"
            assumed.append(AssumedField("/notification/type", NotificationType.SEA, why))
        kind = known or (NotificationType.SEA if is_synchronous else DEFAULT_NOTIFICATION)
        if self.exception is not None and kind is NotificationType.SEA:
            return self.exception.notification(self._source_id)
        return Notification(type=kind, source_id=self._source_id)

    def _came_with_abort(self) -> bool:
        return self.exception is not None or self.is_synchronous or self._source_id in self.boot.synchronous_sources

    def _is_handled_beside_oops(self) -> bool:
        """Return whether the kernel handled the record although the abort beside it was taken in the kernel."""
        handled = (ObservedMemoryFailure, ObservedSoftOffline, ObservedRecovery)
        is_in_kernel = self.exception is not None and self.exception.taken_from == "kernel"
        return is_in_kernel and any(isinstance(action, handled) for action in self.actions)

    def _name(self) -> str:
        return "a record" if self.sequence is None else f"record {{{self.sequence}}}"

    def _severity(self, assumed: list[AssumedField]) -> int:
        """Return the block severity; if its line is missing, assume one."""
        if self.block_severity is not None:
            return self.block_severity
        if self._corrected:
            return Severity.CORRECTED  # `It has been corrected` is printed for this severity only
        taken, why = self._likely_severity()
        assumed.append(AssumedField("/status_block/severity", severity_name(taken), why))
        return taken

    def _likely_severity(self) -> tuple[int, str]:
        if self.has_unknown_severity:
            return 4, "the kernel prints `unknown` for every number above 3"
        if self.first.level in _LEVELS:
            return _LEVELS[self.first.level], f"the severity line is missing; the record was logged at level {self.first.level}"
        severities = [section.severity for section in self.sections if section.severity is not None]
        if severities:
            return max(severities, key=ghes_severity), "the severity line is missing; worst severity of the sections"
        return Severity.RECOVERABLE, "the severity line is missing, and no other line implies it"

    def _build(self, assumed: list[AssumedField], inferred: set[int]) -> list[BuiltSection]:
        built: list[BuiltSection] = []
        for index, section in enumerate(self.sections):
            if section.type is None:
                self._note_loss(_describe_untyped(section))
                continue
            at = f"/status_block/sections/{len(built)}"
            if index in inferred:
                because = f"the log names `{section.name}`" if section.name else "the section type line is missing"
                assumed.append(
                    AssumedField(f"{at}/type", section.kind or "", f"{because}; its fields are printed for no other section type")
                )
            if section.severity is None:
                assumed.append(AssumedField(f"{at}/severity", "that of the block", "not in the log"))
            built.append(build_section(section))
            assumed += [AssumedField(f"{at}/{name}", taken, why) for name, taken, why in built[-1].assumed]
        return built

    def _event(self, notification: Notification, severity: int, built: list[BuiltSection], assumed: list[AssumedField]) -> Event:
        because = "not printed by the kernel"
        assumed.append(AssumedField("/status_block/block_status", "from severity and number of sections", because))
        if built:
            assumed.append(AssumedField("/status_block/sections/*/flags", "none set", because))
            assumed.append(AssumedField("/status_block/sections/*/revision", "0x300", because))
        # A record without number and source may be of the previous boot, which another kernel handled.
        is_of_kernel = self._source_id is not None or self.sequence is not None or self._is_history
        facts: dict[str, Any] = {}
        if is_of_kernel:
            facts = self.boot.host_facts() if self.exception is None else self.exception.host_facts()
        numbering = frozenset().union(*(section.numbering for section in built))
        if len(numbering) == 1:
            facts["arm_error_types"] = next(iter(numbering))
            why = "numbering of the kernel that printed the record; firmware may use another"
            assumed.append(AssumedField("/host/arm_error_types", facts["arm_error_types"], why))
        return Event(
            source=self.first.host,
            time=self.when,
            notification=notification,
            status_block=encode_sections(severity, (section.section for section in built)),
            host=Host(**facts),
        )

    def _missing_parts(self) -> list[str]:
        """Return a phrase for each missing part of the record header."""
        missing = []
        if self._source_id is None and not self._is_history:
            missing.append("the error source: no such line, as in records of the previous boot (BERT)")
        if not self.sections:
            missing.append("the sections: no such line")
        elif self.sections[0].index is None:
            missing.append("the first line of the first section")
        return missing


def observed_frame(action: ObservedAction) -> int | None:
    """Return the page frame number of an action; None if it has none."""
    return (
        action.pfn
        if isinstance(action, (ObservedMemoryFailure, ObservedSignal, ObservedSoftOffline, ObservedMessage, ObservedPanic))
        else None
    )


def has_address(action: ObservedAction) -> bool:
    """Return whether an action names a memory address; one that does not can only be about the record right before it."""
    return observed_frame(action) is not None or (isinstance(action, ObservedMessage) and action.address is not None)


def _timestamp(text: str) -> bytes:
    """Return 8 bytes of BCD (UEFI 2.10 N.2.1) for a text such as `2026-11-22 10:00:00`, whether it is a valid date or not."""
    century, year, month, day, hour, minute, second = (text[at : at + 2] for at in (0, 2, 5, 8, 11, 14, 17))
    return bytes.fromhex(second + minute + hour + "00" + day + month + year + century)


def _describe_untyped(section: SectionLines) -> str:
    what = f"a section of unknown type `{section.name}`" if section.name else "a section without a printed type"
    shown = "; ".join(f"`{text[:80]}`" for text, _ in section.unassigned[:5])
    return f"{what}: {shown}" if shown else what


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"])
    return str(error)
