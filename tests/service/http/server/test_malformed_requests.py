"""Malformed requests to a real server: one problem, then a closed connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.service.support.raw_connections import connect, head, metric, problem, read_until, received, responses, wait_until

SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /v1/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BATCH = head("/v1/decisions/batch", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(Settings(max_header_bytes=4096)) as url:
        yield url


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400, "not-http"),
        (POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED, 400, "not-http"),
        (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED, 400, "not-http"),
        (POST + b"X: a\r\n\tb\r\n\r\n" + SMUGGLED, 400, "not-http"),
        (POST + b"Content-Length: 0\n\r\n" + SMUGGLED, 400, "not-http"),
        (b"GET /healthz HTTP/1.1\nHost: 127.0.0.1\n\n" + SMUGGLED, 400, "not-http"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\n" + SMUGGLED, 400, "not-http"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 501, "unsupported-transfer-coding"),
        (b"GET /healthz HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n" + SMUGGLED, 505, "unsupported-http-version"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, 505, "unsupported-http-version"),
        (b"GET /healthz\r\n\r\n" + SMUGGLED, 400, "not-http"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 8192, 431, "headers-too-large"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 8192 + b"\r\n\r\n", 431, "headers-too-large"),
    ],
)
def test_a_malformed_head_is_refused_and_what_follows_is_not_answered(url: str, sent: bytes, status: int, kind: str) -> None:
    with connect(url) as connection:
        connection.sendall(sent)
        answer = received(connection) if not sent.endswith(b"y\r\n\r\n") else read_until(connection, b"}")

    assert problem(answer)[:2] == (status, kind)


def test_a_malformed_head_behind_a_good_request_is_refused_too(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(SMUGGLED + POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + SMUGGLED)
        first, second = received(connection).split(b"HTTP/1.1 ")[1:]

    assert first.startswith(b"200")
    assert second.startswith(b"400")


def test_a_head_that_comes_in_pieces_is_checked_as_a_whole(url: str) -> None:
    with connect(url) as connection:
        for piece in (POST, b"Content-Length: 1\r", b"\nContent-Length: ", b"2\r\n", b"\r\n"):
            connection.sendall(piece)
        assert problem(received(connection))[0] == 400


def test_trailer_fields_are_refused(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(BATCH + b"0\r\nX: a\n b\n\n" + SMUGGLED)
        answer = received(connection)

    assert responses(answer) == 1
    assert problem(answer)[:2] == (400, "not-http")


@pytest.mark.parametrize("chunk", [b"2\nxx\r\n", b"2\r\nxxx\r\n", b"-1\r\n", b"0x2\r\nxx\r\n", b"1" * 21 + b"\r\n", b"\r\n"])
def test_a_malformed_chunk_is_refused(url: str, chunk: bytes) -> None:
    with connect(url) as connection:
        connection.sendall(BATCH + chunk + b"\r\n" * 2 + b"0\r\n\r\n" + SMUGGLED)
        answer = received(connection)

    assert responses(answer) == 1
    assert problem(answer)[:2] == (400, "not-http")


def test_a_malformed_chunk_ends_a_batch_whose_results_are_on_their_way_at_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with connect(url) as connection:
        connection.sendall(BATCH + b'1a\r\n{"notification":"polled"}\n\r\n')
        read_until(connection, b"action")
        connection.sendall(b"zz\r\n")
        received(connection)
        wait_until(lambda: metric(url, "requests_under_way") == 1, 3)

    assert "Exception" not in caplog.text
    assert "defect" not in caplog.text


def test_requests_of_http_1_0_are_answered(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")


def test_malformed_requests_are_counted_and_do_not_fill_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    before = metric(url, "problems_total", type="not-http")
    for _ in range(50):
        with connect(url) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            received(connection)

    wait_until(lambda: metric(url, "problems_total", type="not-http") == before + 50)
    assert metric(url, "closed_connections_total", reason="malformed") >= 50
    assert 0 < [record.getMessage() for record in caplog.records].count("malformed request") < 30
