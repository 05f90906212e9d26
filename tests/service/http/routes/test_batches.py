"""Batches over HTTP: arrays, NDJSON, compression, invalid events, slow clients."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import lru_cache
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ras_triage.service.api.content_encoding import PIECE, decoded_chunks
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.service.support.application import EVENT, NDJSON, Call, client, ndjson
from tests.service.support.server_process import Service, serving

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

URL = "/v1/decisions/batch"
ARRAY = {"content-type": "application/json"}
URN = "urn:ras-triage:problem:"
SMALL: dict[str, Any] = {"notification": "polled"}


def event(number: int | str, **fields: Any) -> dict[str, Any]:
    return {**SMALL, "source": "batch", "id": f"e-{number}", **fields}


def results(answer: httpx.Response) -> list[Any]:
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in ("application/json", "application/x-ndjson")
    found: list[Any] = answer.json() if kind == "application/json" else [json.loads(line) for line in answer.content.splitlines()]
    return found


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["type"].removeprefix(URN)


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    with client(create_app(Settings(max_body_bytes=4096, max_batch_bytes=8 << 20))) as call:
        yield call


@pytest.fixture(params=[ARRAY, NDJSON], ids=["array", "ndjson"])
def form(request: pytest.FixtureRequest) -> dict[str, str]:
    headers: dict[str, str] = request.param
    return headers


def write(form: dict[str, str], events: list[Any]) -> bytes:
    return ndjson(events) if form is NDJSON else json.dumps(events).encode()


# Order, and one that is bad.


def test_results_come_in_the_order_and_the_form_of_their_events(call: Call, form: dict[str, str]) -> None:
    events = [event(f"{form['content-type']}-{number}") for number in range(300)]
    answer = call("POST", URL, content=write(form, events), headers=form)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == form["content-type"]
    ids = [result["id"] for result in results(answer)]
    assert len(set(ids)) == 300
    for number in (0, 150, 299):
        assert call("GET", f"/v1/decisions/{ids[number]}/event").json() == events[number]


@pytest.mark.parametrize(
    ("bad", "status", "kind"),
    [
        ({"notification": "nonsense"}, 422, "invalid-event"),
        (5, 422, "invalid-event"),
        (None, 422, "invalid-event"),
        ([], 422, "invalid-event"),
        ({**SMALL, "policy": "nonsense"}, 422, "unknown-policy"),
        ({**SMALL, "source": "x" * 5000}, 413, "payload-too-large"),
    ],
)
def test_a_bad_event_fails_alone_with_its_problem_in_its_place(call: Call, form: dict[str, str], bad: Any, status: int, kind: str) -> None:
    answer = call("POST", URL, content=write(form, [SMALL, bad, SMALL]), headers=form)

    assert answer.status_code == 207
    first, refused, last = results(answer)
    assert (refused["status"], refused["type"]) == (status, URN + kind)
    assert refused["detail"]
    assert first["action"] == last["action"]


def test_what_is_no_json_fails_alone_where_lines_keep_it_apart(call: Call) -> None:
    answer = call("POST", URL, content=ndjson([SMALL]) + b"{nonsense\n" + ndjson([SMALL]), headers=NDJSON)

    assert answer.status_code == 207
    assert [result.get("type", "decided") for result in results(answer)] == ["decided", f"{URN}invalid-json", "decided"]


def test_an_array_that_breaks_off_ends_with_its_problem_and_what_came_before_is_decided(call: Call) -> None:
    answer = call("POST", URL, content=json.dumps([SMALL, SMALL]).encode()[:-1] + b",", headers=ARRAY)

    assert answer.status_code == 207
    assert [result.get("type", "decided") for result in results(answer)] == ["decided", "decided", f"{URN}invalid-batch"]


# Blanks, and nothing.


def test_blank_lines_are_no_events(call: Call) -> None:
    answer = call("POST", URL, content=b"\n\r\n  \n" + ndjson([SMALL]) + b"\n\t\n" + json.dumps(SMALL).encode(), headers=NDJSON)

    assert answer.status_code == 200
    assert len(results(answer)) == 2


@pytest.mark.parametrize(("form", "nothing"), [(ARRAY, b"[]"), (ARRAY, b" [ \n] "), (NDJSON, b""), (NDJSON, b"\n\n")])
def test_a_batch_of_nothing_has_no_results(call: Call, form: dict[str, str], nothing: bytes) -> None:
    answer = call("POST", URL, content=nothing, headers=form)

    assert answer.status_code == 200
    assert results(answer) == []


@pytest.mark.parametrize("content", [b"", b"  ", b"{}", b"[", b'"x"', b"[1", b"nonsense"])
def test_what_is_no_array_is_refused_as_a_whole(call: Call, content: bytes) -> None:
    assert problem(call("POST", URL, content=content, headers=ARRAY)) == (400, "invalid-batch")


# Packed.

PACKED = [("gzip", gzip.compress), ("zstd", zstd.compress), ("GZIP", gzip.compress)]


@pytest.mark.parametrize(("encoding", "pack"), PACKED)
def test_a_packed_batch_is_unpacked_also_from_several_members(call: Call, form: dict[str, str], encoding: str, pack: Any) -> None:
    text = write(form, [SMALL] * 100)
    for parts in ([text], [text[:700], text[700:701], b"", text[701:]]):
        answer = call("POST", URL, content=b"".join(map(pack, parts)), headers={**form, "content-encoding": encoding})
        assert answer.status_code == 200
        assert len(results(answer)) == 100


@pytest.mark.parametrize(("encoding", "pack"), PACKED)
def test_a_packed_batch_that_is_cut_is_refused_or_ends_with_the_problem(call: Call, encoding: str, pack: Any) -> None:
    headers = {**NDJSON, "content-encoding": encoding}
    packed = pack(ndjson([{**SMALL, "id": os.urandom(30).hex()} for _ in range(2_000)]))
    for cut in (5, len(packed) // 2, len(packed) - 1):
        answer = call("POST", URL, content=packed[:cut], headers=headers)
        if answer.status_code == 207:
            *decided, last = results(answer)
            assert all("type" not in result for result in decided)
            assert (last["status"], last["type"]) == (400, f"{URN}malformed-encoding")
        else:
            assert problem(answer) == (400, "malformed-encoding")
    assert problem(call("POST", URL, content=b"nonsense", headers=headers)) == (400, "malformed-encoding")


def test_an_encoding_that_is_not_known_is_refused_and_the_known_ones_named(call: Call) -> None:
    answer = call("POST", URL, content=b"x", headers={**NDJSON, "content-encoding": "br"})

    assert problem(answer) == (415, "unsupported-encoding")
    assert "gzip, zstd" in answer.json()["detail"]
    assert answer.headers["accept-encoding"] == "gzip, zstd"


@pytest.mark.parametrize(("encoding", "pack"), PACKED)
def test_members_of_a_byte_each_are_taken_in_together(encoding: str, pack: Any) -> None:
    body = pack(b"x" * 2000) + pack(b"x") * 5000 + pack(b"y" * (3 * PIECE))

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async def pieces() -> list[bytes]:
        return [piece async for piece in decoded_chunks(chunks(), encoding, 1 << 30)]

    found = asyncio.run(pieces())
    assert b"".join(found) == b"x" * 7000 + b"y" * (3 * PIECE)
    assert len(found) <= 5


def test_a_batch_that_is_too_long_is_refused_whether_it_says_so_or_not(call: Call) -> None:
    assert problem(call("POST", URL, content=b" " * (9 << 20), headers=NDJSON)) == (413, "payload-too-large")
    bomb = zstd.compress(b" " * (9 << 20))
    assert problem(call("POST", URL, content=bomb, headers={**ARRAY, "content-encoding": "zstd"})) == (413, "payload-too-large")


# Repeats.


def test_a_batch_that_comes_again_under_its_key_is_decided_once(call: Call, form: dict[str, str]) -> None:
    headers = {**form, "idempotency-key": f"run {form['content-type']}"}
    first = results(call("POST", URL, content=write(form, [SMALL, SMALL]), headers=headers))
    longer = results(call("POST", URL, content=write(form, [SMALL, SMALL, SMALL]), headers=headers))

    assert [result["id"] for result in longer[:2]] == [result["id"] for result in first]
    assert [result["repeat"] for result in longer] == [True, True, False]
    assert len({result["id"] for result in longer}) == 3
    other = results(
        call("POST", URL, content=write(form, [SMALL]), headers={**form, "idempotency-key": f"not {headers['idempotency-key']}"})
    )
    assert other[0]["repeat"] is False


def test_other_content_under_the_same_key_is_a_conflict_that_names_both(call: Call, form: dict[str, str]) -> None:
    headers = {**form, "idempotency-key": f"changed {form['content-type']}"}
    first = results(call("POST", URL, content=write(form, [SMALL, SMALL]), headers=headers))
    answer = call("POST", URL, content=write(form, [SMALL, {**SMALL, "source": "changed"}]), headers=headers)

    assert answer.status_code == 207
    same, refused = results(answer)
    assert same["id"] == first[0]["id"]
    assert (refused["status"], refused["type"]) == (409, f"{URN}conflict")
    assert refused["conflict"]["decision"] == first[1]["id"]
    assert refused["conflict"]["first_event_key"] == first[1]["event_key"]
    assert refused["conflict"]["event_key"] not in (first[1]["event_key"], None)


def test_an_event_of_its_own_name_is_recognised_in_another_place_and_within_one_batch(call: Call, form: dict[str, str]) -> None:
    named = event(f"twice in {form['content-type']}")
    found = results(call("POST", URL, content=write(form, [named, SMALL, named]), headers={**form, "idempotency-key": "places"}))

    assert found[0]["id"] == found[2]["id"]
    assert [found[0]["repeat"], found[2]["repeat"]] == [False, True]


# A real server, and clients of every kind.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("batches")
    with serving("--store", f"sqlite:///{folder / 'store.db'}") as service:
        yield service


def connect(server: Service) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=120)


def head(*headers: str) -> bytes:
    lines = ["POST /v1/decisions/batch HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/x-ndjson", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def resident(server: Service) -> int:
    """Bytes of memory that the server's process has."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most memory that the server had while the context lasted, beyond what it had before."""

    def __init__(self, server: Service) -> None:
        self._server = server
        self._before = self._most = resident(server)
        self._done = False

    def __enter__(self) -> Peak:
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()

    def _watch(self) -> None:
        while not self._done:
            self._most = max(self._most, resident(self._server))
            time.sleep(0.02)

    @property
    def mebibytes(self) -> float:
        return (self._most - self._before) / (1 << 20)


def test_a_client_that_sends_everything_before_it_reads_is_answered_whole(server: Service) -> None:
    count = 12_000
    address = urlsplit(server.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=120)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    with closing(connection):
        connection.request("POST", URL, body=ndjson([SMALL] * count), headers=NDJSON)
        answer = connection.getresponse()
        received = answer.read()

    assert answer.status == 200
    assert len(received) > 8 << 20  # more than the sockets' buffers hold
    assert [b'"repeat":false' in line for line in received.splitlines()] == [True] * count


@lru_cache
def bomb(encoding: str, size: int) -> bytes:
    """Zeros, packed: to a thousandth by gzip, to far less by zstd."""
    piece = b"\0" * (1 << 20)
    if encoding == "zstd":
        packer = zstd.ZstdCompressor()
        return b"".join(packer.compress(piece) for _ in range(size >> 20)) + packer.flush()
    gzipper = zlib.compressobj(9, wbits=31)
    return b"".join(gzipper.compress(piece) for _ in range(size >> 20)) + gzipper.flush()


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
@pytest.mark.parametrize("form", [ARRAY, NDJSON], ids=["array", "ndjson"])
def test_a_bomb_needs_little_memory_and_is_refused(server: Service, encoding: str, form: dict[str, str]) -> None:
    packed = bomb(encoding, 1 << 30)
    with Peak(server) as peak:
        answer = httpx.post(f"{server.url}{URL}", content=packed, headers={**form, "content-encoding": encoding}, timeout=120)

    assert len(packed) < 2 << 20
    found = answer.json() if answer.status_code != 207 else results(answer)[-1]
    assert found["type"] in (f"{URN}payload-too-large", f"{URN}invalid-batch")
    assert peak.mebibytes < 128


def test_a_bomb_for_a_single_event_is_refused_at_the_limit(server: Service) -> None:
    headers = {**ARRAY, "content-encoding": "zstd"}
    with Peak(server) as peak:
        answer = httpx.post(f"{server.url}/v1/decisions", content=bomb("zstd", 1 << 30), headers=headers, timeout=120)

    assert problem(answer) == (413, "payload-too-large")
    assert peak.mebibytes < 128


def test_blanks_without_end_before_an_array_need_little_memory(server: Service) -> None:
    packed = zstd.compress(b" " * (1 << 28)) + zstd.compress(json.dumps([SMALL]).encode())
    with Peak(server) as peak:
        answer = httpx.post(f"{server.url}{URL}", content=packed, headers={**ARRAY, "content-encoding": "zstd"}, timeout=120)

    assert answer.status_code == 200
    assert peak.mebibytes < 128


UPLOAD_MIB = int(os.environ.get("RAS_TRIAGE_UPLOAD_MIB", "300"))


def test_a_long_upload_needs_little_memory(server: Service) -> None:
    """Of events of 3 MiB, most of it blank; `RAS_TRIAGE_UPLOAD_MIB=2048` sends two gibibytes."""
    line = json.dumps(SMALL).encode() + b" " * (3 << 20) + b"\n"
    count = (UPLOAD_MIB << 20) // len(line)
    with Peak(server) as peak:
        answer = httpx.post(f"{server.url}{URL}", content=(line for _ in range(count)), headers=NDJSON, timeout=600)

    assert answer.status_code == 200
    assert len(results(answer)) == count
    assert peak.mebibytes < 128


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_goes_away_in_the_middle_leaves_the_server_well(server: Service, reset: bool) -> None:
    line = json.dumps({**SMALL, "source": f"gone {reset}"}).encode() + b"\n"
    with connect(server) as connection:
        connection.sendall(head("Content-Length: 100000000") + line * 2000 + line[:10])
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 30
    kept: list[Any] = []
    while not kept and time.monotonic() < deadline:
        kept = httpx.get(f"{server.url}/v1/decisions", params={"source": f"gone {reset}"}).json()["decisions"]
    answer = httpx.post(f"{server.url}{URL}", content=ndjson([SMALL]), headers=NDJSON)

    assert kept or reset  # a reset may come before anything was read
    assert answer.status_code == 200
    assert "Traceback" not in "".join(server.log)
    assert "defect" not in "".join(server.log)


def test_a_client_that_reads_nothing_and_goes_away_leaves_the_server_well(server: Service) -> None:
    body = ndjson([{**EVENT, "source": "deaf"}] * 3000)
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 10)
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        time.sleep(0.5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert "Traceback" not in "".join(server.log)
    assert "defect" not in "".join(server.log)
