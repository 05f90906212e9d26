"""Counts of imported errors by kind, severity, place, page and action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.results import FoundError
from ras_triage.models.records.block_fields import OpaqueSection, decode_structured
from ras_triage.models.records.guid import section_name
from ras_triage.models.sections.section import StructuredSection
from ras_triage.models.severity import severity_name
from ras_triage.service.engine.imports.decisions import Result

Section = StructuredSection | OpaqueSection

_MOST: Final = 10_000
"""Groups that are kept apart; errors of further ones are counted without their place and page."""
_PAGE_SIZE: Final = 4096
_LABEL: Final = "the DIMM label "
_REFUSED: Final = "not decided"


class ErrorGroup(NamedTuple):
    """What errors that are counted together have in common."""

    kind: str
    """Section type, or how an error without a record was notified."""
    severity: str | None
    place: str | None
    """DIMM label, FRU text, DIMM, PCIe device or CPU."""
    page: str | None
    """Physical address of the page."""
    action: str


@dataclass(slots=True)
class ErrorGroups:
    """Counts of errors; an error with several sections counts for each."""

    counts: Counter[ErrorGroup] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Count an error; other items are ignored."""
        if not isinstance(result.item, FoundError):
            return
        action = _REFUSED if result.decision is None else result.decision.action.value
        for group in _groups(result.item, action):
            is_kept = group in self.counts or len(self.counts) < _MOST
            self.counts[group if is_kept else group._replace(place=None, page=None)] += 1

    def listed(self) -> list[dict[str, Any]]:
        """Return the groups as JSON objects, the largest first."""
        return [{**group._asdict(), "errors": count} for group, count in self.counts.most_common()]


def _groups(found: FoundError, action: str) -> Iterator[ErrorGroup]:
    event = found.event
    if event.status_block is None:
        yield ErrorGroup(f"{event.notification.type} without a record", None, None, None, action)
        return
    try:
        sections = decode_structured(event.status_block).sections
    except MalformedBytes:
        sections = ()
    label = next((phrase.removeprefix(_LABEL).strip("`") for phrase in found.lost if phrase.startswith(_LABEL)), None)
    size = event.host.page_size or _PAGE_SIZE
    for section in sections:
        severity = None if section.severity is None else severity_name(section.severity)
        place = section.fru_text or label or _place(section)
        yield ErrorGroup(_kind(section), severity, place, _page(section, size), action)
    if not sections:
        yield ErrorGroup("no section", None, label, None, action)


def _kind(section: Section) -> str:
    return section_name(section.type) if isinstance(section.type, bytes) else str(section.type)


def _place(section: Section) -> str | None:
    """Return the DIMM, device or CPU that a section names."""
    return _dimm(section) or section.readings().get("device") or _cpu(section)


def _dimm(section: Section) -> str | None:
    named = ((name, getattr(section, name, None)) for name in ("node", "card", "module", "rank"))
    return " ".join(f"{name} {value}" for name, value in named if isinstance(value, int)) or None


def _cpu(section: Section) -> str | None:
    mpidr = getattr(section, "mpidr_el1", None)
    return None if mpidr is None else f"CPU {mpidr:#x}"


def _page(section: Section, size: int) -> str | None:
    address = getattr(section, "physical_address", None)
    infos = getattr(section, "error_infos", ())
    addresses = [address, *(info.physical_fault_address for info in infos)]
    return next((f"{one & ~(size - 1):#x}" for one in addresses if one is not None), None)
