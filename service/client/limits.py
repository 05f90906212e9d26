"""Limits on the answers that a client reads."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx
from httpx_sse import EventSource

from ras_triage.service.api.content_encoding import ContentDecoder, decoder_for
from ras_triage.service.client.errors import UnexpectedAnswer

MAX_PROBLEM_BYTES: Final = 1 << 20
"""Of the body of an answer that is not a success. Of a longer one, such as a proxy's page, only the status is used."""

_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
"""Two line ends in a row, which end a server-sent event (WHATWG HTML 9.2.5)."""

_LONGEST_END: Final = 4
"""Bytes of the longest blank line."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How much of an answer is read before the client gives it up with UnexpectedAnswer. Bytes are counted unpacked."""

    body_bytes: int = 64 << 20
    """Longest body of an answer that is read as a whole."""
    line_bytes: int = 64 << 20
    """Longest line of a batch's answer, blank lines before it included, and longest server-sent event."""
    values: int = 4 << 20
    """JSON values of one document, counted by its commas: each becomes an object that is much larger than its bytes."""

    def require_values(self, document: bytes) -> None:
        """Raise UnexpectedAnswer for a document that may have more values."""
        if document.count(b",") > self.values:
            raise UnexpectedAnswer(f"an answer has more than {self.values} JSON values")


def no_cookies() -> CookieJar:
    """Return a jar that takes nothing: every request would carry what any answer may set."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def unpacked(response: httpx.Response) -> Iterator[bytes]:
    """Return the body in pieces of at most 256 KiB. Raises httpx.DecodingError."""
    if response.is_stream_consumed:  # a transport that answers from memory, as in tests, has unpacked it
        yield from response.iter_bytes()
        return
    pieces = _unpacker_of(response)
    for chunk in response.iter_raw():
        yield from _pieces(pieces, chunk)
    _require_end(pieces)


async def unpacked_async(response: httpx.Response) -> AsyncIterator[bytes]:
    """Return the body in pieces of at most 256 KiB. Raises httpx.DecodingError."""
    if response.is_stream_consumed:
        async for chunk in response.aiter_bytes():
            yield chunk
        return
    pieces = _unpacker_of(response)
    async for chunk in response.aiter_raw():
        for piece in _pieces(pieces, chunk):
            yield piece
    _require_end(pieces)


def _unpacker_of(response: httpx.Response) -> ContentDecoder | None:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    found = decoder_for(encoding)
    if found is None:
        raise httpx.DecodingError(f"the answer has the content encoding `{encoding}`, which was not asked for")
    return found


def _pieces(decoder: ContentDecoder | None, chunk: bytes) -> Iterator[bytes]:
    if decoder is None:
        yield chunk
        return
    pieces = decoder.pieces(chunk)
    while True:
        try:
            piece = next(pieces, None)
        except ValueError as error:
            raise httpx.DecodingError(f"the answer is not packed as its content encoding says: {error}") from error
        if piece is None:
            return
        yield piece


def _require_end(decoder: ContentDecoder | None) -> None:
    if decoder is not None and not decoder.complete:
        raise httpx.RemoteProtocolError("the answer ended within its packed data")


class _EventGuard:
    """Counts the bytes of a server-sent event as they pass by."""

    def __init__(self, limits: AnswerLimits) -> None:
        self._limit = limits.line_bytes
        self._size = 0
        self._end = b""

    def check(self, part: bytes) -> bytes:
        """Return the part. Raises UnexpectedAnswer where an event is longer than the limit."""
        known = self._end + part
        ends = [found.end() for found in _BLANK_LINE.finditer(known)]
        self._size = len(known) - ends[-1] if ends else self._size + len(part)
        self._end = known[-_LONGEST_END:]
        if self._size > self._limit:
            raise UnexpectedAnswer(f"a server-sent event is longer than {self._limit} bytes")
        return part


class _EventStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a stream of server-sent events, checked by _EventGuard."""

    def __init__(self, parts: Iterator[bytes] | AsyncIterator[bytes], limits: AnswerLimits) -> None:
        self._parts = parts
        self._guard = _EventGuard(limits)

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._parts, Iterator)
        return map(self._guard.check, self._parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._parts, AsyncIterator)
        async for part in self._parts:
            yield self._guard.check(part)


def event_source(parts: Iterator[bytes] | AsyncIterator[bytes], limits: AnswerLimits) -> EventSource:
    """Return the events in an unpacked body. They are UTF-8, whatever the answer says (WHATWG HTML 9.2.5)."""
    return EventSource(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_EventStream(parts, limits)))
