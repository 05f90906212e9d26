"""Inputs of the wrong command: the error names the one that reads them."""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ras_triage.models.records.cper_record import NOTIFICATION_TYPES, encode_record, from_status_block
from ras_triage.service.store.sqlite import SqliteStore
from tests.paths import ROOT
from tests.service.support.application import BLOCK, EVENT, run
from tests.service.support.import_examples import JOURNAL, LIBCPER, LOG, TRACE

DECIDE, DECODE, LINES, SUBMIT = ["decide"], ["decode"], ["decide", "--ndjson"], ["submit"]
ALL = (DECIDE, DECODE, LINES, SUBMIT)
QMP = {"execute": "inject-ghes-v2-error", "arguments": {"cper": base64.b64encode(BLOCK).decode()}}


def as_bytes(content: Any) -> bytes:
    return content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else json.dumps(content).encode()


def database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mc_event (id INTEGER PRIMARY KEY)")


def store(path: Path) -> None:
    SqliteStore(path).close()


def content(data: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(as_bytes(data))

    return write


RECORD = encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["sea"]))
HEST = (ROOT / "docs" / "examples" / "hest.bin").read_bytes()
EVENTS = (json.dumps(EVENT) + "\n") * 2

MISPLACED = [
    *[(command, content(LOG), "a kernel log", "import") for command in ALL],
    *[(command, content(JOURNAL), "a journal in JSON", "import") for command in ALL],
    *[(command, content(TRACE), "a log of trace events", "import") for command in ALL],
    *[(command, content(LIBCPER), "a record of libcper in JSON", "import") for command in ALL],
    *[(command, content({"@odata.type": "#Event.v1_7_0.Event", "Events": []}), "a Redfish document", "import") for command in ALL],
    *[(command, content(QMP), "QMP commands", "import") for command in ALL],
    *[(command, database, "an SQLite database", "import") for command in ALL],
    *[(command, content(HEST), "a HEST, the table of error sources", "decode") for command in (DECIDE, LINES, SUBMIT)],
    *[(command, content(EVENTS), "events, one per line", "decide --ndjson") for command in (DECIDE, DECODE)],
    *[(command, content([EVENT, EVENT]), "a JSON array", "import") for command in (DECIDE, DECODE, LINES)],
    *[(command, content(json.dumps(EVENT, indent=1)), "one event over several lines", "decide") for command in (LINES, SUBMIT)],
    *[(command, content(BLOCK), "a status block or CPER record", "decide") for command in (LINES, SUBMIT)],
    *[(command, content(RECORD), "a status block or CPER record", "decide") for command in (LINES, SUBMIT)],
    *[(command, content(BLOCK.hex()), "a status block or CPER record", "decide") for command in (LINES, SUBMIT)],
]


@pytest.mark.parametrize(("command", "write", "kind", "reader"), MISPLACED)
def test_an_input_of_another_command_is_refused_with_that_command(
    tmp_path: Path, command: list[str], write: Callable[[Path], None], kind: str, reader: str
) -> None:
    path = tmp_path / "input file"
    write(path)
    done = run(*command, str(path))

    reader = "import --submit" if command == SUBMIT and reader != "decode" else reader
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (f"ras-triage: unrecognised input: `{path}` contains {kind}; use `ras-triage {reader} '{path}'`\n")
    assert run(*reader.replace("import --submit", "import").split(), str(path)).returncode in (0, 1)


@pytest.mark.parametrize("command", [*ALL, ["syndrome", "--ndjson"]])
def test_standard_input_is_named_as_such(command: list[str]) -> None:
    done = run(*command, "-", given=as_bytes(LOG))
    reader = "import --submit" if command == SUBMIT else "import"
    assert done.returncode == 2
    assert done.stderr.decode() == f"ras-triage: unrecognised input: standard input contains a kernel log; use `ras-triage {reader} -`\n"


@pytest.mark.parametrize("command", [*ALL, ["import"], ["export", "--to", "event"]])
def test_the_store_of_a_service_is_asked_by_query(tmp_path: Path, command: list[str]) -> None:
    store(tmp_path / "store.db")
    done = run(*command, str(tmp_path / "store.db"), COLUMNS="500")
    assert done.returncode in (1, 2)
    assert "is the store of a service; use `ras-triage query` or `ras-triage store check`" in (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("command", ALL)
def test_a_compressed_file_is_not_decided_as_a_status_block(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "log.gz").write_bytes(gzip.compress(as_bytes(LOG)))
    done = run(*command, str(tmp_path / "log.gz"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert "the file is compressed; decompress it first" in done.stderr.decode()


@pytest.mark.parametrize("command", [DECIDE, DECODE])
@pytest.mark.parametrize("line", ["00000000: 0100 0000 0000", "00000000  01 00 00 00  |....|", "0000000 01 00 00 00"])
def test_a_hex_dump_is_refused_with_the_tool_that_writes_plain_hexadecimal(command: list[str], line: str) -> None:
    told = run(*command, "-", given=line.encode()).stderr.decode()
    assert "standard input contains a hex dump with offsets; expected plain hexadecimal, as `xxd -p` writes" in told


def test_with_json_the_refusal_is_a_problem_document(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(as_bytes(LOG))
    problem = json.loads(run("decide", "--json", str(tmp_path / "log")).stderr)
    assert problem["type"] == "urn:ras-triage:problem:unrecognised-input"
    assert "ras-triage import" in problem["detail"]


@pytest.mark.parametrize("first", [b"nonsense", b'{"x": 1}', b"{", b'{"notification": "sea",', b"deadbeef"])
def test_one_bad_line_before_good_ones_fails_alone(first: bytes) -> None:
    done = run("decide", "--ndjson", "-", given=first + b"\n" + json.dumps(EVENT).encode())
    assert done.returncode == 2
    assert ["type" in json.loads(line) for line in done.stdout.splitlines()] == [True, False]


def test_an_event_with_a_wrong_field_is_still_an_event(tmp_path: Path) -> None:
    (tmp_path / "event.json").write_bytes(as_bytes({"notificaton": "sea", "source": "node-1"}))
    assert "did you mean `notification`?" in run("decide", str(tmp_path / "event.json")).stderr.decode()
    (tmp_path / "event.json").write_bytes(as_bytes({"notification": "sea", "sections": []}))  # a member of libcper's records
    assert "`/sections`: unknown field" in run("decide", str(tmp_path / "event.json")).stderr.decode()
