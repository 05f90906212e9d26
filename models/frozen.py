"""Decorator for immutable dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """A dataclass that is never changed once it is made.

    The type checker holds everybody to that. At run time nothing does, because a frozen dataclass takes five times as long to make,
    and a decision is made of little else.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
