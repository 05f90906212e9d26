"""Strict parser of HTTP/1.1 request heads (RFC 9112)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class HeadFault(NamedTuple):
    """Why a request head is refused."""

    status: int
    """HTTP status code: 400, 501 or 505."""
    detail: str


class RequestHead(NamedTuple):
    """A request head."""

    method: str
    target: bytes
    version: str
    """`1.0` or `1.1`."""
    headers: list[tuple[bytes, bytes]]
    """Names are in lower case."""
    length: int | None
    """Bytes of the body; None: it is chunked."""
    keep_alive: bool
    """Whether the client may send another request."""
    expects_continue: bool
    """Whether the client waits for `100 Continue` before it sends the body."""


_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_REQUEST_LINE: Final = _TOKEN + rb" [\x21-\x7e]++ HTTP/1\.[01]"
_FIELD_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
_HEAD: Final = re.compile(_REQUEST_LINE + rb"\r\n(?:" + _TOKEN + rb":" + _FIELD_VALUE + rb"\r\n)*+\r\n")
_FIELD: Final = re.compile(rb"\r\n([^:\r]++):[ \t]*+([^\r]*)")
_END: Final = re.compile(rb"\n\r?\n")
"""The end of a head for a lenient parser: everything up to there is checked."""

_SPLIT_LINE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_VERSION: Final = re.compile(rb"(?P<start>.*) HTTP/(?P<version>\d\.\d)")
_START: Final = re.compile(_TOKEN + rb" [\x21-\x7e]++")
_NAME: Final = re.compile(_TOKEN)
_VALUE: Final = re.compile(_FIELD_VALUE)

_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
"""Up to 2^63, which every proxy between client and service can represent."""


def head_length(data: bytes, searched: int = 0) -> int:
    """Return the length of the head at the start of `data`, the empty line included; 0 if it is incomplete.

    `searched`: bytes that are known not to contain its end.
    """
    found = _END.search(data, max(0, searched - 2))
    return 0 if found is None else found.end()


def parse_head(head: bytes) -> RequestHead | HeadFault:
    """Return a complete request head, or why it must be refused.

    Everything in which recipients are known to differ is refused, because a request that a proxy and this service delimit differently
    smuggles another one (RFC 9112 11.2).
    """
    if _HEAD.fullmatch(head) is None:
        return _malformed(head)
    headers = [(name.lower(), value.rstrip(b" \t")) for name, value in _FIELD.findall(head)]
    method, target, protocol = head[: head.index(b"\r\n")].split(b" ")
    version = protocol[5:].decode()
    lengths, codings = _values(headers, b"content-length"), _values(headers, b"transfer-encoding")
    fault = _check_host(_values(headers, b"host"), version) or _check_framing(lengths, codings, version)
    if fault is not None:
        return fault
    length = None if codings else int(lengths[0]) if lengths else 0
    closes = version == "1.0" or b"close" in _tokens(headers, b"connection")
    expects_continue = version != "1.0" and b"100-continue" in _tokens(headers, b"expect")
    return RequestHead(method.decode(), target, version, headers, length, not closes, expects_continue)


def _values(headers: list[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _tokens(headers: list[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    """Return the elements of a header that is a list (RFC 9110 5.6.1), in lower case."""
    return [token.strip(b" \t").lower() for value in _values(headers, wanted) for token in value.split(b",")]


def _check_host(hosts: list[bytes], version: str) -> HeadFault | None:
    """RFC 9112 3.2."""
    if len(hosts) > 1:
        return HeadFault(400, "more than one `Host`")
    if not hosts and version != "1.0":
        return HeadFault(400, "`Host` is missing")
    return None


def _check_framing(lengths: list[bytes], codings: list[bytes], version: str) -> HeadFault | None:
    """RFC 9112 6.1 to 6.3."""
    if lengths and codings:
        return HeadFault(400, "both `Content-Length` and `Transfer-Encoding`")
    if len(lengths) > 1:
        return HeadFault(400, "more than one `Content-Length`")
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        return HeadFault(400, "`Content-Length` is not a number of bytes below 10^19")
    if codings and version == "1.0":
        return HeadFault(400, "`Transfer-Encoding` in a request of HTTP/1.0")
    if len(codings) > 1:
        return HeadFault(400, "more than one `Transfer-Encoding`")
    if codings and codings[0].lower() != b"chunked":
        return HeadFault(501, "transfer coding other than `chunked`")
    return None


def _malformed(head: bytes) -> HeadFault:
    """Return what is wrong with a head that does not follow the grammar (RFC 9112 2.1 to 2.3 and 5)."""
    if (stray := _SPLIT_LINE.search(head)) is not None:
        return HeadFault(400, f"byte {stray.start()}: a line must end with CR LF")
    first, *lines = head.split(b"\r\n")
    return _check_request_line(first) or next(filter(None, map(_check_field, lines)), HeadFault(400, "malformed request head"))


def _check_request_line(line: bytes) -> HeadFault | None:
    found = _VERSION.fullmatch(line)
    if found is None or _START.fullmatch(found["start"]) is None:
        return HeadFault(400, "malformed request line; expected `METHOD TARGET HTTP/1.1`")
    if found["version"] not in (b"1.0", b"1.1"):
        return HeadFault(505, f"HTTP/{found['version'].decode()} is not supported; expected HTTP/1.1")
    return None


def _check_field(line: bytes) -> HeadFault | None:
    name, colon, value = line.partition(b":")
    if line[:1] in (b" ", b"\t"):
        return HeadFault(400, "a header is continued on another line")
    if not colon and line:
        return HeadFault(400, "a header line has no colon")
    if colon and _NAME.fullmatch(name) is None:
        return HeadFault(400, "a header name is not a token")
    if _VALUE.fullmatch(value) is None:
        return HeadFault(400, "a header value contains a control character")
    return None
