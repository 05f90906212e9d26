"""Isolation of defects: an event that raises fails alone, in every request.

The defects are planted: in a rule, a codec and the store.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ras_triage.models.event import Event
from ras_triage.models.formats import cper, redfish
from ras_triage.models.formats.cper import write_record
from ras_triage.models.formats.kernel_log.record import LogRecord
from ras_triage.models.formats.libcper import reader
from ras_triage.models.formats.qemu import injection
from ras_triage.models.formats.ras import rasdaemon, trace
from ras_triage.models.formats.results import FoundError, ReaderDefect, UnreadableRecord
from ras_triage.service.api.problems import URN, ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine import defects as defects_module
from ras_triage.service.engine.defects import LINES, Defects
from ras_triage.service.engine.evaluation import EventDocument
from ras_triage.service.http.app import create_app
from ras_triage.service.http.runtime import Runtime, open_runtime
from ras_triage.service.importing import readers
from ras_triage.service.importing.source import ImportSource
from ras_triage.service.store.temporary import TemporaryStore
from ras_triage.service.store.writer import Writer
from tests.service.support import planted_defects
from tests.service.support.application import EVENT, NDJSON, Call, client, ndjson, run
from tests.service.support.import_examples import LIBCPER, LOG, SENT, TRACE, database
from tests.service.support.planted_defects import GOOD, marked, outcomes
from tests.service.support.stored_decisions import NOON

BAD: dict[str, dict[str, Any]] = {
    **{planted_defects.ACTIONS[number].__name__: marked(number) for number in planted_defects.RAISING},
    "codec": {
        "notification": "gsiv",
        "status_block": {"severity": "recoverable", "sections": [{"type": "memory", "fru_text": planted_defects.SPOILT.decode()}]},
    },
    "store": {"source": "unkept", **GOOD},
    "store, with a page that it poisons": {**EVENT, "source": "unkept"},
}
SPOILT_RECORD = write_record(Event.model_validate(BAD["codec"]))
READ = {name: bad for name, bad in BAD.items() if not name.startswith("store")}
"""Those that a dry run runs into as well."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    planted_defects.plant(monkeypatch.setattr)
    with client(create_app()) as call:
        yield call


def events(bad: dict[str, Any], name: str = "e") -> list[dict[str, Any]]:
    """Events with a bad one among them, each with an id."""
    sent = [{**EVENT, "source": "node-1"}, GOOD, bad, {**EVENT, "source": "node-1"}, GOOD]
    return [{**event, "id": f"{name}-{number}"} for number, event in enumerate(sent)]


def batch(call: Call, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answer = call("POST", "/v1/decisions/batch", content=ndjson(some), headers=NDJSON)
    return [json.loads(line) for line in answer.content.splitlines()]


def array(call: Call, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call("POST", "/v1/decisions/batch", json=some).json()
    return found


def singles(call: Call, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call("POST", "/v1/decisions", json=event).json() for event in some]


def imported(call: Call, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return _imported(call, some, "/v1/import")


def tried(call: Call, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call("POST", "/v1/decisions?dry_run=true", json=event).json() for event in some]


def imports_tried(call: Call, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return _imported(call, some, "/v1/import?dry_run=true")


def _imported(call: Call, some: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    *found, last = (json.loads(line) for line in call("POST", path, content=ndjson(some)).content.splitlines())
    assert "summary" in last
    return [one.get("decision") or one.get("problem") or {"type": f"{URN}internal", "detail": one["unread"]["reason"]} for one in found]


Way = Callable[[Call, list[dict[str, Any]]], list[dict[str, Any]]]
KEEPING: list[Way] = [singles, batch, array, imported]
TRYING: list[Way] = [tried, imports_tried]


def counted(call: Call, metric: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in call("GET", "/metrics").text.splitlines() if line.startswith(metric))


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("way", KEEPING)
def test_an_event_that_runs_into_a_defect_fails_alone(
    service: Call, way: Way, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    sent = events(bad)
    answers = way(service, sent)

    assert outcomes(answers) == ["signal", "handled", "internal", "signal", "handled"]
    assert "secret" not in json.dumps(answers) + caplog.text
    assert counted(service, "ras_triage_defects_total") == 1
    assert [record.facts["stage"] for record in caplog.records if record.message == "defect"]  # type: ignore[attr-defined]
    others = [event for number, event in enumerate(sent) if number != 2]
    assert [answer["repeat"] for answer in batch(service, others)] == [True] * 4, "what was answered is kept"
    assert service("GET", "/readyz").status_code == 200


@pytest.mark.parametrize("bad", READ.values(), ids=READ)
@pytest.mark.parametrize("way", TRYING)
def test_a_dry_run_that_runs_into_a_defect_fails_alone(service: Call, way: Way, bad: dict[str, Any]) -> None:
    assert outcomes(way(service, events(bad))) == ["signal", "handled", "internal", "signal", "handled"]
    assert counted(service, "ras_triage_defects_total") == 1


@pytest.mark.parametrize("way", KEEPING)
def test_an_event_is_decided_under_its_id_once_the_defect_is_gone(way: Way) -> None:
    with client(create_app()) as call:
        for name, bad in BAD.items():
            sent = events(bad, name)
            with plants():
                assert outcomes(way(call, sent))[2] == "internal"
            again = way(call, sent)
            assert outcomes(again)[2] in {"handled", "signal"}
            assert [answer["repeat"] for answer in again[3:]] == [True, True]


def test_a_reader_goes_on_behind_a_record_that_runs_into_a_defect(service: Call) -> None:
    content = write_record(SENT) + SPOILT_RECORD + write_record(SENT)
    *items, last = map(json.loads, service("POST", "/v1/import?dry_run=true", content=content).content.splitlines())

    assert [next(iter({"decision", "problem", "unread"} & set(item))) for item in items] == ["decision", "problem", "decision"]
    assert (last["summary"]["decided"], last["summary"]["refused"]) == (2, 1)


def two_rows(folder: Path) -> bytes:
    """A database with the same error twice."""
    path = folder / "ras.db"
    database(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM memory_failure_event")
        connection.execute("CREATE TABLE again AS SELECT * FROM mc_event")
        connection.execute("UPDATE again SET id = 2")
        connection.execute("INSERT INTO mc_event SELECT * FROM again")
        connection.execute("DROP TABLE again")
    return path.read_bytes()


READERS: dict[str, tuple[Any, str, Callable[[Path], bytes]]] = {
    "cper": (cper, "read_record", lambda _: write_record(SENT) * 2),
    "redfish": (redfish, "read_payload", lambda _: json.dumps([redfish.write_redfish(SENT)] * 2).encode()),
    "libcper": (reader, "_section_pairs", lambda _: b"[" + LIBCPER + b"," + LIBCPER + b"]"),
    "qmp": (injection, "read_argument", lambda _: injection.to_qmp(SENT).encode() * 2),
    "kernel_log": (LogRecord, "finish", lambda _: LOG + LOG.replace(b"{1}", b"{2}")),
    "ras_trace": (trace, "_split_date", lambda _: TRACE * 2),
    "rasdaemon": (rasdaemon, "read_time", two_rows),
    "event": (readers, "read_event", lambda _: ndjson([GOOD, GOOD])),
}
"""For each format what is called once for each error, and a file with two."""


@pytest.mark.parametrize("form", READERS)
def test_a_reader_of_each_format_goes_on_behind_what_it_cannot_read(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, content = READERS[form]
    read, first = getattr(module, name), iter([True])

    def fail_first(*arguments: Any, **named: Any) -> Any:
        if next(first, False):
            raise planted_defects.PlantedError
        return read(*arguments, **named)

    data = content(tmp_path)
    monkeypatch.setattr(module, name, fail_first)
    items = [
        item for item in readers.read_items(ImportSource(BytesIO(data)), None, None) if isinstance(item, UnreadableRecord | FoundError)
    ]

    assert [type(item) for item in items] == [ReaderDefect, FoundError]


# One service in this process, to be looked into.


@contextmanager
def plants() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        planted_defects.plant(patch.setattr)
        yield patch


def with_runtime(test: Callable[[Runtime], Any]) -> None:
    async def started() -> None:
        async with open_runtime(Settings(), TemporaryStore(), lambda: NOON) as runtime:
            await test(runtime)

    with plants():
        asyncio.run(started())


def document(event: dict[str, Any]) -> EventDocument:
    return EventDocument(json.dumps(event).encode())


async def outcome(runtime: Runtime, event: dict[str, Any]) -> str:
    try:
        answered = await runtime.intake.decide(document(event))
    except ProblemError as refused:
        return refused.problem.type.removeprefix(URN)
    return str(json.loads(answered.body)["action"])


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_nothing_of_an_event_stays_behind_that_ran_into_a_defect(bad: dict[str, Any]) -> None:
    async def test(runtime: Runtime) -> None:
        assert await outcome(runtime, {**bad, "id": "a"}) == "internal"
        assert runtime.intake._pending == {}
        assert not runtime.sources.state("unkept").pages
        assert runtime.writer.statistics.queue_entries == 0

    with_runtime(test)


def test_a_hand_over_that_fails_fails_the_event_that_it_fails_for(monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue = Writer.enqueue

    def refuse(writer: Writer, entries: Any, durable: Any) -> None:
        if any(entry.summary.event_id == "e-2" for entry in entries):
            raise planted_defects.PlantedError
        enqueue(writer, entries, durable)

    monkeypatch.setattr(Writer, "enqueue", refuse)

    async def test(runtime: Runtime) -> None:
        sent = [document(event) for event in events({**EVENT, "source": "node-1"})]
        outcomes = await runtime.intake.admit(sent)
        assert [isinstance(one, ProblemError) for one in outcomes] == [False, False, True, False, False]
        await asyncio.gather(*(runtime.intake.await_response(one) for one in outcomes if not isinstance(one, ProblemError)))
        assert runtime.intake._pending == {}
        assert len(runtime.sources.state("node-1").pages or ()) == 1
        assert not runtime.sources.state("node-1").unsaved

    with_runtime(test)


def test_a_hook_that_raises_changes_no_answer() -> None:
    async def test(runtime: Runtime) -> None:
        def broken(*_: object) -> None:
            raise planted_defects.PlantedError

        heard: list[str] = []
        for hooks in (runtime.intake.decided, runtime.intake.repeated, runtime.writer.committed, runtime.defects.hooks):
            hooks[:] = [broken, lambda *_: heard.append("heard")]
        event = {**EVENT, "id": "a"}
        assert [await outcome(runtime, one) for one in (event, event, marked(601))] == ["signal", "signal", "internal"]
        assert runtime.intake._pending == {}
        assert not runtime.sources.state("node-17").unsaved
        assert len(heard) >= 4

    with_runtime(test)


def test_an_event_that_is_equal_to_one_that_cannot_be_kept_fails_with_it() -> None:
    async def test(runtime: Runtime) -> None:
        event = {**BAD["store"], "id": "a"}
        found = await asyncio.gather(*(outcome(runtime, one) for one in (event, event, {**GOOD, "id": "b"})))
        assert found == ["internal", "internal", "handled"]
        assert runtime.intake._pending == {}

    with_runtime(test)


def test_a_defect_that_repeats_is_counted_and_not_logged_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.ERROR)
    defects, counts = Defects(), list[str]()
    defects.hooks.append(counts.append)
    facts = {"error": "ValueError", "frames": ["a.py:1 f"]}
    for number in range(LINES + 5):
        defects.report("decide", facts, item=number, event_id=f"e-{number}", document=b"{}")
    defects.report("decide", {**facts, "frames": ["b.py:1 g"]}, event_id="not\nsane")
    monkeypatch.setattr(defects_module, "PERIOD_S", -1.0)
    defects.report("decide", facts)

    lines = [record.facts for record in caplog.records]  # type: ignore[attr-defined]
    assert len(counts) == LINES + 7
    assert len(lines) == LINES + 2
    assert (lines[0]["item"], lines[0]["event_id"], lines[0]["event_sha256"]) == (0, "e-0", "44136fa355b3678a")
    assert "event_id" not in lines[-2]
    assert lines[-1]["unlogged"] == 5


# Commands.


def test_a_command_decides_the_lines_around_one_that_runs_into_a_defect() -> None:
    sent = [GOOD, *READ.values(), marked(605), GOOD]
    done = run("decide", "--ndjson", "-", given=ndjson(sent), program=planted_defects.__file__)

    assert outcomes([json.loads(line) for line in done.stdout.splitlines()]) == ["handled", *["internal"] * 5, "handled"]
    assert done.returncode == 2
    assert done.stderr.count(b"internal error: ") == 5
    assert b"Traceback" not in done.stderr
    assert b"secret" not in done.stderr


def test_a_command_imports_what_is_around_an_event_that_runs_into_a_defect() -> None:
    sent = [GOOD, *READ.values(), GOOD]
    done = run("import", "--json", "-", given=ndjson(sent), program=planted_defects.__file__)
    *found, last = map(json.loads, done.stdout.splitlines())

    assert outcomes([one.get("decision") or one["problem"] for one in found]) == ["handled", *["internal"] * 4, "handled"]
    assert (last["summary"]["decided"], last["summary"]["refused"]) == (2, 4)
    assert b"Traceback" not in done.stderr
    page = run("import", "-", given=ndjson(sent[:2]), program=planted_defects.__file__)
    assert "unexpected error in the service" in page.stdout.decode()
