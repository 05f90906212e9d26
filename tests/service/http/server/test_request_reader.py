"""Requests in a stream of bytes: heads, framed bodies, and agreement with h11."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.http.server.request_reader import MalformedRequest, RequestReader

Request = tuple[str, bytes, bytes]
"""Method, target and body."""

LIMIT = 4096

METHODS = st.sampled_from(["GET", "POST", "BREW", "PATCH"])
TARGETS = st.sampled_from([b"/", b"/v1/decisions?x=%20", b"*", b"http://a/b"])
BODIES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n\r\n", b"0", b"GET / HTTP/1.1\r\n\r\n"]) | st.binary(max_size=9), max_size=6)


def framed(method: str, target: bytes, chunks: list[bytes] | None, length: bytes | None) -> bytes:
    """A request with a chunked body, or one with a length, or with neither."""
    head = b"%s %s HTTP/1.1\r\nHost: a\r\n" % (method.encode(), target)
    if length is not None:
        return head + b"Content-Length: %d\r\n\r\n%s" % (len(length), length)
    if chunks is None:
        return head + b"\r\n"
    data = b"".join(b"%x;e=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + data + b"0\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Request]:
    method, target, chunks = draw(METHODS), draw(TARGETS), draw(BODIES)
    kind = draw(st.sampled_from(["chunked", "length", "none"]))
    body = b"" if kind == "none" else b"".join(chunks)
    data = framed(method, target, chunks if kind == "chunked" else None, body if kind == "length" else None)
    return data, (method, target, body)


def read(pieces: list[bytes]) -> list[Request]:
    """The requests of a connection whose input arrives in these pieces."""
    reader, found = RequestReader(LIMIT), []
    method, target, body = "", b"", b""
    for piece in pieces:
        reader.receive(piece)
        while True:
            if reader.in_body:
                body += reader.read_body()
                if reader.in_body:
                    break
                found.append((method, target, body))
            elif (head := reader.read_head()) is None:
                break
            else:
                method, target, body = head.method, head.target, b""
                if not reader.in_body:
                    found.append((method, target, body))
    return found


def read_by_h11(data: bytes) -> list[Request]:
    connection, found = h11.Connection(h11.SERVER), []
    connection.receive_data(data)
    while isinstance(request := connection.next_event(), h11.Request):
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage):
            break
        found.append((request.method.decode(), request.target, body))
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()
    return found


@given(st.lists(requests(), max_size=4), st.data())
def test_requests_are_the_same_however_their_bytes_are_divided(sent: list[tuple[bytes, Request]], data: st.DataObject) -> None:
    stream = b"".join(one for one, _ in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert read(pieces) == [request for _, request in sent] == read_by_h11(stream)


CHANGES = st.sampled_from([b"", b"\r\n", b"\n", b"0\r\n", b"g", b"-1", b"fffffffff"])


@given(requests(), st.data())
def test_what_is_read_of_a_changed_body_is_what_h11_reads(sent: tuple[bytes, Request], data: st.DataObject) -> None:
    stream = bytearray(sent[0])
    place = data.draw(st.integers(stream.index(b"\r\n\r\n") + 4, len(stream)))
    stream[place : place + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b"\r\n", b"\n", b"0\r\n", b"g", b"-1", b"fffffffff"])
    )
    try:
        found = read([bytes(stream)])
    except MalformedRequest:
        return
    try:
        expected = read_by_h11(bytes(stream))
    except h11.RemoteProtocolError:
        expected = []
    assert found[:1] == expected[:1] or not expected, "a body that both accept has one meaning"


UNCLEAR = {
    "trailer": b"0\r\nX: y\r\n\r\n",
    "trailer that frames": b"1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no number": b"g\r\n",
    "chunk too long": b"1\r\nab\r\n",
    "size of 65 bits": b"10000000000000000\r\n",
    "bare LF": b"1\na\n0\n\n",
}


@pytest.mark.parametrize("body", UNCLEAR.values(), ids=UNCLEAR)
def test_a_chunked_body_that_recipients_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest) as refused:
        read([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body])
    assert refused.value.problem.status == 400


def test_a_request_to_upgrade_is_read_like_any_other() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
    assert read([head, head]) == [("POST", b"/", b"abc")] * 2


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_head_without_an_end_is_refused_at_the_limit(size: int) -> None:
    reader = RequestReader(LIMIT)
    for _ in range(LIMIT // size):
        reader.receive(b"x" * size)
        assert reader.read_head() is None
    reader.receive(b"x" * size)
    with pytest.raises(MalformedRequest) as refused:
        reader.read_head()
    assert refused.value.problem.status == 431


KEEPS: list[tuple[bytes, Any]] = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, Close\r\n\r\n", False),
    (b"GET / HTTP/1.0\r\n\r\n", False),
]


@pytest.mark.parametrize(("head", "keep_alive"), KEEPS)
def test_a_connection_is_kept_unless_the_client_closes_it(head: bytes, keep_alive: bool) -> None:
    reader = RequestReader(LIMIT)
    reader.receive(head)
    found = reader.read_head()
    assert found is not None
    assert found.keep_alive is keep_alive
