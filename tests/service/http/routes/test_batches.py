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


# Which event, dry runs and views.


def test_every_result_names_its_event_by_index_and_id(call: Call, form: dict[str, str]) -> None:
    kind = form["content-type"]
    bad = [
        event("bad", notification="nonsense"),
        {**SMALL, "policy": "nonsense", "id": "no policy"},
        {**SMALL, "id": 7},
        {**SMALL, "id": "x" * 257},
        5,
        {**SMALL, "id": "long", "source": "x" * 5000},
    ]
    answer = call("POST", URL, content=write(form, [event(f"first {kind}"), SMALL, *bad, event(f"first {kind}")]), headers=form)

    found = results(answer)
    assert [result["index"] for result in found] == list(range(9))
    ids = [result["event_id"] for result in found]
    assert ids == [f"e-first {kind}", None, "e-bad", "no policy", None, None, None, None, f"e-first {kind}"]
    assert [result["repeat"] for result in (found[0], found[1], found[8])] == [False, False, True]
    assert results(call("POST", URL, content=write(form, [event(f"first {kind}")]), headers=form))[0]["event_id"] == f"e-first {kind}"


def test_an_index_counts_events_and_not_lines(call: Call) -> None:
    answer = call("POST", URL, content=b"\n\n" + ndjson([event("blank-1")]) + b"\n{nonsense\n" + ndjson([event("blank-2")]), headers=NDJSON)

    found = [(result["index"], result["event_id"], result.get("status", 201)) for result in results(answer)]
    assert found == [(0, "e-blank-1", 201), (1, None, 400), (2, "e-blank-2", 201)]


def test_the_problem_at_the_end_of_a_broken_array_has_the_next_index(call: Call) -> None:
    answer = call("POST", URL, content=json.dumps([SMALL, SMALL]).encode()[:-1] + b",", headers=ARRAY)

    assert [(result["index"], result.get("status", 201)) for result in results(answer)] == [(0, 201), (1, 201), (2, 400)]


def test_a_result_is_otherwise_the_decision_byte_for_byte(call: Call) -> None:
    line = call("POST", URL, content=ndjson([event("bytes")]), headers=NDJSON).content.strip()
    whole = call("GET", f"/v1/decisions/{json.loads(line)['id']}").content

    assert line == b'{"index":0,"event_id":"e-bytes",' + whole[1:]


def test_a_dry_run_keeps_nothing(call: Call, form: dict[str, str]) -> None:
    abort = {name: EVENT[name] for name in ("notification", "status_block")}
    source = f"dry {form['content-type']}"
    events = [
        {**abort, "source": source, "id": "same"},
        {**abort, "source": source, "id": "same"},
        {**SMALL, "source": source, "id": "other"},
    ]
    keyed = {**form, "idempotency-key": source}
    before = call("GET", "/v1/store").json()["decisions"]
    first, again = (call("POST", f"{URL}?dry_run=true", content=write(form, events), headers=keyed) for _ in range(2))

    assert first.content == again.content, "no ids, no times, no repeats"
    assert first.headers["content-type"] == form["content-type"]
    found = results(first)
    assert [(one["id"], one["decided_at"], one["repeat"], one["event_id"]) for one in found] == [
        (None, None, False, "same"),
        (None, None, False, "same"),
        (None, None, False, "other"),
    ]
    assert [one["host_facts"] for one in found] == [None] * 3, "no event poisons a page for another"
    assert call("GET", "/v1/store").json()["decisions"] == before
    assert call("GET", f"/v1/poisoned-pages/{source}").json()["pages"] == []
    assert call("GET", "/v1/decisions", params={"source": source}).json()["decisions"] == []
    assert [one["repeat"] for one in results(call("POST", URL, content=write(form, events[1:]), headers=keyed))] == [False, False]


def test_a_dry_run_decides_as_a_single_one_with_what_is_stored(call: Call) -> None:
    call("PUT", "/v1/hosts/dry-host", json=EVENT["host"]).raise_for_status()
    abort = {**EVENT, "source": "dry-host"}
    del abort["host"]
    call("POST", "/v1/decisions", json=abort).raise_for_status()
    single = call("POST", "/v1/decisions?dry_run=true", json=abort).json()
    many = results(call("POST", f"{URL}?dry_run=1", content=ndjson([abort] * 3), headers=NDJSON))

    assert single["host_facts"]["poisoned"]
    assert [{name: value for name, value in one.items() if name not in ("index", "event_id")} for one in many] == [single] * 3


def test_a_dry_run_needs_no_room_in_the_write_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait_for_ever(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    app = create_app(Settings(store="memory:"))
    with client(app) as call:
        monkeypatch.setattr(app.state.runtime.writer, "room", wait_for_ever)
        answer = call("POST", f"{URL}?dry_run=true", content=ndjson([SMALL] * 3), headers=NDJSON, timeout=20)

    assert [one["id"] for one in results(answer)] == [None] * 3


def test_a_dry_run_of_a_large_batch_is_decided_by_workers_too(server: Service) -> None:
    events = [event(number) for number in range(2000)] + [event("bad", notification="nonsense")]
    answer = httpx.post(f"{server.url}{URL}?dry_run=true", content=ndjson(events), headers=NDJSON, timeout=120)

    found = results(answer)
    assert [(one["index"], one["event_id"]) for one in found] == [(number, sent["id"]) for number, sent in enumerate(events)]
    assert {one.get("id") for one in found} == {None}
    assert found[-1]["type"] == f"{URN}invalid-event"


def test_the_summary_of_a_decision_is_what_it_is_counted_by(call: Call, form: dict[str, str]) -> None:
    kind = form["content-type"]
    events = [event(f"summary {kind}"), event("bad", notification="nonsense"), event(f"summary {kind}")]
    answer = call("POST", f"{URL}?view=summary", content=write(form, events), headers=form)
    first, refused, again = results(answer)
    whole = call("GET", f"/v1/decisions/{first['id']}").json()

    assert answer.status_code == 207
    assert first == {
        "index": 0,
        "event_id": f"e-summary {kind}",
        "id": whole["id"],
        "repeat": False,
        "action": whole["action"],
        "certainty": whole["certainty"],
        "event_key": whole["event_key"],
    }
    assert again == {**first, "index": 2, "repeat": True}
    assert (refused["index"], refused["event_id"], refused["type"]) == (1, "e-bad", f"{URN}invalid-event")
    dry = results(call("POST", f"{URL}?view=summary&dry_run=true", content=write(form, events[:1]), headers=form))
    assert dry == [{**first, "id": None}]
    assert len(answer.content) < 3 * 400


@pytest.mark.parametrize(
    ("query", "parameter"), [("view=brief", "view"), ("dry_run=maybe", "dry_run"), ("view=full&view=full", "view"), ("x=1", "x")]
)
def test_a_parameter_that_is_not_known_is_refused(call: Call, query: str, parameter: str) -> None:
    answer = call("POST", f"{URL}?{query}", content=ndjson([SMALL]), headers=NDJSON)

    assert problem(answer) == (422, "invalid-parameter")
    assert answer.json()["errors"][0]["parameter"] == parameter


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_lines_under_another_content_type_are_refused_with_the_right_one(call: Call, kind: str) -> None:
    answer = call("POST", URL, content=ndjson([SMALL, SMALL]), headers={"content-type": kind})

    assert problem(answer) == (400, "invalid-batch")
    assert "`Content-Type: application/x-ndjson`" in answer.json()["detail"]


def test_an_array_under_the_content_type_of_lines_is_refused_with_the_right_one(call: Call) -> None:
    (refused,) = results(call("POST", URL, content=json.dumps([SMALL, SMALL]).encode(), headers=NDJSON))

    assert (refused["status"], refused["index"]) == (422, 0)
    assert refused["detail"].endswith("for a JSON array, expected `Content-Type: application/json`")


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
