"""Log lines of one section of an error record, in print order.

Nothing is guessed here: a line out of print order is from another record, or lines before it are missing. It is skipped and reported in
`lost`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final

from ras_triage.models.formats.kernel_log.grammar import (
    ARM_CONTEXT_ORDER,
    ARM_INFO_ORDERS,
    CONTEXT_TYPES,
    DUMP,
    FIRMWARE_RECORD_TYPES,
    GRAMMARS,
    LOCATION,
    LOCATION_FIELDS,
    LOCATION_ITEM,
    LOCATION_ORDER,
    REFUSALS,
    SECTION_TYPES,
    WORDS,
    PrintkFormat,
)
from ras_triage.models.records.guid import SECTION_TYPES as SECTION_GUIDS
from ras_triage.models.records.guid import Guid
from ras_triage.models.sections.pcie import device_text

LineFields = dict[str, int | str]

_CACHED_TEXTS: Final = 256
"""Texts whose parsed form is kept: the records of a log repeat most of their lines."""
_MAX_LINES: Final = 20_000
"""Most lines of one section; a block of 64 KiB prints as fewer."""
_MAX_LOST: Final = 20
MAX_REFUSALS: Final = 8
_REFUSAL_STARTS: Final = ("section length", "firmware-generated", "ERR_INFO_NUM", "Invalid context")
PAGE_SHIFTS: Final = (12, 14, 16)
"""Base-2 logarithms of the page sizes of arm64 kernels."""
_MAX_QUOTED: Final = 80
_LOCATION_NAMES: Final = tuple(LOCATION_FIELDS)
_IDENTIFIERS: Final = frozenset({"requestor_id", "responder_id", "target_id"})
"""Location fields that are printed in hexadecimal; all others are decimal."""


@dataclass(slots=True)
class HexDump:
    """A hex dump, printed in rows of up to 16 bytes."""

    data: bytearray = field(default_factory=bytearray)
    is_broken: bool = False
    """Whether a row is missing; rows after it are ignored."""

    def add(self, row: re.Match[str]) -> None:
        """Add a row if it continues the dump."""
        if self.is_broken or int(row["at"], 16) != len(self.data):
            self.is_broken = True
            return
        for word in row["words"].split():
            self.data += bytes.fromhex(word)[::-1]


@dataclass(slots=True)
class MatchKeys:
    """Values of a record's sections by which a later message is matched to it."""

    addresses: set[int] = field(default_factory=set)
    """Physical addresses on which the kernel may act, bytes."""
    frames: dict[int, int] = field(default_factory=dict)
    """Page frame numbers of the addresses for each page size that the kernel may have, each with these sizes as bits."""
    error_types: set[int] = field(default_factory=set)
    """ARM error types: the byte as firmware wrote it."""
    devices: dict[str, SectionLines] = field(default_factory=dict)
    """PCIe sections by their device, `segment:bus:device.function`."""
    open_frames: Counter[int] = field(default_factory=Counter)
    """Number of open records that name each page frame."""

    def add(self, fields: Mapping[str, int | str]) -> None:
        """Add the fields of one line."""
        for name in ("physical_address", "physical_fault_address"):
            if isinstance(address := fields.get(name), int):
                self.addresses.add(address)
                for shift in PAGE_SHIFTS:
                    frame = address >> shift
                    self.open_frames[frame] += frame not in self.frames
                    self.frames[frame] = self.frames.get(frame, 0) | 1 << shift
        if isinstance(kind := fields.get("error_type", fields.get("legacy_type")), int):
            self.error_types.add(kind)

    def release(self) -> None:
        """Remove the page frames from the counts of the open records."""
        for frame in self.frames:
            self.open_frames[frame] -= 1
            if not self.open_frames[frame]:
                del self.open_frames[frame]


@dataclass(slots=True)
class SectionLines:
    """The lines and fields of one section."""

    line: int
    """Number of its first line."""
    index: int | None = None
    """Section index as printed; None if its line is missing."""
    severity: int | None = None
    timestamp: bytes | None = None
    is_precise: bool = False
    fru_id: Guid | None = None
    fru_text: str | None = None
    kind: str | None = None
    """The grammar of its fields."""
    type: Guid | None = None
    name: str | None = None
    """The printed section type, if it is not one that the kernel prints."""
    is_in_words: bool = False
    """Whether the kernel prints the section as text that is not parsed here: hex dumps in it are not the section's bytes."""
    length: int | None = None
    """Bytes, as printed for a section type unknown to the kernel."""
    fields: LineFields = field(default_factory=dict)
    infos: list[LineFields] = field(default_factory=list)
    contexts: list[tuple[str | None, HexDump]] = field(default_factory=list)
    dumps: dict[str, HexDump] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unassigned: list[tuple[str, bool]] = field(default_factory=list)
    """Lines of a section whose type is not known yet, each with whether it is complete."""
    recovery: dict[str, int] = field(default_factory=dict)
    """AER registers that error recovery prints, by the names that it prints."""
    order: int = -1
    count: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Next expected number of each kind of structure."""
    dump_name: str = "payload"
    match_keys: MatchKeys = field(default_factory=MatchKeys)
    """Shared by all sections of the record."""
    _checked: int = 0
    """Number of `unassigned` lines known not to be section lines."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing but fields was printed of the section, all of which were understood."""
        others = self.contexts or self.dumps or self.refusals or self.lost or self.unassigned or self.recovery
        return self.kind in ("memory", "arm_processor") and not others

    def copy(self, line: int, match_keys: MatchKeys) -> SectionLines:
        """Return a plain section with the same fields, which begins in another line."""
        return SectionLines(
            line,
            self.index,
            self.severity,
            self.timestamp,
            self.is_precise,
            self.fru_id,
            self.fru_text,
            self.kind,
            self.type,
            fields=self.fields.copy(),
            infos=[info.copy() for info in self.infos],
            order=self.order,
            count=self.count,
            counts=self.counts.copy(),
            dump_name=self.dump_name,
            match_keys=match_keys,
        )

    @property
    def is_named(self) -> bool:
        return self.type is not None or self.name is not None

    def is_too_late(self, head: str) -> bool:
        """Return whether a section header line, named as in `HEAD`, cannot belong to this section because it comes too late."""
        if self.is_named or self._has_body():
            return head != "length" or self.length is not None
        return self.fru_text is not None if head == "fru_text" else head == "fru_id" and (self.fru_id or self.fru_text) is not None

    def _has_body(self) -> bool:
        if self.fields or self.infos or self.contexts or self.dumps:
            return True
        while self._checked < len(self.unassigned):
            if is_section_line(self.unassigned[self._checked][0]):
                return True
            self._checked += 1
        return False

    def name_by_words(self, words: str) -> None:
        """Set the type from the text behind `section_type:`."""
        if words in SECTION_TYPES:
            self.kind, self.type = SECTION_TYPES[words]
            self.is_in_words = self.kind is None
        else:
            self.name = words

    def name_by_guid(self, kind: Guid) -> None:
        """Set the type of a section that the kernel prints as bytes."""
        self.type = kind

    def add(self, text: str, *, is_whole: bool) -> None:
        """Add a line of the section's body."""
        self.count += 1
        if self.count > _MAX_LINES:
            if self.count == _MAX_LINES + 1:
                self.lost.append(f"all lines of a section after the first {_MAX_LINES}")
            return
        if text[8:10] == ": " and (row := DUMP.fullmatch(text)):
            self._dump().add(row)
        elif self.kind is None:
            self.unassigned.append((text, is_whole))
        elif text.startswith(_REFUSAL_STARTS) and (refusal := REFUSALS.fullmatch(text)):
            self._refuse(text, refusal)
        elif self.kind == "memory" and _is_location(text):
            self._add_location(text, is_whole=is_whole)
        else:
            self._add_fields(text, is_whole=is_whole)

    def note_loss(self, what: str) -> None:
        """Record that a part of the section is not converted."""
        if len(self.lost) < _MAX_LOST:
            self.lost.append(what)

    def note_lost_line(self, text: str, why: str) -> None:
        self.note_loss(f"`{_quoted(text)}`: {why}")

    def _dump(self) -> HexDump:
        if self.kind == "arm_processor" and self.dump_name == "context" and self.contexts:
            return self.contexts[-1][1]
        return self.dumps.setdefault(self.dump_name, HexDump())

    def refuse(self, text: str) -> None:
        """Add a message that the kernel does not print the rest of the section."""
        if len(self.refusals) < MAX_REFUSALS:
            self.refusals.append(text)

    def _refuse(self, text: str, refusal: re.Match[str]) -> None:
        self.refuse(text)
        for name in ("section_length", "size", "err_info_num"):
            if refusal[name] is not None:
                self.fields[name] = int(refusal[name])

    def _add_location(self, text: str, *, is_whole: bool) -> None:
        if self.order >= LOCATION_ORDER:
            self.note_lost_line(text, "out of print order")
            return
        self.order = LOCATION_ORDER
        for item in re.finditer(r"([a-z_]+): ?(\S+)", text):
            name, number = item.groups()
            is_cut = not is_whole and item.end() == len(text) and not number.startswith("0x")
            if is_cut or not LOCATION_ITEM.fullmatch(item[0]) or (name in _IDENTIFIERS) != number.startswith("0x"):
                self.note_lost_line(item[0], "truncated")
            else:
                self.fields[LOCATION_FIELDS[name]] = int(number, 16 if number.startswith("0x") else 10)

    def _add_fields(self, text: str, *, is_whole: bool) -> None:
        assert self.kind is not None
        found = read_fields(self.kind, text)
        if found is None:
            words = WORDS.get(self.kind)
            if words is None or not words.fullmatch(text):
                self.note_lost_line(text, "unknown line")
            return
        order, form, fields = found
        if form.is_open and not is_whole:
            self.note_lost_line(text, "truncated")
        elif self.kind == "arm_processor":
            self._add_arm(order, fields, text)
        elif order <= self.order:
            self.note_lost_line(text, "out of print order")
        else:
            self.order = order
            self.fields |= fields
            self.match_keys.add(fields)
            if self.kind == "pcie" and "bus" in fields:
                self.match_keys.devices[_device(fields)] = self
            self.dump_name = _DUMPS_BEHIND.get((self.kind, order), self.dump_name)

    def _add_arm(self, order: int, fields: Mapping[str, int | str], text: str) -> None:
        """Add the fields of a line of an ARM section, where error information structures and contexts repeat."""
        if order in ARM_INFO_ORDERS:
            if not self.infos or order <= self.order or order == ARM_INFO_ORDERS.start:
                self._count("error information structure", fields.get("info"))
                self.infos.append({"line": text})
            self.infos[-1] |= {**fields, f"order_{order}": 1}
            self.match_keys.add(fields)
        elif order == ARM_CONTEXT_ORDER:
            self._count("context", fields.get("context"))
            self.contexts.append((None, HexDump()))
            self.dump_name = "context"
        elif "registers" in fields:
            if not self.contexts or self.contexts[-1][0] is not None:
                self._count("context", None)
                self.contexts.append((None, HexDump()))
            self.contexts[-1] = (str(fields["registers"]), self.contexts[-1][1])
            self.dump_name = "context"
        elif order <= self.order:
            self.note_lost_line(text, "out of print order")
            return
        else:
            self.fields |= fields
            self.dump_name = "vendor" if "vendor_bytes" in fields else self.dump_name
        self.order = order

    def _count(self, what: str, number: int | str | None) -> None:
        """Check the number of a repeated structure; None if its first line is missing."""
        expected = self.counts.get(what, 0)
        if not isinstance(number, int):
            self.note_loss(f"the first line of {what} {expected}: missing")
        elif number > expected:
            self.note_loss(f"{what} {expected}{'' if number == expected + 1 else f' to {number - 1}'}: not printed")
        self.counts[what] = (number if isinstance(number, int) else expected) + 1

    def infer_type(self) -> bool:
        """Infer a missing section type if the lines match one grammar best; return whether it was inferred."""
        if self.kind is not None or self.type is not None or not self.unassigned:
            return False
        lines, self.unassigned = self.unassigned, []
        scores = sorted(((_count_matches(kind, lines), kind) for kind in GRAMMARS), reverse=True)
        if scores[0][0] < _ENOUGH or scores[0][0] == scores[1][0]:
            self.unassigned = lines
            return False
        self.kind = scores[0][1]
        self.type = SECTION_GUIDS[self.kind]
        for text, is_whole in lines:
            self.count -= 1
            self.add(text, is_whole=is_whole)
        return True


_ENOUGH: Final = 2
"""Lines that must match a grammar before a section type is inferred."""

_DUMPS_BEHIND: Final = {("cxl_protocol", 8): "dvsec", ("cxl_protocol", 17): "header_log"}
"""Name of the hex dump after a line, if it is not the payload."""


def _quoted(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "..."


@cache
def _by_first_word(kind: str) -> dict[str, tuple[tuple[int, PrintkFormat], ...]]:
    """Return the formats of a grammar with their print orders, by first word."""
    found: dict[str, tuple[tuple[int, PrintkFormat], ...]] = {}
    for order, formats in enumerate(GRAMMARS[kind]):
        for form in formats:
            word = form.first_word
            found[word] = (*found.get(word, ()), (order, form))
    return found


@lru_cache(maxsize=_CACHED_TEXTS)
def read_fields(kind: str, text: str) -> tuple[int, PrintkFormat, Mapping[str, int | str]] | None:
    """Return print order, format and fields of a line of a section kind; None if such sections have no such line."""
    for order, form in _by_first_word(kind).get(text.partition(" ")[0], ()):
        fields = form.read(text)
        if fields is not None:
            return order, form, fields
    return None


def _device(fields: Mapping[str, int | str]) -> str:
    """Return the device of a PCIe section in Linux's notation."""
    segment, bus, device, function = (int(fields[name]) for name in ("segment", "bus", "device", "function"))
    return device_text(segment, bus, device, function)


@lru_cache(maxsize=_CACHED_TEXTS)
def _is_location(text: str) -> bool:
    if not LOCATION.fullmatch(text):
        return False
    names = re.findall(r"([a-z_]+):", text)
    orders = [_LOCATION_NAMES.index(name) if name in LOCATION_FIELDS else -1 for name in names]
    return orders[0] >= 0 and orders == sorted(set(orders))


def _count_matches(kind: str, lines: list[tuple[str, bool]]) -> int:
    words = WORDS.get(kind)
    return sum(
        1 for text, _ in lines if read_fields(kind, text) or (words and words.fullmatch(text)) or (kind == "memory" and _is_location(text))
    )


@lru_cache(maxsize=_CACHED_TEXTS)
def is_section_line(text: str) -> bool:
    """Return whether the kernel prints such a line in any section."""
    if DUMP.fullmatch(text) or REFUSALS.fullmatch(text) or _is_location(text):
        return True
    return any(read_fields(kind, text) for kind in GRAMMARS) or any(words.fullmatch(text) for words in WORDS.values())


def is_number_list(text: str) -> bool:
    """Return whether a line is a list of numbers, which may continue after a complete number."""
    return _is_location(text) or DUMP.fullmatch(text) is not None


def has_unknown_name(text: str) -> bool:
    """Return whether a line that should end in a name of a table ends in another text."""
    words, _, name = text.partition(": ")
    names = _NAMES.get(words)
    return names is not None and name not in names


_NAMES: Final = {"register context type": CONTEXT_TYPES, "Firmware Error Record Type": FIRMWARE_RECORD_TYPES}
