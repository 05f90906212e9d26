"""Public keys of a token issuer (RFC 7517), read in the background."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from math import ceil, inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from jwt import PyJWK, PyJWTError
from pydantic_core import from_json

from ras_triage.service.config.settings import Oidc

if TYPE_CHECKING:  # imported where it is used: a service without an issuer does without it
    import httpx

LIFESPAN_S: Final = 300.0
"""Seconds after which the keys are read again."""

COOLDOWN_S: Final = 30.0
"""Shortest time between the beginnings of two reads, whatever tokens ask for."""

STALE_S: Final = 86_400.0
"""Seconds for which keys hold that cannot be read again."""

FETCH_S: Final = 5.0
"""Seconds that one read may take, discovery included."""

MAX_BYTES: Final = 1 << 20
"""Longest document that is read from the issuer."""

_KINDS: Final = frozenset({"RSA", "EC", "OKP"})
"""Key types with a public half (RFC 7518 6.1, RFC 8037 2)."""

_UNUSABLE: Final = (PyJWTError, KeyError, NotImplementedError, TypeError, ValueError)
"""What PyJWT raises for keys that are malformed or not supported."""

_log = logging.getLogger("ras_triage.security")


class Unreachable(Exception):
    """The issuer does not say what its keys are."""


class UnknownKey(Exception):
    """The issuer has no key of this id, or had none when it was asked last."""


class IssuerKeys:
    """The keys by their ids. One that is held is found at once; the issuer is asked by one request at a time."""

    def __init__(self, oidc: Oidc) -> None:
        self._oidc = oidc
        self._tls = ssl.create_default_context()
        self._held: Mapping[str, PyJWK] = {}
        self._read_at = self._tried_at = -inf
        self._reading: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def find(self, kid: str, traceparent: str | None = None) -> PyJWK:
        """Return a key. `traceparent` goes along where the issuer has to be asked. Raises UnknownKey, Unreachable."""
        if (found := self._usable().get(kid)) is not None:
            if monotonic() - self._read_at >= LIFESPAN_S:
                self._read_again(traceparent)
            return found
        if (reading := self._read_again(traceparent)) is not None:
            await asyncio.shield(reading)
        usable = self._usable()
        if kid not in usable:
            raise UnknownKey if usable else Unreachable
        return usable[kid]

    def retry_s(self) -> int:
        """Return the seconds until the issuer may be asked again."""
        return max(1, ceil(self._tried_at + COOLDOWN_S - monotonic()))

    def close(self) -> None:
        """Ask no more unless a token needs it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _usable(self) -> Mapping[str, PyJWK]:
        return self._held if monotonic() - self._read_at <= STALE_S else {}

    def _read_again(self, traceparent: str | None = None) -> asyncio.Task[None] | None:
        """Return the read under way, begun now where there is none; None where the last one began a moment ago."""
        if self._reading is not None and not self._reading.done():
            return self._reading
        if monotonic() - self._tried_at < COOLDOWN_S:
            return None
        self._tried_at = monotonic()
        self._reading = asyncio.create_task(self._read(traceparent))
        return self._reading

    async def _read(self, traceparent: str | None) -> None:
        pause = COOLDOWN_S
        try:
            async with asyncio.timeout(FETCH_S):
                document = await self._fetch(traceparent)
            self._held = await asyncio.to_thread(_keys, document)
            self._read_at, pause = monotonic(), LIFESPAN_S
        except TimeoutError:
            _log.error("the token issuer's keys cannot be read: no whole answer within %g s", FETCH_S)
        except Unreachable as error:
            _log.error("the token issuer's keys cannot be read: %s", error)
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(pause, self._read_again)

    async def _fetch(self, traceparent: str | None) -> bytes:
        """Return the key set as the issuer sends it. Raises Unreachable."""
        import httpx  # noqa: PLC0415

        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "ras-triage"}
        if traceparent is not None:
            headers["traceparent"] = traceparent
        async with httpx.AsyncClient(verify=self._tls, headers=headers, follow_redirects=False, timeout=FETCH_S) as client:
            location = self._oidc.jwks_url or self._location(await _get(client, f"{self._oidc.issuer.rstrip('/')}{_DISCOVERY}"))
            return await _get(client, location)

    def _location(self, discovery: bytes) -> str:
        """Return where the keys are (OpenID Connect Discovery 1.0, 4). Raises Unreachable."""
        document = _object(discovery)
        location = document.get("jwks_uri")
        if document.get("issuer") != self._oidc.issuer:
            raise Unreachable("the discovery document is of another issuer")
        if not isinstance(location, str) or urlsplit(location).scheme not in ("https", urlsplit(self._oidc.issuer).scheme):
            raise Unreachable("the discovery document has no `jwks_uri` that can be trusted")
        return location


_DISCOVERY: Final = "/.well-known/openid-configuration"


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """Return a document's bytes. Raises Unreachable."""
    import httpx  # noqa: PLC0415

    content = bytearray()
    try:
        async with client.stream("GET", url) as response:
            if response.status_code != 200:
                raise Unreachable(f"{url}: status {response.status_code}")
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > MAX_BYTES:
                    raise Unreachable(f"{url}: longer than {MAX_BYTES} bytes")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unreachable(f"{url}: {type(error).__name__}: {error}") from None
    return bytes(content)


def _object(document: bytes) -> dict[str, Any]:
    try:
        content = from_json(document)
    except ValueError as error:
        raise Unreachable(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Unreachable("not a JSON object")
    return content


def _keys(document: bytes) -> dict[str, PyJWK]:
    """Return the keys that signatures can be checked with; of two with one id the first. Raises Unreachable where there are none."""
    entries = _object(document).get("keys")
    found: dict[str, PyJWK] = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and (key := _key(entry)) is not None and key.key_id:
            found.setdefault(key.key_id, key)
    if not found:
        raise Unreachable("the key set has no key that can be used")
    return found


def _key(entry: dict[str, Any]) -> PyJWK | None:
    try:
        if entry["kty"] not in _KINDS or entry.get("use", "sig") != "sig" or not isinstance(entry["kid"], str):
            return None
        return PyJWK(entry)
    except _UNUSABLE:
        return None
