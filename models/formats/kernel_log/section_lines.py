"""The lines of one section of an error record, gathered in the order in which the kernel prints them.

Nothing is guessed here: a line that stands where the kernel would not have printed it comes from elsewhere, or lines before it are
missing, and it is left out by name.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from ras_triage.models.formats.kernel_log.grammar import (
    ARM_CONTEXT_PLACE,
    ARM_INFO_PLACES,
    CONTEXT_TYPES,
    DUMP,
    FIRMWARE_RECORD_TYPES,
    GRAMMARS,
    LOCATION,
    LOCATION_FIELDS,
    LOCATION_ITEM,
    LOCATION_PLACE,
    REFUSALS,
    SECTION_TYPES,
    WORDS,
    PrintkFormat,
)
from ras_triage.models.records.guid import SECTION_TYPES as SECTION_GUIDS
from ras_triage.models.records.guid import Guid

Fields = dict[str, int | str]

_MAX_LINES: Final = 20_000
"""Lines of one section that are kept; a block of 64 KiB prints as fewer."""
_MAX_LOST: Final = 20
MAX_REFUSALS: Final = 8
_PAGE_SHIFTS: Final = (12, 14, 16)
_MAX_QUOTED: Final = 80
_LOCATION_NAMES: Final = tuple(LOCATION_FIELDS)
_IDENTIFIERS: Final = frozenset({"requestor_id", "responder_id", "target_id"})
"""Printed in hexadecimal; all others of a location are decimal."""


@dataclass(slots=True)
class HexDump:
    """Bytes that the kernel printed in rows of up to 16."""

    data: bytearray = field(default_factory=bytearray)
    is_broken: bool = False
    """Whether a row is missing: what follows it has no place."""

    def add(self, row: re.Match[str]) -> None:
        """Take a row that continues the bytes so far."""
        if self.is_broken or int(row["at"], 16) != len(self.data):
            self.is_broken = True
            return
        for word in row["words"].split():
            self.data += bytes.fromhex(word)[::-1]


@dataclass(slots=True)
class Named:
    """What the sections of a record name so far, kept so that a line can be looked up without going through them."""

    addresses: set[int] = field(default_factory=set)
    """Physical addresses on which the kernel may act, bytes."""
    frames: set[int] = field(default_factory=set)
    """Their page frame numbers, for each page size that the kernel may have."""
    error_types: set[int] = field(default_factory=set)
    """ARM error types, the byte as firmware wrote it."""
    everywhere: Counter[int] = field(default_factory=Counter)
    """How many of the open records name each page frame."""

    def add(self, fields: Fields) -> None:
        """Take the fields of one line."""
        for name in ("physical_address", "physical_fault_address"):
            if isinstance(address := fields.get(name), int):
                self.addresses.add(address)
                new = {address >> shift for shift in _PAGE_SHIFTS} - self.frames
                self.frames |= new
                self.everywhere.update(new)
        if isinstance(kind := fields.get("error_type", fields.get("legacy_type")), int):
            self.error_types.add(kind)

    def forget(self) -> None:
        """Count as none of the open records any more."""
        for frame in self.frames:
            self.everywhere[frame] -= 1
            if not self.everywhere[frame]:
                del self.everywhere[frame]


@dataclass(slots=True)
class SectionLines:
    """What the log said of one section."""

    line: int
    """On which it begins."""
    index: int | None = None
    """As printed; None where the line that says so is missing."""
    severity: int | None = None
    timestamp: bytes | None = None
    is_precise: bool = False
    fru_id: Guid | None = None
    fru_text: str | None = None
    kind: str | None = None
    """The grammar of its fields."""
    type: Guid | None = None
    name: str | None = None
    """The section's type in words that the kernel does not use."""
    is_in_words: bool = False
    """Whether the kernel tells it in words that are not read here: bytes among them are not those of the section."""
    length: int | None = None
    """Bytes, as printed for a section that the kernel does not know."""
    fields: Fields = field(default_factory=dict)
    infos: list[Fields] = field(default_factory=list)
    contexts: list[tuple[str | None, HexDump]] = field(default_factory=list)
    dumps: dict[str, HexDump] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unplaced: list[tuple[str, bool]] = field(default_factory=list)
    """Lines of a section whose type is not known."""
    place: int = -1
    count: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """How many structures of a kind have been begun, or were numbered so far."""
    dump_name: str = "payload"
    named: Named = field(default_factory=Named)
    """What it names, together with the record's other sections."""
    _looked: int = 0
    """How many of the lines without a place are known not to be a section's."""

    @property
    def is_named(self) -> bool:
        return self.type is not None or self.name is not None

    def is_past(self, head: str) -> bool:
        """Whether a line of a section's head, as `HEAD` names it, comes too late to be one of this section's."""
        if self.is_named or self._has_body():
            return head != "length" or self.length is not None
        return self.fru_text is not None if head == "fru_text" else head == "fru_id" and (self.fru_id or self.fru_text) is not None

    def _has_body(self) -> bool:
        if self.fields or self.infos or self.contexts or self.dumps:
            return True
        while self._looked < len(self.unplaced):
            if is_complete(self.unplaced[self._looked][0]):
                return True
            self._looked += 1
        return False

    def name_by_words(self, words: str) -> None:
        """Take what `section_type:` says."""
        if words in SECTION_TYPES:
            self.kind, self.type = SECTION_TYPES[words]
            self.is_in_words = self.kind is None
        else:
            self.name = words

    def name_by_guid(self, kind: Guid) -> None:
        """Take the type of a section that the kernel prints as bytes."""
        self.type = kind

    def add(self, text: str, is_whole: bool) -> None:
        """Take one line that belongs to the section's body."""
        self.count += 1
        if self.count > _MAX_LINES:
            if self.count == _MAX_LINES + 1:
                self.lost.append(f"everything behind the first {_MAX_LINES} lines of a section")
            return
        if row := DUMP.fullmatch(text):
            self._dump().add(row)
        elif self.kind is None:
            self.unplaced.append((text, is_whole))
        elif refusal := REFUSALS.fullmatch(text):
            self._refuse(text, refusal)
        elif self.kind == "memory" and _is_location(text):
            self._add_location(text, is_whole)
        else:
            self._add_fields(text, is_whole)

    def lose(self, what: str) -> None:
        """Note something of the section that is not carried on."""
        if len(self.lost) < _MAX_LOST:
            self.lost.append(what)

    def lose_line(self, text: str, why: str) -> None:
        self.lose(f"`{_quoted(text)}`: {why}")

    def _dump(self) -> HexDump:
        if self.kind == "arm_processor" and self.dump_name == "context" and self.contexts:
            return self.contexts[-1][1]
        return self.dumps.setdefault(self.dump_name, HexDump())

    def refuse(self, text: str) -> None:
        """Take the kernel's word that it prints no more of the section."""
        if len(self.refusals) < MAX_REFUSALS:
            self.refusals.append(text)

    def _refuse(self, text: str, refusal: re.Match[str]) -> None:
        self.refuse(text)
        for name in ("section_length", "size", "err_info_num"):
            if refusal[name] is not None:
                self.fields[name] = int(refusal[name])

    def _add_location(self, text: str, is_whole: bool) -> None:
        if self.place >= LOCATION_PLACE:
            self.lose_line(text, "stands where the kernel does not print it")
            return
        self.place = LOCATION_PLACE
        for item in re.finditer(r"([a-z_]+): ?(\S+)", text):
            name, number = item.groups()
            is_cut = not is_whole and item.end() == len(text) and not number.startswith("0x")
            if is_cut or not LOCATION_ITEM.fullmatch(item[0]) or (name in _IDENTIFIERS) != number.startswith("0x"):
                self.lose_line(item[0], "cut")
            else:
                self.fields[LOCATION_FIELDS[name]] = int(number, 16 if number.startswith("0x") else 10)

    def _add_fields(self, text: str, is_whole: bool) -> None:
        assert self.kind is not None
        found = read_fields(self.kind, text)
        if found is None:
            words = WORDS.get(self.kind)
            if words is None or not words.fullmatch(text):
                self.lose_line(text, "not understood")
            return
        place, form, fields = found
        if form.is_open and not is_whole:
            self.lose_line(text, "cut")
        elif self.kind == "arm_processor":
            self._add_arm(place, fields, text)
        elif place <= self.place:
            self.lose_line(text, "stands where the kernel does not print it")
        else:
            self.place = place
            self.fields |= fields
            self.named.add(fields)
            self.dump_name = _DUMPS_BEHIND.get((self.kind, place), self.dump_name)

    def _add_arm(self, place: int, fields: Fields, text: str) -> None:
        """Error information structures and contexts come several times."""
        if place in ARM_INFO_PLACES:
            if not self.infos or place <= self.place or place == ARM_INFO_PLACES.start:
                self._count("error information structure", fields.get("info"))
                self.infos.append({"line": text})
            self.infos[-1] |= {**fields, f"place_{place}": 1}
            self.named.add(fields)
        elif place == ARM_CONTEXT_PLACE:
            self._count("context", fields.get("context"))
            self.contexts.append((None, HexDump()))
            self.dump_name = "context"
        elif "registers" in fields:
            if not self.contexts or self.contexts[-1][0] is not None:
                self._count("context", None)
                self.contexts.append((None, HexDump()))
            self.contexts[-1] = (str(fields["registers"]), self.contexts[-1][1])
            self.dump_name = "context"
        elif place <= self.place:
            self.lose_line(text, "stands where the kernel does not print it")
            return
        else:
            self.fields |= fields
            self.dump_name = "vendor" if "vendor_bytes" in fields else self.dump_name
        self.place = place

    def _count(self, what: str, number: int | str | None) -> None:
        """Take the number of a structure of which there are several; None where the line that tells it is missing."""
        expected = self.counts.get(what, 0)
        if not isinstance(number, int):
            self.lose(f"the beginning of {what} {expected}: its line is missing")
        elif number > expected:
            self.lose(f"{what} {expected}{'' if number == expected + 1 else f' to {number - 1}'}: not printed")
        self.counts[what] = (number if isinstance(number, int) else expected) + 1

    def settle(self) -> bool:
        """Find the grammar of a section whose type is not told, if its lines fit one and no other; whether that was necessary."""
        if self.kind is not None or self.type is not None or not self.unplaced:
            return False
        lines, self.unplaced = self.unplaced, []
        scores = sorted(((_understood(kind, lines), kind) for kind in GRAMMARS), reverse=True)
        if scores[0][0] < _ENOUGH or scores[0][0] == scores[1][0]:
            self.unplaced = lines
            return False
        self.kind = scores[0][1]
        self.type = SECTION_GUIDS[self.kind]
        for text, is_whole in lines:
            self.count -= 1
            self.add(text, is_whole)
        return True


_ENOUGH: Final = 2
"""Lines that have to fit a grammar before a section without a type is taken for one of its kind."""

_DUMPS_BEHIND: Final = {("cxl_protocol", 8): "dvsec", ("cxl_protocol", 17): "header_log"}
"""Which bytes follow a line, where it is not the payload."""


def _quoted(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "..."


@cache
def _by_first_word(kind: str) -> dict[str, tuple[tuple[int, PrintkFormat], ...]]:
    """The formats of a grammar with their places, by the word that they begin with."""
    found: dict[str, tuple[tuple[int, PrintkFormat], ...]] = {}
    for place, formats in enumerate(GRAMMARS[kind]):
        for form in formats:
            word = form.first_word
            found[word] = (*found.get(word, ()), (place, form))
    return found


def read_fields(kind: str, text: str) -> tuple[int, PrintkFormat, Fields] | None:
    """The place, format and fields of a line in a section of a kind; None for a line that is printed in no such section."""
    for place, form in _by_first_word(kind).get(text.partition(" ")[0], ()):
        fields = form.read(text)
        if fields is not None:
            return place, form, fields
    return None


def _is_location(text: str) -> bool:
    if not LOCATION.fullmatch(text):
        return False
    names = re.findall(r"([a-z_]+):", text)
    places = [_LOCATION_NAMES.index(name) if name in LOCATION_FIELDS else -1 for name in names]
    return places[0] >= 0 and places == sorted(set(places))


def _understood(kind: str, lines: list[tuple[str, bool]]) -> int:
    words = WORDS.get(kind)
    return sum(
        1 for text, _ in lines if read_fields(kind, text) or (words and words.fullmatch(text)) or (kind == "memory" and _is_location(text))
    )


def is_complete(text: str) -> bool:
    """Whether a line is printed like this in some section."""
    if DUMP.fullmatch(text) or REFUSALS.fullmatch(text) or _is_location(text):
        return True
    return any(read_fields(kind, text) for kind in GRAMMARS) or any(words.fullmatch(text) for words in WORDS.values())


def is_list(text: str) -> bool:
    """Whether a line is a list of numbers, which may go on behind a complete one."""
    return _is_location(text) or DUMP.fullmatch(text) is not None


def names_nothing(text: str) -> bool:
    """Whether a line that ends in a name out of a table ends in something else."""
    words, _, name = text.partition(": ")
    names = _NAMES.get(words)
    return names is not None and name not in names


_NAMES: Final = {"register context type": CONTEXT_TYPES, "Firmware Error Record Type": FIRMWARE_RECORD_TYPES}
