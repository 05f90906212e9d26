"""rasdaemon database rows as errors.

The database is /var/lib/rasdaemon/ras-mc_event.db (ras-record.c of rasdaemon 0.4 to 0.8.5). The caller opens the file; a row maps column
names to SQLite values. Columns that a release does not have are absent. Each error lists in `lost` what its table does not contain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from ras_triage.models.formats.ras import aer, arm_processor, cxl, memory, non_standard
from ras_triage.models.formats.ras.page_failures import TABLE, FailureRows
from ras_triage.models.formats.ras.traced_event import (
    FieldReader,
    InvalidFieldError,
    TraceItem,
    TraceSource,
    UnmatchedRow,
    read_time,
    text,
    to_result,
)
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord, read_guarded
from ras_triage.models.notification import Notification

FORMAT = "rasdaemon"

READERS: dict[str, FieldReader] = {
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
"""Parsers by table, for tables whose rows can become events."""
OBSERVATION_TABLES = frozenset({"memory_failure_event", "signal_event"})
"""Tables of actions that the kernel took: page handling, signals.

Some rasdaemon releases bind the first value of `signal_event` to column 0, which shifts its rows: `timestamp` holds the signal.
"""


def read_rows(
    table: str, rows: Iterable[Mapping[str, object]], *, notification: Notification | None = None, failures: FailureRows | None = None
) -> Iterator[TraceItem]:
    """Yield one item for each row, in order.

    A row of a table in `READERS` becomes a FoundError, or an UnreadableRecord if a column is invalid. A row of a table in
    `OBSERVATION_TABLES` becomes an UnmatchedRow of the kind `observation`; machine checks, device and disk errors, CXL poison lists and
    overflows, RISC-V records and vendor tables become rows of the kind `raw`. `notification` is the caller's notification type. `failures`
    are attached to the errors of their pages, and their rows are skipped.
    """
    reader = READERS.get(table)
    for number, row in enumerate(rows, start=1):
        place = Position(item=f"{table}/{_row_id(row, number)}")
        if reader is None:
            if table != TABLE or failures is None or not failures.is_used(number):
                yield _to_unmatched_row(table, row, place)
            continue
        found = read_guarded(partial(_read, reader, row, place, notification), place, FORMAT)
        yield failures.attach(found) if failures is not None and isinstance(found, FoundError) else found


def _row_id(row: Mapping[str, object], number: int) -> int:
    """Return the row's primary key, or else its number in the order of rows."""
    key = row.get("id")
    return key if isinstance(key, int) else number


def _to_unmatched_row(table: str, row: Mapping[str, object], place: Position) -> UnmatchedRow:
    key = row.get("id")
    key = key if isinstance(key, int) else None
    if table in OBSERVATION_TABLES:
        return UnmatchedRow(place, FORMAT, table, key, tuple((name, _to_text(value)) for name, value in row.items()), "observation")
    return UnmatchedRow(place, FORMAT, table, key, tuple(row.items()), "raw")


def _to_text(value: object) -> object:
    """Return bytes as text: these tables have no blobs."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _read(
    reader: FieldReader, row: Mapping[str, object], place: Position, notification: Notification | None
) -> FoundError | UnreadableRecord:
    try:
        error, time = reader(row), read_time(text(row, "timestamp"))
    except InvalidFieldError as bad:
        return UnreadableRecord(place, str(bad), FORMAT)
    lost = ("the time",) if time is None else ()
    return to_result(error, TraceSource(FORMAT, place, time, notification, lost))
