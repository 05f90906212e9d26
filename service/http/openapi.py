"""The OpenAPI document: what FastAPI knows, and the request bodies that routes read themselves."""

from __future__ import annotations

from collections.abc import Iterator
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


def json_body(model: str, *, octet_stream: bool = False) -> dict[str, Any]:
    """An operation's request body, described by a schema of this document."""
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _REF.format(model=model)}}}
    if octet_stream:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": content}}


_BEARER = "An API key (`rt_...`) or a JSON Web Token; not needed where the service has neither keys nor a token issuer"


MAX_IDEMPOTENCY_KEY: Final = 255
IDEMPOTENCY: Final = f"Makes a repeat of this very request recognisable; 1 to {MAX_IDEMPOTENCY_KEY} characters"


def parameter(name: str, place: Literal["query", "header"], kind: str, description: str) -> dict[str, Any]:
    """An operation's optional parameter, for a route that reads it itself."""
    return {"name": name, "in": place, "required": False, "schema": {"type": kind}, "description": description}


def batch_body() -> dict[str, Any]:
    """A batch operation's request body and answers."""
    one, answered = {"$ref": _REF.format(model="Event")}, {"$ref": _REF.format(model="BatchResult")}
    lines = {"type": "string", "description": "One to a line"}
    taken = {"application/json": {"schema": {"type": "array", "items": one}}, "application/x-ndjson": {"schema": lines}}
    given = {"application/json": {"schema": {"type": "array", "items": answered}}, "application/x-ndjson": {"schema": lines}}
    return {
        "requestBody": {"required": True, "content": taken},
        "responses": {
            "200": {"description": "Everything was decided", "content": given},
            "207": {"description": "Some events have their problem in the place of an answer", "content": given},
        },
    }


EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
}

_TEXT: Final = {"type": "string"}

LINKED: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"Link": {"description": 'The next page, `rel="next"`; the last page has none', "schema": _TEXT}}}
}

TAGGED: dict[int | str, dict[str, Any]] = {200: {"headers": {"ETag": {"description": "The version, for `If-Match`", "schema": _TEXT}}}}

_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}

PROBLEM_RESPONSE: dict[int | str, dict[str, Any]] = {"default": {"description": "A problem (RFC 9457)", "content": _PROBLEM}}
"""What every operation answers where it cannot do what was asked; which statuses that can be is told from the operation itself."""

_ALWAYS: Final = (431, 500, 503)
_GUARDED: Final = (401, 403, 421, 429)
_BODY: Final = (400, 408, 413, 415, 422)
_HEADERS: Final = {"idempotency-key": 400, "last-event-id": 400, "if-match": 412}
"""Statuses for a request's headers, where they are read."""

_RETRY: Final = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
_TOLD: Final = {401: {"WWW-Authenticate": {"schema": _TEXT}}, 429: _RETRY, 503: _RETRY}
"""Headers that always come with a status."""

_OPEN: Final = ("/healthz", "/readyz")
"""Paths that nobody needs a key for."""


def problems(path: str, operation: dict[str, Any]) -> Iterator[int]:
    """The statuses of the problems that an operation can answer, beside those that its route names."""
    yield from _ALWAYS
    if path not in _OPEN:
        yield from _GUARDED
    if path.startswith("/v1/"):
        yield 422  # a parameter that is not known
    if "requestBody" in operation:
        yield from _BODY
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            yield 404
        elif parameter["in"] == "header" and parameter["name"] in _HEADERS:
            yield _HEADERS[parameter["name"]]


def _problem_response(status: int) -> dict[str, Any]:
    headers = {"headers": _TOLD[status]} if status in _TOLD else {}
    return {"description": HTTPStatus(status).phrase, **headers, "content": _PROBLEM}


CONFLICT: dict[int | str, dict[str, Any]] = {409: _problem_response(409)}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
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
        _name_problems(document)
        app.openapi_schema = document
    return app.openapi_schema


def _name_problems(document: dict[str, Any]) -> None:
    """Every problem that can be answered, instead of the validation errors of FastAPI's own, which are never sent."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            named = {str(status): _problem_response(status) for status in sorted(set(problems(path, operation)))}
            operation["responses"] = {**named, **operation["responses"]}
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
