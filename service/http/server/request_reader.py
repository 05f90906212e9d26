"""Reader of the requests of one connection: heads and framed bodies."""

from __future__ import annotations

from typing import Final

import httptools

from ras_triage.service.api.problems import Problem, headers_too_large, malformed_head, malformed_request
from ras_triage.service.http.server.request_head import HeadFault, RequestHead, head_length, parse_head

_CHUNKED_HEAD: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
"""A head for the parser of chunked bodies, which expects one."""

_CHUNKED_END: Final = b"\r\n\r\n"
"""The last bytes of a chunked body; the data of its chunks may have them as well."""


class MalformedRequest(Exception):
    """The input is not a request that the service accepts; where the next one would begin is unknown."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class RequestReader:
    """Splits input into heads and bodies."""

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._input = b""
        """What has not been read: an incomplete head, or further requests."""
        self._searched = 0
        """Bytes of it that do not contain the end of a head."""
        self._left = 0
        """Bytes that the body lacks."""
        self._chunked: _ChunkedBody | None = None

    def receive(self, data: bytes) -> None:
        """Add input."""
        self._input = self._input + data if self._input else data

    @property
    def has_input(self) -> bool:
        """Whether there is input that has not been read."""
        return bool(self._input)

    @property
    def in_body(self) -> bool:
        """Whether the body of the last request is incomplete."""
        return self._left > 0 or self._chunked is not None

    def read_head(self) -> RequestHead | None:
        """Return the next head; None: it is incomplete. Raises MalformedRequest."""
        data = self._input
        length = head_length(data, self._searched)
        if not length:
            self._searched = len(data)
            if len(data) > self._max_head_bytes:
                raise MalformedRequest(headers_too_large(self._max_head_bytes))
            return None
        head = parse_head(data[:length])
        if isinstance(head, HeadFault):
            raise MalformedRequest(malformed_head(head.status, head.detail))
        self._input, self._searched = data[length:], 0
        self._left = head.length or 0
        self._chunked = _ChunkedBody() if head.length is None else None
        return head

    def read_body(self) -> bytes:
        """Return what has arrived of the body. Raises MalformedRequest."""
        data = self._input
        if self._chunked is None:
            body, self._input = data[: self._left], data[self._left :]
            self._left -= len(body)
            return body
        body, self._input = self._chunked.read(data)
        if self._chunked.complete:
            self._chunked = None
        return body


class _ChunkedBody:
    """Decoder of a chunked body (RFC 9112 7.1). It refuses trailer fields, which nothing here needs."""

    def __init__(self) -> None:
        self.complete = False
        self._data: list[bytes] = []
        self._in_body = self._has_trailers = False
        self._seam = b""
        """The last bytes so far, in which the end may begin."""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the decoded bytes, and what follows the body. Raises MalformedRequest.

        The parser gets no byte behind the end of the body: it would take that for the next request.
        """
        place = 0
        while place < len(data) and not self.complete:
            end = self._possible_end(data, place)
            self._feed(data[place:end])
            self._seam = (self._seam + data[max(place, end - 3) : end])[-3:]
            place = end
        body = b"".join(self._data)
        self._data.clear()
        return body, data[place:]

    def _possible_end(self, data: bytes, place: int) -> int:
        """Return the first index from `place` on at which the body may end, else the end of `data`."""
        crossing = (self._seam + data[place : place + 3]).find(_CHUNKED_END)
        if crossing >= 0:
            return place + crossing + len(_CHUNKED_END) - len(self._seam)
        found = data.find(_CHUNKED_END, place)
        return len(data) if found < 0 else found + len(_CHUNKED_END)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            raise MalformedRequest(malformed_request()) from None
        if self._has_trailers:
            raise MalformedRequest(malformed_request())

    # Called by the parser.

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self._in_body = True

    def on_header(self, _name: bytes, _value: bytes) -> None:
        """Note a trailer field."""
        self._has_trailers = self._in_body

    def on_body(self, data: bytes) -> None:
        """Add decoded bytes."""
        self._data.append(data)

    def on_message_complete(self) -> None:
        """Note the end."""
        self.complete = True
