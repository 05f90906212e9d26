"""Scalar field types of the JSON models: hexadecimal numbers, base64, lists."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, Strict, WithJsonSchema

T = TypeVar("T")

FailFastTuple = Annotated[tuple[T, ...], Field(fail_fast=True)]
"""A list whose validation stops at the first invalid element, so that a million invalid ones cost no more than one."""

StrictBool = Annotated[bool, Strict()]
"""true or false, without conversion from other types."""


class WireModel(BaseModel):
    """Base class of request models: immutable, and unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


_HEX = re.compile("0x[0-9a-fA-F]+")


def parse_unsigned(value: Any) -> Any:
    """Convert a hexadecimal string such as `"0x56edd040"` to an integer; pydantic rejects other types."""
    if isinstance(value, str):
        if not _HEX.fullmatch(value):
            raise ValueError("expected a hexadecimal string such as `0x56edd040`, or an integer")
        return int(value, 16)
    if isinstance(value, bool):
        raise ValueError("expected a hexadecimal string or an integer, not a boolean")
    return value


def decode_base64(value: Any) -> Any:
    """Decode standard base64 text; return bytes unchanged."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"not valid base64: {error}") from None
    return value


def encode_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _unsigned(bits: int) -> Any:
    """Return the annotations of an unsigned number of `bits` bits: in JSON a hexadecimal string, in requests also an integer."""
    digits = bits // 4
    text = {"type": "string", "pattern": f"^0x[0-9a-fA-F]{{1,{digits}}}$"}
    number = {"type": "integer", "minimum": 0, "exclusiveMaximum": 1 << bits}
    return (
        Field(strict=True, ge=0, lt=1 << bits),
        BeforeValidator(parse_unsigned),
        PlainSerializer(hex, return_type=str, when_used="json"),
        WithJsonSchema({"anyOf": [text, number]}, mode="validation"),
        WithJsonSchema({"type": "string", "pattern": f"^0x[0-9a-f]{{1,{digits}}}$"}, mode="serialization"),
    )


Hex64 = Annotated[int, *_unsigned(64)]
"""64-bit address, register or mask."""

Hex32 = Annotated[int, *_unsigned(32)]
"""32-bit register or mask."""

Hex16 = Annotated[int, *_unsigned(16)]
"""16-bit identifier or register."""

Hex8 = Annotated[int, *_unsigned(8)]
"""8-bit code or flags."""

U32 = Annotated[int, Field(strict=True, ge=0, lt=1 << 32)]
U16 = Annotated[int, Field(strict=True, ge=0, lt=1 << 16)]
U8 = Annotated[int, Field(strict=True, ge=0, lt=1 << 8)]

_BASE64_TEXT = WithJsonSchema({"type": "string", "contentEncoding": "base64"})

Base64 = Annotated[bytes, BeforeValidator(decode_base64), PlainSerializer(encode_base64, return_type=str, when_used="json"), _BASE64_TEXT]
"""Bytes; base64 in JSON."""

Base64Text = Annotated[str, _BASE64_TEXT]
"""Base64, as text."""

HexText = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-f]{1,16}$"})]
"""64-bit number as hexadecimal text, in responses."""

TimeText = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 time in UTC as text, in responses."""
