"""Fields that a request model has at a location."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel

Model = type[BaseModel]


def known_fields(model: Model, location: Sequence[int | str]) -> list[str]:
    """Return the fields that the object at a location of a validation error may have, by their names in JSON."""
    models = [model]
    for part in location:
        if isinstance(part, str):
            models = [inner for outer in models for inner in _step(outer, part)]
    return list(dict.fromkeys(name for found in models for name in _fields(found)))


def _step(model: Model, part: str) -> tuple[Model, ...]:
    """Return the models behind one part of a location: those of a field, or the model itself if the part names a branch of a union."""
    if part in (fields := _fields(model)):
        return fields[part]
    kinds = get_args(model.model_fields["type"].annotation) if "type" in model.model_fields else ()
    return (model,) if part in kinds or not kinds else ()


@lru_cache(maxsize=256)
def _fields(model: Model) -> dict[str, tuple[Model, ...]]:
    """Return the fields of a model with the models in each."""
    return {field.alias or name: tuple(_models((field.annotation, field.metadata))) for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[Model]:
    """Yield the models in an annotation, also in what a validator accepts instead."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in annotation if isinstance(annotation, (tuple, list)) else get_args(annotation):
        yield from _models(inner)
    if accepted := getattr(annotation, "json_schema_input_type", None):
        yield from _models(accepted)
