"""OpenAPI document as its readers need it: valid, described, unambiguous."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from ras_triage.models.sections.memory import Memory
from ras_triage.service.http.openapi_document.docstrings import field_docstrings
from tests.service.support.application import caller

DOCUMENT: Final[dict[str, Any]] = caller()("GET", "/openapi.json").json()
SCHEMAS: Final[dict[str, Any]] = DOCUMENT["components"]["schemas"]
OPERATIONS: Final = [operation for operations in DOCUMENT["paths"].values() for operation in operations.values()]

KEYWORDS: Final = {
    "$ref", "type", "enum", "const", "format", "pattern", "title", "description", "contentEncoding", "contentMediaType", "contentSchema",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
    "prefixItems", "items", "properties", "required", "additionalProperties", "anyOf", "oneOf", "allOf", "discriminator", "default",
    "examples", "deprecated",
}  # fmt: skip
"""Keywords of JSON Schema and OpenAPI that schemas may have; any other is a leak of what made them."""


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and those within it."""
    yield node
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inner in node.get(name, ()):
            yield from schemas(inner)
    for inner in (*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties"), node.get("contentSchema")):
        if isinstance(inner, dict):
            yield from schemas(inner)


ALL_SCHEMAS: Final = [(name, inner) for name, schema in SCHEMAS.items() for inner in schemas(schema)]


def contents() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the media types of all requests and responses."""
    for operation in OPERATIONS:
        for place in (operation.get("requestBody", {}), *operation["responses"].values()):
            for kind, content in place.get("content", {}).items():
                yield operation["operationId"], kind, content


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_schemas_have_no_other_keywords_than_those_of_json_schema() -> None:
    assert {(name, *(inner.keys() - KEYWORDS)) for name, inner in ALL_SCHEMAS if inner.keys() - KEYWORDS} == set()


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_of_a_schema_is_described(name: str) -> None:
    assert SCHEMAS[name]["description"]
    assert {field for field, schema in SCHEMAS[name].get("properties", {}).items() if not schema.get("description")} == set()


def test_every_field_of_a_schema_without_a_name_is_described() -> None:
    inline = [(name, inner) for name, _, content in contents() for inner in schemas(content["schema"])]
    undescribed = [
        (name, field)
        for name, schema in (*inline, *ALL_SCHEMAS)
        for field, inner in schema.get("properties", {}).items()
        if not inner.get("description")
    ]
    assert undescribed == []


def test_descriptions_speak_of_json_and_not_of_python() -> None:
    text = [inner.get("description", "") for _, inner in ALL_SCHEMAS]
    assert [one for one in text if re.search(r"\b(None|True|False)\b", one)] == []


def test_every_operation_has_a_name_that_a_person_would_call() -> None:
    names = [operation["operationId"] for operation in OPERATIONS]
    assert [name for name in names if not re.fullmatch("[a-z]+([A-Z][a-z]+)*", name)] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one["operationId"])
def test_every_operation_its_parameters_and_its_tags_are_described(operation: dict[str, Any]) -> None:
    assert re.match("[A-Z]", operation["summary"])
    assert operation["description"]
    assert [one["name"] for one in operation.get("parameters", ()) if not one.get("description")] == []
    assert len(operation["tags"]) == 1
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
    for response in operation["responses"].values():
        assert all(header["description"] for header in response.get("headers", {}).values())


def test_the_members_of_a_union_are_told_apart_by_a_required_constant() -> None:
    unions = [(name, inner) for name, inner in ALL_SCHEMAS if len(inner.get("oneOf", ())) > 1]
    assert {name for name, _ in unions} >= {"DecisionResponse", "StructuredBlock"}
    for name, union in unions:
        if all("$ref" in member for member in union["oneOf"]):
            field, mapping = union["discriminator"]["propertyName"], union["discriminator"]["mapping"]
            members = {constant: SCHEMAS[reference.rpartition("/")[2]] for constant, reference in mapping.items()}
            assert {member["properties"][field]["const"] for member in members.values()} == set(members), name
            assert all(field in member["required"] for member in members.values()), name
        else:
            types = ["object" if "$ref" in member else member["type"] for member in union["oneOf"]]
            assert len(set(types)) == len(types), name


def test_a_request_takes_a_number_as_hexadecimal_or_integer_and_a_response_has_only_hexadecimal() -> None:
    def choices(name: str, field: str) -> list[str]:
        schema = SCHEMAS[name]["properties"][field]
        return [one["type"] for one in schema.get("anyOf", [schema]) if one["type"] != "null"]

    assert choices("Page", "physical_address") == ["string", "integer"]
    assert choices("PageOutput", "physical_address") == ["string"]
    assert choices("Memory", "physical_address") == ["string", "integer"]
    assert choices("MemoryOutput", "physical_address") == ["string"]
    assert choices("Signal", "address") == ["string"]


def test_a_request_has_no_default_that_a_generated_client_would_send_as_if_it_were_known() -> None:
    assert [name for name, inner in ALL_SCHEMAS if "default" in inner] == []
    assert SCHEMAS["Task"]["properties"]["mce_kill"]["description"].endswith('. Default: `"default"`.')


def test_a_response_requires_what_it_always_has() -> None:
    assert set(SCHEMAS["DecisionResponse"]["required"]) == set(SCHEMAS["DecisionResponse"]["properties"])
    assert SCHEMAS["Problem"]["required"] == ["type", "title", "status", "detail"]
    assert SCHEMAS["Problem"]["properties"]["retry_after_s"]["type"] == "integer"


def test_the_lines_of_a_stream_have_a_schema() -> None:
    streamed = {(name, kind): content["schema"] for name, kind, content in contents() if re.search("ndjson|event-stream", kind)}
    assert {name for name, _ in streamed} >= {"decideBatch", "importRecords", "streamDecisions"}
    for schema in streamed.values():
        assert schema["description"]
        assert schema["contentSchema"]


def examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the JSON of examples with its schema, and of a stream each line."""
    for operation, kind, content in contents():
        for name, example in content.get("examples", {}).items():
            yield from ((f"{operation}-{name}", *one) for one in documents(kind, content["schema"], example["value"]))


def documents(kind: str, schema: dict[str, Any], value: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    if "contentSchema" in schema:
        lines = (line.removeprefix("data: ") for line in value.splitlines())
        yield from ((schema["contentSchema"], json.loads(line)) for line in lines if line.startswith("{"))
    elif kind.endswith("json"):
        yield schema, value


EXAMPLES: Final = list(examples())


@pytest.mark.parametrize(("schema", "value"), [one[1:] for one in EXAMPLES], ids=[one[0] for one in EXAMPLES])
def test_an_example_is_valid_under_its_schema(schema: dict[str, Any], value: Any) -> None:
    validator = Draft202012Validator({"components": DOCUMENT["components"], **schema})
    assert [error.message for error in validator.iter_errors(value)] == []


def test_docstrings_are_those_of_the_class_and_its_bases() -> None:
    found = field_docstrings(Memory)
    assert found["rank"] == "Rank number."
    assert found["flags"] == "Flags of the data entry."
