"""SQLite database file: locks, creation, schema migration."""

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

STORE_ID_BYTES: Final = 16

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""`SQLITE_ERROR`: an invalid statement, which means a damaged schema here."""

_SMALLEST: Final = 512
"""Size of the smallest database, in bytes. SQLite takes some shorter files for empty databases."""


def is_undecodable(error: sqlite3.Error) -> bool:
    """Return whether the error is text that is not UTF-8. It has no SQLite error code, and its text quotes stored data."""
    return str(error).startswith("Could not decode to UTF-8")


def to_store_error(error: sqlite3.Error) -> StoreError:
    """Convert an SQLite error to a StoreError."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if is_undecodable(error):
        return RowDamaged("text is not UTF-8")
    if code in _DAMAGED:
        return StoreDamaged(str(error))
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryTooSlow("time limit of the query exceeded")
    return StoreUnavailable(str(error))


class StoreLock:
    """Locks against a second service, held until the process ends.

    The lock file next to the database protects the path, also when the database is replaced. The lock on the database protects the file,
    by any of its names and also when the lock file is removed. `flock` does not interact with SQLite's POSIX locks.
    """

    def __init__(self, path: Path) -> None:
        """Take the locks. Raises StoreUnusable."""
        self._beside = _locked(Path(f"{os.path.realpath(path)}.lock"), path)
        try:
            require_one_name(path)
            self.database = _locked(path, path)
        except StoreError:
            os.close(self._beside)
            raise

    def is_held_for(self, path: Path) -> bool:
        """Return whether the path still names the locked database."""
        try:
            found, held = path.stat(), os.fstat(self.database)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def release(self) -> None:
        """Release the locks, after the last connection is closed: closing a file drops all POSIX locks of the process on it."""
        os.close(self.database)
        os.close(self._beside)


def _locked(file: Path, path: Path) -> int:
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise opening_error(path, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreUnusable(f"`{path}` is in use by another service") from None
    return handle


def text_or_bytes(data: bytes) -> str | bytes:
    """Decode text, or return it as bytes if it is not UTF-8; a `text_factory` for connections."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open a connection; `mode` is `ro` or `rw`. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA cache_size = -16000")
    except (UnicodeDecodeError, sqlite3.Error):
        connection.close()
        raise
    return connection


def open_writer(path: Path, *, incomplete: bool = False, durable: bool = True) -> sqlite3.Connection:
    """Open the connection that writes: create or migrate the file, and compare it with the high-water mark.

    Raises StoreUnusable, StoreDamaged. `incomplete`: accept missing commits; `durable`: flush commits to the disk.
    """
    connection: sqlite3.Connection | None = None
    mark = read_mark(path)  # before the database, since a running service may commit in between
    try:
        _create(path)
        if 0 < path.stat().st_size < _SMALLEST:
            raise StoreDamaged(f"`{path}` is not a store, or is damaged: too short")
        connection = connect(path, "rw")
        version = _version(connection, path)
        if mark is not None and not incomplete:
            require_complete(path, mark, database_mark(connection))
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        connection.execute(f"PRAGMA journal_size_limit = {LIMIT_BYTES}")
        connection.execute("PRAGMA secure_delete = FAST")  # a full overwrite would write as much as a purge deletes
        connection.execute("PRAGMA temp_store = MEMORY")  # a purge on a full disk must not need temporary files
        _migrate(connection, version)
    except (OSError, UnicodeDecodeError, sqlite3.Error, StoreError) as error:
        if connection is not None:
            connection.close()
        raise opening_error(path, error) from None
    return connection


def _create(path: Path) -> None:
    """Create an empty file with mode 0600. An existing one is not opened: closing it would drop POSIX locks."""
    require_one_name(path)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def database_mark(connection: sqlite3.Connection) -> Mark | None:
    """Return the state of the database for comparison with the mark; None: schema before 2. Raises StoreDamaged, sqlite3.Error."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'store'").fetchone() is None:
        return None
    row = connection.execute("SELECT id, changes FROM store").fetchone()
    sequence = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'decisions'").fetchone()[0]
    if row is None or not is_store_id(row[0]) or not is_counter(row[1]) or not is_counter(sequence):
        raise StoreDamaged("the counters of the store are corrupt; `ras-triage store check --repair` corrects them")
    return Mark(row[0], sequence, row[1])


def is_store_id(value: object) -> bool:
    """Return whether a column is the id of a store."""
    return isinstance(value, bytes) and len(value) == STORE_ID_BYTES


def is_counter(value: object) -> bool:
    """Return whether a column is a number that only grows from 0."""
    return isinstance(value, int) and value >= 0


def require_complete(path: Path, mark: Mark, found: Mark | None) -> None:
    """Raise StoreIncomplete if commits are missing that the mark records."""
    if lacking := missing_commits(mark, found):
        raise StoreIncomplete(
            f"`{path}` lacks committed data: {' and '.join(lacking)}; "
            "restore it, or accept the loss with `ras-triage store accept-loss` (docs/operations.md, Incomplete store)"
        )


def missing_commits(mark: Mark, found: Mark | None) -> list[str]:
    """Return descriptions of the commits that the mark records and the database lacks."""
    if found is None or found.store_id != mark.store_id:
        return [f"another store than the one with decisions up to sequence {mark.sequence} that was here"]
    lacking = []
    if found.sequence < mark.sequence:
        lacking.append(f"{mark.sequence - found.sequence} decisions (sequence {found.sequence + 1} to {mark.sequence}) are missing")
    if found.changes < mark.changes:
        lacking.append(f"{mark.changes - found.changes} changes of host facts, API keys or retention are missing")
    return lacking


def opening_error(path: Path, error: OSError | UnicodeDecodeError | sqlite3.Error | StoreError) -> StoreError:
    """Convert an error while a store was opened."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, UnicodeDecodeError):  # SQLite's message quotes a damaged schema
        return StoreDamaged(f"`{path}` is not a store, or is damaged: the schema is not UTF-8")
    if isinstance(error, OSError):
        return StoreUnusable(f"`{path}` cannot be opened for writing: {(error.strerror or 'unknown reason').lower()}")
    if isinstance(to_store_error(error), StoreDamaged):
        return StoreDamaged(f"`{path}` is not a store, or is damaged: {error}")
    return StoreUnusable(f"`{path}` cannot be written: {error}")


def migrations() -> list[str]:
    """Return the SQL of the schema migrations in order; the first creates version 1."""
    folder = files("ras_triage.service.store") / "schema"
    return [step.read_text(encoding="utf-8") for step in sorted(folder.iterdir(), key=lambda step: step.name) if step.name.endswith(".sql")]


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version. Raises StoreUnusable for a database of another program or a later release."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    owner: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (tables or version):
        raise StoreUnusable(f"`{path}` is a database of another program")
    if version > len(migrations()):
        raise StoreUnusable(f"`{path}` has schema {version} of a later release; expected at most {len(migrations())}")
    return version


def create_schema(connection: sqlite3.Connection) -> None:
    """Create the schema in an empty file."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _migrate(connection, 0)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Migrate the schema, each step in a transaction."""
    for number, step in enumerate(migrations()[version:], version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\nPRAGMA application_id = {APPLICATION_ID};\n{step}\nPRAGMA user_version = {number};\nCOMMIT;"
        )
