"""Errors about bytes.

MalformedBytes      bytes that do not say what they claim to say
"""

from __future__ import annotations


class MalformedBytes(ValueError):
    """Bytes that cannot be read as what they claim to be.

    `offset` counts bytes from the start of the input, `section` is the index of the section (None: the container itself) and
    `field` is the specification's name of the field that gives it away.
    """

    def __init__(self, detail: str, *, offset: int, field: str, section: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.offset = offset
        self.field = field
        self.section = section
