"""Output of `ras-mc-ctl --errors`: rasdaemon's database as text.

Source: util/ras-mc-ctl.in of rasdaemon 0.4 to 0.8.5. A row has the columns of its table, but for blobs: the error information of an ARM
processor error is in the database only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from ras_triage.models.formats.ras import aer, memory
from ras_triage.models.formats.ras.page_failures import TABLE, FailureRows
from ras_triage.models.formats.ras.traced_event import TraceItem, TraceSource, UnmatchedRow, read_error, read_time
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord, read_guarded
from ras_triage.models.notification import Notification

FORMAT: Final = "ras_mc_ctl"

HEADINGS: Final = re.compile(
    rb"^(?:Memory controller events:|No Memory errors\.|PCIe AER events:|No PCIe AER errors\.|ARM processor events:)\s*$", re.MULTILINE
)
"""Headings of which one is in each output."""

_ROW: Final = re.compile(r"(?P<id>\d{1,19}) (?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}) (?P<rest>.+)")
_HEADING: Final = re.compile(r"(?P<name>[A-Z][\w ]{2,60}?)(?: events?| errors| records)?:")
_MC: Final = re.compile(
    r"(?P<err_count>\d{1,10}) (?P<err_type>\w{1,20}) error\(s\): (?P<err_msg>.{0,500}) at (?P<label>.{0,500}) location: (?P<mc>-?\d{1,10}):"
    r"(?P<top_layer>-?\d{1,10}):(?P<middle_layer>-?\d{1,10}):(?P<lower_layer>-?\d{1,10}), addr (?P<address>-?\w{1,20}),"
    r" grain (?P<grain>-?\d{1,20}), syndrome (?P<syndrome>-?\w{1,20})(?: (?P<driver_detail>.{0,4096}))?"
)
_AER: Final = re.compile(r"(?P<dev_name>\S{1,64}) (?P<err_type>Uncorrected \((?:Non-)?Fatal\)|Corrected) error: (?P<err_msg>.{0,2000})")
_FAILURE: Final = re.compile(
    r"(?:error: )?pfn=(?P<pfn>\w{1,20}),? page_type=(?P<page_type>[^,]{1,80}?),? action_result=(?P<action_result>\w{1,20})"
)
_NOT_ERRORS: Final = ("MCE", "Disk", "Devlink", "SIGNAL")
"""Sections without an error that is decided, as the tables that they are from."""
_DATABASE: Final = "import the database `/var/lib/rasdaemon/ras-mc_event.db`, which has the whole row"


def read_mc_ctl(lines: Iterable[bytes], *, notification: Notification | None = None) -> Iterator[TraceItem]:
    """Yield one item for each row, in order. What the kernel did with a page is observed for the error of the page."""
    failures = FailureRows()
    rows = list(_rows(lines))
    for number, _, match in rows:
        if failure := _FAILURE.match(match["rest"]):
            failures.add(number, {**failure.groupdict(), "timestamp": match["time"]})
    for number, heading, match in rows:
        place = Position(line=number)
        if failures.is_used(number):
            continue
        found = read_guarded(partial(_read, heading, match, place, notification), place, FORMAT)
        yield failures.attach(found) if isinstance(found, FoundError) else found


def _rows(lines: Iterable[bytes]) -> Iterator[tuple[int, str, re.Match[str]]]:
    """Yield each row with its line number and the heading above it."""
    heading = ""
    for number, line in enumerate(lines, 1):
        text = line.decode("utf-8", "replace").strip()
        if match := _ROW.fullmatch(text):
            yield number, heading, match
        elif found := _HEADING.fullmatch(text):
            heading = found["name"]


def _read(heading: str, match: re.Match[str], place: Position, notification: Notification | None) -> TraceItem:
    rest, source = match["rest"], TraceSource(FORMAT, place, read_time(match["time"]), notification)
    if row := _MC.fullmatch(rest):
        return read_error(memory.read_mc_event, row.groupdict(), source)
    if row := _AER.fullmatch(rest):
        return read_error(aer.read_aer_event, row.groupdict(), source)
    if failure := _FAILURE.match(rest):
        return UnmatchedRow(place, FORMAT, TABLE, int(match["id"]), tuple(failure.groupdict().items()), "observation")
    if heading.startswith(_NOT_ERRORS):
        return UnmatchedRow(place, FORMAT, heading, int(match["id"]), (("timestamp", match["time"]), ("text", rest)), "raw")
    return UnreadableRecord(place, f"the text of `{heading}` lacks what a decision needs; {_DATABASE}", FORMAT)
