"""Verification of bearer tokens of an OpenID Connect issuer (JWT, RFC 7519)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import jwt
from jwt import PyJWK
from jwt.exceptions import InvalidSubjectError

from ras_triage.service.api.problems import ProblemError, issuer_unavailable, unauthenticated
from ras_triage.service.config.settings import Oidc
from ras_triage.service.security.issuer_keys import IssuerKeys, IssuerUnavailable, UnknownKey
from ras_triage.service.security.principal import Principal, granted
from ras_triage.service.security.www_authenticate import REJECTED

LEEWAY_S: Final = 60
"""Tolerance for clock differences, in seconds."""

_THREADS: Final = 4


class Tokens:
    """Token verifier. Signatures are verified in a thread pool."""

    def __init__(self, oidc: Oidc) -> None:
        self._oidc = oidc
        self._keys = IssuerKeys(oidc)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tokens")

    async def identify(self, token: str) -> Principal:
        """Return the principal of a token. Raises ProblemError."""
        try:
            key = await self._keys.find(self._key_id(token))
            claims = await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, token, key)
        except IssuerUnavailable:
            raise ProblemError(issuer_unavailable(), {"Retry-After": str(self._keys.retry_s())}) from None
        except (jwt.PyJWTError, UnknownKey, ValueError, RecursionError) as error:
            raise ProblemError(unauthenticated(_reason(error)), REJECTED) from None
        return Principal(f"token {claims['sub']}", granted(_scopes(claims.get(self._oidc.scope_claim))))

    def close(self) -> None:
        """Stop refreshing the issuer's keys."""
        self._keys.close()

    def _key_id(self, token: str) -> str:
        """Return the key id in a token's header. Raises PyJWTError, UnknownKey."""
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self._oidc.algorithms:
            raise jwt.InvalidAlgorithmError
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise UnknownKey
        return kid

    def _verify(self, token: str, key: PyJWK) -> dict[str, Any]:
        """Verify a token and return its claims. Raises PyJWTError, ValueError."""
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=self._oidc.algorithms,
            audience=self._oidc.audience,
            issuer=self._oidc.issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        claims["sub"].encode()  # an unpaired surrogate is valid JSON, but not encodable
        return claims


def _scopes(claim: object) -> list[str]:
    if isinstance(claim, str):
        return claim.split()
    return [name for name in claim if isinstance(name, str)] if isinstance(claim, list) else []


_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is from another issuer"),
    (jwt.InvalidAlgorithmError, "the token's signature algorithm is not accepted"),
    (jwt.InvalidSignatureError, "the token's signature is invalid"),
    (jwt.MissingRequiredClaimError, "the token lacks a claim; required are `exp`, `iss`, `aud` and `sub`"),
    (InvalidSubjectError, "the token's `sub` is not valid text"),
    (UnicodeEncodeError, "the token's `sub` is not valid text"),
    (UnknownKey, "the token's key id is unknown to the issuer"),
)


def _reason(error: Exception) -> str:
    return next(
        (reason for kind, reason in _REASONS if isinstance(error, kind)), "the bearer token is neither an API key nor a JSON Web Token"
    )
