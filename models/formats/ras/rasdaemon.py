"""rasdaemon's database (/var/lib/rasdaemon/ras-mc_event.db, ras-record.c of 0.4 to 0.8.5), row by row.

Opening the file is the caller's; a row is a mapping from column to what SQLite hands out. Columns that a release does not have are
absent. Every reading says in `lost` what its table cannot carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from ras_triage.models.formats.items import FoundError, Position, UnreadableRecord, read_one
from ras_triage.models.formats.ras import aer, arm_processor, cxl, memory, non_standard
from ras_triage.models.formats.ras.traced_event import BadField, TracedError, TraceSource, UnmatchedRow, read_or_refuse, read_time, text
from ras_triage.models.notification import Notification

FORMAT = "rasdaemon"

READERS: dict[str, Callable[[Mapping[str, object]], TracedError]] = {
    "mc_event": memory.read_mc_event,
    "aer_event": aer.read_aer_event,
    "arm_event": arm_processor.read_arm_event,
    "non_standard_event": non_standard.read_non_standard_event,
    "extlog_event": memory.read_extlog,
    "cxl_aer_ue_event": cxl.read_aer_uncorrectable,
    "cxl_aer_ce_event": cxl.read_aer_correctable,
    "cxl_general_media_event": cxl.read_general_media,
    "cxl_dram_event": cxl.read_dram,
    "cxl_memory_module_event": cxl.read_memory_module,
}
"""Tables whose rows are errors that an event can carry."""
OBSERVATIONS = frozenset({"memory_failure_event", "signal_event"})
"""Tables that say what the kernel did about an error: page handling, signals.

Releases of rasdaemon that bind the first value of `signal_event` to column 0 leave its rows shifted: `timestamp` holds the signal.
"""
Item = FoundError | UnreadableRecord | UnmatchedRow


def read_rows(table: str, rows: Iterable[Mapping[str, object]], *, notification: Notification | None = None) -> Iterator[Item]:
    """One item for each row, in order.

    A row of a table that the kernel's errors fill is a Reading, or Unread where its columns do not hold what they should. What the kernel
    did is a Row of the kind `observation`; machine checks, device and disk errors, CXL poison lists and overflows, RISC-V records and
    vendors' tables are Rows of the kind `raw`. `notification` is the caller's word on how the errors were notified.
    """
    reader = READERS.get(table)
    for number, row in enumerate(rows, start=1):
        place = Position(item=f"{table}/{_id(row, number)}")
        if reader is None:
            yield _kept(table, row, place)
        else:
            yield read_one(partial(_read, reader, row, place, notification), place, FORMAT)


def _id(row: Mapping[str, object], number: int) -> int:
    """The row's primary key, else its number in the order of reading."""
    found = row.get("id")
    return found if isinstance(found, int) else number


def _kept(table: str, row: Mapping[str, object], place: Position) -> UnmatchedRow:
    found = row.get("id")
    key = found if isinstance(found, int) else None
    if table in OBSERVATIONS:
        return UnmatchedRow(place, FORMAT, table, key, tuple((name, _told(value)) for name, value in row.items()), "observation")
    return UnmatchedRow(place, FORMAT, table, key, tuple(row.items()), "raw")


def _told(value: object) -> object:
    """These tables have no blobs: bytes are text as it was stored."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _read(
    reader: Callable[[Mapping[str, object]], TracedError], row: Mapping[str, object], place: Position, notification: Notification | None
) -> FoundError | UnreadableRecord:
    try:
        found: TracedError | BadField = reader(row)
        time = read_time(text(row, "timestamp"))
    except BadField as bad:
        found, time = bad, None
    lost = ("the time",) if time is None else ()
    return read_or_refuse(found, TraceSource(FORMAT, place, time, notification, lost))
