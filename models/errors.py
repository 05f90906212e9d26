"""Malformed binary data, and the closest known names for error messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, get_args

if TYPE_CHECKING:  # the command line names options without it
    from pydantic import BaseModel

    Model = type[BaseModel]


class MalformedBytes(ValueError):
    """Malformed binary data.

    `offset` is in bytes from the start of the input, `section` is the index of the section (None: outside the sections), and `field` is the
    specification's name of the invalid field.
    """

    def __init__(self, detail: str, *, offset: int, field: str, section: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.offset = offset
        self.field = field
        self.section = section


_MAX_CHARACTERS: Final = 64
"""A longer name is compared with none: the comparison takes quadratic time."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message that names the closest known name; empty where none is close."""
    near = get_close_matches(name, list(known), n=1) if len(name) <= _MAX_CHARACTERS else []
    return f"; did you mean `{near[0]}`?" if near else ""


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
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in annotation if isinstance(annotation, (tuple, list)) else get_args(annotation):
        yield from _models(inner)
    if accepted := getattr(annotation, "json_schema_input_type", None):
        yield from _models(accepted)
