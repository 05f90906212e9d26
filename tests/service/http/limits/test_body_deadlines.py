"""Deadlines of request bodies: slow clients may continue, stalled ones are ended."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.limits.body_deadlines import BodyClock
from ras_triage.service.http.server.run import running
from ras_triage.service.security.keys import create
from ras_triage.service.store.sqlite import SqliteStore
from tests.service.support.application import EVENT
from tests.service.support.raw_connections import connect, head, is_closed, metric, problem, read_until, received, wait_until

SINGLE = head("/v1/decisions", "Content-Length: 1000")
BATCH = head("/v1/decisions/batch", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")
ARRAY = head("/v1/decisions/batch", "Content-Type: application/json", "Transfer-Encoding: chunked")
IMPORT = head("/v1/import", "Content-Length: 1000000")
SMALL = json.dumps({"notification": "polled"}).encode() + b"\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(scope="module")
def brisk() -> Iterator[str]:
    """A service with short deadlines for bodies."""
    with running(Settings(body_timeout_s=0.6, line_timeout_s=0.6)) as url:
        yield url


# The clock.


def clocked(pieces: list[tuple[float, bytes]], settings: Settings, *, items: bool = False) -> bytes:
    """Return what a clock lets through of pieces that come after these pauses, in seconds. Raises Refused."""

    async def run() -> bytes:
        coming = iter([*pieces, (0.0, None)])

        async def receive() -> Message:
            pause, piece = next(coming)
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        clock = BodyClock(receive, settings)
        if items:
            clock.expect_items()
        body = b""
        while (message := await clock.receive())["more_body"]:
            body += message["body"]
            if b"\n" in message["body"]:
                clock.item_complete()
        return body

    return asyncio.run(run())


def test_a_body_has_a_deadline_as_a_whole_however_often_a_byte_comes() -> None:
    with pytest.raises(ProblemError) as refused:
        clocked([(0.03, b"x")] * 20, Settings(body_timeout_s=0.2))

    assert (refused.value.problem.status, refused.value.problem.type) == (408, "urn:ras-triage:problem:request-timeout")
    assert refused.value.headers == {"Connection": "close"}


def test_lines_may_come_for_as_long_as_they_like_but_each_has_a_deadline() -> None:
    assert clocked([(0.1, b"x\n")] * 6, Settings(line_timeout_s=0.4), items=True) == b"x\n" * 6
    with pytest.raises(ProblemError):
        clocked([(0.1, b"x\n")] * 3 + [(0.1, b"x")] * 6, Settings(line_timeout_s=0.4), items=True)


def test_a_long_line_that_keeps_to_the_minimum_rate_is_not_late() -> None:
    settings = Settings(line_timeout_s=0.1, min_body_rate=1000)
    assert len(clocked([(0.05, b"x" * 100)] * 8, settings, items=True)) == 800
    with pytest.raises(ProblemError):
        clocked([(0.05, b"x" * 20)] * 8, settings, items=True)


def test_the_time_that_the_service_takes_is_not_the_clients() -> None:
    async def run() -> int:
        async def receive() -> Message:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"x", "more_body": True}

        clock = BodyClock(receive, Settings(body_timeout_s=0.05))
        for _ in range(4):
            await clock.receive()
            await asyncio.sleep(0.1)
        return 4

    assert asyncio.run(run()) == 4


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_a_body_that_is_there_passes_unchanged(pieces: list[bytes]) -> None:
    assert clocked([(0.0, piece) for piece in pieces], Settings()) == b"".join(pieces)


# A real service.


def test_a_body_that_stalls_is_answered_with_408_and_the_connection_closed(brisk: str) -> None:
    before = metric(brisk, "problems_total", type="busy")
    with connect(brisk) as stalled:
        stalled.sendall(SINGLE + b"{")
        answer = received(stalled)

    assert problem(answer)[:2] == (408, "request-timeout")
    assert b"connection: close" in answer.lower()
    assert metric(brisk, "problems_total", type="request-timeout") >= 1
    assert metric(brisk, "problems_total", type="busy") == before


def test_a_slow_source_goes_on_and_is_told_in_its_place_when_it_stalls(brisk: str) -> None:
    with connect(brisk) as source:
        source.sendall(BATCH)
        for _ in range(4):
            source.sendall(chunk(SMALL))
            time.sleep(0.3)
        answer = read_until(source, b"\r\n0\r\n")

    assert answer.startswith(b"HTTP/1.1 207")
    results = [json.loads(line) for line in answer.replace(b"\n", b"\r\n").split(b"\r\n") if line.startswith(b"{")]
    assert ["action" in result for result in results] == [True] * 4 + [False]
    assert (results[-1]["status"], results[-1]["type"]) == (408, "urn:ras-triage:problem:request-timeout")


@pytest.mark.parametrize("start", [BATCH, ARRAY, BATCH + chunk(SMALL[:5]), ARRAY + chunk(b"[ "), IMPORT, IMPORT + b"x"])
def test_a_batch_or_import_that_stalls_before_its_first_result_is_answered_with_408(brisk: str, start: bytes) -> None:
    with connect(brisk) as stalled:
        stalled.sendall(start)
        assert problem(received(stalled))[:2] == (408, "request-timeout")


@pytest.mark.parametrize(("start", "drip"), [(BATCH, chunk(b" ")), (ARRAY, chunk(b" ")), (IMPORT, b"x"), (SINGLE, b" ")])
def test_a_body_that_drips_is_answered_with_408(brisk: str, start: bytes, drip: bytes) -> None:
    with connect(brisk) as dripping:
        dripping.sendall(start)
        began = time.monotonic()
        while time.monotonic() - began < 20 and not answered(dripping):
            dripping.sendall(drip)
            time.sleep(0.1)
        assert problem(received(dripping))[:2] == (408, "request-timeout")


def answered(connection: socket.socket) -> bool:
    """Return whether something can be read."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(20)
    return True


def test_a_body_that_nobody_asked_for_and_that_stalls_ends_the_stream_and_is_no_defect(
    brisk: str, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(brisk) as watching:
        watching.sendall(head("/v1/decisions/stream", "Content-Length: 5", method="GET"))
        assert received(watching).startswith(b"HTTP/1.1 200")

    assert metric(brisk, "problems_total", type="internal") == 0
    assert "defect" not in caplog.text


def test_a_log_that_is_followed_is_imported_line_by_line(brisk: str) -> None:
    with connect(brisk) as following:
        following.sendall(IMPORT)
        for _ in range(4):
            following.sendall(b"[    1.000000] usb 1-1: new device\n")
            time.sleep(0.3)
        assert not answered(following), "each line came in time"
        assert problem(received(following))[0] == 408


# ConcurrencyLimit.

BRIEF_S = 0.5


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A service with few places, in which no request counts as stalled for now."""
    monkeypatch.setattr("ras_triage.service.http.limits.concurrency.STALLED_S", 60.0)
    settings = Settings(max_in_flight=12, max_in_flight_per_client=8, max_imports=4)
    with running(settings) as url:
        yield url


@pytest.fixture
def soon_stalled(small: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A service with few places, in which a request soon counts as stalled."""
    monkeypatch.setattr("ras_triage.service.http.limits.concurrency.STALLED_S", BRIEF_S)
    return small


def stall(stack: ExitStack, url: str, request: bytes, count: int, source: str = "127.0.0.1") -> list[socket.socket]:
    """Begin requests that do not go on."""
    connections = [stack.enter_context(connect(url, source)) for _ in range(count)]
    for connection in connections:
        connection.sendall(request)
    return connections


def decide(url: str, source: str = "127.0.0.1") -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source)) as client:
        return client.post(f"{url}/v1/decisions", json=EVENT)


def test_one_peer_cannot_take_the_places_of_all(small: str) -> None:
    with ExitStack() as stack:
        stalled = stall(stack, small, SINGLE, 20)
        wait_until(lambda: sum(map(answered, stalled)) == 12)

        refused = decide(small)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] in ("1", "2")
        assert decide(small, "127.0.0.2").status_code == 201
        assert httpx.get(f"{small}/healthz").status_code == 200
        assert httpx.get(f"{small}/readyz").status_code == 200


def test_a_stalled_request_loses_its_place_to_the_next_one_of_its_own_peer(soon_stalled: str) -> None:
    with ExitStack() as stack:
        stalled = stall(stack, soon_stalled, SINGLE, 8)
        wait_until(lambda: metric(soon_stalled, "requests_under_way") == 9)
        time.sleep(1.2 * BRIEF_S)

        assert [decide(soon_stalled).status_code for _ in range(3)] == [201] * 3
        wait_until(lambda: sum(map(answered, stalled)) >= 1)
        told = [problem(received(connection)) for connection in stalled if answered(connection)]
        assert {answer[0] for answer in told} == {408}
        assert "stalled while other requests were waiting" in told[0][2]["detail"]
        assert len(told) <= 3, "no more than were needed"


def test_where_every_place_is_taken_by_stalled_requests_of_many_peers_a_new_one_gets_one(
    small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        for peer in range(2, 5):
            stall(stack, small, SINGLE, 4, f"127.0.0.{peer}")
        wait_until(lambda: metric(small, "requests_under_way") == 13)
        assert decide(small).status_code == 503, "nobody has stalled for long yet"
        assert httpx.get(f"{small}/readyz").json()["detail"] == "the limit of concurrent requests is reached"

        monkeypatch.setattr("ras_triage.service.http.limits.concurrency.STALLED_S", 0.0)
        wait_until(lambda: decide(small).status_code == 201)
        assert httpx.get(f"{small}/readyz").status_code == 200


def test_batches_leave_places_for_single_requests(small: str) -> None:
    with ExitStack() as stack:
        batches = stall(stack, small, BATCH + chunk(SMALL), 8)
        wait_until(lambda: sum(map(answered, batches)) >= 2)

        assert decide(small).status_code == 201
        assert sum(b"503" in read_until(batch, b"\r\n") for batch in batches if answered(batch)) >= 2


def test_imports_that_drip_keep_no_other_import_out(soon_stalled: str) -> None:
    with ExitStack() as stack:
        stall(stack, soon_stalled, IMPORT + b"x", 4)

        wait_until(lambda: httpx.post(f"{soon_stalled}/v1/import", content=b"nothing\n").status_code == 200)


def test_imports_that_wait_for_their_clients_keep_no_thread_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ras_triage.service.http.limits.concurrency.STALLED_S", 60.0)
    with running(Settings(max_imports=12)) as url, ExitStack() as stack:
        stall(stack, url, IMPORT + b"x", 5)
        wait_until(lambda: metric(url, "requests_under_way") == 6)

        assert httpx.post(f"{url}/v1/import", content=b"nothing\n", timeout=20).status_code == 200


def test_a_client_that_does_not_read_its_answer_loses_its_place_to_the_next_request(soon_stalled: str) -> None:
    pipelined = head("/openapi.json", method="GET") * 100
    with ExitStack() as stack:
        deaf = [stack.enter_context(connect(soon_stalled, receive_buffer=4096)) for _ in range(8)]
        for connection in deaf:
            connection.sendall(pipelined)
        wait_until(lambda: metric(soon_stalled, "requests_under_way") == 9)
        wait_until(lambda: decide(soon_stalled).status_code == 201)


def bearers(path: Path, count: int) -> list[dict[str, str]]:
    """Return the headers of as many new keys in a store."""
    with closing(SqliteStore(path)) as store:
        made = [create(f"key {number}", ["decide"], 0) for number in range(count)]
        for key, _ in made:
            store.add_api_key(key)
    return [{"Authorization": f"Bearer {shown}"} for _, shown in made]


def test_what_a_key_may_hold_is_counted_across_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ras_triage.service.http.limits.concurrency.STALLED_S", 60.0)
    store = tmp_path / "store.db"
    one, other = bearers(store, 2)
    with running(Settings(store=f"sqlite:///{store}", max_in_flight=12, max_in_flight_per_client=4)) as url, ExitStack() as stack:
        request = head("/v1/decisions", "Content-Length: 1000", f"Authorization: {one['Authorization']}")
        for peer in range(2, 6):
            stall(stack, url, request, 1, f"127.0.0.{peer}")

        def is_refused() -> bool:
            """Another request takes the place of one that came together with this question, and was refused for it."""
            stall(stack, url, request, 1, "127.0.0.6")
            return httpx.post(f"{url}/v1/decisions", json=EVENT, headers=one).status_code == 503

        wait_until(is_refused)

        assert httpx.post(f"{url}/v1/decisions", json=EVENT, headers=other).status_code == 201


def test_behind_a_trusted_proxy_the_share_is_that_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ras_triage.service.http.limits.concurrency.STALLED_S", 60.0)
    settings = Settings(max_in_flight=12, max_in_flight_per_client=4, trusted_proxies=("127.0.0.1",))
    with running(settings) as url, ExitStack() as stack:
        request = head("/v1/decisions", "Content-Length: 1000", "X-Forwarded-For: 192.0.2.1")
        stall(stack, url, request, 4)
        attacker, other = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
        wait_until(lambda: httpx.post(f"{url}/v1/decisions", json=EVENT, headers=attacker).status_code == 503)

        assert httpx.post(f"{url}/v1/decisions", json=EVENT, headers=other).status_code == 201


def test_events_of_batches_that_are_not_complete_count_as_memory_that_is_held() -> None:
    settings = Settings(max_in_flight_bytes=300_000, max_body_bytes=200_000)
    with running(settings) as url, ExitStack() as stack:
        first = stack.enter_context(connect(url))
        first.sendall(BATCH + chunk(SMALL + b"x" * 190_000))
        read_until(first, b"action")
        second = stack.enter_context(connect(url))
        second.sendall(BATCH + chunk(b"x" * 190_000))
        answer = read_until(second, b"}")
        assert problem(answer)[:2] == (503, "busy")
        first.sendall(chunk(b"\n") + b"0\r\n\r\n")
        assert b"invalid-json" in read_until(first, b"0\r\n\r\n")
        third = stack.enter_context(connect(url))
        third.sendall(BATCH + chunk(b"x" * 190_000) + chunk(b"\n") + b"0\r\n\r\n")
        assert b"invalid-json" in read_until(third, b"0\r\n\r\n")
        assert not is_closed(third)
