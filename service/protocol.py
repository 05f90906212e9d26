"""HTTP/1.1 as uvicorn speaks it, and what is answered to bytes that are none."""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.problems import MEDIA_TYPE, malformed_request, problem_json


class Protocol(H11Protocol):
    """One connection. h11 rather than httptools, which collects a header without end."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - text that is always the same
        """Answer with the problem, and hang up; where another answer has begun, hang up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(self._refusal(problem_json(malformed_request())))
        self.transport.close()

    def _refusal(self, body: bytes) -> bytes:
        headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(body))), ("connection", "close")]
        events = (h11.Response(status_code=400, reason=b"Bad Request", headers=headers), h11.Data(data=body), h11.EndOfMessage())
        return b"".join(self.conn.send(event) or b"" for event in events)
