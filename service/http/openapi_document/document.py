"""OpenAPI document of the application."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, get_args

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from ras_triage.models.event import Event
from ras_triage.models.host import Host
from ras_triage.service.api.decision_response import BatchDecision, BatchProblem, BatchSummary, DecisionResponse
from ras_triage.service.api.error_sources import HestResponse
from ras_triage.service.api.policy_pages import PolicyDefinition
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.replays.replays import Replay, ReplayRequest
from ras_triage.service.api.summaries import SummaryJson
from ras_triage.service.api.syndromes import SyndromeRequest, SyndromeResponse
from ras_triage.service.engine.responses import DecodeRequest
from ras_triage.service.http.openapi import CLOUD_EVENT, TAGS, describe_problem
from ras_triage.service.http.openapi_document.examples import insert_examples
from ras_triage.service.http.openapi_document.schemas import REF, component_schemas
from ras_triage.service.http.openapi_document.streams import ImportLine, PurgedEvent
from ras_triage.service.http.routes.decode import DecodeResponse
from ras_triage.service.http.routes.hosts import HostJson

_REQUESTS: Final = (Event, Host, DecodeRequest, SyndromeRequest, PolicyDefinition, ReplayRequest)
"""Bodies that routes read themselves."""

_RESPONSES: Final = (
    BatchDecision, BatchProblem, BatchSummary, DecisionResponse, DecodeResponse, HestResponse, HostJson, SyndromeResponse, Problem,
    SummaryJson, PurgedEvent, ImportLine, Replay,
)  # fmt: skip
"""Responses that routes write themselves, and the lines and events of those that are streamed."""

_UNIONS: Final = {
    "BatchResult": (
        "The decision of an event, its summary with `view=summary`, or the problem with it.",
        BatchDecision | BatchSummary | BatchProblem,
    ),
    "ImportLine": ("A line of the response to an import.", ImportLine),
}
"""Unions with a name, and their descriptions."""

_LICENSE: Final = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_BEARER: Final = "An API key (`rt_...`) or a JSON Web Token; not required if the service has neither keys nor a token issuer"

_ALWAYS: Final = (431, 500, 503)
_GUARDED: Final = (401, 403, 421, 429)
_BODY: Final = (400, 408, 413, 415, 422)
_HEADERS: Final = {"idempotency-key": 400, "last-event-id": 400, "if-match": 412}
"""Status codes for invalid request headers."""

_WITHOUT_AUTHENTICATION: Final = ("/", "/healthz", "/readyz")
"""Paths without authentication."""


def describe_api(app: FastAPI, routers: Iterable[APIRouter]) -> dict[str, Any]:
    """Return the document, which is made once. `routers` are those of the application."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=list(TAGS),
            servers=[{"url": "/", "description": "This service"}],
            license_info=_LICENSE,
        )
        document["components"] = {
            "schemas": {**document["components"]["schemas"], **_schemas(routers)},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": _BEARER}},
        }
        document["security"] = [{"bearer": []}, {}]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(path, operation)
                insert_examples(operation)
        _remove_unused(document)
        app.openapi_schema = document
    return app.openapi_schema


def _schemas(routers: Iterable[APIRouter]) -> dict[str, Any]:
    responses = [*_RESPONSES, *(model for router in routers for model in _response_models(router))]
    schemas = component_schemas(_REQUESTS, responses)
    for name, (description, union) in _UNIONS.items():
        members = [{"$ref": REF.format(model=one.__name__)} for one in get_args(union)]
        schemas[name] = {"description": description, "anyOf": members}
    return {**schemas, "CloudEvent": CLOUD_EVENT}


def _response_models(router: APIRouter) -> Iterator[Any]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            models = (route.response_model, *(response.get("model") for response in route.responses.values()))
            yield from (model for model in models if model is not None)


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Add the problems of an operation, without FastAPI's validation errors, which are never sent, and a summary from the docstring."""
    operation["responses"].pop("422", None)
    problems = {str(status): describe_problem(status) for status in sorted(set(_problem_statuses(path, operation)))}
    operation["responses"] = {**problems, **operation["responses"]}
    first, _, rest = operation["description"].partition("\n\n")
    sentence, dot, more = first.replace("\n", " ").partition(". ")
    operation["summary"] = sentence.removesuffix(".")
    operation["description"] = "\n\n".join(filter(None, (sentence + dot.strip(), more, rest)))


def _problem_statuses(path: str, operation: dict[str, Any]) -> Iterator[int]:
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


def _remove_unused(document: dict[str, Any]) -> None:
    """Remove the schemas that nothing refers to."""
    schemas = document["components"]["schemas"]
    used: set[str] = set()
    waiting = list(_references(document["paths"]))
    while waiting:
        name = waiting.pop().rpartition("/")[2]
        if name not in used:
            used.add(name)
            waiting += _references(schemas[name])
    document["components"]["schemas"] = {name: schemas[name] for name in sorted(used)}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
