"""Strict check of a raw HTTP/1.1 request head (RFC 9112)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class HeadFault(NamedTuple):
    """Why a request head is refused."""

    status: int
    """HTTP status code: 400, 501 or 505."""
    detail: str


_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_REQUEST_LINE: Final = _TOKEN + rb" [\x21-\x7e]++ HTTP/1\.[01]"
_FIELD_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
_HEAD: Final = re.compile(_REQUEST_LINE + rb"\r\n(?:" + _TOKEN + rb":" + _FIELD_VALUE + rb"\r\n)*+\r\n")
_END: Final = re.compile(rb"\n\r?\n")
"""The end of a head for a lenient parser, such as h11: everything up to there is checked."""

_SPLIT_LINE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_VERSION: Final = re.compile(rb"(?P<start>.*) HTTP/(?P<version>\d\.\d)")
_START: Final = re.compile(_TOKEN + rb" [\x21-\x7e]++")
_NAME: Final = re.compile(_TOKEN)
_VALUE: Final = re.compile(_FIELD_VALUE)

_FRAMING: Final = re.compile(rb"\r\n(content-length|transfer-encoding|host):[ \t]*+([^\r]*)", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
"""Up to 2^63, which every proxy between client and service can represent."""


def head_length(data: bytes) -> int:
    """Return the length of the head at the start of `data`, the empty line included; 0 if it is incomplete."""
    found = _END.search(data)
    return 0 if found is None else found.end()


def check_head(head: bytes) -> HeadFault | None:
    """Return why a complete request head must be refused, or None.

    Everything in which recipients are known to differ is refused, because a request that a proxy and this service delimit differently
    smuggles another one (RFC 9112 11.2).
    """
    if _HEAD.fullmatch(head) is None:
        return _malformed(head)
    fields: dict[bytes, list[bytes]] = {b"host": [], b"content-length": [], b"transfer-encoding": []}
    for name, value in _FRAMING.findall(head):
        fields[name.lower()].append(value.rstrip(b" \t"))
    http_1_0 = head[head.index(b"\r\n") - 1] == b"0"[0]
    return _check_host(fields[b"host"], http_1_0) or _check_framing(fields[b"content-length"], fields[b"transfer-encoding"], http_1_0)


def _check_host(hosts: list[bytes], http_1_0: bool) -> HeadFault | None:
    """RFC 9112 3.2."""
    if len(hosts) > 1:
        return HeadFault(400, "more than one `Host`")
    if not hosts and not http_1_0:
        return HeadFault(400, "`Host` is missing")
    return None


def _check_framing(lengths: list[bytes], codings: list[bytes], http_1_0: bool) -> HeadFault | None:
    """RFC 9112 6.1 to 6.3."""
    if lengths and codings:
        return HeadFault(400, "both `Content-Length` and `Transfer-Encoding`")
    if len(lengths) > 1:
        return HeadFault(400, "more than one `Content-Length`")
    if lengths and _LENGTH.fullmatch(lengths[0]) is None:
        return HeadFault(400, "`Content-Length` is not a number of bytes below 10^19")
    if codings and http_1_0:
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
