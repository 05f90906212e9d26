"""Scalar field types of the JSON models: hexadecimal numbers, bytes, lists."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, Strict, WithJsonSchema

T = TypeVar("T")

FailFastTuple = Annotated[tuple[T, ...], Field(fail_fast=True)]
"""A list whose validation stops at the first invalid element, so that a million invalid ones cost no more than one."""

StrictBool = Annotated[bool, Strict()]
"""true or false, without conversion from other types."""


class WireModel(BaseModel):
    """Base class of request models: immutable, and unknown fields are errors.

    A model is built at first use: together they take longer than everything else that a command imports.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


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
    return _from_base64(value) if isinstance(value, str) else value


def encode_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


class HexadecimalBytes(bytes):
    """Bytes that were read from hexadecimal text. A decision says so, since the same text may also be valid base64."""


ASSUMED_HEXADECIMAL: Final = "the text is hexadecimal, not base64"
"""What a decision assumes of such bytes."""


class AmbiguousEncoding(ValueError):
    """Text that is valid as hexadecimal and as base64, and plausible as neither."""


_DIGITS: Final = re.compile("(?:0[xX])?([0-9a-fA-F]+)")


def decode_text(text: str, is_plausible: Callable[[bytes], bool], noun: str) -> bytes:
    """Decode base64, or hexadecimal with or without `0x`.

    Text of hexadecimal digits can be valid base64, too: then the reading counts that `is_plausible`, as a `noun`. Raises
    AmbiguousEncoding if none or both are, and ValueError for text that is neither hexadecimal nor base64.
    """
    digits = _DIGITS.fullmatch(text)
    hexadecimal = None if digits is None else _from_digits(digits[1])
    if hexadecimal is None:
        try:
            return _from_base64(text)
        except ValueError as error:
            raise ValueError(f"{error}; expected base64, or hexadecimal digits in pairs, without separators") from None
    if len(text) % _BASE64_GROUP:
        return hexadecimal
    other = _from_base64(text)
    plausible = [reading for reading in (hexadecimal, other) if is_plausible(reading)]
    if len(plausible) != 1:
        which = "both look" if plausible else "neither looks"
        raise AmbiguousEncoding(f"{_two_readings(hexadecimal, other)}, and {which} like {noun}; expected {noun} in either")
    return plausible[0]


def decode_bytes(value: Any) -> Any:
    """Decode base64 text, or hexadecimal with `0x`; return bytes unchanged.

    The content of these fields is unknown, but base64 of it mostly has more zero bytes than what the same digits are in hexadecimal. Raises
    ValueError for other text.
    """
    if not isinstance(value, str):
        return value
    digits = _DIGITS.fullmatch(value)
    hexadecimal = None if digits is None else _from_digits(digits[1])
    if hexadecimal is None:
        return _from_base64(value)
    if value[:2] in ("0x", "0X"):
        return hexadecimal
    if len(value) % _BASE64_GROUP:
        raise ValueError("hexadecimal without `0x`; expected base64, or hexadecimal with `0x`")
    other = _from_base64(value)
    if len(value) >= _TELLING_LENGTH and other.count(0) <= hexadecimal.count(0):
        raise AmbiguousEncoding(f"{_two_readings(hexadecimal, other)}; expected base64, or hexadecimal with `0x`")
    return other


_BASE64_GROUP: Final = 4
"""Characters that encode three bytes."""
_TELLING_LENGTH: Final = 8
"""Characters from which base64 hardly ever consists of hexadecimal digits by chance."""


def _from_digits(digits: str) -> bytes | None:
    return None if len(digits) % 2 else HexadecimalBytes.fromhex(digits)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not valid base64: {str(error).lower()}") from None


def _two_readings(hexadecimal: bytes, other: bytes) -> str:
    return f"could be {len(hexadecimal)} bytes in hexadecimal or {len(other)} bytes in base64"


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

BASE64_JSON: Final = (PlainSerializer(encode_base64, return_type=str, when_used="json"), _BASE64_TEXT)
"""Annotations of bytes that are base64 in JSON."""

Base64 = Annotated[bytes, BeforeValidator(decode_base64), *BASE64_JSON]
"""Bytes; base64 in JSON. For responses."""

EncodedBytes = Annotated[bytes, BeforeValidator(decode_bytes), *BASE64_JSON]
"""Bytes; base64 in JSON, and in requests also hexadecimal with `0x`."""

Base64Text = Annotated[str, _BASE64_TEXT]
"""Base64, as text."""

HexText = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^0x[0-9a-f]{1,16}$"})]
"""64-bit number as hexadecimal text, in responses."""

TimeText = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 time in UTC as text, in responses."""
