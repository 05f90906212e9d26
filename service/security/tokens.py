"""Bearer tokens of an OpenID Connect issuer: JSON Web Tokens (RFC 7519), checked with the issuer's public keys."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import jwt
from jwt import PyJWK
from jwt.exceptions import InvalidSubjectError

from ras_triage.service.api.problems import ProblemError, issuer_unavailable, unauthenticated
from ras_triage.service.config.settings import Oidc
from ras_triage.service.security.challenge import REJECTED
from ras_triage.service.security.issuer_keys import IssuerKeys, UnknownKey, Unreachable
from ras_triage.service.security.principal import Principal, granted

LEEWAY_S: Final = 60
"""By how much clocks may differ."""

_THREADS: Final = 4

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context 3.2."""


class Tokens:
    """Who a token was issued to. Signatures are checked in threads of their own."""

    def __init__(self, oidc: Oidc) -> None:
        self._oidc = oidc
        self._keys = IssuerKeys(oidc)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tokens")

    async def identify(self, token: str, traceparent: str | None = None) -> Principal:
        """Whose token it is, and what they may do. `traceparent` goes along to the issuer where it is one. Raises Refused."""
        try:
            key = await self._keys.find(self._key_id(token), traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None)
            claims = await asyncio.get_running_loop().run_in_executor(self._threads, self._check, token, key)
        except Unreachable:
            raise ProblemError(issuer_unavailable(), {"Retry-After": str(self._keys.retry_s())}) from None
        except (jwt.PyJWTError, UnknownKey, ValueError, RecursionError) as error:
            raise ProblemError(unauthenticated(_reason(error)), REJECTED) from None
        return Principal(f"token {claims['sub']}", granted(_scopes(claims.get(self._oidc.scope_claim))))

    def close(self) -> None:
        """Ask the issuer only for tokens that are being checked."""
        self._keys.close()

    def _key_id(self, token: str) -> str:
        """Return the id of the key that a token says it is signed with. Raises PyJWTError, UnknownKey."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._oidc.algorithms:
            raise jwt.InvalidAlgorithmError
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise UnknownKey
        return kid

    def _check(self, token: str, key: PyJWK) -> dict[str, Any]:
        """Return the claims of a token. Raises PyJWTError, ValueError."""
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=self._oidc.algorithms,
            audience=self._oidc.audience,
            issuer=self._oidc.issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        claims["sub"].encode()  # half a surrogate pair is JSON, and no text
        return claims


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
    (UnknownKey, "the token is signed with a key that the issuer does not show"),
)


def _reason(error: Exception) -> str:
    return next(
        (reason for kind, reason in _REASONS if isinstance(error, kind)), "the bearer token is neither an API key nor a JSON Web Token"
    )
