"""JSON as other tools write it: parsed in bounded depth, and looked into without trusting its shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from ras_triage.models.formats.encoded_bytes import unpack_base64

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

JsonObject = dict[str, Any]

_BRIEF = 200
"""Characters of somebody else's text that a message may quote."""


def shorten(text: str) -> str:
    """A text that is short enough to be quoted in a message."""
    return text if len(text) <= _BRIEF else text[:_BRIEF] + "…"


MAX_VALUES = 1 << 20
"""Values of one document: every value but the first of an object or array has a comma before it."""
MAX_CONTAINERS = 1 << 19
"""Objects and arrays of one document: one of two bytes takes 64 bytes of memory."""


def require_countable(data: bytes) -> None:
    """Raise ValueError where a document may have more values than are read. Commas and brackets within texts count as well."""
    if data.count(b",") > MAX_VALUES or data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"more than {MAX_VALUES} values, or {MAX_CONTAINERS} objects and arrays")


def read_json(data: bytes) -> Any:
    """The document.

    Raises ValueError where there are too many values, or where it is not JSON: with line and column, also where it nests deeper than 200
    or a number has over 4300 digits.
    """
    require_countable(data)
    try:
        return from_json(data.removeprefix(BYTE_ORDER_MARK), allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def read_documents(data: bytes) -> Iterator[tuple[int | None, Any]]:
    """The document, or one to a line with the number of its line; in the place of what is no JSON stands its ValueError."""
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
    """What lies at a dotted path of keys; None where there is nothing, or a null."""
    for key in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def find_text(document: Any, path: str) -> str | None:
    """The text at a path; None where there is none."""
    found = find(document, path)
    return found if isinstance(found, str) else None


def find_number(document: Any, path: str, bits: int) -> int | None:
    """The unsigned number of `bits` bits at a path; None where there is nothing. Raises ValueError where it is something else."""
    found = find(document, path)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or found < 0 or found >> bits:
        raise ValueError(f"`{path}` is no number of {bits} bits")
    return found


def find_objects(document: Any, path: str) -> list[JsonObject]:
    """The list of objects at a path, empty where there is nothing. Raises ValueError where it is something else."""
    found = find(document, path)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(element, dict) for element in found):
        raise ValueError(f"`{path}` is no list of objects")
    return found


def find_bytes(document: Any, path: str) -> bytes | None:
    """The bytes whose base64 lies at a path; None where there is nothing. Raises ValueError where it is something else."""
    found = find(document, path)
    if found is None:
        return None
    if not isinstance(found, str):
        raise ValueError(f"`{path}` is no text")
    try:
        return unpack_base64(found)
    except ValueError as error:
        raise ValueError(f"`{path}` is {error}") from None
