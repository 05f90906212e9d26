"""Authentication and authorisation of requests (FastAPI dependencies)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from fastapi import Request

from ras_triage.service.api.problems import ProblemError, cross_origin, forbidden, invalid_header, misdirected, unauthenticated
from ras_triage.service.config.authority import Authority, is_loopback, origin_of, parse_authority, parse_host, parse_origin
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.security.keys import KeyRing, verify
from ras_triage.service.security.principal import ANONYMOUS, SCOPES, Principal, Scope, granted
from ras_triage.service.security.rate_limit import RateLimiter
from ras_triage.service.security.tokens import Tokens
from ras_triage.service.security.www_authenticate import CHALLENGE, REJECTED, insufficient_scope
from ras_triage.service.store.port import ApiKey
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.redaction import PREFIX

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SCOPES: Final[dict[str, Scope]] = {"GET": "read", "HEAD": "read", "POST": "decide"}


class Security:
    """Authentication by API keys and tokens, as configured.

    With neither keys nor an issuer, and on loopback only, no authentication is required ("open"). Then `Host` and `Origin` must be local,
    because any web page can make a browser send requests to loopback.
    """

    def __init__(self, settings: Settings, load_keys: Callable[[], Awaitable[Sequence[ApiKey]]]) -> None:
        """`load_keys` returns the store's keys. Raises InvalidSetting for an invalid keys file or trusted host."""
        self._load_keys = load_keys
        self._hosts = frozenset(map(trusted_host, settings.trusted_hosts))
        self._open = is_loopback(settings.host) and settings.oidc is None and settings.keys_file is None
        self._keys = KeyRing(load_keys, settings.keys_file)
        self._tokens = None if settings.oidc is None else Tokens(settings.oidc)
        limiter = None if settings.rate_limit is None else RateLimiter(settings.rate_limit, settings.rate_burst)
        self._limiter = limiter
        self._anybody = Principal(ANONYMOUS, frozenset(SCOPES), limiter)

    def reloaded(self, before: Settings, settings: Settings) -> Security:
        """Return a Security for new settings; the issuer's keys and the rate limiter are kept if their settings are unchanged.

        It reads the keys file again, and never opens a service that requires authentication. Raises InvalidSetting.
        """
        found = Security(settings, self._load_keys)
        found._open = found._open and self._open
        if before.oidc == settings.oidc:
            found._tokens = self._tokens
        if (before.rate_limit, before.rate_burst) == (settings.rate_limit, settings.rate_burst):
            found._limiter = self._limiter
            found._anybody = self._anybody
        return found

    def replaced_by(self, other: Security) -> None:
        """Close what the new Security does not use."""
        if self._tokens is not None and self._tokens is not other._tokens:
            self._tokens.close()

    async def identify(self, request: Request) -> Principal:
        """Authenticate a request. Raises ProblemError."""
        keys = await self._keys.keys()
        if self._open and all(key.revoked_at_ms is not None for key in keys.values()):
            self._check_host(request, known=False)
            _check_origin(request)
            return self._anybody
        self._check_host(request, known=True)
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not credentials.strip():
            raise ProblemError(unauthenticated("API key or token required: `Authorization: Bearer ...`"), CHALLENGE)
        principal = await self._principal_of(credentials.strip(), keys)
        return replace(principal, limiter=self._limiter)

    async def _principal_of(self, credentials: str, keys: Mapping[str, ApiKey]) -> Principal:
        if credentials.startswith(PREFIX):
            key = verify(credentials, keys)
            if key is None:
                raise ProblemError(unauthenticated("unknown or revoked API key"), REJECTED)
            return Principal(f"key {key.id}", granted(key.scopes))
        if self._tokens is None:
            raise ProblemError(unauthenticated("the bearer token is not an API key, and no token issuer is configured"), REJECTED)
        return await self._tokens.identify(credentials)

    def _check_host(self, request: Request, *, known: bool) -> None:
        """Check the header `Host`. Raises ProblemError."""
        named = request.headers.getlist("host")
        authority = _single_host(named)
        if known and not self._hosts:
            if named and authority is None:
                raise ProblemError(invalid_header("Host", f"`{', '.join(named)}` is not a host with an optional port"))
            return
        if authority is None or (authority.host not in self._hosts and not is_loopback(authority.host)):
            raise ProblemError(misdirected(", ".join(named)))


def trusted_host(text: str) -> str:
    """Normalise a trusted host. Raises InvalidSetting."""
    host = parse_host(text)
    if host is None:
        raise InvalidSetting(f"`trusted_hosts`: `{text}` is not a host name or address without a port")
    return host


def _single_host(named: list[str]) -> Authority | None:
    """Return the value of `Host`; None: not exactly one, or malformed."""
    return parse_authority(named[0]) if len(named) == 1 else None


def _check_origin(request: Request) -> None:
    """Check the header `Origin`, which browsers send with requests that make changes. Raises ProblemError."""
    origins = request.headers.getlist("origin")
    if not origins or request.method in _SAFE:
        return
    authority = _single_host(request.headers.getlist("host"))
    own = None if authority is None else origin_of(request.scope["scheme"], authority)
    if own is None or len(origins) > 1 or parse_origin(origins[0]) != own:
        raise ProblemError(cross_origin(", ".join(origins)))


@lru_cache
def requires(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """Return a dependency that requires a scope, counts the request, and returns the principal, also as `request.state.principal`.

    It must run before the body is read.
    """

    async def enter(request: Request) -> Principal:
        return await _enter(request, scope)

    return enter


async def require_method_scope(request: Request) -> Principal:
    """Require the scope of the request's method: GET `read`, POST `decide`, PUT and DELETE `admin`."""
    return await _enter(request, _SCOPES.get(request.method, "admin"))


async def is_still_authorised(request: Request) -> bool:
    """Return whether the request would still be authorised: keys are revoked and tokens expire while a stream is open."""
    try:
        await _authorise(request, _SCOPES.get(request.method, "admin"))
    except ProblemError:
        return False
    return True


async def _authorise(request: Request, scope: Scope) -> Principal:
    security: Security = request.app.state.security
    principal = await security.identify(request)
    if scope not in principal.scopes:
        raise ProblemError(forbidden(scope), insufficient_scope(scope))
    return principal


async def _enter(request: Request, scope: Scope) -> Principal:
    principal = await _authorise(request, scope)
    logs.bind(principal=principal.name)
    request.scope["active_request"].charge(principal.name)
    principal.charge()
    request.state.principal = principal
    return principal
