"""Offline maintenance: check, repair, acceptance of lost commits."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ras_triage.models.frozen import frozen
from ras_triage.service.store.files.database import (
    StoreLock,
    database_mark,
    missing_commits,
    open_writer,
    opening_error,
    text_or_bytes,
    to_store_error,
)
from ras_triage.service.store.files.high_water_mark import Mark, MarkFile, read_mark
from ras_triage.service.store.files.identity import log_path
from ras_triage.service.store.files.read_check import ReadCheck
from ras_triage.service.store.maintenance.check import MAX_FINDINGS, Examination, Finding, ReadEvent
from ras_triage.service.store.maintenance.repair import Rebuild
from ras_triage.service.store.port import Loss, StoreDamaged, StoreUnavailable, StoreUnusable


@frozen
class CheckReport:
    """Result of a check."""

    decisions: int
    """Number of recoverable decisions."""
    lost: int
    """Number of lost decisions."""
    findings: tuple[Finding, ...]
    """The first of them."""
    total: int
    """Number of all findings."""
    set_aside: str | None
    """After a repair, the path of the previous file."""


def check(path: Path, read_event: ReadEvent, *, repair: bool, at_ms: int) -> CheckReport:
    """Verify a store; `repair`: rebuild it if there are findings. Raises StoreError."""
    with _locked(path) as lock:
        _require_readable(path, lock)
        connection = open_writer(path, incomplete=True)
        try:
            connection.text_factory = text_or_bytes
            findings = _Findings()
            findings.add_all(_incomplete(path, connection))
            incomplete = findings.number
            examination = Examination(connection, read_event)
            findings.add_all(examination.find_all())
            rebuild = None
            if repair and findings.number > incomplete:
                examination = Examination(connection, read_event)
                rebuild = Rebuild(path, connection, examination, at_ms)
                for _ in rebuild.build():
                    pass  # the same findings
        except sqlite3.Error as error:
            raise to_store_error(error) from error
        except UnicodeDecodeError as error:  # of the name of a column
            raise opening_error(path, error) from error
        except OSError as error:
            raise StoreUnavailable(f"the store cannot be rebuilt: {(error.strerror or 'unknown reason').lower()}") from error
        finally:
            connection.close()
        aside = None if rebuild is None else rebuild.put_in_place()
    return CheckReport(examination.decisions, len(examination.lost), tuple(findings.first), findings.number, aside)


def accept_loss(path: Path, at_ms: int) -> Loss | None:
    """Record missing commits as lost, so that the store can be opened; None: nothing is missing. Raises StoreError."""
    mark = read_mark(path)
    with _locked(path):
        connection = open_writer(path, incomplete=True)
        try:
            found = database_mark(connection)
            assert found is not None, "the schema is up to date"
            if mark is None or not missing_commits(mark, found):
                return None
            loss = _loss(mark, found, at_ms)
            connection.execute("BEGIN IMMEDIATE")
            row = (loss.at_ms, loss.reason, loss.decisions, loss.first_sequence, loss.last_sequence, loss.changes)
            connection.execute("INSERT INTO losses (at, reason, decisions, first_seq, last_seq, changes) VALUES (?, ?, ?, ?, ?, ?)", row)
            sequence, changes = max(mark.sequence, found.sequence), max(mark.changes, found.changes)
            connection.execute("DELETE FROM sqlite_sequence WHERE name = 'decisions'")
            connection.execute("INSERT INTO sqlite_sequence VALUES ('decisions', ?)", (sequence,))  # no sequence is assigned twice
            connection.execute("UPDATE store SET changes = ?, poison_known_after = ?", (changes, sequence))
            connection.execute("COMMIT")
            MarkFile.create(path, Mark(found.store_id, sequence, changes)).close()
        except sqlite3.Error as error:
            raise to_store_error(error) from error
        except OSError as error:
            raise StoreUnavailable(f"the mark cannot be written: {(error.strerror or 'unknown reason').lower()}") from error
        finally:
            connection.close()
    return loss


def _loss(mark: Mark, found: Mark, at_ms: int) -> Loss:
    if mark.store_id != found.store_id:
        return Loss(at_ms, "replaced", mark.sequence, 1 if mark.sequence else None, mark.sequence or None, mark.changes)
    decisions = max(mark.sequence - found.sequence, 0)
    first, last = (found.sequence + 1, mark.sequence) if decisions else (None, None)
    return Loss(at_ms, "incomplete", decisions, first, last, max(mark.changes - found.changes, 0))


@contextmanager
def _locked(path: Path) -> Iterator[StoreLock]:
    if not os.path.exists(path):
        raise StoreUnusable(f"no store at `{path}`")
    lock = StoreLock(path)
    try:
        yield lock
    finally:
        lock.release()


def _require_readable(path: Path, lock: StoreLock) -> None:
    """Raise StoreUnavailable if the disk fails: unreadable data may be readable later or from a copy, and is not lost yet."""
    reading = ReadCheck(lock.database, log_path(path))
    try:
        if (why := reading.failure(None)) is not None:
            raise StoreUnavailable(f"{why}; copy the store to another disk first")
    finally:
        reading.close()


def _incomplete(path: Path, connection: sqlite3.Connection) -> Iterator[Finding]:
    mark = read_mark(path)
    try:
        found = database_mark(connection)
    except StoreDamaged:
        return  # the counters are examined with the rest
    if mark is not None:
        for detail in missing_commits(mark, found):
            yield Finding("incomplete", "", detail)


class _Findings:
    """Counts findings and keeps the first ones."""

    def __init__(self) -> None:
        self.first: list[Finding] = []
        self.number = 0

    def add_all(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            self.number += 1
            if len(self.first) < MAX_FINDINGS:
                self.first.append(finding)
