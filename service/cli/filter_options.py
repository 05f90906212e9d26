"""Options that say which decisions are meant."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ras_triage.service.client import Filters

_FILTERS: Final = {
    "source": ("NAME", "of this machine or simulator"),
    "action": ("ACTION", "handled, signal, translate, inject or panic"),
    "policy": ("NAME", "made under this policy"),
    "notification": ("TYPE", "notified so: sea, sei, sdei, gsiv, polled, ..."),
    "severity": ("SEVERITY", "of the status block: recoverable, fatal, corrected or informational"),
    "section": ("TYPE", "with such a section: memory, arm_processor, pcie, ..., or a GUID"),
    "physical_address": ("ADDRESS", "with this physical address, such as 0x56edd040"),
    "since": ("TIME", "decided then or later, such as 2026-11-22T10:00:00Z"),
    "until": ("TIME", "decided before"),
}


def add_filters(command: ArgumentParser) -> None:
    """All of them together narrow it down; the service says which values there are."""
    group = command.add_argument_group("only decisions")
    for name, (placeholder, description) in _FILTERS.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar=placeholder, help=description)


def filters_of(options: Namespace) -> Filters:
    """What was asked for."""
    filters: Filters = {}
    for name in _FILTERS:
        filters[name] = getattr(options, name)  # type: ignore[literal-required]
    return filters
