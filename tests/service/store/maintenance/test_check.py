"""`store check` and `--repair`: kinds of damage found, sound rows kept."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ras_triage.service.cli.commands.store import read_stored_event
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.store.maintenance.offline import CheckReport, check
from ras_triage.service.store.port import Filter, RowDamaged, StoreDamaged, StoreUnusable
from ras_triage.service.store.sqlite import SqliteStore
from tests.service.support.application import EVENT, client, run
from tests.service.support.stored_decisions import NOON

COUNT = 60

Answers = dict[str, bytes]
"""Decisions by id, as the store answers them."""


def event(number: int) -> dict[str, Any]:
    sections = [{"type": "memory", "physical_address": hex(0x100000 * (number + 1))}, {"type": "pcie"}][: 1 + number % 2]
    polled = {"notification": "polled", "status_block": {"severity": "recoverable", "sections": sections}}
    kinds: list[dict[str, Any]] = [EVENT, polled, {"notification": "sei"}, {"notification": "sea", "time": "2026-11-22T10:00:00Z"}]
    down = {"status_block": {"severity": "fatal", "sections": sections}} if number % 17 == 16 else {}
    return {**kinds[number % 4], **down, "source": f"node-{number % 5}"} | ({"id": f"e-{number}"} if number % 3 else {})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answers]:
    """A store with a decision of each kind, facts, keys, purges and pages that were forgotten."""
    path = tmp_path_factory.mktemp("made") / "store.db"
    app = create_app(Settings(store=f"sqlite:///{path}"))
    with client(app) as call:
        call("PUT", "/v1/hosts/node-1", json={"kernel": "6.1.100"})
        for number in range(COUNT):
            call("POST", "/v1/decisions", json=event(number), headers={"idempotency-key": f"k-{number}"}).raise_for_status()
            if number == 40:
                call("DELETE", "/v1/poisoned-pages/node-2").raise_for_status()
        store: SqliteStore = app.state.runtime.store
        oldest = min(summary.decided_at_ms for summary in store.page(Filter(), None, 1000).decisions)
        store.purge_older(oldest + 1, NOON, 3)
    return path, answers(path)


@pytest.fixture
def path(made: tuple[Path, Answers], tmp_path: Path) -> Path:
    return Path(shutil.copy(made[0], tmp_path / "store.db"))


def answers(path: Path) -> Answers:
    with closing(SqliteStore(path)) as store:
        ids = [summary.id for summary in store.page(Filter(), None, 1000).decisions]
        found = {identity: store.decision(identity) for identity in ids}
    return {identity: kept.decision for identity, kept in found.items() if kept is not None}


def examined(path: Path, *, repair: bool = False) -> CheckReport:
    return check(path, read_stored_event, repair=repair, at_ms=NOON)


def harm(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, values)
        connection.commit()


def overwrite(path: Path, name: str, damage: bytes) -> None:
    """Overwrite the end of the first page of a table or index."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    data = bytearray(path.read_bytes())
    place = root * 4096 - len(damage)  # rows are at the end of a page
    data[place : place + len(damage)] = damage
    path.write_bytes(data)


def test_a_sound_store_is_said_to_be_sound(path: Path, made: tuple[Path, Answers]) -> None:
    report = examined(path)
    assert (report.total, report.lost, report.decisions) == (0, 0, len(made[1]))
    assert examined(path, repair=True).set_aside is None, "there is nothing to repair"


COLUMNS = [
    ("policy", "'linux-5.10.1'"), ("policy_digest", "'sha256:00'"), ("action", "'handled?'"), ("certainty", "'maybe'"),
    ("source", "'node-x'"), ("source", "NULL"), ("event_id", "'other'"), ("notification", "'mce'"), ("severity", "'fatal?'"),
    ("sections", """'["pcie?"]'"""), ("sections", "'['"), ("addresses", """'["0x1"]'"""), ("repeat_key", "x'00'"), ("forgets", "7"),
    ("poisons", "'[[1]]'"), ("event_key", "zeroblob(32)"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "wrong"), COLUMNS)
def test_a_column_that_differs_from_what_was_decided_is_found_and_put_right(
    column: str, wrong: str, path: Path, made: tuple[Path, Answers]
) -> None:
    sequence = 29 if column != "repeat_key" else 30
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT * FROM decisions WHERE seq = ?", (sequence,)).fetchone()
    harm(path, f"UPDATE decisions SET {column} = {wrong} WHERE seq = ?", sequence)
    report = examined(path)
    assert [finding.kind for finding in report.findings if finding.sequence == sequence][:1] == ["wrong"]
    assert (report.lost, examined(path, repair=True).lost) == (0, 0)
    assert examined(path).total == 0
    with closing(sqlite3.connect(path)) as connection:
        after = connection.execute("SELECT * FROM decisions WHERE seq = ?", (sequence,)).fetchone()
    if column != "poisons":  # it follows from nothing that is kept; the pages themselves are in a table of their own
        assert after == before
    assert answers(path) == made[1]


@pytest.mark.parametrize("place", [0, 21])
def test_an_id_or_time_that_was_damaged_is_taken_from_its_index(place: int, path: Path, made: tuple[Path, Answers]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        identity, at = connection.execute("SELECT id, at FROM decisions WHERE seq = 30").fetchone()
    data = path.read_bytes()
    row = data.index(identity + at.to_bytes(6)) + place  # these columns are neighbours
    path.write_bytes(data[:row] + bytes([data[row] ^ 1]) + data[row + 1 :])
    report = examined(path, repair=True)
    assert (report.lost, [finding.kind for finding in report.findings if finding.sequence == 30][:1]) == (0, ["wrong"])
    assert answers(path) == made[1]


def test_a_damaged_decision_is_lost_by_name_and_everything_else_stays(path: Path, made: tuple[Path, Answers]) -> None:
    harm(path, "UPDATE bodies SET decision = CAST(replace(CAST(decision AS TEXT), 'handled', 'hand1ed') AS BLOB) WHERE seq = 35")
    harm(path, "UPDATE bodies SET decision = x'00' WHERE seq = 36")
    with closing(sqlite3.connect(path)) as connection:
        gone = [str(UUID(bytes=row[0])) for row in connection.execute("SELECT id FROM decisions WHERE seq IN (35, 36) ORDER BY seq")]
    with closing(SqliteStore(path)) as store:
        with pytest.raises(RowDamaged):
            store.decision(gone[1])
        assert len(store.page(Filter(), None, 1000).decisions) == len(made[1])
    report = examined(path, repair=True)
    lost = [finding for finding in report.findings if finding.kind == "lost"]
    assert [finding.sequence for finding in lost][-1] == 36
    assert lost[-1].id == gone[1]
    left = answers(path)
    assert left == {identity: decision for identity, decision in made[1].items() if identity in left}
    assert made[1].keys() - left.keys() == {finding.id for finding in lost}
    assert examined(path).total == 0
    with closing(SqliteStore(path)) as store:
        assert sum(loss.decisions for loss in store.losses()) == len(lost)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone()[0] == len(lost), "for whoever wants to look at it"
        assert connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'decisions'").fetchone()[0] == COUNT
    assert report.set_aside is not None
    assert Path(report.set_aside).exists()


def test_a_damaged_event_is_lost_and_its_decision_is_not(path: Path, made: tuple[Path, Answers]) -> None:
    harm(path, "UPDATE bodies SET event = x'7b7d' WHERE seq = 20")
    report = examined(path, repair=True)
    (finding,) = report.findings
    assert (finding.kind, finding.sequence, report.lost) == ("event_lost", 20, 0)
    assert examined(path).total == 0
    assert answers(path) == made[1]
    with closing(SqliteStore(path)) as store, pytest.raises(RowDamaged, match="the event of this decision is lost"):
        store.event(finding.id or "")


def harm_schema(path: Path, table: str, old: str, new: bytes) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ?, CAST(? AS TEXT)) WHERE name = ?", (old, new, table))
        connection.commit()


def harm_types(path: Path, table: str, sql: str) -> None:
    """Execute a statement that a strict table refuses."""
    with closing(sqlite3.connect(path)) as connection:
        (strict,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    loose = strict.replace(" STRICT,", "").replace(" STRICT", "")
    harm_schema(path, table, strict, loose.encode())
    harm(path, sql)
    harm_schema(path, table, loose, strict.encode())


@pytest.mark.parametrize(
    ("table", "sql"),
    [
        ("decisions", "UPDATE decisions SET poisons = CAST(poisons AS BLOB)"),
        ("bodies", "UPDATE bodies SET event = x'', event_check = x'00' WHERE seq = 20"),
        ("forgotten_pages", "UPDATE forgotten_pages SET seq = x'00'"),
        ("losses", "INSERT INTO losses VALUES (1, 0, x'00', 0, 0, 0, 0)"),
    ],
)
def test_a_column_of_the_wrong_type_is_put_right_or_set_aside(table: str, sql: str, path: Path, made: tuple[Path, Answers]) -> None:
    before = contents(path)["poisoned_pages"]
    harm_types(path, table, sql)
    assert examined(path, repair=True).total
    assert examined(path).findings == ()
    assert contents(path)["poisoned_pages"] == before
    assert answers(path) == made[1]


def test_a_schema_that_is_not_utf_8_is_refused(path: Path) -> None:
    harm_schema(path, "losses", "reason", b"\xff\xff")
    with pytest.raises(StoreDamaged, match="the schema is not UTF-8"):
        examined(path)


def test_a_second_repair_keeps_the_remains_of_the_first(path: Path) -> None:
    for sequence in (35, 36):
        harm(path, "UPDATE bodies SET decision = x'00' WHERE seq = ?", sequence)
        examined(path, repair=True)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT seq FROM quarantine ORDER BY seq").fetchall() == [(35,), (36,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM decision_sections WHERE seq = 30",
        "INSERT INTO decision_sections VALUES ('pcie', 5, 30)",
        "DELETE FROM decision_addresses",
        "INSERT INTO decision_addresses VALUES ('0x1', 5, 3000)",
        "DELETE FROM poisoned_pages",
        "UPDATE poisoned_pages SET address = '0x1'",
    ],
)
def test_a_table_that_follows_from_the_decisions_is_found_wrong_and_built_anew(sql: str, path: Path) -> None:
    before = contents(path)
    harm(path, sql)
    assert examined(path).total
    assert examined(path, repair=True).lost == 0
    assert examined(path).total == 0
    assert contents(path) == before


def contents(path: Path) -> dict[str, list[Any]]:
    tables = ("decision_sections", "decision_addresses", "poisoned_pages", "host_facts", "api_keys", "purges", "forgotten_pages")
    with closing(sqlite3.connect(path)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE decisions SET source = NULL WHERE poisons IS NOT NULL",
        "UPDATE decisions SET source = 'node-x' WHERE poisons IS NOT NULL",
        "UPDATE decisions SET forgets = 1 - forgets",
        "UPDATE sqlite_sequence SET seq = 7 WHERE name = 'decisions'",
        "UPDATE store SET changes = -1",
        "UPDATE store SET id = x'00'",
        "UPDATE store SET poison_known_after = -1",
    ],
)
@pytest.mark.parametrize("more", ["SELECT 1", "UPDATE decisions SET poisons = '[[1]]' WHERE seq = 29"])
def test_poisoned_pages_survive_damage_to_what_they_are_derived_from(more: str, sql: str, path: Path, made: tuple[Path, Answers]) -> None:
    before = contents(path)
    harm(path, sql)
    harm(path, more)
    assert examined(path, repair=True).total
    assert examined(path).findings == ()
    assert contents(path) == before
    assert answers(path) == made[1]


@pytest.mark.parametrize(("table", "number", "column"), [("forgotten_pages", "seq", "source"), ("purges", "last_seq", "reason")])
def test_poisoned_pages_stay_if_it_is_unknown_which_decisions_count(table: str, number: str, column: str, path: Path) -> None:
    harm(path, f"UPDATE {table} SET {number} = {COUNT}")
    harm(path, "DELETE FROM poisoned_pages WHERE source = 'node-2'")
    assert examined(path).total == 0, "the deleted pages are of decisions that no longer count"
    before = contents(path)
    harm(path, f"UPDATE {table} SET {column} = CAST(x'ff' AS TEXT)")
    assert table in [finding.table for finding in examined(path, repair=True).findings]
    assert examined(path).findings == ()
    assert contents(path)["poisoned_pages"] == before["poisoned_pages"]


@pytest.mark.parametrize("wrong", ["changes = -1", "id = x'00'"])
def test_a_store_with_corrupt_counters_is_refused_and_opens_after_a_repair(wrong: str, path: Path) -> None:
    harm(path, f"UPDATE store SET {wrong}")
    with pytest.raises(StoreDamaged, match="counters of the store are corrupt"):
        SqliteStore(path)
    (finding,) = examined(path, repair=True).findings
    assert (finding.kind, finding.table) == ("wrong", "store")
    with closing(SqliteStore(path)) as store:
        assert store.losses() == []


def test_a_sequence_that_was_set_back_is_not_assigned_again(path: Path, made: tuple[Path, Answers]) -> None:
    harm(path, "UPDATE sqlite_sequence SET seq = 7 WHERE name = 'decisions'")
    examined(path, repair=True)
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        assert call("POST", "/v1/decisions", json=event(COUNT)).status_code == 201
    assert len(answers(path)) == len(made[1]) + 1


@pytest.mark.parametrize(
    "name", ["decisions", "bodies", "decisions_by_repeat_key", "sqlite_autoindex_decisions_1", "decision_sections", "poisoned_pages"]
)
def test_a_page_that_was_overwritten_costs_what_was_on_it(name: str, path: Path, made: tuple[Path, Answers]) -> None:
    overwrite(path, name, b"\xa5" * 2500)
    report = examined(path, repair=True)
    assert report.total
    left = answers(path)
    assert all(made[1][identity] == decision for identity, decision in left.items())
    assert len(left) == report.decisions
    assert examined(path).total == 0
    if name not in ("decisions", "bodies"):
        assert left == made[1]


def test_facts_and_keys_that_were_damaged_are_set_aside(path: Path) -> None:
    harm(path, """UPDATE host_facts SET facts = CAST('{"kernel":"6.9"}' AS BLOB)""")
    harm(path, "INSERT INTO api_keys VALUES ('k1', CAST(x'ff' AS TEXT), 'read', '', 0, NULL)")
    harm(path, "INSERT INTO policies VALUES ('ours', 1, 0, x'7b7d', 1), ('theirs', 1, 0, x'7b7d', 2745614147)")
    report = examined(path, repair=True)
    assert sorted(finding.table for finding in report.findings) == ["api_keys", "host_facts", "policies"]
    assert examined(path).total == 0
    with closing(SqliteStore(path)) as store:
        assert store.host("node-1") is None
        assert store.api_keys() == []
        assert [policy.name for policy in store.policies()[0]] == ["theirs"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(8192, 400_000), st.integers(1, 255)), min_size=1, max_size=6), length=st.integers(1, 600))
def test_whatever_was_overwritten_what_is_left_is_right_and_the_rest_is_named(
    places: list[tuple[int, int]], length: int, made: tuple[Path, Answers], tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    copy = folder / "store.db"
    data = bytearray(made[0].read_bytes())
    for place, flip in places:
        start = 4096 + place % (len(data) - 4096)
        data[start : start + length] = bytes(byte ^ flip for byte in data[start : start + length])
    copy.write_bytes(data)
    try:
        report = examined(copy, repair=True)
    except (StoreDamaged, StoreUnusable):
        return  # the schema is damaged: nothing can be told
    left = answers(copy)
    assert all(made[1][identity] == decision for identity, decision in left.items() if identity in made[1])
    assert left.keys() <= made[1].keys()
    if made[1].keys() - left.keys():
        assert report.lost, "what is gone is named"
    assert examined(copy).total == 0


def test_a_store_that_a_service_has_open_is_not_checked(path: Path) -> None:
    with closing(SqliteStore(path)):
        checked = run("store", "check", "--store", f"sqlite:///{path}")
    assert (checked.returncode, checked.stdout) == (2, b"")
    assert b"in use by another service" in checked.stderr


def test_the_command_tells_by_status_and_as_json_what_it_found(path: Path, made: tuple[Path, Answers]) -> None:
    store = f"sqlite:///{path}"
    harm(path, "UPDATE decisions SET action = 'handled?' WHERE seq = 29")
    harm(path, "UPDATE bodies SET event = x'7b7d' WHERE seq = 20")
    found = run("store", "check", "--json", "--store", store)
    assert found.returncode == 1
    report = json.loads(found.stdout)
    assert {key: report[key] for key in ("sound", "decisions", "lost", "more_findings", "set_aside")} == {
        "sound": False, "decisions": len(made[1]), "lost": 0, "more_findings": 0, "set_aside": None,
    }  # fmt: skip
    assert [finding["kind"] for finding in report["findings"]] == ["event_lost", "wrong"]
    repaired = run("store", "check", "--repair", "--store", store)
    assert repaired.returncode == 1, "an event is lost"
    assert b"repaired; the old file is " in repaired.stdout
    sound = run("store", "check", "--store", store)
    assert (sound.returncode, sound.stdout) == (0, f"{path}: {len(made[1])} decisions, no damage\n".encode())


def test_a_repair_keeps_what_tells_repeats(path: Path) -> None:
    overwrite(path, "decisions_by_repeat_key", b"\xa5" * 2500)
    examined(path, repair=True)
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        for number in range(10, COUNT):
            again = call("POST", "/v1/decisions", json=event(number), headers={"idempotency-key": f"k-{number}"})
            assert again.json()["repeat"], number


def test_a_finding_is_a_plain_record(path: Path) -> None:
    harm(path, "UPDATE decisions SET source = ? WHERE seq = 29", "\x1b[31m")
    (finding, *_) = examined(path).findings
    assert json.dumps(asdict(finding))
