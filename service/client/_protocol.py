"""Retry, batch and stream protocol of the client, without I/O.

A flow is a generator. It yields effects (open a request, read bytes, pause), is sent their results, and emits the results of the call;
a network error is thrown into it. `_sync` and `_async` perform the effects.
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
from ras_triage.service.client.chunk_state import ChunkState
from ras_triage.service.client.chunks import Chunk
from ras_triage.service.client.errors import (
    ClientError,
    ProblemResponse,
    UnexpectedResponse,
    Unreachable,
    problem_response,
    read_problem,
    unreachable,
)
from ras_triage.service.client.limits import MAX_PROBLEM_BYTES, ResponseLimits
from ras_triage.service.client.retry import TRANSIENT, Retry, is_retryable_error, is_retryable_status

T = TypeVar("T")

RECONNECT_S = 1.0
"""Shortest pause before a stream is reopened, unless the service sets another (`retry:`)."""

STREAM_TIMEOUT_S = 60.0
"""Seconds without a byte, not even a heartbeat, after which a stream counts as broken."""

BATCH_TIMEOUT_S = 120.0
"""The same for a batch: its results come as fast as the rate limit of the key allows."""


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request, without the defaults of the client."""

    method: str
    path: str
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    response_type: str = "application/json"
    """Expected media type of the response; a proxy may send another, such as HTML."""
    idempotent: bool = True
    """Whether the request is idempotent."""
    read_timeout_s: float | None = None
    """Read timeout in seconds; None: that of the client."""


@frozen
class OpenRequest:
    """Send a request; the result is an `httpx.Response` whose body was not read."""

    request: ClientRequest


@frozen
class ReadBytes:
    """Read more of the response body; the result is bytes, or None at its end."""


@frozen
class NextEvent:
    """Read the next server-sent event; the result is None at the end."""


@frozen
class Pause:
    """Wait before a retry."""

    seconds: float
    failure: ClientError
    """The reason."""


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Return a result to the caller."""

    result: T


Effect = OpenRequest | ReadBytes | NextEvent | Pause
ProtocolFlow = Generator[Effect | Emit[T], Any, None]
ProtocolSteps = Generator[Effect, Any, T]
"""Part of a flow that emits nothing and returns a value."""


class FlowExecution(Generic[T]):
    """Execution of a flow: the client sets `reply` or `error` after each effect."""

    def __init__(self, flow: ProtocolFlow[T]) -> None:
        self._flow = flow
        self.reply: Any = None
        self.error: httpx.RequestError | None = None

    def resume(self) -> Effect | Emit[T] | None:
        """Resume the flow with the reply or error. Return its next effect or result; None at its end."""
        reply, error, self.reply, self.error = self.reply, self.error, None, None
        try:
            return self._flow.send(reply) if error is None else self._flow.throw(error)
        except StopIteration:
            return None


class _Failures:
    """Consecutive failures of a request."""

    def __init__(self, retry: Retry, *, idempotent: bool) -> None:
        self.retry = retry
        self.idempotent = idempotent
        self.count = 0

    def pause_s(self, failure: ClientError) -> float:
        """Return the seconds until the retry. Raises the failure if there is none."""
        self.count += 1
        wanted_s = failure.retry_after_s if isinstance(failure, ProblemResponse) else None
        pause = self.retry.pause_s(self.count, wanted_s) if self._is_retryable(failure) else None
        if pause is None:
            raise failure
        return pause

    def _is_retryable(self, failure: ClientError) -> bool:
        if isinstance(failure, ProblemResponse):
            return is_retryable_status(failure.problem.status, idempotent=self.idempotent)
        return is_retryable_error(failure.__cause__, idempotent=self.idempotent)


@dataclass(frozen=True, slots=True)
class CompleteResponse:
    """A response whose body was read to its end."""

    headers: httpx.Headers
    body: bytes


def _require_type(response: httpx.Response, request: ClientRequest) -> None:
    """Raise UnexpectedResponse for a response of another media type."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != request.response_type:
        raise UnexpectedResponse(f"unexpected media type `{media_type}`; expected `{request.response_type}`")


def complete_response(request: ClientRequest, retry: Retry, limits: ResponseLimits) -> ProtocolSteps[CompleteResponse]:
    """Return the response, after retries. Raises ProblemResponse, Unreachable, UnexpectedResponse."""
    failures = _Failures(retry, idempotent=request.idempotent)
    while True:
        failure: ClientError
        try:
            response: httpx.Response = yield OpenRequest(request)
            if response.is_success:
                body = yield from _read_body(limits)
                if body:
                    _require_type(response, request)
                return CompleteResponse(response.headers, body)
            failure = yield from _read_problem(response)
        except httpx.RequestError as error:
            failure = unreachable(error)
        yield Pause(failures.pause_s(failure), failure)


def _read_body(limits: ResponseLimits) -> ProtocolSteps[bytes]:
    """Return the whole body. Raises UnexpectedResponse."""
    body = bytearray()
    while (part := (yield ReadBytes())) is not None:
        body += part
        if len(body) > limits.body_bytes:
            raise UnexpectedResponse(f"response body longer than {limits.body_bytes} bytes")
    document = bytes(body)
    limits.require_values(document)
    return document


def _read_problem(response: httpx.Response) -> ProtocolSteps[ProblemResponse]:
    """Return the problem of a response; from the status alone if the body is too long or cannot be decoded."""
    body = bytearray()
    try:
        while len(body) <= MAX_PROBLEM_BYTES and (part := (yield ReadBytes())) is not None:
            body += part
    except httpx.DecodingError:
        body.clear()
    return problem_response(response, bytes(body) if len(body) <= MAX_PROBLEM_BYTES else b"")


def batch_results(request: ClientRequest, chunk: Chunk, answered: int, retry: Retry, limits: ResponseLimits) -> ProtocolFlow[bytes]:
    """Emit the results of the events of a chunk from `answered` on, a line each, in order.

    After an interruption the request is repeated without the events that have their result; every event keeps its key and position, by
    which the service recognises it. A transient problem counts as an interruption. An event that keeps the service from responding is
    identified and has a problem as its result. Raises ProblemResponse, Unreachable, UnexpectedResponse.
    """
    failures = _Failures(retry, idempotent=True)
    state = ChunkState(chunk, answered)
    while not state.is_done:
        before = state.known
        lines = state.begin()
        try:
            failure = yield from _attempt(replace(request, content=b"\n".join(lines) + b"\n"), len(lines), state, limits)
        except httpx.RequestError as error:
            failure = unreachable(error)
        for line in state.end(failure, state.known > before):
            yield Emit(line)
        if failure is None or state.is_done:
            continue
        if state.known > before:
            failures.count = 0
        if not state.narrow(failure):
            yield Pause(failures.pause_s(failure), failure)


def _attempt(
    request: ClientRequest, expected: int, state: ChunkState, limits: ResponseLimits
) -> Generator[Effect | Emit[bytes], Any, ClientError | None]:
    """Send a request once and emit new results. Return why results are missing, or None."""
    response: httpx.Response = yield OpenRequest(request)
    if not response.is_success:
        return (yield from _read_problem(response))
    _require_type(response, request)
    lines = _Lines(limits)
    place = 0
    transient: ClientError | None = None
    part: bytes | None = b""
    while part is not None:
        part = yield ReadBytes()
        for line in lines.rest() if part is None else lines.add(part):
            if place == expected:
                raise UnexpectedResponse(f"more results than the {expected} events that were sent")
            if state.wants(place):
                if (problem := _transient_problem(line)) is not None:
                    transient = transient or ProblemResponse(problem, retry_after_s=problem.retry_after_s)
                else:
                    for result_line in state.take(place, line):
                        yield Emit(result_line)
            place += 1
    return transient if place == expected else Unreachable(f"the response ended after {place} of {expected} events")


class _Lines:
    """Splitter of bytes into lines. Only LF ends a line: JSON strings may have other separators. Raises UnexpectedResponse."""

    def __init__(self, limits: ResponseLimits) -> None:
        self._limits = limits
        self._rest = bytearray()
        self._blank = 0
        """Bytes of blank lines since the last line: a broken service could send them endlessly."""

    def add(self, part: bytes) -> Iterator[bytes]:
        """Yield the lines that end in this part, except blank ones."""
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
            raise UnexpectedResponse(f"line longer than {self._limits.line_bytes} bytes in a response")

    def rest(self) -> Iterator[bytes]:
        """Yield the last line if it is complete JSON without a line feed."""
        line = bytes(self._rest)
        self._limits.require_values(line)
        if _parsed(line) is not None:
            yield line


def _parsed(line: bytes) -> Any:
    try:
        return from_json(line)
    except ValueError:
        return None


def _transient_problem(line: bytes) -> Problem | None:
    """Return the problem on a line if it is transient, else None."""
    if b'"status":' not in line:
        return None
    content = _parsed(line)
    if not isinstance(content, dict) or "type" not in content or content.get("status") not in TRANSIENT:
        return None
    return read_problem(content["status"], line)


def watch_stream(
    request: ClientRequest, last_event_id: str | None, read: Callable[[ServerSentEvent], T | None], retry: Retry, limits: ResponseLimits
) -> ProtocolFlow[T]:
    """Emit the events of a stream as values of `read`. The stream is reopened after the last event whenever it ends.

    Raises ProblemResponse, Unreachable, UnexpectedResponse.
    """
    failures = _Failures(retry, idempotent=True)
    last_id = last_event_id
    reconnect_s = min(RECONNECT_S, retry.longest_s)
    while True:
        failure: ClientError = Unreachable("the stream ended")
        try:
            response: httpx.Response = yield OpenRequest(_resumed(request, last_id))
            if response.is_success:
                _require_type(response, request)
                failures.count = 0
                while (event := (yield NextEvent())) is not None:
                    last_id = _require_event_id(event.id) or last_id
                    reconnect_s = reconnect_s if event.retry is None else _reconnect_s(event.retry, retry.longest_s)
                    limits.require_values(event.data.encode())
                    if (result := read(event)) is not None:
                        yield Emit(result)
            else:
                failure = yield from _read_problem(response)
        except SSEError as error:
            raise UnexpectedResponse(str(error)) from error
        except httpx.RequestError as error:
            failure = unreachable(error)
        yield Pause(max(failures.pause_s(failure), reconnect_s), failure)


def _reconnect_s(milliseconds: int, longest_s: float) -> float:
    """Return the seconds that a stream's `retry:` asks a reader to wait, at most the longest pause."""
    return max(milliseconds, 0) / 1000 if milliseconds <= longest_s * 1000 else longest_s


def _require_event_id(event_id: str) -> str:
    """Return an event id. Raises UnexpectedResponse for one that a header cannot carry."""
    if not can_be_event_id(event_id):
        raise UnexpectedResponse("the id of a server-sent event is not printable ASCII")
    return event_id


def can_be_event_id(text: str) -> bool:
    """Return whether a header can carry the text as `Last-Event-ID`."""
    return text.isascii() and text.isprintable()


def _resumed(request: ClientRequest, event_id: str | None) -> ClientRequest:
    """Return the request for the stream after an event, or from now on."""
    return request if event_id is None else replace(request, headers={**request.headers, "last-event-id": event_id})
