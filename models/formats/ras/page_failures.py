"""Match of `memory_failure_event` with the error of the same page.

rasdaemon and the trace buffer report an error (`mc_event`, `arm_event`) and what `memory_failure()` did with its page (`action_result`) one
after the other. Source: include/ras/ras_event.h, Linux 5.10 to 7.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final, NamedTuple

from ras_triage.models.formats.kernel_log.section_lines import PAGE_SHIFTS
from ras_triage.models.formats.ras.traced_event import InvalidFieldError, TraceItem, UnmatchedRow, integer, read_time, text
from ras_triage.models.formats.results import FoundError
from ras_triage.models.observed import RESULTS, ObservedActions, ObservedMemoryFailure
from ras_triage.models.records.block_summary import physical_addresses
from ras_triage.models.records.status_block import parse_block

TABLE: Final = "memory_failure_event"

_SECONDS: Final = 5
"""Longest time between an error and what was done with its page, as for the lines of a kernel log."""
_MAX_HELD: Final = 128
_MAX_ROWS: Final = 1 << 16
_MAX_TYPE: Final = 80
"""Characters of a page type."""


def read_failure(fields: Mapping[str, object], line: int) -> ObservedMemoryFailure | None:
    """Return the action of a `memory_failure_event`; None if a field is missing or invalid. `line`: 0 for a row of a database."""
    try:
        pfn, kind, result = integer(fields, "pfn"), text(fields, "page_type"), RESULTS.get((text(fields, "action_result") or "").strip())
    except InvalidFieldError:
        return None
    if pfn is None or result is None or not kind or len(kind) > _MAX_TYPE:
        return None
    said = f"{TABLE}: pfn {pfn:#x}: recovery action for {kind}: {result.capitalize()}"
    return ObservedMemoryFailure(line, said, pfn, kind, result)


def frames_of(error: FoundError) -> frozenset[int]:
    """Return the page frames of an error's addresses, for each page size."""
    block = error.event.status_block
    addresses = () if block is None else physical_addresses(parse_block(block))
    return frozenset(address >> shift for address in addresses for shift in PAGE_SHIFTS)


def with_failure(error: FoundError, failure: ObservedMemoryFailure) -> FoundError:
    """Return an error with an action of the kernel."""
    seen = error.observed or ObservedActions()
    return replace(error, observed=replace(seen, memory_failures=(*seen.memory_failures, failure)))


# Trace text


class _Held(NamedTuple):
    item: TraceItem
    seconds: float | None
    """Time since boot."""
    frames: frozenset[int]


class HeldErrors:
    """The last items of a trace, in order, as long as a later event may be about one of them."""

    def __init__(self) -> None:
        self._held: deque[_Held] = deque()

    def add(self, item: TraceItem, seconds: float | None) -> Iterator[TraceItem]:
        """Add an item, or attach it to the newest error of its page. Yield the items that were held for long enough."""
        if isinstance(item, UnmatchedRow) and self._attach(item, seconds):
            return
        self._held.append(_Held(item, seconds, frames_of(item) if isinstance(item, FoundError) else frozenset()))
        while len(self._held) > _MAX_HELD:
            yield self._held.popleft().item

    def rest(self) -> Iterator[TraceItem]:
        """Yield the items at the end of the trace."""
        while self._held:
            yield self._held.popleft().item

    def _attach(self, row: UnmatchedRow, seconds: float | None) -> bool:
        failure = read_failure(dict(row.fields), row.place.line or 0) if row.table == TABLE else None
        if failure is None:
            return False
        for at in range(len(self._held) - 1, -1, -1):
            held = self._held[at]
            is_near = seconds is None or held.seconds is None or 0 <= seconds - held.seconds <= _SECONDS
            if isinstance(held.item, FoundError) and failure.pfn in held.frames and is_near:
                self._held[at] = held._replace(item=with_failure(held.item, failure))
                return True
        return False


# Database


class FailureRows:
    """The rows of the table `memory_failure_event`, by page frame."""

    def __init__(self) -> None:
        self._rows: dict[int, list[tuple[int, str, ObservedMemoryFailure]]] = {}
        self._used: set[int] = set()
        self._left = _MAX_ROWS

    def add(self, number: int, row: Mapping[str, object]) -> None:
        """Add a row by its number in the order of rows; none after the first 65536, and none that is invalid."""
        failure = read_failure(row, 0)
        if failure is None or self._left <= 0:
            return
        self._left -= 1
        try:
            time = text(row, "timestamp") or ""
        except InvalidFieldError:
            time = ""
        self._rows.setdefault(failure.pfn, []).append((number, time[:40], failure))

    def is_used(self, number: int) -> bool:
        """Return whether a row was attached to an error."""
        return number in self._used

    def attach(self, error: FoundError) -> FoundError:
        """Return an error with the rows about its page, within 5 s after it."""
        for frame in frames_of(error) & self._rows.keys() if self._rows else ():
            for number, written, failure in self._rows[frame]:
                time = read_time(written)
                if time is None or error.event.time is None or number in self._used:
                    continue
                if timedelta(0) <= time - error.event.time <= timedelta(seconds=_SECONDS):
                    self._used.add(number)
                    error = with_failure(error, failure)
        return error
