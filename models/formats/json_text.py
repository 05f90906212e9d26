"""JSON of other tools: bounded parsing, and access by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from ras_triage.models.formats.encoded_bytes import unpack_base64

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

JsonObject = dict[str, Any]

_BRIEF = 200
"""Most characters of an input text in a message."""


def shorten(text: str) -> str:
    """Truncate a text for a message."""
    return text if len(text) <= _BRIEF else text[:_BRIEF] + "…"


MAX_VALUES = 1 << 20
"""Most values of one document, counted by commas: each value of an object or array except the first has one before it."""
MAX_CONTAINERS = 1 << 19
"""Most objects and arrays of one document: an empty one of two bytes takes 64 bytes of memory."""


def require_value_limit(data: bytes) -> None:
    """Raise ValueError if a document may have too many values. Commas and brackets within strings are counted too."""
    if data.count(b",") > MAX_VALUES or data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"more than {MAX_VALUES} values or {MAX_CONTAINERS} objects and arrays")


def read_json(data: bytes) -> Any:
    """Parse a document.

    Raises ValueError for too many values and for invalid JSON, with line and column; also for nesting deeper than 200 and numbers of more
    than 4300 digits.
    """
    require_value_limit(data)
    try:
        return from_json(data.removeprefix(BYTE_ORDER_MARK), allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def read_documents(data: bytes) -> Iterator[tuple[int | None, Any]]:
    """Yield the document, or for JSON lines each document with its line number; for invalid JSON its ValueError instead."""
    try:
        yield None, read_json(data)
        return
    except ValueError as error:
        whole = error
    lines = [(number, line) for number, line in enumerate(data.removeprefix(BYTE_ORDER_MARK).splitlines(), 1) if line.strip()]
    if len(lines) < 2 or not _is_document(lines[0][1]):
        yield None, whole
        return
    for number, line in lines:
        try:
            yield number, read_json(line)
        except ValueError as error:
            yield number, error


def _is_document(line: bytes) -> bool:
    try:
        return isinstance(read_json(line), (dict, list))
    except ValueError:
        return False


def find(document: Any, path: str) -> Any:
    """Return the value at a dotted path of keys; None if it is missing or null."""
    for key in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def find_text(document: Any, path: str) -> str | None:
    """Return the string at a path; None if it is missing or not a string."""
    found = find(document, path)
    return found if isinstance(found, str) else None


def find_number(document: Any, path: str, bits: int) -> int | None:
    """Return the unsigned number of `bits` bits at a path; None if it is missing. Raises ValueError for any other value."""
    found = find(document, path)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or found < 0 or found >> bits:
        raise ValueError(f"`{path}`: expected an unsigned number of {bits} bits")
    return found


def find_objects(document: Any, path: str) -> list[JsonObject]:
    """Return the array of objects at a path, empty if it is missing. Raises ValueError for any other value."""
    found = find(document, path)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(element, dict) for element in found):
        raise ValueError(f"`{path}`: expected an array of objects")
    return found


def find_bytes(document: Any, path: str) -> bytes | None:
    """Return the bytes of the base64 string at a path; None if it is missing. Raises ValueError for any other value."""
    found = find(document, path)
    if found is None:
        return None
    if not isinstance(found, str):
        raise ValueError(f"`{path}`: expected a string")
    try:
        return unpack_base64(found)
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}") from None
