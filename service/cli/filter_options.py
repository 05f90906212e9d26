"""Command line options that select decisions."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ras_triage.service.client import Filters

_FILTERS: Final = {
    "source": ("NAME", "source of the event: a machine or simulator"),
    "action": ("ACTION", "handled, signal, translate, inject or panic"),
    "policy": ("NAME", "policy of the decision"),
    "notification": ("TYPE", "notification type: sea, sei, sdei, gsiv, polled, ..."),
    "severity": ("SEVERITY", "severity of the status block: recoverable, fatal, corrected or informational"),
    "section": ("TYPE", "section type: memory, arm_processor, pcie, ..., or a GUID"),
    "physical_address": ("ADDRESS", "physical address in a section, such as 0x56edd040"),
    "since": ("TIME", "decided at this time or later, such as 2026-11-22T10:00:00Z"),
    "until": ("TIME", "decided before this time"),
}

FILTER_OPTIONS: Final = {name: f"--{name.replace('_', '-')}" for name in _FILTERS}
"""Option of each query parameter."""


def add_filters(command: ArgumentParser) -> None:
    """Add the filter options; the service checks their values."""
    group = command.add_argument_group("filters")
    for name, (placeholder, description) in _FILTERS.items():
        group.add_argument(FILTER_OPTIONS[name], metavar=placeholder, help=description)


def filters_of(options: Namespace) -> Filters:
    """Return the filters that the options have."""
    filters: Filters = {}
    for name in _FILTERS:
        filters[name] = getattr(options, name)  # type: ignore[literal-required]
    return filters
