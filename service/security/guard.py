"""The door: every route that needs somebody known depends on `requires`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from fastapi import Request

from ras_triage.service.api.problems import ProblemError, cross_origin, forbidden, invalid_header, misdirected, unauthenticated
from ras_triage.service.config.authority import Authority, origin_of, parse_authority, parse_host, parse_origin
from ras_triage.service.config.settings import InvalidSetting, Settings, is_loopback
from ras_triage.service.security.allowance import Allowance
from ras_triage.service.security.challenge import CHALLENGE, REJECTED, insufficient
from ras_triage.service.security.keys import KeyRing, recognise
from ras_triage.service.security.principal import ANONYMOUS, SCOPES, Principal, Scope, granted
from ras_triage.service.security.tokens import Tokens
from ras_triage.service.store.port import ApiKey
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.redaction import PREFIX

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SCOPES: Final[dict[str, Scope]] = {"GET": "read", "HEAD": "read", "POST": "decide"}


class Security:
    """Who may come in, as the settings and the keys have it.

    Where there is neither key nor issuer, everybody may, as long as the service listens on loopback only. Then the host that a request
    names and the web page that it comes from have to be this machine's own, because any page can make a browser send requests here.
    """

    def __init__(self, settings: Settings, load_keys: Callable[[], Awaitable[Sequence[ApiKey]]]) -> None:
        """`load_keys` gives the store's keys. Raises InvalidSetting where the keys file or a trusted host is not valid."""
        self._load_keys = load_keys
        self._hosts = frozenset(map(trusted_host, settings.trusted_hosts))
        self._open = is_loopback(settings.host) and settings.oidc is None and settings.keys_file is None
        self._keys = KeyRing(load_keys, settings.keys_file)
        self._tokens = None if settings.oidc is None else Tokens(settings.oidc)
        allowance = None if settings.rate_limit is None else Allowance(settings.rate_limit, settings.rate_burst)
        self._allowance = allowance
        self._anybody = Principal(ANONYMOUS, frozenset(SCOPES), allowance)

    def reloaded(self, before: Settings, settings: Settings) -> Security:
        """Return what holds under other settings, with the issuer's keys and the rates if those stay the same.

        It reads the keys file again, and never opens what was closed. Raises InvalidSetting where the keys file is not valid.
        """
        found = Security(settings, self._load_keys)
        found._open = found._open and self._open
        if before.oidc == settings.oidc:
            found._tokens = self._tokens
        if (before.rate_limit, before.rate_burst) == (settings.rate_limit, settings.rate_burst):
            found._allowance = self._allowance
            found._anybody = self._anybody
        return found

    def replaced_by(self, other: Security) -> None:
        """Ask nobody any more whom the other does not ask."""
        if self._tokens is not None and self._tokens is not other._tokens:
            self._tokens.close()

    async def identify(self, request: Request) -> Principal:
        """Who asks. Raises Refused."""
        keys = await self._keys.keys()
        if self._open and all(key.revoked_at_ms is not None for key in keys.values()):
            self._check_host(request, known=False)
            _check_origin(request)
            return self._anybody
        self._check_host(request, known=True)
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not credentials.strip():
            raise ProblemError(unauthenticated("an API key or token is needed: `Authorization: Bearer ...`"), CHALLENGE)
        principal = await self._known(credentials.strip(), keys, request.headers.get("traceparent"))
        return replace(principal, allowance=self._allowance)

    async def _known(self, credentials: str, keys: Mapping[str, ApiKey], traceparent: str | None) -> Principal:
        if credentials.startswith(PREFIX):
            key = recognise(credentials, keys)
            if key is None:
                raise ProblemError(unauthenticated("there is no such API key, or it was revoked"), REJECTED)
            return Principal(f"key {key.id}", granted(key.scopes))
        if self._tokens is None:
            raise ProblemError(unauthenticated("the bearer token is no API key, and no token issuer is configured"), REJECTED)
        return await self._tokens.identify(credentials, traceparent)

    def _check_host(self, request: Request, *, known: bool) -> None:
        """The host that a request is for. Raises Refused."""
        named = request.headers.getlist("host")
        authority = _only_host(named)
        if known and not self._hosts:
            if named and authority is None:
                raise ProblemError(invalid_header("Host", f"`{', '.join(named)}` is not a host with or without a port"))
            return
        if authority is None or (authority.host not in self._hosts and not is_loopback(authority.host)):
            raise ProblemError(misdirected(", ".join(named)))


def trusted_host(text: str) -> str:
    """Return the name or address as it is compared with. Raises InvalidSetting."""
    host = parse_host(text)
    if host is None:
        raise InvalidSetting(f"`trusted_hosts`: `{text}` is not a host name or address without a port")
    return host


def _only_host(named: list[str]) -> Authority | None:
    """Return the value of `Host`; None where there is not exactly one that follows the grammar."""
    return parse_authority(named[0]) if len(named) == 1 else None


def _check_origin(request: Request) -> None:
    """A browser names the page that a request comes from, where it would change something. Raises Refused."""
    origins = request.headers.getlist("origin")
    if not origins or request.method in _SAFE:
        return
    authority = _only_host(request.headers.getlist("host"))
    own = None if authority is None else origin_of(request.scope["scheme"], authority)
    if own is None or len(origins) > 1 or parse_origin(origins[0]) != own:
        raise ProblemError(cross_origin(", ".join(origins)))


@lru_cache
def requires(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency that lets in who may do this, counts the request, and gives who asks: also as `request.state.principal`.

    It has to come before the body is read.
    """

    async def enter(request: Request) -> Principal:
        return await _enter(request, scope)

    return enter


async def guarded(request: Request) -> Principal:
    """The dependency of every route whose method says what it does: GET reads, POST decides, PUT and DELETE administer."""
    return await _enter(request, _SCOPES.get(request.method, "admin"))


async def still_welcome(request: Request) -> bool:
    """Whether who was let in would be let in now: what lasts asks again, because keys are revoked and tokens expire."""
    try:
        await _admit(request, _SCOPES.get(request.method, "admin"))
    except ProblemError:
        return False
    return True


async def _admit(request: Request, scope: Scope) -> Principal:
    security: Security = request.app.state.security
    principal = await security.identify(request)
    if scope not in principal.scopes:
        raise ProblemError(forbidden(scope), insufficient(scope))
    return principal


async def _enter(request: Request, scope: Scope) -> Principal:
    principal = await _admit(request, scope)
    logs.bind(principal=principal.name)
    request.scope["active_request"].charge(principal.name)
    principal.charge()
    request.state.principal = principal
    return principal
