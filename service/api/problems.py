"""Problem documents (RFC 9457) for all errors of requests.

ProblemError        carries a problem to the code that responds with it
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from ras_triage.models.errors import MalformedBytes, known_fields, suggestion
from ras_triage.models.records.guid import SECTION_TYPES
from ras_triage.service.api.escaping import valid_text

MEDIA_TYPE = "application/problem+json"

URN = "urn:ras-triage:problem:"

MAX_ERRORS = 100
"""Largest number of errors in one problem."""

MAX_DETAIL = 300
"""Characters of one error's text, pointer, parameter or field."""

MAX_PROBLEM_DETAIL = 1000
"""Characters of a problem's `detail`."""

MAX_TOKEN = 64
"""Characters of one reference token of a pointer: a member's name may be as long as the request."""

RETRY_S = 1
"""Default of `Retry-After`, in seconds."""

RETRYABLE = (429, 503)
"""Status codes of requests that had no effect and may be retried."""

_MAX_ECHO = 60
_FEW_BYTES = 4096
_COUNTABLE = 10_000
_SUGGESTED = 8
"""Errors of one problem for which the closest known field is suggested: each takes up to half a millisecond."""


def truncate_text(text: str, limit: int = MAX_DETAIL) -> str:
    """Truncate text that may quote input to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def pointer_to(path: Iterable[object]) -> str:
    """Return the JSON pointer (RFC 6901) to a member, with each token and the whole truncated."""
    pointer = ""
    for step in path:
        token = truncate_text(str(step), MAX_TOKEN).replace("~", "~0").replace("/", "~1")
        if len(pointer) + len(token) + len("//…") > MAX_DETAIL:
            return f"{pointer}/…"
        pointer = f"{pointer}/{token}"
    return pointer


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One error and its location. Text is truncated to `MAX_DETAIL` characters, because it may quote input."""

    pointer: str
    """JSON pointer (RFC 6901) into the request; empty: the whole request."""
    detail: str
    """What is wrong, and what would be right."""
    parameter: str | None = None
    """Query parameter, if the error is not in the body."""
    offset: int | None = None
    """Offset in bytes into the decoded base64 value at the pointer, or into the body."""
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
    """Two different events with one id."""

    decision: str
    """Id of the decision of the first event."""
    first_event_key: str
    """Event key of the first event."""
    event_key: str
    """Event key of the event in this request."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457), at most about 100 KB long: its texts and lists are bounded."""

    type: str
    """Stable URI."""
    title: str
    """The type in words."""
    status: int
    """HTTP status code."""
    detail: str
    """What is wrong with this request."""
    errors: tuple[ErrorDetail, ...] = ()
    """The single errors, at most 100."""
    conflict: Conflict | None = None
    """The two events, if their `id` is the same."""
    retry_after_s: int | None = None
    """`Retry-After` in seconds, for a result without headers of its own: an event of a batch or import."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", truncate_text(self.detail, MAX_PROBLEM_DETAIL))


class ProblemError(Exception):
    """A request failed with a problem."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = dict(headers or {})
        """HTTP headers of the response."""


@lru_cache(maxsize=1)
def problem_adapter() -> TypeAdapter[Problem]:
    """Return the reader and writer of problems. It is built at first use: most commands and clients have none to read or write."""
    return TypeAdapter(Problem)


def problem_json(problem: Problem) -> bytes:
    """Encode a problem."""
    return problem_adapter().dump_json(problem, exclude_none=True)


def with_retry_hint(problem: Problem) -> Problem:
    """Return the problem of one event of a batch with `retry_after_s`, if it can be retried."""
    return replace(problem, retry_after_s=RETRY_S) if problem.status in RETRYABLE and problem.retry_after_s is None else problem


def invalid(error: ValidationError, document: bytes, noun: str, model: type[BaseModel]) -> Problem:
    """Return the problem for a document that is not JSON, or not a valid `noun` (`event`, `request`), which is a `model`.

    The pointers refer to `document`: parts of the error's location that name branches of the validation are left out.
    """
    if error.error_count() > _COUNTABLE:
        return _invalid(noun, (ErrorDetail("", f"{error.error_count()} invalid values"),))
    details = error.errors(include_url=False)
    if details[0]["type"] == "json_invalid":
        return _not_json(details[0], document)
    content = from_json(document)
    explained = (_error_detail(detail, content, model if index < _SUGGESTED else None) for index, detail in enumerate(details[:MAX_ERRORS]))
    return _invalid(noun, tuple(explained))


def invalid_value(noun: str, pointer: str, detail: str) -> Problem:
    """Return the problem for a `noun` (`event`, `host`) with one invalid value."""
    return _invalid(noun, (ErrorDetail(pointer, truncate_text(detail)),))


def _invalid(noun: str, details: tuple[ErrorDetail, ...]) -> Problem:
    more = f", and {len(details) - 1} more" if len(details) > 1 else ""
    where = f"`{details[0].pointer}`: " if details[0].pointer else ""
    return Problem(f"{URN}invalid-{noun}", f"invalid {noun}", 422, f"{where}{details[0].detail}{more}", details)


def _not_json(error: ErrorDetails, document: bytes) -> Problem:
    message, _, position = str(error["ctx"]["error"]).rpartition(" at line ")
    line, _, column = position.partition(" column ")
    offset = len(document) if message.startswith("EOF") else _offset(document, int(line), int(column))
    reason = "unexpected end of the text" if message.startswith("EOF") else _JSON_FAULTS.get(message, message)
    if document.startswith(BOM_UTF8):
        reason = "byte order mark; expected JSON in UTF-8 without one"
    detail = f"byte {offset}: {reason}"
    return Problem(f"{URN}invalid-json", "invalid JSON", 400, detail, (ErrorDetail("", detail, offset=offset),))


_JSON_FAULTS: Final = {
    "expected value": "expected a JSON value",
    "expected ident": "invalid literal; expected `true`, `false` or `null`",
}
"""Plain words for messages of the parser."""


def _offset(document: bytes, line: int, column: int) -> int:
    """Return the offset from the start; the parser counts lines, and bytes within a line, from 1."""
    return max(_line_start(document, line) + column - 1, 0)


def _line_start(document: bytes, line: int) -> int:
    """Return the offset of a line, counted from 1, by bisection: a document may have millions of empty lines."""
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


def _error_detail(error: ErrorDetails, document: Any, model: type[BaseModel] | None) -> ErrorDetail:
    """Convert an error; of its location only the parts in the document, since it also names branches of the validation.

    With the model of the document, the closest known name is suggested.
    """
    path: list[object] = []
    node = document
    last = len(error["loc"]) - 1
    for index, part in enumerate(error["loc"]):
        if _has_member(node, part):
            node = node[part]
        elif not (index == last and error["type"] == "missing" and isinstance(node, dict)):
            continue
        path.append(part)
    near = "" if model is None else _suggest_field(error, model) or suggest_value(error, node)
    return ErrorDetail(pointer_to(path), explain_validation_error(error, node) + near)


def _suggest_field(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Return the suggestion for an unknown field of a document; empty for another error."""
    if error["type"] != "extra_forbidden":
        return ""
    return suggestion(str(error["loc"][-1]), known_fields(model, error["loc"][:-1]))


_QUOTED = re.compile("'([^']*)'")
"""Values that pydantic expects."""


def suggest_value(error: ErrorDetails, value: Any) -> str:
    """Return the suggestion for an unknown value where only some are valid; empty for another error."""
    match error["type"], value:
        case "section_type", {"type": str(kind)}:
            return suggestion(kind, SECTION_TYPES)
        case "enum" | "literal_error", str(name):
            return suggestion(name, _QUOTED.findall(error["ctx"]["expected"]))
    return ""


def _has_member(node: Any, part: int | str) -> bool:
    """Return whether a part of a location is a member or element of `node`."""
    if isinstance(node, list):
        return isinstance(part, int) and 0 <= part < len(node)
    return isinstance(node, dict) and part in node


_EXPLANATIONS = {
    "missing": "required field is missing",
    "extra_forbidden": "unknown field",
    "model_type": "should be an object",
    "tuple_type": "should be an array",
    "list_type": "should be an array",
    "dict_type": "should be an object",
    "bytes_type": "should be text in base64 or hexadecimal",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "timezone_aware": "expected a time with its zone, such as `2026-11-22T10:00:00Z`",
}


def explain_validation_error(error: ErrorDetails, value: Any) -> str:
    """Return the message for a validation error."""
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
    echo = _echo(value, quotes_text=kind == "int_type")
    return truncate_text(f"{echo} {message}" if echo and message.startswith("should") else message)


def _echo(value: Any, quotes_text: bool = False) -> str:
    """Return a short value in backticks; empty for a long one. With quotes, text that looks like a number is seen to be text."""
    if isinstance(value, (dict, list)):
        return ""
    written = value if isinstance(value, str) and not quotes_text else to_json(value).decode()
    return f"`{written}`" if 0 < len(written) <= _MAX_ECHO else ""


def malformed(error: MalformedBytes, pointer: str = "") -> Problem:
    """Return the problem for a malformed status block, record or HEST."""
    entry = ErrorDetail(pointer, error.detail, offset=error.offset, section=error.section, field=error.field)
    section = "" if error.section is None else f", section {error.section}"
    detail = f"byte {error.offset}{section}, `{error.field}`: {error.detail}"
    return Problem(f"{URN}malformed-bytes", "malformed bytes", 422, detail, (entry,))


def unknown_policy(detail: str, pointer: str = "", status: int = 422) -> Problem:
    """Return the problem for an unknown policy or kernel release."""
    return Problem(f"{URN}unknown-policy", "unknown policy", status, truncate_text(detail), (ErrorDetail(pointer, truncate_text(detail)),))


def policy_conflict(detail: str) -> Problem:
    """Return the problem for a policy that cannot be stored under its name."""
    return Problem(f"{URN}policy-conflict", "policy conflict", 409, truncate_text(detail))


def invalid_parameter(name: str, detail: str) -> Problem:
    """Return the problem for an unknown query parameter or an invalid value."""
    text = truncate_text(f"query parameter `{name}`: {detail}")
    return Problem(f"{URN}invalid-parameter", "invalid query parameter", 422, text, (ErrorDetail("", text, parameter=truncate_text(name)),))


def invalid_header(name: str, detail: str) -> Problem:
    """Return the problem for an invalid header."""
    text = truncate_text(f"header `{name}`: {detail}")
    return Problem(f"{URN}invalid-header", "invalid header", 400, text, (ErrorDetail("", text),))


def unknown_decision(identity: str) -> Problem:
    """Return the problem for a decision id that is unknown or was purged."""
    return Problem(f"{URN}not-found", "not found", 404, truncate_text(f"no decision `{identity}`; it may have been purged"))


def unknown_replay(identity: str) -> Problem:
    """Return the problem for a replay id that is unknown or was deleted."""
    return Problem(f"{URN}not-found", "not found", 404, truncate_text(f"no replay `{identity}`; it may have been deleted"))


def unknown_source(source: str, version: int | None = None) -> Problem:
    """Return the problem for a source without stored facts, or without this version of them."""
    what = "facts are" if version is None else f"version {version} of the facts is"
    return Problem(f"{URN}not-found", "not found", 404, truncate_text(f"no {what} stored for source `{source}`"))


def precondition_failed(etag: str) -> Problem:
    """Return the problem for a failed `If-Match` or `If-None-Match`."""
    return Problem(f"{URN}precondition-failed", "precondition failed", 412, f"the current version is {etag}")


def too_many_counts(limit: int) -> Problem:
    """Return the problem for statistics with more rows than one response may have."""
    detail = f"more than {limit} counts; use a shorter period, longer buckets or fewer groups"
    return Problem(f"{URN}too-many-counts", "too many counts", 422, detail, (ErrorDetail("", detail, parameter="bucket"),))


def too_large(limit: int) -> Problem:
    """Return the problem for a body or line over the size limit."""
    detail = f"longer than the limit of {limit} bytes"
    return Problem(f"{URN}payload-too-large", "payload too large", 413, detail, (ErrorDetail("", detail),))


def conflict(identity: str | None, source: str | None, key: str, first: str, first_key: str) -> Problem:
    """Return the problem for an id or idempotency key that belongs to a different event."""
    if identity is None:
        pointer, name = "", "this position under this Idempotency-Key"
    else:
        pointer, name = "/id", f"`{identity}` of " + ("no source" if source is None else f"`{source}`")
    detail = truncate_text(f"{name} belongs to another event, decided as {first}: event key {first_key}, not {key}")
    return Problem(f"{URN}conflict", "conflict", 409, detail, (ErrorDetail(pointer, detail),), Conflict(first, first_key, key))


def invalid_batch(detail: str, details: tuple[ErrorDetail, ...] = ()) -> Problem:
    """Return the problem for a batch that cannot be split into items."""
    return Problem(f"{URN}invalid-batch", "invalid batch", 400, detail, details or (ErrorDetail("", detail),))


def unsupported_encoding(encoding: str, known: str) -> Problem:
    """Return the problem for an unknown `Content-Encoding`."""
    detail = truncate_text(f"unsupported content encoding `{encoding}`; expected one of {known}")
    return Problem(f"{URN}unsupported-encoding", "unsupported content encoding", 415, detail)


def malformed_encoding(encoding: str, reason: str) -> Problem:
    """Return the problem for a body that does not match its `Content-Encoding`."""
    detail = truncate_text(f"the body is not valid {encoding}: {reason}")
    return Problem(f"{URN}malformed-encoding", "malformed content encoding", 400, detail, (ErrorDetail("", detail),))


def busy(detail: str) -> Problem:
    """Return the problem for a service that is at its limit."""
    return Problem(f"{URN}busy", "busy", 503, detail)


def store_unavailable() -> Problem:
    """Return the problem for a store that cannot be written or read at the moment."""
    return Problem(f"{URN}store-unavailable", "store unavailable", 503, "the store is unavailable, nothing was stored; see the service log")


def store_damaged() -> Problem:
    """Return the problem for corrupt data in the store; a retry does not help."""
    return Problem(f"{URN}store-damaged", "store damaged", 500, "stored data is corrupt; see the service log")


def query_too_slow() -> Problem:
    """Return the problem for a query that exceeded its time limit."""
    return Problem(f"{URN}query-too-slow", "query too slow", 503, "time limit of the query exceeded; use a shorter period or more filters")


def too_many_values(limit: int) -> Problem:
    """Return the problem for a JSON document with too many values."""
    detail = f"more than {limit} values"
    return Problem(f"{URN}too-many-values", "too many values", 413, detail, (ErrorDetail("", detail),))


_BY_STATUS = {404: ("not-found", "not found"), 405: ("method-not-allowed", "method not allowed")}


def http_problem(status: int, detail: str) -> Problem:
    """Return the problem for an error of the router or server."""
    kind, title = _BY_STATUS.get(status, (f"http-{status}", detail.lower()))
    return Problem(f"{URN}{kind}", title, status, truncate_text(detail))


def malformed_request() -> Problem:
    """Return the problem for a malformed request, or headers far over the limit."""
    return Problem(f"{URN}not-http", "malformed HTTP request", 400, "malformed HTTP/1.1 request, or headers too long")


def malformed_head(status: int, detail: str) -> Problem:
    """Return the problem for a request head that violates RFC 9112, or an unsupported transfer coding or HTTP version."""
    kind, title = _HEAD_PROBLEMS.get(status, ("not-http", "malformed HTTP request"))
    return Problem(f"{URN}{kind}", title, status, detail)


_HEAD_PROBLEMS = {
    501: ("unsupported-transfer-coding", "unsupported transfer coding"),
    505: ("unsupported-http-version", "unsupported HTTP version"),
}


def request_timeout(detail: str) -> Problem:
    """Return the problem for a request that was not complete in time."""
    return Problem(f"{URN}request-timeout", "request timeout", 408, detail, (ErrorDetail("", detail),))


def headers_too_large(limit: int) -> Problem:
    """Return the problem for headers over the size limit."""
    return Problem(f"{URN}headers-too-large", "headers too large", 431, f"the headers are longer than the limit of {limit} bytes")


def rate_limited(rate: float) -> Problem:
    """Return the problem for a client over its rate limit."""
    detail = f"more than {rate:g} events or requests per second with this key"
    return Problem(f"{URN}rate-limited", "rate limited", 429, detail)


def unauthenticated(detail: str) -> Problem:
    """Return the problem for missing or invalid credentials."""
    return Problem(f"{URN}unauthenticated", "not authenticated", 401, truncate_text(detail))


def forbidden(accepted: Sequence[str]) -> Problem:
    """Return the problem for a principal with none of the scopes."""
    return Problem(f"{URN}forbidden", "forbidden", 403, f"scope {' or '.join(f'`{scope}`' for scope in accepted)} is required")


def cross_origin(origin: str) -> Problem:
    """Return the problem for a cross-origin request of a browser."""
    why = "without authentication only pages of the service and of the setting `cors_origins` may make changes"
    return Problem(f"{URN}cross-origin", "cross-origin request", 403, truncate_text(f"cross-origin request from `{origin}`; {why}"))


def refused_preflight(origin: str) -> Problem:
    """Return the problem for a CORS preflight request of an origin that is not allowed."""
    detail = truncate_text(f"origin `{origin}` is not allowed; add it to the setting `cors_origins` to admit its pages")
    return Problem(f"{URN}cross-origin", "cross-origin request", 403, detail)


def misdirected(host: str) -> Problem:
    """Return the problem for a `Host` that is not trusted."""
    detail = truncate_text(f"untrusted host `{host}`; add it to the setting `trusted_hosts` to admit it")
    return Problem(f"{URN}misdirected-request", "misdirected request", 421, detail)


def issuer_unavailable() -> Problem:
    """Return the problem for unavailable public keys of the token issuer."""
    detail = "the token issuer's public keys are unavailable; retry later"
    return Problem(f"{URN}issuer-unavailable", "token issuer unavailable", 503, detail)


def internal() -> Problem:
    """Return the problem for an unexpected exception; details are only in the log."""
    detail = "unexpected error in the service; see the service log"
    return Problem(f"{URN}internal", "internal error", 500, detail)


def unanswered(times: int) -> Problem:
    """Return the problem for an event at which the response broke off repeatedly. Made by the client, not the service."""
    detail = f"the response broke off in all {times} attempts with this event, and not without it"
    return Problem(f"{URN}unanswered", "not answered", 502, detail)


def not_ready(reason: str) -> Problem:
    """Return the problem for a service that is not ready."""
    return Problem(f"{URN}not-ready", "not ready", 503, truncate_text(reason))


def stopping() -> Problem:
    """Return the problem for a request that a shutdown interrupted."""
    detail = "the service is stopping; the request may or may not have been stored: retry"
    return Problem(f"{URN}stopping", "service stopping", 503, detail)


def unreadable(path: str, reason: str) -> Problem:
    """Return the problem for an unreadable file of the command line."""
    return Problem(f"{URN}unreadable-file", "unreadable file", 404, f"`{valid_text(path)}`: {reason}")


def unwritable(reason: str) -> Problem:
    """Return the problem for an error that a format cannot represent."""
    return Problem(f"{URN}unwritable", "not writable", 422, reason)


def unrecognised(detail: str = "expected an event in JSON, or a status block or CPER record as bytes, hexadecimal or base64") -> Problem:
    """Return the problem for a file that a command does not read, or for text whose encoding cannot be told."""
    return Problem(f"{URN}unrecognised-input", "unrecognised input", 415, detail)
