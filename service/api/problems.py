"""Everything that can be wrong with a request, as RFC 9457 problem documents.

Refused             carries a problem out of the code that found it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from ras_triage.models.errors import MalformedBytes
from ras_triage.service.api.escaping import valid_text

MEDIA_TYPE = "application/problem+json"

URN = "urn:ras-triage:problem:"

MAX_ERRORS = 100
"""Errors that one problem lists."""

MAX_DETAIL = 300
"""Characters of one error's text, pointer, parameter or field."""

MAX_PROBLEM_DETAIL = 1000
"""Characters of a problem's `detail`."""

MAX_TOKEN = 64
"""Characters of one reference token of a pointer: a member's name may be as long as the request."""

RETRY_S = 1
"""Seconds after which a client may retry, where nothing better is known."""

RETRYABLE = (429, 503)
"""HTTP status codes of requests that had no effect and may succeed later."""

_MAX_ECHO = 60
_FEW_BYTES = 4096
_COUNTABLE = 10_000


def truncate_text(text: str, limit: int = MAX_DETAIL) -> str:
    """Cut text that may repeat input to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def pointer_to(path: Iterable[object]) -> str:
    """Return the JSON pointer (RFC 6901) to a member, each token and the whole shortened."""
    pointer = ""
    for step in path:
        token = truncate_text(str(step), MAX_TOKEN).replace("~", "~0").replace("/", "~1")
        if len(pointer) + len(token) + len("//…") > MAX_DETAIL:
            return f"{pointer}/…"
        pointer = f"{pointer}/{token}"
    return pointer


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One thing that is wrong, and where. Text is cut to `MAX_DETAIL` characters, because it may repeat input."""

    pointer: str
    """JSON pointer into the request (RFC 6901); empty: the request as a whole."""
    detail: str
    parameter: str | None = None
    """Query parameter, where it is not the body that is wrong."""
    offset: int | None = None
    """Bytes: into what the pointed-at base64 or body stands for, or into JSON that is not JSON."""
    section: int | None = None
    """Index of the section in a record or status block."""
    field: str | None = None
    """The specification's name of the field."""

    def __post_init__(self) -> None:
        for name in ("pointer", "detail", "parameter", "field"):
            text: str | None = getattr(self, name)
            if text is not None and len(text) > MAX_DETAIL:
                object.__setattr__(self, name, truncate_text(text))


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two events that go by one name."""

    decision: str
    """Id of the decision made for the first."""
    first_event_key: str
    event_key: str
    """Of the one that was sent now."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457). Its text is bounded: whatever a client sends, a problem is at most about 100 KB."""

    type: str
    """Stable URI."""
    title: str
    status: int
    """HTTP status code."""
    detail: str
    errors: tuple[ErrorDetail, ...] = ()
    conflict: Conflict | None = None
    retry_after_s: int | None = None
    """Seconds, for a result that has no header of its own: an event of a batch or import."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", truncate_text(self.detail, MAX_PROBLEM_DETAIL))


class ProblemError(Exception):
    """What was asked cannot be done."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = dict(headers or {})
        """What HTTP says beside the problem."""


_PROBLEM = TypeAdapter(Problem)


def problem_json(problem: Problem) -> bytes:
    """The document's bytes."""
    return _PROBLEM.dump_json(problem, exclude_none=True)


def with_retry_hint(problem: Problem) -> Problem:
    """Return the problem of one event of a batch, with the time after which sending the event again may succeed."""
    return replace(problem, retry_after_s=RETRY_S) if problem.status in RETRYABLE and problem.retry_after_s is None else problem


def invalid(error: ValidationError, document: bytes, noun: str) -> Problem:
    """JSON that is not JSON, or not an `noun` (`event`, `request`).

    The pointers name what stands in `document`, whichever way the validation took.
    """
    if error.error_count() > _COUNTABLE:
        return _invalid(noun, (ErrorDetail("", f"{error.error_count()} values are not valid"),))
    details = error.errors(include_url=False)
    if details[0]["type"] == "json_invalid":
        return _not_json(details[0], document)
    content = from_json(document)
    return _invalid(noun, tuple(_fault(detail, content) for detail in details[:MAX_ERRORS]))


def _invalid(noun: str, faults: tuple[ErrorDetail, ...]) -> Problem:
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    where = f"`{faults[0].pointer}`: " if faults[0].pointer else ""
    return Problem(f"{URN}invalid-{noun}", f"not a valid {noun}", 422, f"{where}{faults[0].detail}{more}", faults)


def _not_json(error: ErrorDetails, document: bytes) -> Problem:
    message, _, position = str(error["ctx"]["error"]).rpartition(" at line ")
    line, _, column = position.partition(" column ")
    offset = len(document) if message.startswith("EOF") else _offset(document, int(line), int(column))
    reason = "the text ends too early" if message.startswith("EOF") else message
    detail = f"byte {offset}: {reason}"
    return Problem(f"{URN}invalid-json", "not valid JSON", 400, detail, (ErrorDetail("", detail, offset=offset),))


def _offset(document: bytes, line: int, column: int) -> int:
    """Bytes from the start; the parser counts lines and the bytes of a line from 1."""
    return max(_line_start(document, line) + column - 1, 0)


def _line_start(document: bytes, line: int) -> int:
    """Return the offset of a line, counted from 1, by bisection: a document may be millions of empty lines."""
    start, end, ahead = 0, len(document), line - 1
    while end - start > _FEW_BYTES:
        middle = (start + end) // 2
        found = document.count(b"\n", start, middle)
        if found < ahead:
            start, ahead = middle, ahead - found
        else:
            end = middle
    for _ in range(ahead):
        start = document.index(b"\n", start) + 1
    return start


def _fault(error: ErrorDetails, document: Any) -> ErrorDetail:
    """One error, and the part of its location that is in the document: a location also names the branches that validation took."""
    path: list[object] = []
    node = document
    last = len(error["loc"]) - 1
    for index, part in enumerate(error["loc"]):
        if _has_member(node, part):
            node = node[part]
        elif not (index == last and error["type"] == "missing" and isinstance(node, dict)):
            continue
        path.append(part)
    return ErrorDetail(pointer_to(path), explain_validation_error(error, node))


def _has_member(node: Any, part: int | str) -> bool:
    """Whether a part of a location leads further into a document."""
    if isinstance(node, list):
        return isinstance(part, int) and 0 <= part < len(node)
    return isinstance(node, dict) and part in node


_EXPLANATIONS = {
    "missing": "a required field is missing",
    "extra_forbidden": "there is no such field",
    "model_type": "should be an object",
    "tuple_type": "should be an array",
    "list_type": "should be an array",
    "dict_type": "should be an object",
    "bytes_type": "should be text in base64",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
}


def explain_validation_error(error: ErrorDetails, value: Any) -> str:
    """What is wrong with a value, in our words."""
    kind = error["type"]
    if kind in _EXPLANATIONS:
        return _EXPLANATIONS[kind]
    if kind == "value_error":
        return truncate_text(str(error["ctx"]["error"]))
    if kind == "section_type":
        return truncate_text(error["msg"])
    if kind.endswith("too_long"):
        return f"should not be longer than {error['ctx']['max_length']}"
    message = error["msg"].replace("Input should be", "should be").replace("'", "`")
    message = message[0].lower() + message[1:]
    echo = _echo(value)
    return truncate_text(f"{echo} {message}" if echo and message.startswith("should") else message)


def _echo(value: Any) -> str:
    """A short value as it was sent, in backticks; nothing for a long one."""
    if isinstance(value, (dict, list)):
        return ""
    written = value if isinstance(value, str) else to_json(value).decode()
    return f"`{written}`" if 0 < len(written) <= _MAX_ECHO else ""


def malformed(error: MalformedBytes, pointer: str = "") -> Problem:
    """Bytes that are not the status block or record that they are sent as."""
    fault = ErrorDetail(pointer, error.detail, offset=error.offset, section=error.section, field=error.field)
    section = "" if error.section is None else f", section {error.section}"
    detail = f"byte {error.offset}{section}, `{error.field}`: {error.detail}"
    return Problem(f"{URN}malformed-bytes", "malformed bytes", 422, detail, (fault,))


def unknown_policy(detail: str, pointer: str = "", status: int = 422) -> Problem:
    """No policy has the name, or no kernel the release, that was asked for."""
    return Problem(f"{URN}unknown-policy", "unknown policy", status, truncate_text(detail), (ErrorDetail(pointer, truncate_text(detail)),))


def invalid_parameter(name: str, detail: str) -> Problem:
    """A query parameter that is not one, or has no such value."""
    text = truncate_text(f"query parameter `{name}`: {detail}")
    return Problem(
        f"{URN}invalid-parameter", "not a valid query parameter", 422, text, (ErrorDetail("", text, parameter=truncate_text(name)),)
    )


def invalid_header(name: str, detail: str) -> Problem:
    """A header of the request that cannot be used."""
    text = truncate_text(f"header `{name}`: {detail}")
    return Problem(f"{URN}invalid-header", "not a valid header", 400, text, (ErrorDetail("", text),))


def unknown_decision(identity: str) -> Problem:
    """No decision has this id, or it was purged."""
    return Problem(f"{URN}not-found", "not found", 404, truncate_text(f"there is no decision `{identity}`"))


def unknown_source(source: str) -> Problem:
    """Nothing is kept for this source."""
    return Problem(f"{URN}not-found", "not found", 404, truncate_text(f"no facts are kept for `{source}`"))


def precondition_failed(etag: str) -> Problem:
    """Something changed since it was read."""
    return Problem(f"{URN}precondition-failed", "precondition failed", 412, f"the version now is {etag}")


def too_many_counts(limit: int) -> Problem:
    """Statistics with more rows than one answer holds."""
    detail = f"more than {limit} counts: ask for less time, longer buckets or other groups"
    return Problem(f"{URN}too-many-counts", "too many counts", 422, detail, (ErrorDetail("", detail, parameter="bucket"),))


def too_large(limit: int) -> Problem:
    """More bytes than are read for one request or line."""
    detail = f"longer than the {limit} bytes that are read"
    return Problem(f"{URN}payload-too-large", "payload too large", 413, detail, (ErrorDetail("", detail),))


def conflict(identity: str | None, source: str | None, key: str, first: str, first_key: str) -> Problem:
    """An event whose name belongs to another one that was decided before."""
    if identity is None:
        pointer, name = "", "the same place under this Idempotency-Key"
    else:
        pointer, name = "/id", f"`{identity}` of " + ("no source" if source is None else f"`{source}`")
    detail = truncate_text(f"{name} was decided as {first} for another event: {first_key}, not {key}")
    return Problem(f"{URN}conflict", "conflict", 409, detail, (ErrorDetail(pointer, detail),), Conflict(first, first_key, key))


def invalid_batch(detail: str, faults: tuple[ErrorDetail, ...] = ()) -> Problem:
    """A batch whose items cannot be told apart."""
    return Problem(f"{URN}invalid-batch", "not a valid batch", 400, detail, faults or (ErrorDetail("", detail),))


def unsupported_encoding(encoding: str, known: str) -> Problem:
    """A Content-Encoding that is not known here."""
    detail = truncate_text(f"content encoding `{encoding}` is none of {known}")
    return Problem(f"{URN}unsupported-encoding", "unsupported content encoding", 415, detail)


def malformed_encoding(encoding: str, reason: str) -> Problem:
    """A body that is not packed as its Content-Encoding says."""
    detail = truncate_text(f"the body is not {encoding}: {reason}")
    return Problem(f"{URN}malformed-encoding", "malformed content encoding", 400, detail, (ErrorDetail("", detail),))


def busy(detail: str) -> Problem:
    """More is under way than this service takes at once."""
    return Problem(f"{URN}busy", "busy", 503, detail)


def store_unavailable() -> Problem:
    """The store does not take writes, or gives no answer; its own words are in the log."""
    return Problem(
        f"{URN}store-unavailable", "store unavailable", 503, "the store cannot do this now; nothing was acknowledged that is not kept"
    )


def store_damaged() -> Problem:
    """What the store holds cannot be read; asking again will not help."""
    return Problem(f"{URN}store-damaged", "store damaged", 500, "the store's file is damaged there; its own words are in the log")


def query_too_slow() -> Problem:
    """A question about kept decisions that would take too long."""
    return Problem(f"{URN}query-too-slow", "query too slow", 503, "the question took longer than it may: ask for less time or more filters")


def too_many_values(limit: int) -> Problem:
    """A document of more parts than are taken apart."""
    detail = f"more than {limit} values"
    return Problem(f"{URN}too-many-values", "too many values", 413, detail, (ErrorDetail("", detail),))


_BY_STATUS = {404: ("not-found", "not found"), 405: ("method-not-allowed", "method not allowed")}


def http_problem(status: int, detail: str) -> Problem:
    """What the router or server refuses."""
    kind, title = _BY_STATUS.get(status, (f"http-{status}", detail.lower()))
    return Problem(f"{URN}{kind}", title, status, truncate_text(detail))


def not_http() -> Problem:
    """Bytes that are no HTTP request, or one whose headers are much longer than are read."""
    return Problem(f"{URN}not-http", "not HTTP", 400, "this is no request of HTTP/1.1, or its headers are too long to be read")


def malformed_head(status: int, detail: str) -> Problem:
    """A request head that RFC 9112 forbids, of a transfer coding or of a version of HTTP that is not supported."""
    kind, title = _HEAD_PROBLEMS.get(status, ("not-http", "not HTTP"))
    return Problem(f"{URN}{kind}", title, status, detail)


_HEAD_PROBLEMS = {
    501: ("unsupported-transfer-coding", "unsupported transfer coding"),
    505: ("unsupported-http-version", "unsupported HTTP version"),
}


def request_timeout(detail: str) -> Problem:
    """A request that did not come in time."""
    return Problem(f"{URN}request-timeout", "request timeout", 408, detail, (ErrorDetail("", detail),))


def headers_too_large(limit: int) -> Problem:
    """More bytes before the body than are read."""
    return Problem(f"{URN}headers-too-large", "headers too large", 431, f"the headers are longer than the {limit} bytes that are read")


def rate_limited(rate: float) -> Problem:
    """More than one key may ask for."""
    detail = f"more than {rate:g} events or requests per second with this key"
    return Problem(f"{URN}rate-limited", "rate limited", 429, detail)


def unauthenticated(detail: str) -> Problem:
    """Nobody knows who asks."""
    return Problem(f"{URN}unauthenticated", "not authenticated", 401, truncate_text(detail))


def forbidden(scope: str) -> Problem:
    """Who asks is known, and may not."""
    return Problem(f"{URN}forbidden", "forbidden", 403, f"this needs the scope `{scope}`")


def cross_origin(origin: str) -> Problem:
    """A web page of another origin asks, and a browser sent it along."""
    detail = truncate_text(f"a page of `{origin}` may not change anything here while no key is needed")
    return Problem(f"{URN}cross-origin", "cross-origin request", 403, detail)


def misdirected(host: str) -> Problem:
    """The request is for a host that this service is not."""
    return Problem(f"{URN}misdirected-request", "misdirected request", 421, truncate_text(f"this service does not answer as `{host}`"))


def issuer_unavailable() -> Problem:
    """The keys that tokens are checked with cannot be had."""
    detail = "the token issuer's keys cannot be read at the moment"
    return Problem(f"{URN}issuer-unavailable", "token issuer unavailable", 503, detail)


def internal() -> Problem:
    """A defect of this service. It says nothing about what went wrong: the log does."""
    detail = "the service failed; the request was not at fault"
    return Problem(f"{URN}internal", "internal error", 500, detail)


def unanswered(times: int) -> Problem:
    """An event that a service did not answer, although it answered those around it. Made by a client in the event's place."""
    detail = f"the answer broke off each of the {times} times that this event was sent, and not without it"
    return Problem(f"{URN}unanswered", "not answered", 502, detail)


def not_ready(reason: str) -> Problem:
    """Decisions cannot be kept at the moment."""
    return Problem(f"{URN}not-ready", "not ready", 503, truncate_text(reason))


def stopping() -> Problem:
    """The service stops before it could answer."""
    detail = "the service is stopping; whether this was kept is not known, so send it again"
    return Problem(f"{URN}stopping", "service stopping", 503, detail)


def unreadable(path: str, reason: str) -> Problem:
    """A file of the command line that cannot be read."""
    return Problem(f"{URN}unreadable-file", "unreadable file", 404, f"`{valid_text(path)}`: {reason}")


def unwritable(reason: str) -> Problem:
    """An error that a format has no place for."""
    return Problem(f"{URN}unwritable", "not writable", 422, reason)


def unrecognised() -> Problem:
    """A file of the command line that is none of what can be decided."""
    detail = "expected an event in JSON, or a status block or CPER record as bytes, hexadecimal or base64"
    return Problem(f"{URN}unrecognised-input", "unrecognised input", 415, detail)
