"""Examples of the OpenAPI document: each is sent to a service, and the answer compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.openapi_document.examples import EXAMPLES, read_examples
from ras_triage.service.http.server.run import running
from tests.service.support.api_exchanges import JSON, Exchange, bind_ids, body_of, difference
from tests.service.support.application import caller

_ORDER: Final = ("put", "post", "get", "head", "patch", "delete")
"""What is kept first can be read then."""

_SHORT: Final = 2
"""Items of a list in an example that is shortened."""


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    paths: dict[str, Any] = caller()("GET", "/openapi.json").json()["paths"]
    found = [(method, path, operation) for path, operations in paths.items() for method, operation in operations.items()]
    yield from sorted(found, key=lambda one: (_ORDER.index(one[0]), one[1]))


OPERATIONS: Final = list(operations())


def exchanges() -> list[tuple[str, Exchange]]:
    return [one for method, path, operation in OPERATIONS for one in exchanges_of(method, path, operation)]


def exchanges_of(method: str, path: str, operation: dict[str, Any]) -> Iterator[tuple[str, Exchange]]:
    places = {one["name"]: one["in"] for one in operation.get("parameters", ())}
    query = {name for name, place in places.items() if place == "query"}
    headers = {name for name, place in places.items() if place == "header"}
    for name, example in read_examples(operation["operationId"]).items():
        yield f"{operation['operationId']}-{name}", Exchange(method.upper(), path, query, headers, example)


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """Return what a service answers to all examples, each after those that it depends on."""
    ids: dict[str, str] = {}
    answers = {}
    with running(Settings(store="memory:")) as url:
        for name, exchange in exchanges():
            answers[name] = exchange.send(url, ids)
            bind_ids(exchange.example["response"].get("body"), body_of(answers[name]), ids)
    return answers


@pytest.mark.parametrize(("name", "exchange"), exchanges(), ids=[name for name, _ in exchanges()])
def test_an_example_is_answered_as_it_says(answers: dict[str, Any], name: str, exchange: Exchange) -> None:
    answer, expected = answers[name], exchange.example["response"]

    assert answer.status_code == expected["status"], answer.text
    if "body" in expected:
        assert answer.headers["content-type"].partition(";")[0] == expected.get("content_type", JSON)
    assert difference(expected.get("body"), body_of(answer), shortened=expected.get("shortened", False)) is None


@pytest.mark.parametrize("operation", [operation for _, _, operation in OPERATIONS], ids=lambda one: one["operationId"])
def test_every_operation_has_an_example_of_its_request_and_its_answer(operation: dict[str, Any]) -> None:
    successes = [example for example in read_examples(operation["operationId"]).values() if example["response"]["status"] < 300]

    assert successes
    for example in successes:
        needed = {one["name"] for one in operation.get("parameters", ()) if one["required"]}
        assert needed <= set(example["request"].get("parameters", {}))
        assert ("body" in example["request"]) == ("requestBody" in operation)
        assert ("body" in example["response"]) == ("content" in operation["responses"][str(example["response"]["status"])])


def test_every_example_is_that_of_an_operation() -> None:
    assert {path.stem for path in EXAMPLES.iterdir()} == {operation["operationId"] for _, _, operation in OPERATIONS}


def shorten(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shorten(one) for name, one in value.items()}
    return [shorten(one) for one in value[:_SHORT]] if isinstance(value, list) else value


def record() -> None:
    """Write the answers of this version into the example files where they differ; ids stay those of the files."""
    ids: dict[str, str] = {}
    with running(Settings(store="memory:")) as url:
        for name, exchange in exchanges():
            operation, _, key = name.partition("-")
            answer, response = exchange.send(url, ids), exchange.example["response"]
            body, short = body_of(answer), response.get("shortened", False)
            bind_ids(response.get("body"), body, ids)
            if answer.status_code == response["status"] and difference(response.get("body"), body, shortened=short) is None:
                continue
            response |= {"status": answer.status_code, "body": shorten(body) if short else body}
            path = EXAMPLES / f"{operation}.json"
            content = json.dumps(read_examples(operation) | {key: exchange.example}, indent=2, ensure_ascii=False) + "\n"
            for known, actual in ids.items():
                content = content.replace(actual, known)
            path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(record())
