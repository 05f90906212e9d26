"""Store files of earlier releases, also after a killed migration."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ras_triage.service.cli.commands.store import read_stored_event
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.store.files.database import migrations
from ras_triage.service.store.maintenance.offline import check
from ras_triage.service.store.sqlite import SqliteStore
from tests.paths import ROOT
from tests.service.support.application import client

SCHEMAS = [1, 2]
"""Of each there is a file: `store.db` was closed by its service; of `killed.db` everything is in the write-ahead log."""

OPEN_AND_DIE = """
import os, signal, sqlite3, sys
from pathlib import Path
from ras_triage.service.store.files import database
from ras_triage.service.store.sqlite import SqliteStore
connect, left = database.connect, [{statements}]
def die(statement):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def connected(path, mode):
    connection = connect(path, mode)
    connection.set_trace_callback(die)
    return connection
database.connect = connected
SqliteStore(Path({path!r})).close()
"""


@pytest.fixture(params=SCHEMAS, ids="schema {}".format)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name(f"schema_{request.param}.zip")) as stored:
        stored.extractall(tmp_path)
    return tmp_path


def rows(path: Path) -> dict[str, list[Any]]:
    tables = ("decisions", "bodies", "decision_sections", "decision_addresses", "poisoned_pages", "purges", "api_keys")
    with closing(sqlite3.connect(path)) as connection:
        found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}
        found["host_facts"] = connection.execute("SELECT source, version, changed_at, facts FROM host_facts ORDER BY 1, 2").fetchall()
        return found | {"sequence": connection.execute("SELECT * FROM sqlite_sequence").fetchall()}


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def as_it_was(path: Path) -> dict[str, list[Any]]:
    """What a file holds, read from a copy of it and its log."""
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    if (log := Path(f"{path}-wal")).exists():
        Path(f"{copy}-wal").write_bytes(log.read_bytes())
    return rows(copy)


@pytest.mark.parametrize(("name", "count"), [("store.db", 23), ("killed.db", 3)])
def test_a_file_of_an_earlier_release_is_migrated_with_all_its_contents(name: str, count: int, folder: Path) -> None:
    path = folder / name
    before = as_it_was(path)
    store = SqliteStore(path)
    assert store.size().decisions == count
    assert store.losses() == []
    store.close()
    assert version(path) == len(migrations())
    assert rows(path) == before
    report = check(path, read_stored_event, repair=False, at_ms=0)
    assert (report.findings, report.decisions) == ((), count)


def test_a_file_of_an_earlier_release_is_served_as_before(folder: Path) -> None:
    store = SqliteStore(folder / "store.db")
    (key,) = store.api_keys()
    assert store.revoke_api_key(key.id, 0), "else only its owner may ask"
    store.close()
    with client(create_app(Settings(store=f"sqlite:///{folder / 'store.db'}"))) as call:
        listed = call("GET", "/v1/decisions").json()["decisions"]
        assert len(listed) == 23
        event = call("GET", f"/v1/decisions/{listed[5]['id']}/event").json()
        again = call("POST", "/v1/decisions", json=event).json()
        assert (again["repeat"], again["id"]) == (True, listed[5]["id"])
        assert call("GET", "/v1/hosts/node-3").json()["host"] == {"kernel": "6.1.100"}
        assert call("PUT", "/v1/hosts/node-3", json={"kernel": "6.6.1"}).status_code == 200
        assert call("POST", "/v1/decisions", json={**event, "id": "new"}).status_code == 201


KILLED_AT = [(1, 12), (1, 16), (1, 20), (1, 21), (1, 22), (1, 25), (2, 13), (2, 15), (2, 16), (2, 17)]
"""Schema, and how many statements run before the process is killed."""


@pytest.mark.parametrize(("folder", "statements"), KILLED_AT, indirect=["folder"])
def test_the_next_start_completes_a_migration_that_was_killed(statements: int, folder: Path) -> None:
    path = folder / "store.db"
    before = as_it_was(path)
    program = OPEN_AND_DIE.format(statements=statements, path=str(path))
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    SqliteStore(path).close()
    assert version(path) == len(migrations())
    assert rows(path) == before
