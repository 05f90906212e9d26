"""What a client raises.

ClientError
 ├ ProblemAnswer      the service answered with a problem
 ├ Unreachable        no whole answer came, also not after trying again
 └ UnexpectedAnswer   an answer came that this client cannot read
"""

from __future__ import annotations

from http import HTTPStatus

import httpx
from pydantic import TypeAdapter, ValidationError

from ras_triage.service.api.escaping import escape
from ras_triage.service.api.problems import Problem
from ras_triage.service.client.retry import retry_after_s

_PHRASES = {status.value: status.phrase.lower() for status in HTTPStatus}

_PROBLEM = TypeAdapter(Problem)


_MAX_CHARACTERS = 1000
"""Of an exception's text."""


class ClientError(Exception):
    """The question has no answer. The text is one line, cut to 1000 characters, with control characters as escapes."""

    def __init__(self, text: str) -> None:
        super().__init__(escape(text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"))


class ProblemAnswer(ClientError):
    """The service answered with a problem document (RFC 9457)."""

    def __init__(self, problem: Problem, *, request_id: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.title}: {problem.detail}")
        self.problem = problem
        self.request_id = request_id
        """What the service's log calls the request."""
        self.retry_after_s = retry_after_s
        """Seconds after which the service wants to be asked again; None where it does not say."""


class Unreachable(ClientError):
    """No whole answer came. What the network said is the cause (`__cause__`), where it said something."""


class UnexpectedAnswer(ClientError):
    """What came is no answer that this client knows: another service, or a newer one."""


def read_problem(status: int, body: bytes) -> Problem:
    """The problem document; where there is none, as from a proxy, one that only tells the status."""
    try:
        return _PROBLEM.validate_json(body)
    except ValidationError:
        title = _PHRASES.get(status, f"status {status}")
        return Problem("about:blank", title, status, f"the answer has status {status} and no problem document")


def problem_answer(response: httpx.Response, body: bytes) -> ProblemAnswer:
    """What is wrong, from an answer that is no success."""
    problem = read_problem(response.status_code, body)
    headers = response.headers
    return ProblemAnswer(problem, request_id=headers.get("x-request-id"), retry_after_s=retry_after_s(headers.get("retry-after")))


def unreachable(error: httpx.RequestError) -> ClientError:
    """The network's complaint as ours."""
    kind = UnexpectedAnswer if isinstance(error, httpx.DecodingError) else Unreachable
    failure = kind(str(error) or type(error).__name__)
    failure.__cause__ = error
    return failure
