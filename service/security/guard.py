"""Authentication and authorisation of requests (FastAPI dependencies)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from fastapi import Request

from ras_triage.service.api.problems import ProblemError, cross_origin, forbidden, invalid_header, misdirected, unauthenticated
from ras_triage.service.config.authority import Authority, is_loopback, origin_of, parse_authority, parse_host, parse_origin
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.config.value_types import ANY_ORIGIN
from ras_triage.service.security.keys import KeyRing, verify
from ras_triage.service.security.principal import ANONYMOUS, SCOPES, Principal, Scope, granted
from ras_triage.service.security.rate_limit import RateLimiter
from ras_triage.service.security.scopes import accepted_scopes
from ras_triage.service.security.tickets import PARAMETER, STREAM_PATH, TICKETS_PATH, Tickets
from ras_triage.service.security.tokens import Tokens
from ras_triage.service.security.www_authenticate import CHALLENGE, REJECTED, insufficient_scope
from ras_triage.service.store.port import ApiKey
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.redaction import PREFIX

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Security:
    """Authentication by API keys and tokens, as configured.

    With neither keys nor an issuer, and only where no other machine can connect, no authentication is required ("open"). Then `Host` and
    `Origin` must be local or trusted, because any web page can make a browser send requests to loopback.
    """

    def __init__(self, settings: Settings, load_keys: Callable[[], Awaitable[Sequence[ApiKey]]]) -> None:
        """`load_keys` returns the store's keys. Raises InvalidSetting for an invalid keys file or trusted host."""
        self._load_keys = load_keys
        self._hosts = frozenset(map(trusted_host, settings.trusted_hosts))
        self._origins = frozenset(settings.cors_origins) - {ANY_ORIGIN}
        self._open = settings.is_local and settings.oidc is None and settings.keys_file is None
        self._keys = KeyRing(load_keys, settings.keys_file)
        self._tokens = None if settings.oidc is None else Tokens(settings.oidc)
        limiter = None if settings.rate_limit is None else RateLimiter(settings.rate_limit, settings.rate_burst)
        self._limiter = limiter
        self._anybody = Principal(ANONYMOUS, frozenset(SCOPES), limiter)
        self._tickets = Tickets()

    def reloaded(self, before: Settings, settings: Settings) -> Security:
        """Return a Security for new settings with the same tickets; the issuer's keys and the rate limiter are kept if unchanged.

        It reads the keys file again, and never opens a service that requires authentication. Raises InvalidSetting.
        """
        found = Security(settings, self._load_keys)
        found._open = found._open and self._open
        found._tickets = self._tickets
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
            self._check_origin(request)
            return self._anybody
        self._check_host(request, known=True)
        principal = await self._principal_of(self._credentials(request), keys)
        return replace(principal, limiter=self._limiter)

    def _credentials(self, request: Request) -> str:
        """Return the bearer credentials, or those that the ticket of an event stream stands for. Raises ProblemError."""
        ticket = request.query_params.get(PARAMETER) if request.scope["path"] == STREAM_PATH else None
        if ticket is None or "authorization" in request.headers:
            return _bearer(request)
        credentials: str | None = getattr(request.state, "ticket_credentials", None) or self._tickets.credentials(ticket)
        if credentials is None:
            raise ProblemError(unauthenticated(f"unknown or expired ticket; request a new one with POST `{TICKETS_PATH}`"), REJECTED)
        request.state.ticket_credentials = credentials  # the stream stays open when the ticket expires
        return credentials

    def issue_ticket(self, request: Request, principal: Principal) -> str:
        """Return a ticket for event streams with the credentials of an authenticated request. Raises ProblemError."""
        return self._tickets.issue(principal.name, None if principal.name == ANONYMOUS else _bearer(request))

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
        if authority is None or (authority.host not in self._hosts and not _is_loopback(authority.host)):
            raise ProblemError(misdirected(", ".join(named)))

    def _check_origin(self, request: Request) -> None:
        """Check the header `Origin`, which browsers send with requests that make changes. Raises ProblemError."""
        origins = request.headers.getlist("origin")
        if not origins or request.method in _SAFE or (len(origins) == 1 and origins[0] in self._origins):
            return
        authority = _single_host(request.headers.getlist("host"))
        own = None if authority is None else origin_of(request.scope["scheme"], authority)
        if own is None or len(origins) > 1 or parse_origin(origins[0]) != own:
            raise ProblemError(cross_origin(", ".join(origins)))


def trusted_host(text: str) -> str:
    """Normalise a trusted host. Raises InvalidSetting."""
    host = parse_host(text)
    if host is None:
        raise InvalidSetting(f"`trusted_hosts`: `{text}` is not a host name or address without a port")
    return host


def _bearer(request: Request) -> str:
    """Return the credentials in `Authorization`. Raises ProblemError."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credentials.strip():
        raise ProblemError(unauthenticated("API key or token required: `Authorization: Bearer ...`"), CHALLENGE)
    return credentials.strip()


_parse = lru_cache(maxsize=64)(parse_authority)
_is_loopback = lru_cache(maxsize=64)(is_loopback)
"""Hosts recur: parsing the same one takes as long as the rest of the checks. Both are bounded, since clients choose hosts."""


def _single_host(named: list[str]) -> Authority | None:
    """Return the value of `Host`; None: not exactly one, or malformed."""
    return _parse(named[0]) if len(named) == 1 else None


@lru_cache
def requires(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """Return a dependency that requires a scope, counts the request, and returns the principal, also as `request.state.principal`.

    It must run before the body is read.
    """

    async def enter(request: Request) -> Principal:
        return await _enter(request, (scope,))

    return enter


async def require_request_scope(request: Request) -> Principal:
    """Require a scope of which the request needs one."""
    return await _enter(request, accepted_scopes(request))


async def is_still_authorised(request: Request) -> bool:
    """Return whether the request would still be authorised: keys are revoked and tokens expire while a stream is open."""
    try:
        await _authorise(request, accepted_scopes(request))
    except ProblemError:
        return False
    return True


def stream_client(request: Request) -> Hashable:
    """Return what identifies the client of an authenticated event stream."""
    credentials = getattr(request.state, "ticket_credentials", None) or request.headers.get("authorization")
    return credentials, request.headers.get("host")


async def _authorise(request: Request, accepted: Sequence[Scope]) -> Principal:
    security: Security = request.app.state.security
    principal = await security.identify(request)
    if principal.scopes.isdisjoint(accepted):
        raise ProblemError(forbidden(accepted), insufficient_scope(accepted[0]))
    return principal


async def _enter(request: Request, accepted: Sequence[Scope]) -> Principal:
    principal = await _authorise(request, accepted)
    logs.bind(principal=principal.name)
    request.scope["active_request"].charge(principal.name)
    principal.charge()
    request.state.principal = principal
    return principal
