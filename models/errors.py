"""Exceptions for malformed binary data."""

from __future__ import annotations


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
