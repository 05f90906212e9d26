"""Parser of events in JSON, also in CloudEvents (cloudevents.io, 1.0)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from ras_triage.models.event import Event
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import ProblemError, invalid, invalid_header, invalid_value

EVENT_TYPE: Final = "application/cloudevents+json"
BATCH_TYPE: Final = "application/cloudevents-batch+json"
VERSION: Final = "1.0"

_REQUIRED: Final = ("specversion", "id", "source", "type")
_IDENTITY: Final = ("id", "source", "time")
"""Attributes that an event has, too."""
_PREFIX: Final = b"ce-"
_DATA: Final = ("data", "data_base64")
_CONTENT_TYPE: Final = "datacontenttype"


def read_event(document: bytes) -> Event:
    """Parse and validate an event, which may be in a CloudEvent in structured mode. Raises ProblemError.

    Of an event in a CloudEvent, the pointers in problems refer to the event.
    """
    require_value_limit(document)
    try:
        return Event.model_validate_json(document)
    except ValidationError as error:
        content = _event_in(document)
        if content is None:
            raise ProblemError(invalid(error, document, "event", Event)) from None
    require_value_limit(content)
    try:
        return Event.model_validate_json(content)
    except ValidationError as error:
        raise ProblemError(invalid(error, content, "event", Event)) from None


# CloudEvents


def _event_in(document: bytes) -> bytes | None:
    """Return the event in a CloudEvent, which is its data with its `id`, `source` and `time`; None: not a CloudEvent.

    Raises ProblemError for an invalid CloudEvent.
    """
    if not any(b'"%b"' % name.encode() in document for name in ("specversion", *_DATA)):
        return None
    try:
        content = from_json(document, allow_inf_nan=False)
    except ValueError:
        return None
    if not isinstance(content, dict) or not ("specversion" in content or (set(_DATA) & set(content) and "notification" not in content)):
        return None
    envelope = {name: value for name, value in content.items() if value is not None}
    _require_attributes(envelope)
    return _with_identity(_data(envelope), envelope)


def require_version(document: bytes) -> None:
    """Raise ProblemError for a document that is not a CloudEvent."""
    if b'"specversion"' not in document:
        raise ProblemError(invalid_value("event", "/specversion", f"required attribute is missing; expected `{VERSION}`"))


def _require_attributes(envelope: Mapping[str, Any]) -> None:
    for name in _REQUIRED:
        if name not in envelope:
            raise ProblemError(invalid_value("event", f"/{name}", "required attribute of a CloudEvent is missing"))
        if not isinstance(envelope[name], str) or not envelope[name]:
            raise ProblemError(invalid_value("event", f"/{name}", "should be text of one character or more"))
    if envelope["specversion"] != VERSION:
        raise ProblemError(invalid_value("event", "/specversion", f"unknown version `{envelope['specversion']}`; expected `{VERSION}`"))
    if not _is_json(envelope.get(_CONTENT_TYPE, "application/json")):
        detail = f"`{envelope[_CONTENT_TYPE]}` is not JSON; expected an event as `application/json`"
        raise ProblemError(invalid_value("event", f"/{_CONTENT_TYPE}", detail))


def _is_json(media_type: Any) -> bool:
    if not isinstance(media_type, str):
        return False
    kind = media_type.partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def _data(envelope: Mapping[str, Any]) -> bytes:
    """Return the data as JSON. Raises ProblemError."""
    names = [name for name in _DATA if name in envelope]
    if len(names) != 1:
        raise ProblemError(invalid_value("event", "/data", "expected the event in either `data` or `data_base64`"))
    if names == ["data"]:
        return to_json(envelope["data"])
    try:
        return base64.b64decode(envelope["data_base64"], validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise ProblemError(invalid_value("event", "/data_base64", "not valid base64")) from None


def _with_identity(data: bytes, envelope: Mapping[str, Any]) -> bytes:
    """Return the event with the identity of its envelope; other documents are returned unchanged. Raises ProblemError."""
    try:
        event = from_json(data, allow_inf_nan=False)
    except ValueError:
        return data
    if not isinstance(event, dict):
        return data
    identity = {name: envelope[name] for name in _IDENTITY if name in envelope}
    for name, value in identity.items():
        own = event.get(name)
        if own is not None and own != value and not (name == "time" and _is_same_time(own, value)):
            detail = f"`{own}` differs from the CloudEvent's `{name}`, `{value}`; expected the same or none"
            raise ProblemError(invalid_value("event", f"/{name}", detail))
    return to_json(event | identity)


def _is_same_time(one: Any, other: Any) -> bool:
    try:
        return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    except (TypeError, ValueError):
        return False


# Binary content mode of HTTP


def is_attribute(header: bytes) -> bool:
    """Return whether a header, in lower case, is an attribute of a CloudEvent in binary mode."""
    return header.startswith(_PREFIX)


def envelope_of(headers: Iterable[tuple[bytes, bytes]], body: bytes, inline_limit: int) -> bytes:
    """Return a CloudEvent in binary mode in structured mode. Raises ProblemError for an invalid header.

    A body that is JSON of up to `inline_limit` bytes is `data` there, any other is `data_base64`.
    """
    attributes = dict(_attributes(headers))
    inline = len(body) <= inline_limit and _is_document(body)
    data = b'"data":' + body if inline else b'"data_base64":' + to_json(base64.b64encode(body).decode())
    return (to_json(attributes)[:-1] + b"," + data + b"}") if body else to_json(attributes)


def _attributes(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    seen: set[bytes] = set()
    for header, value in headers:
        if header == b"content-type":
            yield _CONTENT_TYPE, value.decode("latin-1")
        if not is_attribute(header):
            continue
        name = header[len(_PREFIX) :].decode("latin-1")
        if header in seen or name in (*_DATA, _CONTENT_TYPE, ""):
            raise ProblemError(invalid_header(header.decode("latin-1"), "expected each attribute of the CloudEvent once"))
        seen.add(header)
        yield name, _decode(header, value)


def _decode(header: bytes, value: bytes) -> str:
    """Return the text of a header: UTF-8, percent-encoded (HTTP protocol binding 3.1.3.2). Raises ProblemError."""
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise ProblemError(invalid_header(header.decode("latin-1"), "expected percent-encoded UTF-8")) from None


def _is_document(body: bytes) -> bool:
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError:
        return False
    return True
