"""HTTP/1.1 as uvicorn speaks it, but for how it answers what is none: with a problem, as everything here is answered."""

from __future__ import annotations

import logging
from typing import Any, Final

import h11
from uuid_utils import uuid7
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import logs
from service.headers import security_headers
from service.problems import MEDIA_TYPE, not_http, problem_json

_UNANSWERED: Final = (h11.IDLE, h11.SEND_RESPONSE)


class Protocol(H11Protocol):
    """One connection. Its requests have it as `connection` in their state."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.app_state = {**self.app_state, "connection": self}

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it says what the problem says
        """Answer what cannot be read, unless an answer is under way, and hang up: where the next request begins nobody knows."""
        if self.conn.our_state in _UNANSWERED:
            self._answer()
        self.transport.close()

    def _answer(self) -> None:
        problem, request_id = not_http(), str(uuid7())
        logs.log(logging.WARNING, "not HTTP", request_id=request_id, problem=problem.type, client=self.client[0] if self.client else None)
        body = problem_json(problem)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            *security_headers({"path": "", "scheme": self.scheme or "http"}),
        ]
        start = h11.Response(status_code=problem.status, headers=headers, reason=b"Bad Request")
        for event in (start, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
