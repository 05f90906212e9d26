"""Examples of requests and responses, one file for each operation in `examples/`.

The tests send each request to a service and compare its answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

EXAMPLES: Final = Path(__file__).with_name("examples")

JSON: Final = "application/json"


def read_examples(operation_id: str) -> dict[str, Any]:
    """Return the examples of an operation by name; empty: there are none.

    Each has a `summary`, a `request` (`parameters` by name, `content_type`, `body`) and a `response` (`status`, `content_type`, `body`).
    A body is text if its content type is not JSON.
    """
    path = EXAMPLES / f"{operation_id}.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def insert_examples(operation: dict[str, Any]) -> None:
    """Add its examples to an operation of the document."""
    for name, example in read_examples(operation["operationId"]).items():
        request, response = example["request"], example["response"]
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in request.get("parameters", {}):
                _add(parameter, name, example, request["parameters"][parameter["name"]])
        if "body" in request:
            _add(operation["requestBody"]["content"][request.get("content_type", JSON)], name, example, request["body"])
        if "body" in response:
            content = operation["responses"][str(response["status"])]["content"]
            _add(content[response.get("content_type", JSON)], name, example, response["body"])


def _add(place: dict[str, Any], name: str, example: dict[str, Any], value: Any) -> None:
    place.setdefault("examples", {})[name] = {"summary": example["summary"], "value": value}
