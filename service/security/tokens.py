"""Bearer tokens of an OpenID Connect issuer: JSON Web Tokens (RFC 7519), checked with the issuer's public keys."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from http.client import HTTPException
from math import inf
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt
from jwt.exceptions import InvalidSubjectError, PyJWKClientConnectionError, PyJWKClientError, PyJWKSetError

from service.problems import Refused, issuer_unavailable, unauthenticated
from service.security.challenge import REJECTED
from service.security.principal import Principal, granted
from service.settings import Oidc

LEEWAY_S: Final = 60
"""By how much clocks may differ."""

LIFESPAN_S: Final = 300
"""Seconds after which the issuer's keys are read again."""

COOLDOWN_S: Final = 30.0
"""Seconds between two readings at least: tokens that name keys which do not exist cost the issuer nothing."""

STALE_S: Final = 86_400.0
"""Seconds for which keys hold that cannot be read again."""

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 1 << 20
_THREADS: Final = 4

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context 3.2."""

_log = logging.getLogger("ras_triage.security")
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


class _Unreachable(Exception):
    """The issuer does not say what its keys are."""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """The keys come from where they were configured to come from."""


def _fetch(url: str) -> dict[str, Any]:
    """A JSON object from the issuer. Raises _Unreachable."""
    traceparent = _traceparent.get()
    request = Request(url, headers={"Accept": "application/json", **({"traceparent": traceparent} if traceparent else {})})
    try:
        with build_opener(_NoRedirect()).open(request, timeout=_TIMEOUT_S) as response:
            content = json.loads(response.read(_MAX_BYTES))
    except (OSError, HTTPException, ValueError) as error:
        raise _Unreachable(f"{url}: {error}") from None
    if not isinstance(content, dict):
        raise _Unreachable(f"{url}: not a JSON object")
    return content


class _Keys(jwt.PyJWKClient):
    """The issuer's keys. While they cannot be read again, those read before go on to hold for a day."""

    def __init__(self, oidc: Oidc) -> None:
        super().__init__(oidc.jwks_url or oidc.issuer, lifespan=LIFESPAN_S, cooldown_duration=0)
        self._oidc = oidc
        self._last: dict[str, Any] | None = None
        self._read_at = self._tried_at = -inf

    def _location(self) -> str:
        """Where the keys are (OpenID Connect Discovery 1.0, 4)."""
        if self._oidc.jwks_url is not None:
            return self._oidc.jwks_url
        document = _fetch(f"{self._oidc.issuer.rstrip('/')}/.well-known/openid-configuration")
        location = document.get("jwks_uri")
        if document.get("issuer") != self._oidc.issuer:
            raise _Unreachable("the discovery document is of another issuer")
        if not isinstance(location, str) or urlsplit(location).scheme not in ("https", urlsplit(self._oidc.issuer).scheme):
            raise _Unreachable("the discovery document has no `jwks_uri` that can be trusted")
        return location

    def fetch_data(self) -> Any:
        """The keys: read, or where they were asked for just now, as they were then."""
        now = monotonic()
        if now - self._tried_at >= COOLDOWN_S:
            self._tried_at = now
            try:
                content = _fetch(self._location())
                jwt.PyJWKSet.from_dict(content)
                self._last, self._read_at = content, now
            except (_Unreachable, PyJWKSetError) as error:
                _log.error("the token issuer's keys cannot be read: %s", error)
        if self._last is None or now - self._read_at > STALE_S:
            raise PyJWKClientConnectionError("not read for too long")
        return self._last


class Tokens:
    """Who a token was issued to. Keys are read, and signatures checked, in threads of their own."""

    def __init__(self, oidc: Oidc) -> None:
        self._oidc = oidc
        self._keys = _Keys(oidc)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tokens")

    async def identify(self, token: str, traceparent: str | None = None) -> Principal:
        """Whose token it is, and what they may do. `traceparent` goes along to the issuer where it is one. Raises Refused."""
        with _passed_on(traceparent):
            context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, self._check, token)

    def _check(self, token: str) -> Principal:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._oidc.algorithms:
                raise jwt.InvalidAlgorithmError
            claims = jwt.decode(
                token,
                self._keys.get_signing_key(header.get("kid", "")),
                algorithms=self._oidc.algorithms,
                audience=self._oidc.audience,
                issuer=self._oidc.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            claims["sub"].encode()  # half a surrogate pair is JSON, and no text
        except PyJWKClientConnectionError:
            raise Refused(issuer_unavailable(), {"Retry-After": str(int(COOLDOWN_S))}) from None
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Refused(unauthenticated(_reason(error)), REJECTED) from None
        return Principal(f"token {claims['sub']}", granted(_scopes(claims.get(self._oidc.scope_claim))))


def _scopes(claim: object) -> list[str]:
    if isinstance(claim, str):
        return claim.split()
    return [name for name in claim if isinstance(name, str)] if isinstance(claim, list) else []


_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is of another issuer"),
    (jwt.InvalidAlgorithmError, "the token is signed in a way that is not accepted"),
    (jwt.InvalidSignatureError, "the token's signature is not the issuer's"),
    (jwt.MissingRequiredClaimError, "the token lacks a claim: `exp`, `iss`, `aud` and `sub` are needed"),
    (InvalidSubjectError, "the token's `sub` is no text"),
    (UnicodeEncodeError, "the token's `sub` is no text"),
    (PyJWKClientError, "the token is signed with a key that the issuer does not show"),
)


def _reason(error: Exception) -> str:
    return next(
        (reason for kind, reason in _REASONS if isinstance(error, kind)), "the bearer token is neither an API key nor a JSON Web Token"
    )


@contextmanager
def _passed_on(traceparent: str | None) -> Iterator[None]:
    known = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
    before = _traceparent.set(known)
    try:
        yield
    finally:
        _traceparent.reset(before)
