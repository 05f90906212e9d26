"""rasdaemon's SQLite file: ordinary tables, and nothing that would run code."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.results import FoundError, UnreadableRecord
from ras_triage.models.notification import Notification
from ras_triage.models.records.block_fields import decode_structured
from ras_triage.service.importing import rasdaemon_db
from ras_triage.service.importing.rasdaemon_db import UnreadableDatabase, read_database

# As rasdaemon's db-sqlite3.c creates them.
MC_EVENT = (
    "CREATE TABLE IF NOT EXISTS mc_event (id INTEGER PRIMARY KEY, timestamp TEXT, err_count INTEGER, err_type TEXT, err_msg TEXT, "
    "label TEXT, mc INTEGER, top_layer INTEGER, middle_layer INTEGER, lower_layer INTEGER, address INTEGER, grain INTEGER, "
    "syndrome INTEGER, driver_detail TEXT)"
)
ARM_EVENT = (
    "CREATE TABLE IF NOT EXISTS arm_event (id INTEGER PRIMARY KEY, timestamp TEXT, error_count INTEGER, affinity INTEGER, mpidr INTEGER, "
    "running_state INTEGER, psci_state INTEGER, err_info BLOB, context_info BLOB, vendor_info BLOB, error_type TEXT, error_flags TEXT, "
    "error_info INTEGER, virt_fault_addr INTEGER, phy_fault_addr INTEGER)"
)
MF_EVENT = (
    "CREATE TABLE IF NOT EXISTS memory_failure_event (id INTEGER PRIMARY KEY, timestamp TEXT, pfn TEXT, page_type TEXT, action_result TEXT)"
)
TIME = "2024-07-11 09:50:45 +0000"


def insert_errors(connection: sqlite3.Connection, count: int = 1, address: int = 0x56EDD040) -> None:
    connection.execute(MC_EVENT)
    row = (TIME, 1, "Corrected", "Single-bit ECC", "DIMM_A1", 0, 0, -1, -1, address, 6, 0, "APEI location: node:1")
    connection.executemany(f"INSERT INTO mc_event VALUES (NULL{', ?' * len(row)})", [row] * count)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ras #1?%.db"


@pytest.fixture
def database(path):
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def read(connection: sqlite3.Connection, path: Path, **given):
    connection.commit()
    return list(read_database(str(path), **given))


def test_every_table_is_read(database, path):
    insert_errors(database, 2)
    database.execute(ARM_EVENT)
    database.execute("CREATE INDEX IF NOT EXISTS arm_event_timestamp_idx ON arm_event (timestamp)")
    database.execute("INSERT INTO arm_event (timestamp, affinity, mpidr, err_info) VALUES (?, -1, 5, ?)", (TIME, bytes(32)))
    database.execute(MF_EVENT)
    database.execute("INSERT INTO memory_failure_event VALUES (NULL, ?, '0x27caf', 'dirty LRU page', 'Recovered')", (TIME,))
    database.execute("CREATE TABLE amp_payload0_event (id INTEGER PRIMARY KEY, type TEXT)")
    database.execute("INSERT INTO amp_payload0_event VALUES (NULL, 'x')")
    items = read(database, path)
    assert [(type(item), item.place.item) for item in items] == [
        (UnmatchedRow, "amp_payload0_event/1"),
        (FoundError, "arm_event/1"),
        (FoundError, "mc_event/1"),
        (FoundError, "mc_event/2"),
        (UnmatchedRow, "memory_failure_event/1"),
    ]
    assert decode_structured(items[2].event.status_block).sections[0].physical_address == 0x56EDD040
    assert dict(items[4].fields)["action_result"] == "Recovered"


def test_an_address_with_bit_63_comes_back(database, path):
    insert_errors(database, address=-(2**63))
    (reading,) = read(database, path)
    assert decode_structured(reading.event.status_block).sections[0].physical_address == 2**63


def test_the_callers_notification_outranks_the_assumed_one(database, path):
    insert_errors(database)
    (reading,) = read(database, path, notification=Notification(type="sea"))
    assert reading.event.notification.type == "sea"


def test_reading_leaves_no_trace_beside_the_file(database, path):
    insert_errors(database)
    database.commit()
    database.close()
    before = path.read_bytes()
    list(read_database(str(path)))
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_what_a_writer_left_beside_the_file_is_named(database, path):
    database.execute("PRAGMA journal_mode=WAL")
    insert_errors(database)
    items = read(database, path)
    assert isinstance(items[0], UnreadableRecord)
    assert "-wal` exists next to the database and was not read" in items[0].reason


def test_text_that_is_not_utf_8_is_read(database, path):
    insert_errors(database)
    database.execute("UPDATE mc_event SET label = CAST(x'ff41' AS TEXT)")
    (reading,) = read(database, path)
    assert any("DIMM label" in phrase for phrase in reading.lost)


def test_views_and_virtual_tables_are_named_and_not_read(database, path):
    insert_errors(database)
    database.execute("CREATE VIEW arm_event AS SELECT * FROM mc_event")
    database.execute("CREATE VIRTUAL TABLE aer_event USING fts5(dev_name)")
    items = read(database, path)
    unread = {item.place.item: item.reason for item in items if isinstance(item, UnreadableRecord)}
    assert unread == {name: f"`{name}` is not an ordinary table and was not read" for name in ("aer_event", "arm_event")}
    assert sum(isinstance(item, FoundError) for item in items) == 1


def test_a_generated_column_is_not_asked_for(database, path):
    database.execute(
        "CREATE TABLE mc_event (id INTEGER PRIMARY KEY, err_type TEXT, address INTEGER GENERATED ALWAYS AS (length(zeroblob(100000000))))"
    )
    database.execute("INSERT INTO mc_event (err_type) VALUES ('Corrected')")
    (reading,) = read(database, path)
    assert decode_structured(reading.event.status_block).sections[0].physical_address is None


def test_a_table_without_rowids_is_read(database, path):
    database.execute("CREATE TABLE mc_event (err_type TEXT PRIMARY KEY) WITHOUT ROWID")
    database.execute("INSERT INTO mc_event VALUES ('Corrected')")
    assert [type(item) for item in read(database, path)] == [FoundError]


def test_a_column_that_is_called_as_sqlites_own_number_is_a_column(database, path):
    database.execute("CREATE TABLE vendor (_rowid_ TEXT)")
    database.executemany("INSERT INTO vendor VALUES (?)", [("b",), ("a",)])
    assert [dict(row.fields) for row in read(database, path)] == [{"_rowid_": b"b"}, {"_rowid_": b"a"}]


def test_names_with_quotes_and_blanks_are_names(database, path):
    database.execute('CREATE TABLE "a ""b"" `c`" ("x ""y""" TEXT)')
    database.execute('INSERT INTO "a ""b"" `c`" VALUES (1)')
    (row,) = read(database, path)
    assert (row.table, dict(row.fields)) == ('a "b" `c`', {'x "y"': b"1"})


def test_a_value_beyond_the_limit_ends_its_table_and_no_other(database, path):
    insert_errors(database, 2)
    database.execute("CREATE TABLE vendor (data BLOB)")
    database.execute("INSERT INTO vendor VALUES (zeroblob(?))", (rasdaemon_db.MAX_VALUE_BYTES + 1,))
    items = read(database, path)
    assert [type(item) for item in items] == [FoundError, FoundError, UnreadableRecord]
    assert items[2].place.item == "vendor"
    assert "too big" in items[2].reason


def test_a_table_with_too_many_columns_makes_the_file_unreadable(database, path):
    database.execute(f"CREATE TABLE wide ({', '.join(f'c{number}' for number in range(500))})")
    database.commit()
    with pytest.raises(UnreadableDatabase, match="too many columns"):
        list(read_database(str(path)))


def test_more_tables_than_the_limit_are_left(database, path):
    for number in range(rasdaemon_db.MAX_TABLES + 10):
        database.execute(f"CREATE TABLE t{number} (x)")
        database.execute(f"INSERT INTO t{number} VALUES (1)")
    items = read(database, path)
    assert sum(isinstance(item, UnmatchedRow) for item in items) == rasdaemon_db.MAX_TABLES
    assert [item.reason for item in items if isinstance(item, UnreadableRecord)] == [
        "`sqlite_schema` has more than 256 tables; the rest was not read"
    ]


def test_a_schema_that_lies_about_a_table_ends_in_an_error(database, path):
    insert_errors(database)
    database.execute("PRAGMA writable_schema=ON")
    database.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE mc_event (' WHERE name = 'mc_event'")
    database.commit()
    with pytest.raises(UnreadableDatabase, match="malformed database schema"):
        list(read_database(str(path)))


def test_a_schema_that_points_a_table_at_another_ones_pages_is_read_or_refused(database, path):
    insert_errors(database, 500)
    database.execute("CREATE TABLE arm_event (id INTEGER PRIMARY KEY, mpidr INTEGER)")
    database.execute("PRAGMA writable_schema=ON")
    database.execute(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'mc_event') WHERE name = 'arm_event'"
    )
    assert all(isinstance(item, (FoundError, UnreadableRecord)) for item in read(database, path))


def test_a_trigger_and_a_check_that_would_fail_change_nothing(database, path):
    insert_errors(database)
    database.execute("CREATE TRIGGER t AFTER INSERT ON mc_event BEGIN SELECT load_extension('x'); END")
    assert [type(item) for item in read(database, path)] == [FoundError]


def test_reading_that_takes_too_long_is_given_up_and_says_so(database, path):
    insert_errors(database, 20_000)
    items = read(database, path, seconds=0.0)
    assert [type(item) for item in items[-1:]] == [UnreadableRecord]
    assert "time limit exceeded" in items[-1].reason


def test_the_callers_own_time_does_not_count(database, path, monkeypatch):
    insert_errors(database, 3)
    database.execute("CREATE TABLE vendor (x)")
    database.execute("INSERT INTO vendor VALUES (1)")
    database.commit()
    now = [0.0]
    monkeypatch.setattr(rasdaemon_db, "monotonic", lambda: now[0])
    count = 0
    for item in read_database(str(path), seconds=1.0):
        now[0] += 100
        count += isinstance(item, (FoundError, UnmatchedRow))
    assert count == 4


def test_pages_in_a_circle_do_not_go_on_for_ever(database, path):
    insert_errors(database, 400)
    root = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'mc_event'").fetchone()[0]
    size = database.execute("PRAGMA page_size").fetchone()[0]
    database.commit()
    database.close()
    data = bytearray(path.read_bytes())
    at = (root - 1) * size
    assert data[at] == 5  # an interior page of a table
    cells = int.from_bytes(data[at + 3 : at + 5], "big")
    for index in range(cells):
        cell = at + int.from_bytes(data[at + 12 + 2 * index : at + 14 + 2 * index], "big")
        first = at + int.from_bytes(data[at + 12 : at + 14], "big")
        data[cell : cell + 4] = data[first : first + 4]
    data[at + 8 : at + 12] = root.to_bytes(4, "big")
    path.write_bytes(data)
    started = monotonic()
    items = list(read_database(str(path), seconds=5))
    assert monotonic() - started < 60
    assert isinstance(items[-1], UnreadableRecord)
    assert len({item.place.item for item in items}) == len(items) <= 401


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "not an SQLite database"), (b"SQLite format 3", "not an SQLite database"), (b"PK\x03\x04" * 10, "not an SQLite database")],
)
def test_what_is_no_database_says_so(path, data, why):
    path.write_bytes(data)
    with pytest.raises(UnreadableDatabase, match=why):
        list(read_database(str(path)))


def test_a_file_that_is_not_there_says_so(path):
    with pytest.raises(UnreadableDatabase, match="no such file"):
        list(read_database(str(path)))


def test_a_name_that_no_file_can_have_says_so():
    with pytest.raises(UnreadableDatabase, match="invalid file name"):
        list(read_database("a\0b"))


def test_a_directory_is_no_database(tmp_path):
    with pytest.raises(UnreadableDatabase, match="is a directory"):
        list(read_database(str(tmp_path)))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "ras.db"
    connection = sqlite3.connect(path)
    insert_errors(connection, 60)
    connection.execute(ARM_EVENT)
    connection.execute("INSERT INTO arm_event (timestamp, err_info) VALUES (?, ?)", (TIME, bytes(9000)))
    connection.commit()
    connection.close()
    return path.read_bytes()


@given(edits=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=30), cut=st.none() | st.integers(16, 2**20))
def test_a_file_with_any_bytes_changed_is_read_or_refused_and_nothing_else(sound, tmp_path_factory, edits, cut):
    data = bytearray(sound)
    for at, byte in edits:
        data[16 + at % (len(data) - 16)] = byte
    path = tmp_path_factory.getbasetemp() / "mutated.db"
    path.write_bytes(data[:cut])
    items: list[object] = []
    with suppress(UnreadableDatabase):
        items += read_database(str(path), seconds=5)
    assert all(isinstance(item, (FoundError, UnreadableRecord, UnmatchedRow)) for item in items)
