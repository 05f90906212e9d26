"""Problem types: the status of each, what it means and what the client should do."""

from __future__ import annotations

from typing import Final, NamedTuple


class ProblemType(NamedTuple):
    """A problem type. Texts are Markdown without a full stop, as they stand in docs/problems.md."""

    name: str
    """`type` without `urn:ras-triage:problem:`."""
    status: int
    meaning: str
    action: str = ""
    """What the client should do; empty: it depends on the request."""


PROBLEM_TYPES: Final = (
    ProblemType("invalid-json", 400, "the body is not JSON; `errors[].offset` is where", "correct the request"),
    ProblemType("invalid-event", 422, "JSON that is not an event", "correct the field at `errors[].pointer`"),
    ProblemType("invalid-host", 422, "JSON that is not host facts", "correct the field at `errors[].pointer`"),
    ProblemType(
        "invalid-request",
        422,
        "JSON that is not a request to `/v1/decode`, `/v1/replays` or `/v1/syndromes`",
        "correct the field at `errors[].pointer`",
    ),
    ProblemType("invalid-policy", 422, "JSON that is not a policy, or an invalid name of one", "correct the field at `errors[].pointer`"),
    ProblemType(
        "policy-conflict",
        409,
        "the name is that of a built-in policy or of a policy file, or too many policies are stored; in a replay: the policy was changed",
        "use another name",
    ),
    ProblemType("invalid-batch", 400, "a batch that is neither a JSON array nor NDJSON", "correct the request"),
    ProblemType("invalid-parameter", 422, "a query parameter that does not exist, or has no such value", "correct the parameter"),
    ProblemType("invalid-header", 400, "a header that cannot be used", "correct the header"),
    ProblemType(
        "malformed-bytes", 422, "bytes that are not a status block, record or HEST; the offset and field say where", "correct the bytes"
    ),
    ProblemType(
        "unknown-policy",
        422,
        "no policy has the name, or the kernel release has no policy; 404 where the path names the policy",
        "use a name of `GET /v1/policies`",
    ),
    ProblemType(
        "too-much-work",
        422,
        "deciding the event would take more steps than `max_workload` ([events.md](events.md#work-limit))",
        "split the event, or raise the setting",
    ),
    ProblemType(
        "too-many-counts", 422, "statistics with more rows than one answer holds", "ask for less time, longer buckets or fewer groups"
    ),
    ProblemType("too-many-values", 413, "a JSON document of more values than are read", "split the document"),
    ProblemType("payload-too-large", 413, "a body, event or file that is too long", "send less, or raise the setting"),
    ProblemType("headers-too-large", 431, "request line and headers are longer than `max_header_bytes`", "send less"),
    ProblemType("unsupported-encoding", 415, "an unknown `Content-Encoding`", "use `gzip` or `zstd`"),
    ProblemType("malformed-encoding", 400, "a body that is not compressed as `Content-Encoding` says", "correct the request"),
    ProblemType(
        "conflict", 409, "another event was decided under the same `source` and `id`, or the same `Idempotency-Key`", "use a new id"
    ),
    ProblemType("precondition-failed", 412, "the facts changed since they were read", "read them again"),
    ProblemType("not-found", 404, "no such path, decision or source"),
    ProblemType("method-not-allowed", 405, "the path has no such method; `Allow` lists them"),
    ProblemType(
        "unauthenticated",
        401,
        "no valid key, token or ticket; `WWW-Authenticate` says which is needed",
        "send a key or token; request a new ticket",
    ),
    ProblemType("forbidden", 403, "the key or token lacks a scope", "use another key or token"),
    ProblemType(
        "cross-origin",
        403,
        "a web page of another origin sent the request, and no key is required; or its origin may not use the service (CORS)",
        "add the origin to `cors_origins` ([security.md](security.md#browsers))",
    ),
    ProblemType("misdirected-request", 421, "`Host` is not in `trusted_hosts`", "correct the name, or add it to the setting"),
    ProblemType("rate-limited", 429, "more requests or events per second than `rate_limit`", "wait for `Retry-After`, then send again"),
    ProblemType("request-timeout", 408, "the request did not come within its time limit", "send again"),
    ProblemType("busy", 503, "too many requests, events or bytes at the same time", "wait for `Retry-After`, then send again"),
    ProblemType("store-unavailable", 503, "the store takes no writes or does not answer", "wait for `Retry-After`, then send again"),
    ProblemType("store-damaged", 500, "stored data is corrupt ([operations.md](operations.md))", "repair the store"),
    ProblemType("query-too-slow", 503, "a list or count that takes too long", "ask for less time, or use more filters"),
    ProblemType("not-ready", 503, "answer of `/readyz`: the service cannot store decisions"),
    ProblemType("stopping", 503, "the service is stopping", "send again"),
    ProblemType("issuer-unavailable", 503, "the keys of the token issuer cannot be read", "send again"),
    ProblemType("internal", 500, "a defect of the service; the log has it", "report the defect"),
    ProblemType("not-http", 400, "a malformed HTTP/1.1 request head", "correct the client"),
    ProblemType("unsupported-transfer-coding", 501, "a transfer coding other than `chunked`", "correct the client"),
    ProblemType("unsupported-http-version", 505, "a version other than HTTP/1.0 and HTTP/1.1", "correct the client"),
    ProblemType(
        "unanswered", 502, "made by the client for an event that the service did not answer ([client.md](client.md))", "report the defect"
    ),
    ProblemType("unreadable-file", 404, "command line: a file cannot be read"),
    ProblemType(
        "unrecognised-input",
        415,
        "a file that the command does not read (where another command reads it, that one is named), or text that could be hexadecimal"
        " or base64",
    ),
    ProblemType("unwritable", 422, "command line: `export` to a format that cannot carry the error", "use another format"),
)
