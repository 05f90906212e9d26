"""The SQLite file itself: held by one service at a time, created, and taken forward to today's schema."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ras_triage.service.store.files.high_water_mark import Mark, read_mark
from ras_triage.service.store.files.identity import require_one_name
from ras_triage.service.store.files.write_ahead_log import LIMIT_BYTES
from ras_triage.service.store.port import (
    QueryTooSlow,
    RowDamaged,
    StoreDamaged,
    StoreError,
    StoreIncomplete,
    StoreUnavailable,
    StoreUnusable,
)

APPLICATION_ID: Final = 0x52415374
"""`RASt`, in the file's header."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""`SQLITE_ERROR` is a statement that makes no sense; ours do unless the schema was changed."""

_SMALLEST: Final = 512
"""Bytes of the shortest database. SQLite takes some that are shorter for empty ones."""


def is_undecodable(error: sqlite3.Error) -> bool:
    """Whether a text was not UTF-8. The error is the module's own, without a code; it quotes what was kept."""
    return str(error).startswith("Could not decode to UTF-8")


def explain(error: sqlite3.Error) -> StoreError:
    """The port's error for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if is_undecodable(error):
        return RowDamaged("a text is not UTF-8")
    if code in _DAMAGED:
        return StoreDamaged(str(error))
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryTooSlow("no answer in the time that one question may take")
    return StoreUnavailable(str(error))


class StoreLock:
    """Locks that keep a second service away, held until the process ends.

    The one beside the file is for the path: it also holds when the database is replaced. The one on the database itself is for the file:
    it holds under each of its names, and when the file beside it is removed. `flock` and SQLite's own locks (POSIX) do not meet.
    """

    def __init__(self, path: Path) -> None:
        """Raises StoreUnusable."""
        self._beside = _locked(Path(f"{os.path.realpath(path)}.lock"), path)
        try:
            require_one_name(path)
            self.database = _locked(path, path)
        except StoreError:
            os.close(self._beside)
            raise

    def names(self, path: Path) -> bool:
        """Whether the path names the database that is locked."""
        try:
            found, held = path.stat(), os.fstat(self.database)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def release(self) -> None:
        """Let go. Only after the last connection: closing a file drops all of a process's POSIX locks on it."""
        os.close(self.database)
        os.close(self._beside)


def _locked(file: Path, path: Path) -> int:
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refusal(path, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreUnusable(f"`{path}` is in use by another service") from None
    return handle


def text_or_bytes(data: bytes) -> str | bytes:
    """A connection's `text_factory` that leaves what is not UTF-8 as it is."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA cache_size = -16000")
    except (UnicodeDecodeError, sqlite3.Error):
        connection.close()
        raise
    return connection


def open_writer(path: Path, *, incomplete: bool = False) -> sqlite3.Connection:
    """The connection that writes, on a file whose schema is up to date and that has everything its mark tells of.

    Raises StoreUnusable, StoreDamaged. `incomplete`: whatever is missing.
    """
    connection: sqlite3.Connection | None = None
    mark = read_mark(path)  # before the database: a service that runs may commit in between
    try:
        _create(path)
        if 0 < path.stat().st_size < _SMALLEST:
            raise StoreDamaged(f"`{path}` is no store, or is damaged: too short")
        connection = connect(path, "rw")
        version = _version(connection, path)
        if mark is not None and not incomplete:
            require_complete(path, mark, committed(connection))
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {LIMIT_BYTES}")
        connection.execute("PRAGMA secure_delete = FAST")  # else a purge writes as much as it deletes
        connection.execute("PRAGMA temp_store = MEMORY")  # a purge on a full disk must not need a temporary file
        _migrate(connection, version)
    except (OSError, UnicodeDecodeError, sqlite3.Error, StoreError) as error:
        if connection is not None:
            connection.close()
        raise refusal(path, error) from None
    return connection


def _create(path: Path) -> None:
    """Create an empty file for its owner alone, unless there is one. One that exists is not opened: closing it would drop locks."""
    require_one_name(path)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def committed(connection: sqlite3.Connection) -> Mark | None:
    """What the database has; None before schema 2."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'store'").fetchone() is None:
        return None
    store_id, changes = connection.execute("SELECT id, changes FROM store").fetchone()
    sequence = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'decisions'").fetchone()[0]
    return Mark(store_id, sequence, changes)


def require_complete(path: Path, mark: Mark, found: Mark | None) -> None:
    """Raises StoreIncomplete where the database lacks what the mark says was committed."""
    if lacking := missing(mark, found):
        raise StoreIncomplete(
            f"`{path}` lacks what was committed: {' and '.join(lacking)}; "
            "put it back, or accept the loss with `ras-triage store accept-loss`: docs/operations.md, Incomplete store"
        )


def missing(mark: Mark, found: Mark | None) -> list[str]:
    """What the mark says was committed and the database does not have."""
    if found is None or found.store_id != mark.store_id:
        return [f"it is another store than the one whose decisions up to sequence {mark.sequence} were committed here"]
    lacking = []
    if found.sequence < mark.sequence:
        lacking.append(f"{mark.sequence - found.sequence} decisions (sequence {found.sequence + 1} to {mark.sequence}) are missing")
    if found.changes < mark.changes:
        lacking.append(f"{mark.changes - found.changes} changes of host facts, API keys or retention are missing")
    return lacking


def refusal(path: Path, error: OSError | UnicodeDecodeError | sqlite3.Error | StoreError) -> StoreError:
    """Return why a file is not opened."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, UnicodeDecodeError):  # SQLite's message quotes a damaged schema
        return StoreDamaged(f"`{path}` is no store, or is damaged: the schema is not UTF-8")
    if isinstance(error, OSError):
        return StoreUnusable(f"`{path}` cannot be opened for writing: {(error.strerror or 'unknown reason').lower()}")
    if isinstance(explain(error), StoreDamaged):
        return StoreDamaged(f"`{path}` is no store, or is damaged: {error}")
    return StoreUnusable(f"`{path}` cannot be written: {error}")


def migrations() -> list[str]:
    """The schema's steps, in order; the first makes version 1."""
    folder = files("ras_triage.service.store") / "schema"
    return [step.read_text(encoding="utf-8") for step in sorted(folder.iterdir(), key=lambda step: step.name) if step.name.endswith(".sql")]


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Which step of the schema the file has; nothing of it is changed. Raises StoreUnusable for a file that is not ours or from later."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    owner: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (tables or version):
        raise StoreUnusable(f"`{path}` is a database of another program")
    if version > len(migrations()):
        raise StoreUnusable(f"`{path}` has schema {version}, written by a later release; this one knows {len(migrations())}")
    return version


def create_schema(connection: sqlite3.Connection) -> None:
    """Make an empty file a store."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _migrate(connection, 0)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Take the schema forward, each step as a whole."""
    for number, step in enumerate(migrations()[version:], version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\nPRAGMA application_id = {APPLICATION_ID};\n{step}\nPRAGMA user_version = {number};\nCOMMIT;"
        )
