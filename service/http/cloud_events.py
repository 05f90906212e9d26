"""CloudEvents in requests: content modes and trace context."""

from __future__ import annotations

import re
from typing import Final

from fastapi import Request

from ras_triage.service.api.event_json import BATCH_TYPE, EVENT_TYPE, envelope_of, is_attribute, require_version
from ras_triage.service.api.problems import ProblemError, invalid_header, truncate_text
from ras_triage.service.engine.evaluation import LOOP_BYTES
from ras_triage.service.telemetry import logs, trace_context

_ANY_TYPE: Final = b"application/cloudevents"
_MEMBER: Final = {name: re.compile(rb'"%b"\s*:\s*"([^"\\]{1,512})"' % name) for name in (b"traceparent", b"tracestate")}


def received_event(request: Request, body: bytes) -> bytes:
    """Return the event as it was sent, which may be a CloudEvent; one in binary mode is converted to structured mode.

    The trace context of a CloudEvent is that of the request, if the request has none. Raises ProblemError.
    """
    media_type, has_attributes = b"", False
    headers: list[tuple[bytes, bytes]] = request.scope["headers"]
    for name, value in headers:
        if name == b"content-type":
            media_type = value
        elif is_attribute(name):
            has_attributes = True
    if media_type[: len(_ANY_TYPE)].lower() == _ANY_TYPE:
        _require_type(media_type, EVENT_TYPE, f"`{BATCH_TYPE}` is for `POST /v1/decisions/batch`")
        require_version(body)
        _adopt_trace(body)
        return body
    if not has_attributes:
        return body
    document = envelope_of(headers, body, LOOP_BYTES)
    require_version(document)
    _adopt_trace(document)
    return document


def is_cloud_batch(request: Request) -> bool:
    """Return whether a batch is one of CloudEvents. Raises ProblemError for one in another content mode."""
    media_type = request.headers.get("content-type", "").encode("latin-1")
    if any(is_attribute(name) for name, _ in request.scope["headers"]):
        raise ProblemError(invalid_header("ce-*", f"CloudEvents in binary mode are for `POST /v1/decisions`; expected `{BATCH_TYPE}`"))
    if media_type[: len(_ANY_TYPE)].lower() != _ANY_TYPE:
        return False
    _require_type(media_type, BATCH_TYPE, f"`{EVENT_TYPE}` is for `POST /v1/decisions`")
    return True


def _require_type(media_type: bytes, expected: str, other: str) -> None:
    found = media_type.decode("latin-1").partition(";")[0].strip().lower()
    if found != expected:
        detail = f"unsupported format of CloudEvents `{truncate_text(found)}`; expected `{expected}`; {other}"
        raise ProblemError(invalid_header("Content-Type", detail))


def _adopt_trace(document: bytes) -> None:
    """Use the trace context of the CloudEvent (distributed tracing extension) for the log and for outgoing requests."""
    if trace_context.CURRENT.get() is not None:
        return
    parents, states = (pattern.findall(document) for pattern in _MEMBER.values())
    context = trace_context.read(parents, states)
    if context is not None:
        trace_context.CURRENT.set(context)
        logs.bind(trace_id=context.trace_id)
