"""Types of settings with their limits (pydantic annotations)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, GetPydanticSchema

from ras_triage.service.config.authority import is_loopback, origin_text, parse_authority, parse_host, parse_origin
from ras_triage.service.config.store_address import MEMORY, SQLITE, sqlite_path

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signature algorithms that can be accepted (RFC 7518 3.1, RFC 8037): asymmetric ones, so that a verifier cannot sign."""

MAX_WORKERS: Final = 64

ANY_ORIGIN: Final = "*"
"""Wildcard: the pages of every origin."""

_URL: Final = re.compile("(?P<scheme>https?)://(?P<authority>[^/?#]*)[!-~]*", re.IGNORECASE)

_MODE: Final = re.compile("0?[0-7]{3}")

_PORT_LINK: Final = "tcp://"


def _split(value: Any) -> Any:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _require_no_link(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_PORT_LINK):
        raise ValueError("Kubernetes sets this variable for a Service of this name; set `enableServiceLinks: false` in the pod")
    return value


def _require_store(value: str) -> str:
    if value != MEMORY and sqlite_path(value) is None:
        raise ValueError(f"unknown store `{value}`; expected `{MEMORY}` or `{SQLITE}PATH`")
    return value


def _require_https(value: str) -> str:
    url = _URL.fullmatch(value)
    authority = None if url is None else parse_authority(url["authority"])
    if url is None or authority is None or not (url["scheme"].lower() == "https" or is_loopback(authority.host)):
        raise ValueError("should be an https URL without a password")
    return value


def _require_host(value: str) -> str:
    if parse_host(value) is None:
        raise ValueError(f"`{value}` is not a host name or address without a port")
    return value


def _normalise_origin(value: str) -> str:
    origin = parse_origin(value)
    if value != ANY_ORIGIN and origin is None:
        raise ValueError(f"`{value}` is not an origin; expected scheme, host and port, such as `https://triage.example:8443`, or `*`")
    return value if origin is None else origin_text(origin)


def _require_mode(value: str) -> str:
    if _MODE.fullmatch(value) is None:
        raise ValueError(f"`{value}` is not three octal digits, such as `660`")
    return value


def _require_algorithms(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not set(value) <= set(ALGORITHMS):
        raise ValueError(f"expected one or more of {', '.join(ALGORITHMS)}")
    return value


Text = Annotated[str, Field(min_length=1)]

Positive = Annotated[int, Field(gt=0)]

PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Seconds = PositiveNumber

IN_BYTES: Final = GetPydanticSchema(lambda _source, handler: handler(ByteSize))
"""Annotation of a number of bytes, which may be written with a unit."""

Bytes = Annotated[int, IN_BYTES, Field(gt=0)]

WorkerCount = Annotated[int, Field(ge=0, le=MAX_WORKERS)]

Port = Annotated[int, BeforeValidator(_require_no_link), Field(ge=0, le=0xFFFF)]

StoreAddress = Annotated[str, AfterValidator(_require_store)]

HttpsUrl = Annotated[str, AfterValidator(_require_https)]
"""URL with https; with http on loopback."""

Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Several values: an array in the file, separated by commas in the environment."""

Hosts = Annotated[tuple[Annotated[str, AfterValidator(_require_host)], ...], BeforeValidator(_split)]

Origins = Annotated[tuple[Annotated[str, AfterValidator(_normalise_origin)], ...], BeforeValidator(_split)]
"""Origins of web pages, as browsers send them."""

FileMode = Annotated[str, AfterValidator(_require_mode)]
"""Permissions of a file, octal."""

Files = Annotated[tuple[Path, ...], BeforeValidator(_split)]

Algorithms = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_require_algorithms)]
