"""Cache of a token issuer's public keys (RFC 7517)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from contextvars import Context
from math import ceil, inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from jwt import PyJWK, PyJWTError
from pydantic_core import from_json

from ras_triage.service.config.settings import Oidc
from ras_triage.service.telemetry.tracing import outgoing_headers

if TYPE_CHECKING:  # imported on use: not needed without an issuer
    import httpx

LIFESPAN_S: Final = 300.0
"""Refresh interval, in seconds."""

COOLDOWN_S: Final = 30.0
"""Shortest time between the starts of two reads, in seconds, also for unknown key ids."""

STALE_S: Final = 86_400.0
"""Seconds for which keys are used while they cannot be refreshed."""

FETCH_S: Final = 5.0
"""Time limit for one read with discovery, in seconds."""

MAX_BYTES: Final = 1 << 20
"""Size limit for a document of the issuer."""

_KINDS: Final = frozenset({"RSA", "EC", "OKP"})
"""Asymmetric key types (RFC 7518 6.1, RFC 8037 2)."""

_UNUSABLE: Final = (PyJWTError, KeyError, NotImplementedError, TypeError, ValueError)
"""Exceptions of PyJWT for malformed or unsupported keys."""

_log = logging.getLogger("ras_triage.security")


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be read."""


class UnknownKey(Exception):
    """The issuer had no key with this id at the last read."""


class IssuerKeys:
    """Keys by id. Cached keys are returned at once; there is at most one request to the issuer at a time."""

    def __init__(self, oidc: Oidc) -> None:
        self._oidc = oidc
        self._tls = ssl.create_default_context()
        self._cached: Mapping[str, PyJWK] = {}
        self._read_at = self._tried_at = -inf
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def find(self, kid: str) -> PyJWK:
        """Return a key. Raises UnknownKey, IssuerUnavailable."""
        if (found := self._usable().get(kid)) is not None:
            if monotonic() - self._read_at >= LIFESPAN_S:
                self._read_again()
            return found
        if (reading := self._read_again()) is not None:
            await asyncio.shield(reading)
        usable = self._usable()
        if kid not in usable:
            raise UnknownKey if usable else IssuerUnavailable
        return usable[kid]

    def retry_s(self) -> int:
        """Return the seconds until the next read is allowed."""
        return max(1, ceil(self._tried_at + COOLDOWN_S - monotonic()))

    def close(self) -> None:
        """Stop refreshing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _usable(self) -> Mapping[str, PyJWK]:
        return self._cached if monotonic() - self._read_at <= STALE_S else {}

    def _read_again(self) -> asyncio.Task[None] | None:
        """Return the current read, started now if there is none; None: within the cooldown."""
        if self._reading is not None and not self._reading.done():
            return self._reading
        if monotonic() - self._tried_at < COOLDOWN_S:
            return None
        self._tried_at = monotonic()
        self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        pause = COOLDOWN_S
        try:
            async with asyncio.timeout(FETCH_S):
                document = await self._fetch()
            self._cached = await asyncio.to_thread(_keys, document)
            self._read_at, pause = monotonic(), LIFESPAN_S
        except TimeoutError:
            _log.error("the token issuer's keys cannot be read: no complete response within %g s", FETCH_S)
        except IssuerUnavailable as error:
            _log.error("the token issuer's keys cannot be read: %s", error)
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(pause, self._read_again, context=Context())

    async def _fetch(self) -> bytes:
        """Fetch the key set, with the trace context of the request that caused it. Raises IssuerUnavailable."""
        import httpx  # noqa: PLC0415

        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "ras-triage", **outgoing_headers()}
        async with httpx.AsyncClient(verify=self._tls, headers=headers, follow_redirects=False, timeout=FETCH_S) as client:
            location = self._oidc.jwks_url or self._location(await _get(client, f"{self._oidc.issuer.rstrip('/')}{_DISCOVERY}"))
            return await _get(client, location)

    def _location(self, discovery: bytes) -> str:
        """Return the URL of the key set (OpenID Connect Discovery 1.0, 4). Raises IssuerUnavailable."""
        document = _object(discovery)
        location = document.get("jwks_uri")
        if document.get("issuer") != self._oidc.issuer:
            raise IssuerUnavailable("the discovery document is for another issuer")
        if not isinstance(location, str) or urlsplit(location).scheme not in ("https", urlsplit(self._oidc.issuer).scheme):
            raise IssuerUnavailable("the discovery document has no https `jwks_uri`")
        return location


_DISCOVERY: Final = "/.well-known/openid-configuration"


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """Fetch a document. Raises IssuerUnavailable."""
    import httpx  # noqa: PLC0415

    content = bytearray()
    try:
        async with client.stream("GET", url) as response:
            if response.status_code != 200:
                raise IssuerUnavailable(f"{url}: status {response.status_code}")
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > MAX_BYTES:
                    raise IssuerUnavailable(f"{url}: longer than {MAX_BYTES} bytes")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise IssuerUnavailable(f"{url}: {type(error).__name__}: {error}") from None
    return bytes(content)


def _object(document: bytes) -> dict[str, Any]:
    try:
        content = from_json(document)
    except ValueError as error:
        raise IssuerUnavailable(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise IssuerUnavailable("not a JSON object")
    return content


def _keys(document: bytes) -> dict[str, PyJWK]:
    """Return the usable signature keys; of two with the same id the first. Raises IssuerUnavailable if there are none."""
    entries = _object(document).get("keys")
    found: dict[str, PyJWK] = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and (key := _key(entry)) is not None and key.key_id:
            found.setdefault(key.key_id, key)
    if not found:
        raise IssuerUnavailable("the key set has no usable key")
    return found


def _key(entry: dict[str, Any]) -> PyJWK | None:
    try:
        if entry["kty"] not in _KINDS or entry.get("use", "sig") != "sig" or not isinstance(entry["kid"], str):
            return None
        return PyJWK(entry)
    except _UNUSABLE:
        return None
