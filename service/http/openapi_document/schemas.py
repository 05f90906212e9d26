"""JSON schemas of requests and responses, with the docstrings of their fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ras_triage.models.formats.results import Position
from ras_triage.service.api.problems import Conflict, ErrorDetail, Problem
from ras_triage.service.http.openapi_document.docstrings import field_docstrings

REF: Final = "#/components/schemas/{model}"

_WITHOUT_NULLS: Final = (Problem, ErrorDetail, Conflict, Position)
"""Responses that leave a field out instead of sending null."""


def component_schemas(requests: Iterable[Any], responses: Iterable[Any]) -> dict[str, JsonSchemaValue]:
    """Return the schemas of all models that requests and responses consist of, by name.

    A model that both have, with different schemas, has the suffix `Output` in responses.
    """
    inputs = [*_core_schemas(requests, "validation"), *_core_schemas(responses, "serialization")]
    _, definitions = _ApiSchemas(ref_template=REF).generate_definitions(inputs)
    names = {name: name.removesuffix("-Input").replace("-Output", "Output") for name in definitions}
    renamed = _renamed(definitions, {REF.format(model=old): REF.format(model=new) for old, new in names.items()})
    return {names[name]: _untitled(schema) for name, schema in renamed.items()}


def _core_schemas(types: Iterable[Any], mode: JsonSchemaMode) -> Iterator[tuple[str, JsonSchemaMode, CoreSchema]]:
    for index, one in enumerate(types):
        yield f"{mode} {index}", mode, TypeAdapter(one).core_schema


def _renamed(node: Any, references: dict[str, str]) -> Any:
    """Return a document with other references."""
    if isinstance(node, dict):
        return {key: _renamed(value, references) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, references) for value in node]
    return references.get(node, node) if isinstance(node, str) else node


def _untitled(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Return a schema without its title: generators of clients would name two models alike."""
    return {key: value for key, value in schema.items() if key != "title"}


class _ApiSchemas(GenerateJsonSchema):
    """Schemas as clients need them.

    A request's default is in the description and not a `default`: generated clients send a `default` as if the caller had stated it, and
    then the decision does not list it as an assumption.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Return the schema of a pydantic model, with descriptions. In a response any field with a default may be absent."""
        cls: type[BaseModel] = schema["cls"]
        made = super().model_schema(schema)
        if self.mode == "serialization":
            made.pop("additionalProperties", None)  # later versions may add fields
        defaults = _defaults(cls) if self.mode == "validation" else {}
        _describe(made, cls, {_alias(cls, name): text for name, text in field_docstrings(cls).items()}, defaults)
        return made

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Return the schema of a dataclass, with descriptions. Responses have all of its fields, but no null in a problem."""
        cls = schema["cls"]
        made = super().dataclass_schema(schema)
        omitted = {name for base in cls.__mro__ if base in _WITHOUT_NULLS for name in base.__annotations__}
        if self.mode == "serialization":
            made["required"] = [name for name in made["properties"] if name not in omitted or name in made.get("required", ())]
        made["properties"] = {name: _without_null(field) if name in omitted else field for name, field in made["properties"].items()}
        _describe(made, cls, field_docstrings(cls), {})
        return made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Return the schema without its default."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Return false: a title would only repeat the name."""
        return False

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Return a union; members that differ by a constant field get a discriminator, the others are listed after it."""
        if not callable(schema["discriminator"]):
            return super().tagged_union_schema(schema)
        choices = {str(tag): self.generate_inner(choice) for tag, choice in schema["choices"].items()}
        fields = {tag: self._field_with_constant(choice, tag) for tag, choice in choices.items()}
        named = {tag: choice["$ref"] for tag, choice in choices.items() if fields[tag] is not None}
        others = [choice for tag, choice in choices.items() if fields[tag] is None]
        if not named:
            return self.get_union_of_schemas(others)
        discriminator = {"propertyName": next(filter(None, fields.values())), "mapping": named}
        return {"anyOf": [{"oneOf": [{"$ref": ref} for ref in named.values()], "discriminator": discriminator}, *others]}

    def _field_with_constant(self, schema: JsonSchemaValue, constant: str) -> str | None:
        if "$ref" not in schema:
            return None
        properties = (self.get_schema_from_definitions(schema["$ref"]) or {}).get("properties", {})
        return next((name for name, field in properties.items() if field.get("const") == constant), None)


def _alias(cls: type[BaseModel], name: str) -> str:
    field = cls.model_fields.get(name)
    return name if field is None or field.alias is None else field.alias


def _defaults(cls: type[BaseModel]) -> dict[str, Any]:
    """Return the defaults of a model's fields as a request has them, without empty ones."""
    dumped = cls.model_construct().model_dump(mode="json", by_alias=True, warnings=False, exclude_none=True)
    return {name: value for name, value in dumped.items() if value not in ([], {}, "") and not isinstance(value, dict)}


def _describe(schema: JsonSchemaValue, cls: type, docstrings: dict[str, str], defaults: dict[str, Any]) -> None:
    """Add the descriptions, and require constant fields: they tell the members of a union apart."""
    schema["description"] = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    properties = schema.get("properties", {})
    constants = {name for name, field in properties.items() if "const" in field}
    required = {*schema.get("required", ()), *constants}
    if required:
        schema["required"] = [name for name in properties if name in required]
    for name, field in properties.items():
        text = docstrings.get(name, f"Always `{field['const']}`." if name in constants else None)
        if text is None:
            continue
        if name in defaults and name not in required:
            text = f"{text.removesuffix('.')}. Default: `{json.dumps(defaults[name])}`."
        field["description"] = text


def _without_null(field: JsonSchemaValue) -> JsonSchemaValue:
    choices = [choice for choice in field.get("anyOf", [field]) if choice != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {**field, "anyOf": choices}
