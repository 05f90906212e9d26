"""Malformed binary data, and the closest known names for error messages."""

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


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message that names the closest known name; empty where none is close."""
    near = get_close_matches(name, list(known), n=1) if len(name) <= _MAX_CHARACTERS else []
    return f"; did you mean `{near[0]}`?" if near else ""
