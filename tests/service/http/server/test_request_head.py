"""Request heads: RFC 9112 violations, and agreement with h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.http.server.request_head import HeadFault, RequestHead, head_length, parse_head

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /v1/decisions HTTP/1.1\r\nHost: a\r\n"
END = b"\r\n"

REFUSED = [
    (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400, "both `Content-Length` and `Transfer-Encoding`"),
    (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400, "both"),
    (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n", 400, "more than one `Content-Length`"),
    (POST + b"Content-Length: 5\r\ncontent-length: 5\r\n", 400, "more than one `Content-Length`"),
    (POST + b"Content-Length: 5, 5\r\n", 400, "not a number"),
    (POST + b"Content-Length: +5\r\n", 400, "not a number"),
    (POST + b"Content-Length: -5\r\n", 400, "not a number"),
    (POST + b"Content-Length: 0x5\r\n", 400, "not a number"),
    (POST + b"Content-Length: 5 5\r\n", 400, "not a number"),
    (POST + b"Content-Length:\r\n", 400, "not a number"),
    (POST + b"Content-Length: \xb2\r\n", 400, "not a number"),
    (POST + b"Content-Length: " + b"9" * 20 + b"\r\n", 400, "not a number"),
    (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, "more than one `Transfer-Encoding`"),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n", 501, "transfer coding"),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n", 501, "transfer coding"),
    (POST + b"Transfer-Encoding: identity\r\n", 501, "transfer coding"),
    (POST + b"Transfer-Encoding: \x0bchunked\r\n", 400, "control character"),
    (POST + b"Transfer-Encoding : chunked\r\n", 400, "not a token"),
    (POST + b"Transfer-Encoding: chunked".replace(b"1.1", b"1.0") + b"\r\nX: y\n", 400, "CR LF"),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400, "HTTP/1.0"),
    (GET + b"X: a\r\n b\r\n", 400, "continued on another line"),
    (GET + b"X: a\r\n\tb\r\n", 400, "continued on another line"),
    (b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n", 400, "continued on another line"),
    (GET + b"X: a\r\n \r\n", 400, "continued on another line"),
    (b"GET / HTTP/1.1\nHost: a\n", 400, "byte 14: a line must end with CR LF"),
    (b"GET / HTTP/1.1\r\nHost: a\n", 400, "CR LF"),
    (b"GET / HTTP/1.1\nHost: a\r\n", 400, "CR LF"),
    (GET + b"X: a\rb\r\n", 400, "CR LF"),
    (GET + b"X: a\r\r\n", 400, "CR LF"),
    (GET + b"X: a\0b\r\n", 400, "control character"),
    (GET + b"X: a\x7fb\r\n", 400, "control character"),
    (GET + b"X : a\r\n", 400, "not a token"),
    (GET + b": a\r\n", 400, "not a token"),
    (GET + b"X[]: a\r\n", 400, "not a token"),
    (GET + b"X\r\n", 400, "no colon"),
    (b"GET / HTTP/1.1\r\n", 400, "`Host` is missing"),
    (GET + b"HOST: b\r\n", 400, "more than one `Host`"),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n", 400, "more than one `Host`"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n", 505, "HTTP/2.0 is not supported"),
    (b"GET / HTTP/1.2\r\nHost: a\r\n", 505, "HTTP/1.2 is not supported"),
    (b"GET / HTTP/0.9\r\nHost: a\r\n", 505, "HTTP/0.9 is not supported"),
    (b"PRI * HTTP/2.0\r\n", 505, "HTTP/2.0 is not supported"),
    (b"GET / HTTP/1.10\r\nHost: a\r\n", 400, "request line"),
    (b"GET / HTTP/11\r\nHost: a\r\n", 400, "request line"),
    (b"GET / http/1.1\r\nHost: a\r\n", 400, "request line"),
    (b"GET /\r\nHost: a\r\n", 400, "request line"),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n", 400, "request line"),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n", 400, "request line"),
    (b" GET / HTTP/1.1\r\nHost: a\r\n", 400, "request line"),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n", 400, "request line"),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n", 400, "request line"),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n", 400, "request line"),
    (b"G(T / HTTP/1.1\r\nHost: a\r\n", 400, "request line"),
    (b"\r\n", 400, "request line"),
]


@pytest.mark.parametrize(("head", "status", "reason"), REFUSED)
def test_what_the_grammar_or_the_framing_forbids_is_refused_with_its_reason(head: bytes, status: int, reason: str) -> None:
    fault = parse_head(head + (b"\n" if head.endswith(b"a\n") else END))

    assert isinstance(fault, HeadFault)
    assert (fault.status, reason in fault.detail) == (status, True), fault


ACCEPTED = [
    GET,
    GET + b"X:\r\n",
    GET + b"X:a\r\nY: \t a b\t \r\n",
    GET + b"X: \xff\x80\r\n",
    GET + b"!#$%&'*+.^_`|~0-9A: x\r\n",
    POST + b"Content-Length: 0\r\n",
    POST + b"cOnTent-lEngth:\t9223372036854775807 \r\n",
    POST + b"transfer-encoding: Chunked\r\n",
    POST + b"X-Content-Length: 5\r\nContent-Length: 5\r\n",
    b"GET / HTTP/1.0\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n",
    b"GET http://a/b HTTP/1.1\r\nHost: \r\n",
]


@pytest.mark.parametrize("head", ACCEPTED)
def test_what_the_grammar_allows_is_accepted(head: bytes) -> None:
    assert isinstance(parse_head(head + END), RequestHead)


TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=12).map(str.encode)
VALUE = st.lists(st.sampled_from([bytes([byte]) for byte in (0x09, *range(0x20, 0x7F), *range(0x80, 0x100))]), max_size=20).map(b"".join)
TARGET = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=1, max_size=30).map(str.encode)
FRAMING = (b"host", b"content-length", b"transfer-encoding", b"expect", b"connection", b"upgrade")
FIELDS = st.lists(st.tuples(TOKEN.filter(lambda name: name.lower() not in FRAMING), VALUE), max_size=8)
LENGTH = st.none() | st.integers(0, 1 << 62)


def understood(head: bytes) -> h11.Request | None:
    """What h11 makes of a head; None where it refuses it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request)
    assert connection.trailing_data[0] == b"", "h11 and the check disagree about where the head ends"
    return event


@given(TOKEN, TARGET, FIELDS, LENGTH)
def test_every_well_formed_head_is_accepted_and_read_alike(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], length: int | None
) -> None:
    framing = [] if length is None else [(b"Content-Length", str(length).encode())]
    lines = [b"%s: %s\r\n" % pair for pair in [(b"Host", b"a"), *fields, *framing]]
    head = b"%s %s HTTP/1.1\r\n%s\r\n" % (method, target, b"".join(lines))

    assert head_length(head + b"body") == len(head)
    parsed, request = parse_head(head), understood(head)
    assert isinstance(parsed, RequestHead)
    assert request is not None
    assert (parsed.method.encode(), parsed.target) == (request.method, request.target) == (method, target)
    assert parsed.headers == list(request.headers)
    assert parsed.length == (length or 0)


PARTS = st.sampled_from(
    b"\r\n|\n|\r| |\t|\0|:|Host: a|Content-Length: 5|Content-Length: 5,5|Transfer-Encoding: chunked|Transfer-Encoding: x|"
    b"HTTP/1.1|HTTP/1.0|HTTP/2.0|GET / |x|\xff|\x0b|, |Host".split(b"|")
)


@given(st.lists(PARTS | st.binary(max_size=3), max_size=14).map(b"".join))
def test_what_is_accepted_of_any_bytes_has_one_meaning(mutation: bytes) -> None:
    data = GET + mutation + b"\r\n\r\n"
    head = data[: head_length(data)]
    parsed = parse_head(head)
    if isinstance(parsed, HeadFault):
        return

    assert b"\n" not in head.replace(b"\r\n", b"")
    assert b"\r" not in head.replace(b"\r\n", b"")
    request = understood(head)
    assert request is not None, "h11 refuses what the check accepts"
    names = [name for name, _ in request.headers]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert len(names) == head.count(b"\r\n") - 2
    assert (parsed.headers, parsed.version.encode()) == (list(request.headers), request.http_version)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_head_are_never_a_defect(data: bytes) -> None:
    head = data[: head_length(data)]
    if head:
        parsed = parse_head(head)
        assert isinstance(parsed, RequestHead) or parsed.detail


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_head_ends_where_a_lenient_reader_would_end_it(before: bytes, after: bytes) -> None:
    for end in (b"\n\n", b"\n\r\n"):
        data = before + end + after
        assert 0 < head_length(data) <= len(before) + len(end)
