"""Repair of a store: rebuild with all recoverable data."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, Final

from pydantic_core import to_json

from ras_triage.service.store import rows
from ras_triage.service.store.files.database import STORE_ID_BYTES, connect, create_schema
from ras_triage.service.store.files.high_water_mark import read_mark
from ras_triage.service.store.maintenance.check import (
    OTHER_TABLES,
    Examination,
    ExaminedDecision,
    Finding,
    derive_poisoned_pages,
    other_rows,
)
from ras_triage.service.store.port import RowDamaged

_COMMIT_EVERY: Final = 2000
"""Decisions."""


class Rebuild:
    """Builds a new file with all recoverable data of a store, and replaces the old one."""

    def __init__(self, path: Path, old: sqlite3.Connection, examination: Examination, at_ms: int) -> None:
        self._path = Path(os.path.realpath(path))
        self._new = self._path.with_name(f"{self._path.name}-repaired")
        self._old = old
        self._examination = examination
        self._at_ms = at_ms

    def build(self) -> Iterator[Finding]:
        """Build the new file next to the old one; yield all findings. Raises sqlite3.Error, OSError."""
        yield from self._examination.check_file()
        self._new.unlink(missing_ok=True)
        try:
            os.close(os.open(self._new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(connect(self._new, "rw")) as connection:
                connection.execute("PRAGMA journal_mode = OFF")  # an incomplete file is deleted anyway
                connection.execute("PRAGMA synchronous = OFF")
                create_schema(connection)
                yield from self._fill(connection)
                self._require_sound(connection)
        except BaseException:
            self._new.unlink(missing_ok=True)
            raise

    def _fill(self, new: sqlite3.Connection) -> Iterator[Finding]:
        new.execute("BEGIN")
        for number, examined in enumerate(self._examination.examine_decisions(), 1):
            yield from examined.findings
            self._copy(new, examined)
            if number % _COMMIT_EVERY == 0:
                new.execute("COMMIT")
                new.execute("BEGIN")
        yield from self._examination.check_derived_tables()
        yield from self._examination.check_poisoned_pages()
        yield from self._fill_others(new)
        self._record_losses(new)
        self._fill_counters(new)
        self._fill_poisoned(new)
        new.execute("COMMIT")

    def _copy(self, new: sqlite3.Connection, examined: ExaminedDecision) -> None:
        """Copy one decision, or put its remains into quarantine."""
        if examined.row is not None and examined.body is not None:
            for table, columns, row in (
                ("decisions", rows.DECISION_COLUMNS, examined.row),
                ("bodies", rows.BODY_COLUMNS, examined.body),
            ):
                new.execute(f"INSERT INTO {table} ({columns}) VALUES ({_marks(row)})", row)
        if examined.findings and any(examined.found):
            reason = "; ".join(finding.detail for finding in examined.findings)
            identity = next((row[1] for row in examined.found[:1] if row and isinstance(row[1], bytes)), None)
            self._quarantine(new, "decisions", examined.sequence, identity, reason, examined.found)

    def _quarantine(
        self, new: sqlite3.Connection, table: str, sequence: int | None, identity: bytes | None, reason: str, content: Any
    ) -> None:
        """Store corrupt rows for a later analysis."""
        written = to_json(content, bytes_mode="base64", fallback=str)
        row = (self._at_ms, table, sequence, identity, reason, written)
        new.execute(f"INSERT INTO quarantine (at, origin, seq, id, reason, content) VALUES ({_marks(row)})", row)

    def _fill_others(self, new: sqlite3.Connection) -> Iterator[Finding]:
        """Copy the tables that are not derived from decisions; poisoned pages are in part."""
        new.execute("DELETE FROM poisoned_pages")  # the insert trigger has added pages of the decisions
        for table in OTHER_TABLES:
            for row, finding in other_rows(self._old, table):
                if table == "poisoned_pages" and row is not None and not _is_page(row):
                    continue
                refused = finding or (None if row is None else _insert(new, table, row))
                if refused is not None:
                    yield refused
                    self._quarantine(new, table, None, None, refused.detail, row)
                    # Without them nobody knows which decisions still count: the pages in the table stay.
                    self._examination.poison_unknown |= table in ("forgotten_pages", "purges")

    def _fill_poisoned(self, new: sqlite3.Connection) -> None:
        """Add the poisoned pages derived from decisions; if they cannot be determined, keep those in the table.

        The decisions are those of the new file: in the old one, columns of which the pages follow may be wrong.
        """
        if self._examination.poison_unknown:
            return
        expected, complete = derive_poisoned_pages(new)
        for source in complete:
            new.execute("DELETE FROM poisoned_pages WHERE source = ?", (source,))
        pages = [(*place, address) for place, address in expected.items()]
        new.executemany("INSERT OR IGNORE INTO poisoned_pages VALUES (?, ?, ?, ?)", pages)

    def _record_losses(self, new: sqlite3.Connection) -> None:
        for first, last, number in _spans(self._examination.lost):
            row = (self._at_ms, "damaged", number, first, last, 0)
            new.execute(f"INSERT INTO losses (at, reason, decisions, first_seq, last_seq, changes) VALUES ({_marks(row)})", row)

    def _fill_counters(self, new: sqlite3.Connection) -> None:
        """Copy the store's identity and counters, so that no sequence is assigned twice; corrupt ones are taken from the mark."""
        old, mark = self._examination.counters(), read_mark(self._path)
        newest = new.execute("SELECT coalesce(max(seq), 0) FROM decisions").fetchone()[0]
        sequence = max(newest, old.sequence or 0, *self._examination.lost, 0 if mark is None or old.sequence is not None else mark.sequence)
        self._examination.poison_unknown |= old.poison_known_after is None
        new.execute(
            "UPDATE store SET id = ?, changes = ?, poison_known_after = ?",
            (
                old.store_id or (os.urandom(STORE_ID_BYTES) if mark is None else mark.store_id),
                old.changes if old.changes is not None else 0 if mark is None else mark.changes,
                sequence if self._examination.poison_unknown else old.poison_known_after,
            ),
        )
        new.execute("DELETE FROM sqlite_sequence WHERE name = 'decisions'")
        new.execute("INSERT INTO sqlite_sequence VALUES ('decisions', ?)", (sequence,))

    def _require_sound(self, new: sqlite3.Connection) -> None:
        (result,) = new.execute("PRAGMA integrity_check(1)").fetchone()
        if result != "ok":
            raise sqlite3.DatabaseError(f"the repaired file is damaged: {result}")

    def put_in_place(self) -> str:
        """Replace the old file by the new one. Return the new path of the old file. No connection may be open. Raises OSError."""
        aside = next(name for number in count() if not (name := self._path.with_name(f"{self._path.name}-damaged-{number}")).exists())
        _synchronise(self._new)
        os.link(self._path, aside)  # so that the path names a store at any time
        os.replace(self._new, self._path)
        _synchronise(self._path.parent)
        return str(aside)


def _insert(new: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> Finding | None:
    """Insert a row, or return the finding about it: damage of a record's header changes types and leaves columns NULL."""
    if table == "quarantine":
        row = (None, *row[1:])  # its number may have been given to remains of this repair
    try:
        if new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({_marks(row)})", row).rowcount:
            return None
    except sqlite3.IntegrityError as error:
        return Finding("lost", table, f"a row is lost: {error}")
    return Finding("lost", table, "a row is lost: NULL, or a second row with its key")


def _marks(row: tuple[Any, ...]) -> str:
    return ", ".join("?" * len(row))


def _is_page(row: tuple[Any, ...]) -> bool:
    source, start, shift, address = row
    try:
        rows.poisoned((start, address, shift))
    except RowDamaged:
        return False
    return isinstance(source, str)


def _spans(sequences: list[int]) -> Iterator[tuple[int, int, int]]:
    """Return first, last and number of each run of consecutive sequences."""
    first = 0
    for place, sequence in enumerate(sequences):
        if place + 1 == len(sequences) or sequences[place + 1] != sequence + 1:
            yield sequences[first], sequence, place + 1 - first
            first = place + 1


def _synchronise(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
