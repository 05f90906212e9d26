"""The SQLite file itself: held by one service at a time, created, and taken forward to today's schema."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from service.store.port import QueryTooSlow, StoreDamaged, StoreError, StoreUnavailable, StoreUnusable

APPLICATION_ID: Final = 0x52415374
"""`RASt`, in the file's header."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""`SQLITE_ERROR` is a statement that makes no sense; ours do unless the schema was changed."""

_SMALLEST: Final = 512
"""Bytes of the shortest database. SQLite takes some that are shorter for empty ones."""


def explain(error: sqlite3.Error) -> StoreError:
    """The port's error for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if str(error).startswith("Could not decode to UTF-8"):  # the module's own, without a code; it quotes what was kept
        return StoreDamaged("a text is not UTF-8")
    if code in _DAMAGED:
        return StoreDamaged(str(error))
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryTooSlow("no answer in the time that one question may take")
    return StoreUnavailable(str(error))


def lock(path: Path) -> int:
    """Hold the lock beside the file, by whichever name it is called, until the process ends. Raises StoreUnusable."""
    try:
        handle = os.open(f"{path.resolve()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(f"`{path}` cannot be opened for writing: {(error.strerror or 'unknown reason').lower()}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreUnusable(f"`{path}` is in use by another service") from None
    return handle


def connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA cache_size = -16000")
    return connection


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes, on a file whose schema is up to date. Raises StoreUnusable, StoreDamaged."""
    connection: sqlite3.Connection | None = None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if 0 < path.stat().st_size < _SMALLEST:
            raise StoreDamaged(f"`{path}` is no store, or is damaged: too short")
        connection = connect(path, "rw")
        version = _version(connection, path)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        _migrate(connection, version)
    except (OSError, sqlite3.Error, StoreError) as error:
        if connection is not None:
            connection.close()
        raise _refusal(path, error) from None
    return connection


def _refusal(path: Path, error: OSError | sqlite3.Error | StoreError) -> StoreError:
    """Why a file is not opened."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        return StoreUnusable(f"`{path}` cannot be opened for writing: {(error.strerror or 'unknown reason').lower()}")
    if isinstance(explain(error), StoreDamaged):
        return StoreDamaged(f"`{path}` is no store, or is damaged: {error}")
    return StoreUnusable(f"`{path}` cannot be written: {error}")


def migrations() -> list[str]:
    """The schema's steps, in order; the first makes version 1."""
    folder = files("service.store") / "schema"
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


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Take the schema forward, each step as a whole."""
    for number, step in enumerate(migrations()[version:], version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\nPRAGMA application_id = {APPLICATION_ID};\n{step}\nPRAGMA user_version = {number};\nCOMMIT;"
        )
