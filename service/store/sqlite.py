"""SQLite implementation of the store.

One connection writes, in WAL mode with `synchronous=FULL`, so that commits survive a power failure. Each reading thread has a read-only
connection and sees committed data. Lock files keep a second service from opening the store.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from zlib import crc32

from ras_triage.models.poison import PoisonedPage
from ras_triage.service.store import queries, rows
from ras_triage.service.store.compression import Compressor
from ras_triage.service.store.files.database import (
    StoreLock,
    connect,
    database_mark,
    is_undecodable,
    open_writer,
    opening_error,
    text_or_bytes,
    to_store_error,
)
from ras_triage.service.store.files.free_space import FreeSpace, commit_bytes
from ras_triage.service.store.files.high_water_mark import Mark, MarkFile
from ras_triage.service.store.files.identity import OpenFiles, log_path
from ras_triage.service.store.files.read_check import ReadCheck
from ras_triage.service.store.files.write_ahead_log import WriteAheadLog
from ras_triage.service.store.port import (
    MAX_REPLAYS,
    PURGES,
    ApiKey,
    BucketCount,
    Cursor,
    Field,
    Filter,
    HostFacts,
    HostFilter,
    HostListing,
    Loss,
    NewDecision,
    Page,
    PoisonedPosition,
    PoisonFilter,
    PoisonListing,
    Purge,
    RowDamaged,
    StoreDamaged,
    StoredDecision,
    StoredPolicy,
    StoredReplay,
    StoreError,
    StoreSize,
    StoreUnavailable,
    StoreUnusable,
    StreamedDecision,
    Summary,
    Usage,
)

T = TypeVar("T")

QUERY_SECONDS: Final = 10.0
"""Time limit for one query, in seconds."""

_CHUNKS: Final = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows per INSERT statement. Each statement releases the GIL once, so that fewer are faster."""
MERGED_SOURCES: Final = 50
"""Sources with a prefix up to which a page merges the decisions of each; with more, it scans all decisions in the order of time."""

_SEQUENCES_AT_ONCE: Final = 20_000
_REPEAT: Final = f"SELECT {rows.STORED_COLUMNS} FROM decisions d JOIN bodies b ON b.seq = d.seq WHERE d.repeat_key = ?"
PROBE_BYTES: Final = 64 << 10
"""Bytes that a probe writes: as many as a large event, so that an almost full disk is detected."""

_LAST_EVER: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'decisions'"
_SHRINK_MEMORY: Final = "PRAGMA shrink_memory"
_CHECK_EVERY: Final = 10_000
"""Virtual machine instructions between two checks of the time limit."""

_FULL_DISK_DECISIONS: Final = 16
"""Decisions in one purge on a full disk."""

_SHRINK_PAGES: Final = 1024
_FULL_DISK_PAGES: Final = 32
"""Free pages released at a time; on a full disk."""

_CHECK_S: Final = 1.0
_QUICK_CHECK_S: Final = 0.01
_START_CHECK_S: Final = 10.0
"""Seconds to wait for the check whether the disk failed or data is corrupt: for a query, in the event loop, and at the start."""


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise to_store_error(error) from error
    except UnicodeDecodeError as error:  # SQLite's message quotes a damaged schema
        raise StoreDamaged("the schema is not UTF-8") from error


class _Reader(NamedTuple):
    """Connection of one thread that reads."""

    connection: sqlite3.Connection
    lock: threading.Lock
    """Held while the connection is used: of two threads on one connection, one may hold its mutex and wait for the GIL, to call the
    progress handler, while the other holds that and waits for the mutex."""


class SqliteStore:
    """Store in an SQLite file; see `ras_triage.service.store.port.Store`."""

    def __init__(self, path: Path, *, exclusive: bool = True, durable: bool = True) -> None:
        """Open or create a store. Raises StoreUnusable, StoreDamaged.

        `exclusive`: take the locks of a service, and keep the mark and the reserve. `durable`: flush commits to the disk.
        """
        self.path = path
        self._durable = durable
        self._lock = StoreLock(path) if exclusive else None
        self._readers: list[_Reader] = []
        self._reading = threading.local()
        self._readers_lock = threading.Lock()
        self._shrink_writer = threading.Event()
        """Whether the thread that writes should free the caches of its connection."""
        self._mark: MarkFile | None = None
        self._space = FreeSpace(path)
        self._compressor = Compressor()
        try:
            self._writer = self._open_writer()
            try:
                self._initialise()
            except (OSError, UnicodeDecodeError, sqlite3.Error, StoreError):
                self._writer.close()
                raise
        except (OSError, UnicodeDecodeError, sqlite3.Error, StoreError) as error:
            found = self._opening_error(opening_error(path, error))
            self._unlock()
            raise found from None

    def _open_writer(self) -> sqlite3.Connection:
        """Open the connection that writes; on a full disk with the reserve's space, since the log and its index have to be created."""
        try:
            return open_writer(self.path, durable=self._durable)
        except StoreUnusable:
            if not self._space.release_if_full():
                raise
        return open_writer(self.path, durable=self._durable)

    def _opening_error(self, error: StoreError) -> StoreError:
        """Return the error; for apparent corruption, a disk failure if reading the file fails."""
        if self._lock is not None and isinstance(error, StoreDamaged):
            check = ReadCheck(self._lock.database, log_path(self.path))
            if (why := check.failure(_START_CHECK_S)) is not None:
                error = StoreUnusable(f"`{self.path}` cannot be read: {why}")
            check.close()
        return error

    def _initialise(self) -> None:
        """Initialise what depends on the writer's connection."""
        found = database_mark(self._writer)
        assert found is not None, "the schema is up to date"
        self._store_id, self._sequence, self._changes = found.store_id, found.sequence, found.changes
        self._files = OpenFiles(self.path)
        self._log = WriteAheadLog(self._writer, self._files.log_path)
        self._read_check: ReadCheck | None = None
        if self._lock is None:
            self._mark = MarkFile.open_existing(self.path, found.store_id)
            return
        if not self._lock.is_held_for(self.path):
            raise StoreUnusable(f"`{self.path}` was replaced while it was opened")
        with suppress(OSError):  # on a full disk it is created later
            self._mark = MarkFile.create(self.path, found)
        self._space.take_reserve()
        self._read_check = ReadCheck(self._lock.database, self._files.log_path)

    # Writing, by one thread.

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction. The caller checks the files before it acknowledges anything."""
        self._files.check_sometimes()
        try:
            with _store_errors():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        except StoreDamaged as error:
            if (why := self._unreadable(_CHECK_S)) is not None:
                raise StoreUnavailable(why) from error
            raise

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Run a counted transaction, for anything but new decisions."""
        with self._transaction() as connection:
            yield connection
            changes = connection.execute("UPDATE store SET changes = changes + 1 RETURNING changes").fetchone()[0]
        self._changes = changes
        self._files.check_quickly()
        if self._mark is not None:
            self._mark.set_changes(self._changes)

    def append(self, entries: Sequence[NewDecision]) -> None:
        if not entries:
            return
        first = self._sequence + 1
        numbered = list(enumerate(entries, first))
        texts = self._compressor.compress([text for entry in entries for text in (entry.event, entry.decision)])
        self._require_room(commit_bytes(len(entries), sum(map(len, texts))))
        bodies = [
            rows.body_row(number, entry.summary, event, decision)
            for (number, entry), event, decision in zip(numbered, texts[::2], texts[1::2], strict=True)
        ]
        with self._transaction() as connection:
            _insert(connection, "decisions", rows.DECISION_COLUMNS, [rows.decision_row(number, entry) for number, entry in numbered])
            _insert(connection, "bodies", rows.BODY_COLUMNS, bodies)
        self._sequence += len(entries)
        self._files.check_quickly()
        if self._mark is not None:
            self._mark.set_sequence(self._sequence)

    def _require_room(self, needed: int) -> None:
        """Raise StoreUnavailable if a commit that adds `needed` bytes to the log would leave no space for a checkpoint of the whole log."""
        self._log.grow(needed)
        if self._space.has_without_measuring(2 * needed) or self._space.has(2 * needed + self._log.size()):
            return
        with _store_errors():
            self._log.truncate()
        self._space.require(2 * needed + self._log.size())

    def probe(self) -> None:
        self._require_room(commit_bytes(1, PROBE_BYTES))
        with self._transaction() as connection:
            connection.execute("UPDATE probe SET room = randomblob(?)", (PROBE_BYTES,))
        self._files.check()

    def maintain(self, log_bytes: int) -> None:
        if self._files.check_sometimes():
            self._restore_files()
        with _store_errors():
            if self._shrink_writer.is_set():
                self._shrink_writer.clear()
                self._writer.execute(_SHRINK_MEMORY)
            self._log.keep_within(0 if self._space.short else log_bytes)

    def _restore_files(self) -> None:
        """Create the reserve and the mark again if they were removed."""
        if self._lock is None:
            return
        self._space.take_reserve()
        if self._mark is not None and self._mark.is_there():
            return
        if self._mark is not None:
            self._mark.close()
            self._mark = None
        with suppress(OSError):
            self._mark = MarkFile.create(self.path, Mark(self._store_id, self._sequence, self._changes))

    def put_host(self, facts: HostFacts) -> None:
        with self._change() as connection:
            connection.execute(f"INSERT INTO host_facts ({rows.HOST_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows.host_row(facts))

    def forget_poisoned(self, source: str) -> int:
        with self._change() as connection:
            connection.execute(f"INSERT OR REPLACE INTO forgotten_pages VALUES (?, ({_LAST_EVER}))", (source,))
            return connection.execute("DELETE FROM poisoned_pages WHERE source = ?", (source,)).rowcount

    def purge_older(self, than_ms: int, at_ms: int, limit: int) -> int:
        return self._purge("age", "WHERE at < ?", (than_ms,), limit, at_ms)

    def purge_larger(self, than_bytes: int, at_ms: int, limit: int) -> int:
        with _store_errors():
            live = _live_bytes(self._writer)
        count = self._purge("size", "", (), limit, at_ms) if live > than_bytes else 0
        self._shrink(than_bytes)
        return count

    def _purge(self, reason: str, where: str, values: tuple[int, ...], limit: int, at_ms: int) -> int:
        """Purge; on a full disk with the reserve's space, in small steps."""
        try:
            return self._delete(reason, where, values, limit, at_ms)
        except StoreUnavailable:
            self._files.check()
            self._space.release_reserve()
        with _store_errors():
            self._log.truncate()
            count = self._delete(reason, where, values, min(limit, _FULL_DISK_DECISIONS), at_ms)
            self._log.truncate()
        return count

    def _delete(self, reason: str, where: str, values: tuple[int, ...], limit: int, at_ms: int) -> int:
        self._log.grow_unknown()
        with self._change() as connection:
            chosen = f"SELECT seq FROM decisions {where} ORDER BY at, seq LIMIT ?"
            going = f"SELECT count(*), min(seq), max(seq), min(at), max(at) FROM decisions WHERE seq IN ({chosen})"
            count, *bounds = connection.execute(going, (*values, limit)).fetchone()
            if count:
                connection.execute(f"DELETE FROM decisions WHERE seq IN ({chosen})", (*values, limit))
                record = "INSERT INTO purges (at, reason, count, first_seq, last_seq, oldest, newest) VALUES (?, ?, ?, ?, ?, ?, ?)"
                connection.execute(record, (at_ms, reason, count, *bounds))
                connection.execute("DELETE FROM purges WHERE purge <= (SELECT max(purge) FROM purges) - ?", (PURGES,))
        if count and reason == "age":
            self._shrink(0)
        return int(count)

    def _shrink(self, to_bytes: int) -> None:
        """Release free pages to the file system down to `to_bytes`, in steps, each of which needs space in the log first."""
        with _store_errors():
            page_size = _pragma(self._writer, "page_size")
            while (pages := min(_pragma(self._writer, "freelist_count"), _pragma(self._writer, "page_count") - to_bytes // page_size)) > 0:
                is_full = not self._space.has(2 * _SHRINK_PAGES * page_size + self._log.size())
                if not self._space.has(4 * _FULL_DISK_PAGES * page_size):
                    self._space.release_reserve()
                # `execute` would do only one step, which frees one page
                self._writer.executescript(f"PRAGMA incremental_vacuum({min(pages, _FULL_DISK_PAGES if is_full else _SHRINK_PAGES)})")
                if is_full and not self._log.truncate():
                    return  # a reader blocks the checkpoint; the next call continues

    def disk_bytes(self) -> int:
        return sum(_size(path) for path in (self.path, self._files.log_path, self._space.path))

    def usage(self) -> Usage:
        with _store_errors():
            first, last = self._writer.execute("SELECT (SELECT min(seq) FROM decisions), (SELECT max(seq) FROM decisions)").fetchone()
            return Usage(_live_bytes(self._writer), self._space.reserve, 0 if first is None else last - first + 1)

    def put_policy(self, name: str, definition: bytes, at_ms: int) -> None:
        with self._change() as connection:
            version = "SELECT coalesce(max(version), 0) + 1 FROM policies WHERE name = ?"
            row = (name, name, at_ms, definition, crc32(definition))
            connection.execute(f"INSERT INTO policies VALUES (?, ({version}), ?, ?, ?)", row)

    def add_api_key(self, key: ApiKey) -> None:
        row = (key.id, key.name, " ".join(key.scopes), key.secret_hash, key.created_at_ms, key.revoked_at_ms)
        with self._change() as connection:
            connection.execute("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?)", row)

    def revoke_api_key(self, identity: str, at_ms: int) -> bool:
        with self._change() as connection:
            revoked = connection.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (at_ms, identity))
            return revoked.rowcount > 0

    def put_replay(self, replay: StoredReplay) -> None:
        row = rows.replay_row(replay)
        with self._change() as connection:
            connection.execute(f"INSERT OR REPLACE INTO replays VALUES ({', '.join('?' * len(row))})", row)
            connection.execute("DELETE FROM replays WHERE id NOT IN (SELECT id FROM replays ORDER BY id DESC LIMIT ?)", (MAX_REPLAYS,))

    def delete_replay(self, identity: str) -> bool:
        with self._change() as connection:
            return connection.execute("DELETE FROM replays WHERE id = ?", (identity,)).rowcount > 0

    # Reading, by any thread, each with its own connection.

    def _reader(self) -> _Reader:
        found: _Reader | None = getattr(self._reading, "reader", None)
        if found is None:
            self._files.check()
            connection = connect(self.path, "ro")
            try:
                connection.execute(_LAST_EVER).fetchone()
                self._files.check()  # the file may have been replaced before it was opened
            except (sqlite3.Error, StoreUnavailable):
                connection.close()
                raise
            found = self._reading.reader = _Reader(connection, threading.Lock())
            with self._readers_lock:
                self._readers.append(found)
        return found

    def _read(self, query: Callable[[sqlite3.Connection], T], *, quick: bool = True) -> T:
        """Run a query, twice if data appears to be corrupt. `quick`: do not wait for a checkpoint, for the event loop."""
        if not quick:
            self._log.wait()
        try:
            return self._query(query)
        except RowDamaged:
            raise
        except StoreDamaged:
            pass
        try:
            return self._query(query)
        except RowDamaged:
            raise
        except StoreDamaged as error:
            if (why := self._unreadable(_QUICK_CHECK_S if quick else _CHECK_S)) is not None:
                raise StoreUnavailable(why) from error
            raise

    def _unreadable(self, patience_s: float) -> str | None:
        return None if self._read_check is None else self._read_check.failure(patience_s)

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with _store_errors(), (reader := self._reader()).lock:
            connection = reader.connection
            deadline = monotonic() + QUERY_SECONDS
            connection.set_progress_handler(lambda: monotonic() > deadline, _CHECK_EVERY)
            try:
                return query(connection)
            finally:
                connection.set_progress_handler(None, 0)

    def last_sequence(self) -> int:
        return int(self._rows(_LAST_EVER)[0][0])

    def _rows(self, sql: str, values: Sequence[Any] = (), *, quick: bool = True) -> list[tuple[Any, ...]]:
        return self._read(lambda connection: _fetch(connection, sql, values), quick=quick)

    def newest_ms(self) -> int | None:
        newest: int | None = self._rows("SELECT max(at) FROM decisions")[0][0]
        return newest

    def recent(self, source: str, since_ms: int, limit: int) -> list[Summary]:
        found = self._rows(*queries.page_query(Filter(source=(source,), since_ms=since_ms), None, limit))
        return [summary for row in found if (summary := _convert(rows.summary, row[1:])) is not None]

    def repeat(self, key: bytes) -> StoredDecision | None:
        try:
            with _store_errors(), (reader := self._reader()).lock:
                row = reader.connection.execute(_REPEAT, (key,)).fetchone()
        except StoreDamaged:
            row = self._read(lambda connection: connection.execute(_REPEAT, (key,)).fetchone())
        if row is None:
            return None
        self._files.check_quickly()  # the response to a repeat is an acknowledgement as well
        return rows.stored_decision(row)

    def repeat_keys(self, keys: Sequence[bytes]) -> set[bytes]:
        marks = ", ".join("?" * len(keys))
        return {row[0] for row in self._rows(f"SELECT repeat_key FROM decisions WHERE repeat_key IN ({marks})", keys)}

    def _body(self, columns: str, identity: str) -> tuple[Any, ...] | None:
        key = rows.id_bytes(identity)
        found = self._rows(f"SELECT {columns} FROM decisions d JOIN bodies b ON b.seq = d.seq WHERE d.id = ?", (key,)) if key else []
        return found[0] if found else None

    def decision(self, identity: str) -> StoredDecision | None:
        row = self._body(rows.STORED_COLUMNS, identity)
        return None if row is None else rows.stored_decision(row)

    def event(self, identity: str) -> bytes | None:
        row = self._body("b.event, b.event_check", identity)
        return None if row is None else rows.event(row)

    def bodies(self, identities: Sequence[str]) -> dict[str, tuple[StoredDecision, bytes]]:
        keys = [key for identity in identities if (key := rows.id_bytes(identity)) is not None]
        columns = f"{rows.STORED_COLUMNS}, b.event, b.event_check"
        sql = f"SELECT {columns} FROM decisions d JOIN bodies b ON b.seq = d.seq WHERE d.id IN ({', '.join('?' * len(keys))})"
        found = (body for row in self._rows(sql, keys, quick=False) if (body := _convert(rows.body, row)) is not None)
        return {body[0].id: body for body in found}

    def page(self, filter_: Filter, after: Cursor | None, limit: int) -> Page:
        wanted = self._with_sources(filter_)
        if wanted is None:
            return Page((), None)
        found = self._rows(*queries.page_query(wanted, after, limit + 1), quick=False)
        decisions = tuple(summary for row in found[:limit] if (summary := _convert(rows.summary, row[1:])) is not None)
        more = _cursor(found[:limit]) if len(found) > limit else None
        return Page(decisions, more, min(len(found), limit) - len(decisions))

    def _with_sources(self, filter_: Filter) -> Filter | None:
        """Return the filter with each prefix replaced by its sources, unless they are too many; None: no source matches."""
        names = set(filter_.source)
        for prefix in filter_.source_prefixes:
            found = self._rows(*queries.sources_with_prefix(prefix, MERGED_SOURCES + 1))
            names.update(row[0] for row in found if type(row[0]) is str)
            if len(names) > MERGED_SOURCES:
                return filter_
        if filter_.source_prefixes and not names:
            return None
        return replace(filter_, source=tuple(sorted(names)), source_prefixes=())

    def stats(self, filter_: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int) -> list[BucketCount]:
        try:
            found = self._rows(*queries.stats(filter_, group_by, bucket_ms, limit), quick=False)
        except StoreDamaged:
            found = self._rows(*queries.stats(filter_, group_by, bucket_ms, limit, lenient=True), quick=False)
        return [BucketCount(row[0], tuple(map(_decode_group, row[1:-1])), row[-1]) for row in found]

    def after_sequence(self, sequence: int, filter_: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        def query(connection: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], int]:
            newest = connection.execute(_LAST_EVER).fetchone()[0]
            up_to = min(newest, sequence + _SEQUENCES_AT_ONCE)
            return _fetch(connection, *queries.after_sequence(filter_, sequence, up_to, limit)), max(up_to, sequence)

        found, up_to = self._read(query, quick=False)
        streamed = [StreamedDecision(row[0], summary) for row in found if (summary := _convert(rows.summary, row[1:])) is not None]
        return streamed, found[-1][0] if len(found) == limit else up_to

    def host(self, source: str, version: int | None = None) -> HostFacts | None:
        which = "version = ?" if version is not None else "? IS NULL"
        sql = f"SELECT {rows.HOST_COLUMNS} FROM host_facts WHERE source = ? AND {which} ORDER BY version DESC LIMIT 1"
        found = self._rows(sql, (source, version))
        return rows.host(found[0]) if found else None

    def hosts(self, filter_: HostFilter, after: str | None, limit: int) -> HostListing:
        found = self._rows(*queries.hosts(filter_, after, limit + 1), quick=False)
        shown = found[:limit]
        entries = tuple(entry for row in shown if (entry := _convert(rows.host_entry, row)) is not None)
        last = next((row[0] for row in reversed(shown) if type(row[0]) is str), None) if len(found) > limit else None
        return HostListing(entries, last, len(shown) - len(entries))

    def poisoned_pages(self, filter_: PoisonFilter, after: PoisonedPosition | None, limit: int) -> PoisonListing:
        found = self._rows(*queries.poisoned_pages(filter_, after, limit + 1), quick=False)
        shown = found[:limit]
        pages = tuple(page for row in shown if (page := _convert(rows.poisoned_of_source, row)) is not None)
        places = (PoisonedPosition(*row[:3]) for row in reversed(shown) if type(row[0]) is type(row[1]) is str)
        return PoisonListing(pages, next(places, None) if len(found) > limit else None, len(shown) - len(pages))

    def poisoned(self, source: str, limit: int) -> tuple[PoisonedPage, ...]:
        sql = "SELECT start, address, shift FROM poisoned_pages WHERE source = ? ORDER BY start, shift LIMIT ?"
        return tuple(map(rows.poisoned, self._rows(sql, (source, limit))))

    def poisoned_at(self, source: str, addresses: Sequence[int]) -> tuple[PoisonedPage, ...]:
        condition, values = queries.containing(addresses)
        sql = f"SELECT start, address, shift FROM poisoned_pages WHERE source = ? AND {condition}"
        return tuple(map(rows.poisoned, self._rows(sql, [source, *values]) if addresses else []))

    def purges(self, limit: int) -> list[Purge]:
        sql = "SELECT at, reason, count, first_seq, last_seq, oldest, newest FROM purges ORDER BY purge DESC LIMIT ?"
        return [Purge(*row) for row in self._rows(sql, (limit,))]

    def losses(self) -> list[Loss]:
        sql = "SELECT at, reason, decisions, first_seq, last_seq, changes FROM losses ORDER BY loss DESC"
        return [Loss(*row) for row in self._rows(sql)]

    def size(self) -> StoreSize:
        def query(connection: sqlite3.Connection) -> StoreSize:
            figures = ("count(*)", "min(at)", "max(at)")
            count, oldest, newest = (connection.execute(f"SELECT {figure} FROM decisions").fetchone()[0] for figure in figures)
            ever = connection.execute(_LAST_EVER).fetchone()[0]
            lost = connection.execute("SELECT coalesce(sum(decisions), 0) FROM losses").fetchone()[0]
            return StoreSize(count, _live_bytes(connection), oldest, newest, ever, self._log.size(), lost)

        return self._read(query)

    def api_key(self, identity: str) -> ApiKey | None:
        found = self._rows("SELECT * FROM api_keys WHERE id = ?", (identity,))
        return rows.api_key(found[0]) if found else None

    def api_keys(self) -> list[ApiKey]:
        found = self._rows("SELECT * FROM api_keys ORDER BY created_at, id")
        return [key for row in found if (key := _convert(rows.api_key, row)) is not None]

    def policies(self) -> tuple[list[StoredPolicy], int]:
        newest = "SELECT max(version) FROM policies WHERE name = p.name"
        found = self._rows(f"SELECT * FROM policies p WHERE version = ({newest}) ORDER BY name")
        policies = [policy for row in found if (policy := _convert(rows.policy, row)) is not None]
        return policies, len(found) - len(policies)

    def replay(self, identity: str) -> StoredReplay | None:
        found = self._rows("SELECT * FROM replays WHERE id = ?", (identity,))
        return rows.replay(found[0]) if found else None

    def replays(self) -> list[StoredReplay]:
        found = self._rows("SELECT * FROM replays ORDER BY id DESC")
        return [replay for row in found if (replay := _convert(rows.replay, row)) is not None]

    def check(self) -> list[str]:
        """Return the errors of SQLite's integrity check, which reads the whole file."""
        with _store_errors():
            found = [str(row[0]) for row in self._writer.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def release_memory(self) -> None:
        self._shrink_writer.set()
        with _store_errors():
            for reader in self._open_readers():
                if reader.lock.acquire(blocking=False):  # the caches of one in use are needed
                    try:
                        reader.connection.execute(_SHRINK_MEMORY)
                    finally:
                        reader.lock.release()

    def _open_readers(self) -> list[_Reader]:
        with self._readers_lock:
            return list(self._readers)

    def close(self) -> None:
        if self._read_check is not None:
            self._read_check.close()
        for reader in self._open_readers():
            with reader.lock:
                reader.connection.close()
            self._readers.remove(reader)
        self._writer.close()  # last: only a connection that may write empties the log when it is the last to close
        if self._mark is not None:
            self._mark.close()
            self._mark = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _live_bytes(connection: sqlite3.Connection) -> int:
    return (_pragma(connection, "page_count") - _pragma(connection, "freelist_count")) * _pragma(connection, "page_size")


def _fetch(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return rows, with bytes instead of text that is not UTF-8: one such row would fail the whole query."""
    try:
        return connection.execute(sql, values).fetchall()
    except sqlite3.OperationalError as error:
        if not is_undecodable(error):
            raise
    connection.text_factory = text_or_bytes
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.text_factory = str


def _decode_group(group: Any) -> Any:
    return group.decode(errors="replace") if isinstance(group, bytes) else group


def _convert(read: Callable[[tuple[Any, ...]], T], row: tuple[Any, ...]) -> T | None:
    """Convert a row; None: corrupt."""
    try:
        return read(row)
    except RowDamaged:
        return None


def _cursor(shown: list[tuple[Any, ...]]) -> Cursor | None:
    """Return the cursor of a page: its last row with a valid time."""
    places = (Cursor(row[2], row[0]) for row in reversed(shown) if type(row[2]) is int)
    return next(places, None)


def _insert(connection: sqlite3.Connection, table: str, columns: str, values: list[tuple[Any, ...]]) -> None:
    """Insert rows with as few statements as possible."""
    one = "(" + ", ".join("?" * len(values[0])) + ")"
    start = 0
    for size in _CHUNKS:
        sql = f"INSERT INTO {table} ({columns}) VALUES " + ", ".join([one] * size)
        while len(values) - start >= size:
            flat = [column for row in values[start : start + size] for column in row]
            connection.execute(sql, flat)
            start += size
