"""Exceptions of the client.

ClientError
 ├ ProblemResponse      the service responded with a problem document
 ├ Unreachable          no complete response, even after retries
 └ UnexpectedResponse   the client cannot read the response
"""

from __future__ import annotations

from http import HTTPStatus

import httpx
from pydantic import ValidationError

from ras_triage.service.api.escaping import escape
from ras_triage.service.api.problems import Problem, problem_adapter
from ras_triage.service.client.retry import retry_after_s

_PHRASES = {status.value: status.phrase.lower() for status in HTTPStatus}

_MAX_CHARACTERS = 1000
"""Characters of an error message."""


class ClientError(Exception):
    """A call failed. The message is one line of at most 1000 characters, with control characters escaped."""

    def __init__(self, text: str) -> None:
        super().__init__(escape(text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"))


class ProblemResponse(ClientError):
    """The service responded with a problem document (RFC 9457)."""

    def __init__(self, problem: Problem, *, request_id: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.title}: {problem.detail}")
        self.problem = problem
        self.request_id = request_id
        """Id of the request in the log of the service."""
        self.retry_after_s = retry_after_s
        """Seconds after which a retry may succeed (`Retry-After`); None if the service does not say."""


class Unreachable(ClientError):
    """No complete response. The network error, if any, is the cause (`__cause__`)."""


class UnexpectedResponse(ClientError):
    """The client cannot read the response: it comes from another service, or a newer one."""


def read_problem(status: int, body: bytes) -> Problem:
    """Return the problem document of a response; without one, as from a proxy, a problem made from the status."""
    try:
        return problem_adapter().validate_json(body)
    except ValidationError:
        title = _PHRASES.get(status, f"status {status}")
        return Problem("about:blank", title, status, f"status {status} without a problem document")


def problem_response(response: httpx.Response, body: bytes) -> ProblemResponse:
    """Return the error for a response that is not a success."""
    problem = read_problem(response.status_code, body)
    headers = response.headers
    return ProblemResponse(problem, request_id=headers.get("x-request-id"), retry_after_s=retry_after_s(headers.get("retry-after")))


def unreachable(error: httpx.RequestError) -> ClientError:
    """Return the error for a network error of httpx."""
    kind = UnexpectedResponse if isinstance(error, httpx.DecodingError) else Unreachable
    failure = kind(str(error) or type(error).__name__)
    failure.__cause__ = error
    return failure
