"""Mutated files of every binary format, by command and over HTTP."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from ras_triage.models.formats.cper import write_record
from ras_triage.models.formats.erst import PSTORE_CREATOR
from ras_triage.models.records.cper_record import CperRecord, SectionDescriptor, encode_record
from ras_triage.models.records.guid import guid
from ras_triage.service.api.content_encoding import zstd
from ras_triage.service.cli.main import main
from ras_triage.service.http.app import create_app
from tests.service.support.application import BLOCK, EVENT, Call, client, run
from tests.service.support.import_examples import LIBCPER, LOG, SENT, database, hest_table

FILES = 400
"""Mutated files of each kind."""

DMESG, COMPRESSED = guid("c197e04e-d545-4a70-9c17-a5549419eb12"), guid("4f118707-04dd-4055-b5dd-956d34ddfac6")
PANIC = b"Panic#2 Part1\n<0>[   12.000001] Kernel panic - not syncing: Fatal hardware error!\n<4>[   12.000002] CPU: 1 PID: 9\n"
LINES = b"".join(json.dumps({**EVENT, "source": f"node-{number}"}).encode() + b"\n" for number in range(4))


def stored(payload: bytes, kind: bytes) -> bytes:
    """A record as Linux keeps its log in ERST."""
    section = SectionDescriptor(section_offset=200, section_length=len(payload), section_type=kind, severity=1)
    length = 200 + len(payload)
    record = CperRecord(severity=1, record_length=length, creator_id=PSTORE_CREATOR, record_id=1, sections=(section,), body=payload)
    return encode_record(record)


def rasdaemon() -> bytes:
    with TemporaryDirectory() as folder:
        return database(Path(folder) / "ras.db")


SOUND: dict[str, Callable[[], bytes]] = {
    "database": rasdaemon,
    "record": lambda: write_record(SENT) * 2,
    "block": lambda: BLOCK,
    "pstore": lambda: stored(PANIC, DMESG) + stored(zlib.compress(PANIC * 5), COMPRESSED),
    "libcper": lambda: LIBCPER,
}
PACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}

_WORDS = (b"\xff\xff\xff\xff", bytes(4), b"\x80\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")


def mutated(sound: bytes, seed: str) -> Iterator[bytes]:
    """Damaged copies, the same ones in every run: bits, bytes, words and lengths changed, pieces cut out, moved and put in."""
    chance = random.Random(seed)
    for _ in range(FILES):
        data = bytearray(sound)
        for _ in range(chance.choice((1, 1, 2, 3, 8, 40))):
            at = chance.randrange(min(len(data), chance.choice((256, 1 << 20))) or 1)
            match chance.randrange(6):
                case 0:
                    data[at : at + 1] = chance.randbytes(1)
                case 1:
                    data[at : at + 4] = chance.choice(_WORDS)
                case 2:
                    del data[at : at + chance.choice((1, 4, 100))]
                case 3:
                    data[at:at] = chance.randbytes(chance.choice((1, 4, 16)))
                case 4:
                    start = chance.randrange(len(data) or 1)
                    data[at : at + 16] = data[start : start + 16]
                case _ if chance.random() < 0.1:
                    del data[at:]
        yield bytes(data)


@cache
def files(kind: str) -> list[bytes]:
    sound = SOUND[kind]()
    damaged = list(mutated(sound, kind))
    if kind == "database":
        # SQLite quotes this name in its error text.
        damaged.append(sound.replace(b"mc_event", b"\xe4c_event").replace(b"CREATE TABLE \xe4", b"CREATE TABLX \xe4"))
    return damaged


@pytest.fixture(scope="module")
def service() -> Iterator[Call]:
    with client(create_app()) as call:
        yield call


def whole(answer: httpx.Response) -> list[Any]:
    """The lines of an answer that came to its end, or its problem."""
    if answer.headers["content-type"] == "application/problem+json":
        assert answer.status_code < 500, answer.text
        return [answer.json()]
    assert answer.status_code in {200, 201, 207}
    return [json.loads(line) for line in answer.content.splitlines()]


@pytest.mark.parametrize("kind", SOUND)
def test_a_command_reads_damaged_files_to_their_end(kind: str, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(len(files(kind)))]
    for path, data in zip(paths, files(kind), strict=True):
        path.write_bytes(data)
    done = run("import", "--json", *map(str, paths))

    assert (done.returncode, done.stderr) == (1, b"")
    *found, last = map(json.loads, done.stdout.splitlines())
    assert last["summary"]["unread"] > 0
    assert {one["file"] for one in found} <= {str(path) for path in paths}


@pytest.mark.parametrize("command", ["decide", "decode"])
@pytest.mark.parametrize("kind", ["record", "block"])
def test_a_command_for_one_file_decides_or_refuses_a_damaged_one(
    command: str, kind: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "file"
    for data in files(kind)[::16]:
        path.write_bytes(data)
        status = main([command, "--json", str(path)])
        assert status in {0, 2}
        assert all(map(json.loads, capsysbinary.readouterr().out.splitlines()))


@pytest.mark.parametrize("kind", SOUND)
def test_http_reads_damaged_files_to_their_end(kind: str, service: Call) -> None:
    for data in files(kind):
        *_, last = whole(service("POST", "/v1/import?dry_run=true", content=data))
        assert "summary" in last or last["status"] < 500


@pytest.mark.parametrize("kind", ["record", "block"])
def test_http_decides_or_refuses_damaged_bytes(kind: str, service: Call) -> None:
    for data in files(kind)[::4]:
        whole(service("POST", "/v1/decode", content=data, headers={"content-type": "application/octet-stream"}))
        whole(service("POST", "/v1/decisions?dry_run=true", json={**EVENT, "status_block": base64.b64encode(data).decode()}))


def test_damaged_error_source_tables_are_read_or_refused(service: Call, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    log, path = tmp_path / "log", tmp_path / "HEST"
    log.write_bytes(LOG)
    for number, data in enumerate(mutated(hest_table(), "hest")):
        if number % 8 == 0:
            path.write_bytes(data)
            assert main(["import", "--json", "--hest", str(path), str(log)]) in {0, 2}
            assert all(map(json.loads, capsysbinary.readouterr().out.splitlines()))
        table = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        whole(service("POST", f"/v1/import?dry_run=true&hest={table}", content=b""))


@pytest.mark.parametrize("encoding", PACKED)
def test_damaged_packed_bodies_are_read_or_refused(encoding: str, service: Call) -> None:
    headers = {"content-encoding": encoding, "content-type": "application/x-ndjson"}
    for number, data in enumerate(mutated(PACKED[encoding](LINES), encoding)):
        path = "/v1/import?dry_run=true" if number % 4 == 0 else "/v1/decisions/batch"
        whole(service("POST", path, content=data, headers=headers))
