"""Command line options that select decisions."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Final

from ras_triage.service.api.times import TIME_FORMS, now_ms, parse_time, rfc3339

if TYPE_CHECKING:
    from ras_triage.service.client import Filters

_FILTERS: Final = {
    "source": ("NAME", "source of the event: a machine or simulator, or a prefix such as rack7-*"),
    "action": ("ACTION", "handled, signal, translate, inject or panic"),
    "policy": ("NAME", "policy of the decision"),
    "notification": ("TYPE", "notification type: sea, sei, sdei, gsiv, polled, ..."),
    "severity": ("SEVERITY", "severity of the status block: recoverable, fatal, corrected or informational"),
    "section": ("TYPE", "section type: memory, arm_processor, pcie, ..., or a GUID"),
    "physical_address": ("ADDRESS", "physical address in a section, such as 0x56edd040"),
    "since": ("TIME", "decided at this time or later: 2026-11-22T10:00:00Z, 2026-11-22, or an age such as 15m, 1h or 7d"),
    "until": ("TIME", "decided before this time"),
}

FILTER_OPTIONS: Final = {name: f"--{name.replace('_', '-')}" for name in _FILTERS}
"""Option of each query parameter."""


def add_filters(command: ArgumentParser) -> None:
    """Add the filter options; the service checks their values, except for times."""
    group = command.add_argument_group("filters", "One value or several, separated by commas.")
    for name, (placeholder, description) in _FILTERS.items():
        group.add_argument(FILTER_OPTIONS[name], type=_time if placeholder == "TIME" else str, metavar=placeholder, help=description)


def _time(text: str) -> str:
    """Return a time as a request has it. Raises ArgumentTypeError."""
    try:
        return rfc3339(parse_time(text, now_ms()))
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"invalid time `{text}`; expected {TIME_FORMS}") from None


def filters_of(options: Namespace) -> Filters:
    """Return the filters that the options have."""
    filters: Filters = {}
    for name in _FILTERS:
        filters[name] = getattr(options, name)  # type: ignore[literal-required]
    return filters
