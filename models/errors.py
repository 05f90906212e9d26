"""Exceptions for malformed binary data."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final


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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the closest known name; None where none is close."""
    near = get_close_matches(name, list(known), n=1) if len(name) <= _MAX_CHARACTERS else []
    return near[0] if near else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message that names the closest known name; empty where none is close."""
    near = nearest(name, known)
    return "" if near is None else f"; did you mean `{near}`?"
