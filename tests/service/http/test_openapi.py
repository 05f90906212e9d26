"""OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.support.application import Call


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_in_the_document_resolves(call: Call) -> None:
    document = call("GET", "/openapi.json").json()

    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_every_operation_says_what_it_answers_and_how_it_fails(call: Call) -> None:
    document = call("GET", "/openapi.json").json()

    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            problems = {status for status in operation["responses"] if status[0] in "45"}
            assert {"431", "500", "503"} <= problems
            assert all(list(operation["responses"][status]["content"]) == ["application/problem+json"] for status in problems)


def test_the_event_and_the_answer_are_described(call: Call) -> None:
    document = call("GET", "/openapi.json").json()

    posted = document["paths"]["/v1/decisions"]["post"]
    assert posted["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Event"}
    assert posted["responses"]["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/DecisionResponse"}
    answer = document["components"]["schemas"]["DecisionResponse"]["properties"]
    assert {"id", "event_key", "repeat", "decided_at", "plan", "rationale", "next_access"} <= set(answer)


def test_there_is_a_page_to_try_it_on(call: Call) -> None:
    assert call("GET", "/docs").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "header"),
    [("get", "/v1/decisions", "Link"), ("put", "/v1/hosts/{source}", "ETag"), ("get", "/v1/hosts/{source}", "ETag")],
)
def test_headers_that_lead_on_are_described(call: Call, method: str, path: str, header: str) -> None:
    answered = call("GET", "/openapi.json").json()["paths"][path][method]["responses"]["200"]

    assert list(answered["headers"]) == [header]
    assert next(iter(answered["content"])) == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "types"),
    [
        ("post", "/v1/import", ["application/x-ndjson"]),
        ("post", "/v1/decisions/batch", ["application/json", "application/x-ndjson"]),
        ("get", "/v1/decisions", ["application/json", "text/csv"]),
        ("get", "/v1/decisions/stats", ["application/json", "text/csv"]),
        ("get", "/v1/decisions/stream", ["text/event-stream"]),
        ("get", "/metrics", ["text/plain", "application/openmetrics-text"]),
    ],
)
def test_the_types_of_answers_are_those_that_are_given(call: Call, method: str, path: str, types: list[str]) -> None:
    assert list(call("GET", "/openapi.json").json()["paths"][path][method]["responses"]["200"]["content"]) == types
