"""The talk with the service, without the wire: what to do next, depending on what came back.

A flow is a generator. It yields what it wants done, is sent what came of it, and gives results as they are known; a wire error is thrown
into it. What does as it is told is in `blocking` and `awaiting`, which is all in which the two clients differ.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import httpx
from httpx_sse import ServerSentEvent, SSEError
from pydantic_core import from_json

from ras_triage.models.frozen import frozen
from ras_triage.service.api.problems import Problem
from ras_triage.service.client.chunks import Chunk
from ras_triage.service.client.errors import (
    ClientError,
    ProblemAnswer,
    UnexpectedAnswer,
    Unreachable,
    problem_answer,
    read_problem,
    unreachable,
)
from ras_triage.service.client.limits import MAX_PROBLEM_BYTES, AnswerLimits
from ras_triage.service.client.retry import TRANSIENT, Retry, may_ask_again_after_error, may_ask_again_after_status
from ras_triage.service.client.sending import Sending

T = TypeVar("T")

RECONNECT_S = 1.0
"""Shortest pause before a stream is opened again, where the service names no other (`retry:`)."""

SILENCE_S = 60.0
"""A stream that brings nothing for so long, not even a heartbeat, is taken for dead."""

BATCH_SILENCE_S = 120.0
"""A batch is answered as fast as the key's rate limit allows, some dozens of events at a time."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A question."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    answer_type: str = "application/json"
    """Media type of the answer that is known here; from anybody else comes something else, such as a page of HTML."""
    repeatable: bool = True
    """Whether doing it twice is as good as once."""
    silence_s: float | None = None
    """Seconds without a byte after which nothing is expected any more; None: the client's own."""


@frozen
class OpenRequest:
    """Send a question, and come back with the answer's head: `httpx.Response`."""

    request: ClientRequest


@frozen
class ReadBytes:
    """More of the answer's body: bytes, or None at its end."""


@frozen
class NextEvent:
    """The next server-sent event, or None at the end."""


@frozen
class Pause:
    """Wait."""

    seconds: float
    failure: ClientError
    """Why."""


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Hand a result to the caller."""

    result: T


Effect = OpenRequest | ReadBytes | NextEvent | Pause
ProtocolFlow = Generator[Effect | Emit[T], Any, None]
ProtocolSteps = Generator[Effect, Any, T]
"""Part of a flow, which gives nothing and returns something."""


class _Tries:
    """How often in a row a question failed."""

    def __init__(self, retry: Retry, *, repeatable: bool) -> None:
        self.retry = retry
        self.repeatable = repeatable
        self.failures = 0

    def pause_s(self, failure: ClientError) -> float:
        """Seconds until the question is asked again. Raises the failure where it is not."""
        self.failures += 1
        wanted = failure.retry_after_s if isinstance(failure, ProblemAnswer) else None
        pause = self.retry.pause_s(self.failures, wanted) if self._may_ask_again(failure) else None
        if pause is None:
            raise failure
        return pause

    def _may_ask_again(self, failure: ClientError) -> bool:
        if isinstance(failure, ProblemAnswer):
            return may_ask_again_after_status(failure.problem.status, repeatable=self.repeatable)
        return may_ask_again_after_error(failure.__cause__, repeatable=self.repeatable)


@dataclass(frozen=True, slots=True)
class CompleteResponse:
    """An answer that was read to its end."""

    headers: httpx.Headers
    body: bytes


def _require_type(response: httpx.Response, request: ClientRequest) -> None:
    """Raises UnexpectedAnswer."""
    found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != request.answer_type:
        raise UnexpectedAnswer(f"not the answer that was asked for: its type is `{found}` and not `{request.answer_type}`")


def whole(request: ClientRequest, retry: Retry, limits: AnswerLimits) -> ProtocolSteps[CompleteResponse]:
    """The answer, asked for until it comes. Raises ProblemAnswer, Unreachable, UnexpectedAnswer."""
    tries = _Tries(retry, repeatable=request.repeatable)
    while True:
        failure: ClientError
        try:
            response: httpx.Response = yield OpenRequest(request)
            if response.is_success:
                body = yield from _body(limits)
                if body:
                    _require_type(response, request)
                return CompleteResponse(response.headers, body)
            failure = yield from _problem(response)
        except httpx.RequestError as error:
            failure = unreachable(error)
        yield Pause(tries.pause_s(failure), failure)


def _body(limits: AnswerLimits) -> ProtocolSteps[bytes]:
    """Read the whole body. Raises UnexpectedAnswer."""
    body = bytearray()
    while (part := (yield ReadBytes())) is not None:
        body += part
        if len(body) > limits.body_bytes:
            raise UnexpectedAnswer(f"an answer is longer than {limits.body_bytes} bytes")
    document = bytes(body)
    limits.require_values(document)
    return document


def _problem(response: httpx.Response) -> ProtocolSteps[ProblemAnswer]:
    """Read what is wrong: by the status alone where the body is too long or cannot be unpacked."""
    body = bytearray()
    try:
        while len(body) <= MAX_PROBLEM_BYTES and (part := (yield ReadBytes())) is not None:
            body += part
    except httpx.DecodingError:
        body.clear()
    return problem_answer(response, bytes(body) if len(body) <= MAX_PROBLEM_BYTES else b"")


def batch(request: ClientRequest, chunk: Chunk, answered: int, retry: Retry, limits: AnswerLimits) -> ProtocolFlow[bytes]:
    """The answers to a chunk's events, from `answered` on, a line each, in order.

    What was cut off is asked for again, without the events that have their answer; every event keeps its key and position and is
    recognised. An answer that says that the service could not do it now counts as cut off. An event that keeps the service from answering
    at all is told from the others, and has a problem in its place. Raises ProblemAnswer, Unreachable, UnexpectedAnswer.
    """
    tries = _Tries(retry, repeatable=True)
    sending = Sending(chunk.lines, answered)
    while not sending.is_done:
        before = sending.known
        lines = sending.begin()
        try:
            failure = yield from _attempt(replace(request, content=b"\n".join(lines) + b"\n"), len(lines), sending, limits)
        except httpx.RequestError as error:
            failure = unreachable(error)
        for line in sending.end(failure, sending.known > before):
            yield Emit(line)
        if failure is None or sending.is_done:
            continue
        if sending.known > before:
            tries.failures = 0
        if not sending.narrow(failure):
            yield Pause(tries.pause_s(failure), failure)


def _attempt(
    request: ClientRequest, expected: int, sending: Sending, limits: AnswerLimits
) -> Generator[Effect | Emit[bytes], Any, ClientError | None]:
    """Ask once, and give what was not given yet; why it is not everything, or None."""
    response: httpx.Response = yield OpenRequest(request)
    if not response.is_success:
        return (yield from _problem(response))
    _require_type(response, request)
    lines = _Lines(limits)
    place = 0
    passing: ClientError | None = None
    part: bytes | None = b""
    while part is not None:
        part = yield ReadBytes()
        for line in lines.rest() if part is None else lines.add(part):
            if place == expected:
                raise UnexpectedAnswer(f"more answers than the {expected} events that were sent")
            if sending.wants(place):
                if (problem := _passing_problem(line)) is not None:
                    passing = passing or ProblemAnswer(problem, retry_after_s=problem.retry_after_s)
                else:
                    for answer in sending.take(place, line):
                        yield Emit(answer)
            place += 1
    return passing if place == expected else Unreachable(f"the answer ended after {place} of {expected} events")


class _Lines:
    """Bytes as lines. Only the line feed ends one: JSON may have any other separator in a string. Raises UnexpectedAnswer."""

    def __init__(self, limits: AnswerLimits) -> None:
        self._limits = limits
        self._rest = bytearray()
        self._blank = 0
        """Bytes of blank lines since the last line: a service could send them without end."""

    def add(self, part: bytes) -> Iterator[bytes]:
        """The lines that end in this part, without the blank ones."""
        *ended, rest = part.split(b"\n")
        for end in ended:
            line = bytes(self._rest + end) if self._rest else end
            self._rest.clear()
            self._require_length(len(line))
            if line.strip():
                self._limits.require_values(line)
                self._blank = 0
                yield line
            else:
                self._blank += len(line) + 1
        self._rest += rest
        self._require_length(len(self._rest))

    def _require_length(self, size: int) -> None:
        if self._blank + size > self._limits.line_bytes:
            raise UnexpectedAnswer(f"a line of the answer is longer than {self._limits.line_bytes} bytes")

    def rest(self) -> Iterator[bytes]:
        """The last line, where it is whole although nothing ends it."""
        line = bytes(self._rest)
        self._limits.require_values(line)
        if _parsed(line) is not None:
            yield line


def _parsed(line: bytes) -> Any:
    try:
        return from_json(line)
    except ValueError:
        return None


def _passing_problem(line: bytes) -> Problem | None:
    """The problem, where the line is one that may be gone when the event is sent again."""
    if b'"status":' not in line:
        return None
    content = _parsed(line)
    if not isinstance(content, dict) or "type" not in content or content.get("status") not in TRANSIENT:
        return None
    return read_problem(content["status"], line)


def watch(
    request: ClientRequest, last_event_id: str | None, read: Callable[[ServerSentEvent], T | None], retry: Retry, limits: AnswerLimits
) -> ProtocolFlow[T]:
    """What `read` makes of a stream's events. The stream is opened again behind the last one wherever it ends.

    Raises ProblemAnswer, Unreachable, UnexpectedAnswer.
    """
    tries = _Tries(retry, repeatable=True)
    seen = last_event_id
    reconnect_s = min(RECONNECT_S, retry.longest_s)
    while True:
        failure: ClientError = Unreachable("the stream ended")
        try:
            response: httpx.Response = yield OpenRequest(_from(request, seen))
            if response.is_success:
                _require_type(response, request)
                tries.failures = 0
                while (event := (yield NextEvent())) is not None:
                    seen = _require_event_id(event.id) or seen
                    reconnect_s = reconnect_s if event.retry is None else _reconnect_s(event.retry, retry.longest_s)
                    limits.require_values(event.data.encode())
                    if (result := read(event)) is not None:
                        yield Emit(result)
            else:
                failure = yield from _problem(response)
        except SSEError as error:
            raise UnexpectedAnswer(str(error)) from error
        except httpx.RequestError as error:
            failure = unreachable(error)
        yield Pause(max(tries.pause_s(failure), reconnect_s), failure)


def _reconnect_s(milliseconds: int, longest_s: float) -> float:
    """Return the seconds that a stream's `retry:` asks a reader to wait, at most the longest pause."""
    return max(milliseconds, 0) / 1000 if milliseconds <= longest_s * 1000 else longest_s


def _require_event_id(event_id: str) -> str:
    """Return the id. Raises UnexpectedAnswer for one that no header can carry."""
    if not can_be_event_id(event_id):
        raise UnexpectedAnswer("the id of a server-sent event is not printable ASCII")
    return event_id


def can_be_event_id(text: str) -> bool:
    """Return whether a header can carry the text as `Last-Event-ID`."""
    return text.isascii() and text.isprintable()


def _from(request: ClientRequest, event_id: str | None) -> ClientRequest:
    """The stream from behind an event on; without one, from now on."""
    return request if event_id is None else replace(request, headers={**request.headers, "last-event-id": event_id})
