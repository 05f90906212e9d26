"""OpenAPI document, with the request bodies that routes read themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from ras_triage.models.event import Event
from ras_triage.models.host import Host
from ras_triage.service.api.problems import MEDIA_TYPE, Problem
from ras_triage.service.api.syndromes import SyndromeRequest
from ras_triage.service.engine.responses import DecodeRequest

_REF = "#/components/schemas/{model}"


def json_body(model: str, *, octet_stream: bool = False, examples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the request body of an operation, by reference to a schema; `examples` are JSON requests by name."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _REF.format(model=model)}}}
    if examples is not None:
        content["application/json"]["examples"] = {name: {"value": value} for name, value in examples.items()}
    if octet_stream:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


_BEARER = "An API key (`rt_...`) or a JSON Web Token; not required if the service has neither keys nor a token issuer"

MAX_IDEMPOTENCY_KEY: Final = 255
IDEMPOTENCY: Final = f"Identifies a repeat of this request; 1 to {MAX_IDEMPOTENCY_KEY} characters"


def parameter(name: str, place: Literal["query", "header"], kind: str, description: str) -> dict[str, Any]:
    """Return an optional parameter of an operation, for a route that reads it itself."""
    return {"name": name, "in": place, "required": False, "schema": {"type": kind}, "description": description}


def batch_body() -> dict[str, Any]:
    """Return the request body and responses of the batch operation."""
    event, result = {"$ref": _REF.format(model="Event")}, {"$ref": _REF.format(model="BatchResult")}
    lines = {"type": "string", "description": "One per line"}
    request = {"application/json": {"schema": {"type": "array", "items": event}}, "application/x-ndjson": {"schema": lines}}
    response = {"application/json": {"schema": {"type": "array", "items": result}}, "application/x-ndjson": {"schema": lines}}
    return {
        "requestBody": {"required": True, "content": request},
        "responses": {
            "200": {"description": "All events were decided", "content": response},
            "207": {"description": "Some events have a problem as their result", "content": response},
        },
    }


EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}

_TEXT: Final = {"type": "string"}

LINKED: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"Link": {"description": 'The next page, `rel="next"`; absent on the last page', "schema": _TEXT}}}
}

TAGGED: dict[int | str, dict[str, Any]] = {200: {"headers": {"ETag": {"description": "The version, for `If-Match`", "schema": _TEXT}}}}

_ETAG: Final = {"ETag": {"description": "Hash of the content, for `If-None-Match`", "schema": _TEXT}}

IMMUTABLE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"headers": _ETAG},
    304: {"description": "The response with the `ETag` of `If-None-Match` is still valid", "headers": _ETAG},
}

LOCATED: Final[dict[int | str, dict[str, Any]]] = {
    201: {"headers": {"Location": {"description": "Path of the decision", "schema": {"type": "string", "format": "uri-reference"}}}}
}

_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}

PROBLEM_RESPONSE: dict[int | str, dict[str, Any]] = {"default": {"description": "A problem (RFC 9457)", "content": _PROBLEM}}
"""Default response of every operation; the status codes are added by `problem_statuses`."""

_ALWAYS: Final = (431, 500, 503)
_GUARDED: Final = (401, 403, 421, 429)
_BODY: Final = (400, 408, 413, 415, 422)
_HEADERS: Final = {"idempotency-key": 400, "last-event-id": 400, "if-match": 412}
"""Status codes for invalid request headers."""

_RETRY: Final = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
_RESPONSE_HEADERS: Final = {401: {"WWW-Authenticate": {"schema": _TEXT}}, 429: _RETRY, 503: _RETRY}
"""Response headers of a status code."""

_WITHOUT_AUTHENTICATION: Final = ("/", "/healthz", "/readyz")
"""Paths without authentication."""


def problem_statuses(path: str, operation: dict[str, Any]) -> Iterator[int]:
    """Yield the status codes of the problems of an operation, beside those that its route names."""
    yield from _ALWAYS
    if path not in _WITHOUT_AUTHENTICATION:
        yield from _GUARDED
    if path.startswith("/v1/"):
        yield 422  # unknown parameter
    if "requestBody" in operation:
        yield from _BODY
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            yield 404
        elif parameter["in"] == "header" and parameter["name"] in _HEADERS:
            yield _HEADERS[parameter["name"]]


def _problem_response(status: int) -> dict[str, Any]:
    headers = {"headers": _RESPONSE_HEADERS[status]} if status in _RESPONSE_HEADERS else {}
    return {"description": HTTPStatus(status).phrase, **headers, "content": _PROBLEM}


CONFLICT: dict[int | str, dict[str, Any]] = {409: _problem_response(409)}


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the document, which is made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        bodies = (Event, Host, DecodeRequest, SyndromeRequest)
        _, requests = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF)
        problem = TypeAdapter(Problem).json_schema(ref_template=_REF, mode="serialization")
        result = {"anyOf": [{"$ref": _REF.format(model=model)} for model in ("DecisionResponse", "Problem")]}
        schemas = {**requests["$defs"], **problem.pop("$defs", {}), "Problem": problem, "BatchResult": result}
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}}
        document["security"] = [{"bearer": []}, {}]
        _add_problems(document)
        app.openapi_schema = document
    return app.openapi_schema


def _add_problems(document: dict[str, Any]) -> None:
    """Add the problems of every operation, and remove the validation errors of FastAPI, which are never sent."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            named = {str(status): _problem_response(status) for status in sorted(set(problem_statuses(path, operation)))}
            operation["responses"] = {**named, **operation["responses"]}
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
