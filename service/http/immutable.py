"""Responses that never change, with validators for caches (RFC 9110 8.8)."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final

from fastapi import Header, Response

IfNoneMatch = Annotated[str | None, Header(description="`ETag` of a stored response, for 304 where it is still valid")]

_CACHED: Final = {"cache-control": "private, max-age=31536000, immutable", "vary": "Authorization"}
"""For the client's own cache only, and there only for requests with the same credentials."""


def immutable_response(document: bytes, if_none_match: str | None) -> Response:
    """Return a JSON document that never changes, or 304 if the client has it."""
    etag = f'"{sha256(document).hexdigest()[:32]}"'
    headers = {"etag": etag, **_CACHED}
    if if_none_match is not None and matches_etag(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(document, headers=headers, media_type="application/json")


def matches_etag(if_none_match: str, etag: str) -> bool:
    """Return whether a condition names a validator, by weak comparison (RFC 9110 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]
