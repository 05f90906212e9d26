"""Operations for the OpenAPI document, with the bodies of requests and responses."""

from __future__ import annotations

from copy import deepcopy
from http import HTTPStatus
from typing import Any, Final, Literal

from ras_triage.service.api.event_json import BATCH_TYPE, EVENT_TYPE, VERSION
from ras_triage.service.api.problems import MEDIA_TYPE

_REF: Final = "#/components/schemas/{model}"

NDJSON: Final = "application/x-ndjson"

TAGS: Final = (
    {"name": "decisions", "description": "Decide hardware errors, one or many; list, count and follow the decisions that are kept."},
    {
        "name": "hosts",
        "description": "Facts about machines, for events that bring none of their own, and the pages that decisions poisoned.",
    },
    {"name": "decode", "description": "Status blocks, CPER records and HESTs as fields; nothing is decided."},
    {"name": "syndromes", "description": "ESR and VSESR values decoded, and the result of their injection by KVM."},
    {"name": "policies", "description": "What each kernel release and each VMM does, and in what two of them differ."},
    {"name": "replays", "description": "Stored events decided again under another policy, and what changes."},
    {"name": "store", "description": "Size, retention, purges and losses of the store."},
    {"name": "health", "description": "Probes and metrics."},
)
"""Every tag of an operation."""


def json_body(model: str, *, octet_stream: bool = False) -> dict[str, Any]:
    """Return the request body of an operation, by reference to a schema."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _REF.format(model=model)}}}
    if octet_stream:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


CLOUD_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "CloudEvent 1.0 with an event in `data`, or in `data_base64` as JSON; other members are extension attributes",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"type": "string", "enum": [VERSION], "description": "Version of CloudEvents"},
        "id": {"type": "string", "minLength": 1, "maxLength": 256, "description": "Becomes the event's `id`"},
        "source": {"type": "string", "minLength": 1, "maxLength": 256, "description": "Becomes the event's `source`"},
        "type": {"type": "string", "minLength": 1, "description": "Stored with the event"},
        "time": {"type": "string", "format": "date-time", "description": "Becomes the event's `time`"},
        "datacontenttype": {"type": "string", "description": "A JSON media type; absent: `application/json`"},
        "data": {"$ref": _REF.format(model="Event"), "description": "The event"},
        "data_base64": {"type": "string", "contentEncoding": "base64", "description": "The event as JSON, in base64"},
    },
}
"""Schema of an event in a CloudEvent."""


def event_body() -> dict[str, Any]:
    """Return the request body of an operation that takes one event."""
    body = json_body("Event")
    body["requestBody"]["content"][EVENT_TYPE] = {"schema": {"$ref": _REF.format(model="CloudEvent")}}
    return body


def json_response(*models: str, description: str) -> dict[str, Any]:
    """Return the response of a route that writes it itself, as one of the models.

    As a `response_model`, FastAPI would build validators and schemas for all that it consists of, and never use them.
    """
    schemas = [{"$ref": _REF.format(model=model)} for model in models]
    return {
        "description": description,
        "content": {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}},
    }


def lines(model: str, description: str) -> dict[str, Any]:
    """Return the media type of NDJSON, each line of which is a JSON document of a model."""
    items = {"contentMediaType": NDJSON, "contentSchema": {"$ref": _REF.format(model=model)}}
    return {"schema": {"type": "string", "description": description, **items}}


def batch_body() -> dict[str, Any]:
    """Return the request body and responses of the batch operation."""
    event, result = {"$ref": _REF.format(model="Event")}, {"$ref": _REF.format(model="BatchResult")}
    request = {
        "application/json": {"schema": {"type": "array", "items": event}},
        NDJSON: lines("Event", "One `Event` per line, or one CloudEvent with an event"),
        BATCH_TYPE: {"schema": {"type": "array", "items": {"$ref": _REF.format(model="CloudEvent")}}},
    }
    response = {
        "application/json": {"schema": {"type": "array", "items": result}},
        NDJSON: lines("BatchResult", "One `BatchResult` per line, in the order of the events"),
    }
    return {
        "requestBody": {"required": True, "content": request},
        "responses": {
            "200": {"description": "All events were decided", "content": response},
            "207": {"description": "Some events have a problem as their result", "content": response},
        },
    }


_EVENTS: Final = {
    "type": "string",
    "description": "Server-sent events (WHATWG HTML 9.2). `id` is the sequence number for `Last-Event-ID`; `data` is JSON: a `SummaryJson` "
    "in an event `decision`, a `PurgedEvent` in an event `purged`. A comment is sent when nothing else is.",
    "contentMediaType": "text/event-stream",
    "contentSchema": {"anyOf": [{"$ref": _REF.format(model=model)} for model in ("SummaryJson", "PurgedEvent")]},
}

EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": _EVENTS}}}
}

MAX_IDEMPOTENCY_KEY: Final = 255
IDEMPOTENCY: Final = f"Identifies a repeat of this request; 1 to {MAX_IDEMPOTENCY_KEY} characters"


def parameter(name: str, place: Literal["query", "header"], kind: str, description: str) -> dict[str, Any]:
    """Return an optional parameter of an operation, for a route that reads it itself."""
    return {"name": name, "in": place, "required": False, "schema": {"type": kind}, "description": description}


_TEXT: Final = {"type": "string"}


def table(description: str) -> dict[int | str, dict[str, Any]]:
    """Return the response of an operation that returns JSON or CSV; its model is that of the route."""
    return {200: {"description": description, "content": {"text/csv": {"schema": _TEXT}}}}


def linked_table(description: str) -> dict[int | str, dict[str, Any]]:
    """Return the response of an operation with pages of JSON or CSV."""
    link = {"description": 'The next page, `rel="next"`; absent on the last page', "schema": _TEXT}
    return {200: {**table(description)[200], "headers": {"Link": link}}}


TAGGED: Final = {"headers": {"ETag": {"description": "The version, for `If-Match`", "schema": _TEXT}}}
"""Headers of a response with host facts."""

_ETAG: Final = {"ETag": {"description": "Hash of the content, for `If-None-Match`", "schema": _TEXT}}

IMMUTABLE: Final = {"headers": _ETAG}
"""Headers of a response that never changes."""

NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "The response with the `ETag` of `If-None-Match` is still valid", "headers": _ETAG}
}

LOCATED: Final = {"headers": {"Location": {"description": "Path of the decision", "schema": {"type": "string", "format": "uri-reference"}}}}
"""Headers of a response with a new decision."""

_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}

PROBLEM_RESPONSE: dict[int | str, dict[str, Any]] = {"default": {"description": "A problem (RFC 9457)", "content": _PROBLEM}}
"""Default response of every operation; the document adds the status codes."""

_RETRY: Final = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
_RESPONSE_HEADERS: Final = {401: {"WWW-Authenticate": {"description": "The scheme, `Bearer`", "schema": _TEXT}}, 429: _RETRY, 503: _RETRY}
"""Response headers of a status code."""


def describe_problem(status: int) -> dict[str, Any]:
    """Return the description of a problem with a status code."""
    headers = {"headers": _RESPONSE_HEADERS[status]} if status in _RESPONSE_HEADERS else {}
    return {"description": HTTPStatus(status).phrase, **headers, "content": deepcopy(_PROBLEM)}


CONFLICT: dict[int | str, dict[str, Any]] = {409: describe_problem(409)}
