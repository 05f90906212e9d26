"""Cross-origin resource sharing, as `cors_origins` allows (ASGI middleware).

Starlette's middleware is not used: its origins cannot be reloaded, it refuses without a problem document, and it omits `Vary` where a
request has no `Origin`, so that a cache may serve that response, which has no CORS headers, to a page.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ras_triage.service.api.problems import MEDIA_TYPE, problem_json, refused_preflight
from ras_triage.service.config.value_types import ANY_ORIGIN
from ras_triage.service.security.principal import ANONYMOUS
from ras_triage.service.telemetry import logs

MAX_AGE_S: Final = 600
"""Seconds for which a browser remembers the answer to a preflight request."""

_ANY: Final = ANY_ORIGIN.encode()
_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (b"access-control-expose-headers", b"ETag, Link, Location, Retry-After, WWW-Authenticate, X-Request-Id")
_METHODS: Final = (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, DELETE")
_MAX_AGE: Final = (b"access-control-max-age", str(MAX_AGE_S).encode())


class AllowedOrigins:
    """Origins whose pages are allowed, as the settings have them now."""

    def __init__(self, origins: Collection[str]) -> None:
        self.origins = origins

    def value_for(self, origin: list[bytes]) -> bytes | None:
        """Return the value of `Access-Control-Allow-Origin` for the values of `Origin`; None: not allowed."""
        if len(origin) == 1 and origin[0].decode("latin-1") in self.origins:
            return origin[0]
        return _ANY if origin and ANY_ORIGIN in self.origins else None


class CorsHeadersMiddleware:
    """ASGI middleware that allows pages of other origins to read responses.

    Credentials mode is never allowed: keys and tokens are sent in `Authorization`, which a page sets itself.
    """

    def __init__(self, app: ASGIApp, allowed: AllowedOrigins) -> None:
        self.app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._allowed.origins:
            await self.app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _VARY, *self._allowance(scope)]
            await send(message)

        await self.app(scope, receive, add)

    def _allowance(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the CORS headers of a response. `*` is not for what anybody gets without authentication, as from a service on loopback."""
        allowed = self._allowed.value_for(_values(scope, b"origin"))
        principal = scope.get("state", {}).get("principal")
        is_anonymous = principal is not None and principal.name == ANONYMOUS
        if allowed is None or (allowed == _ANY and is_anonymous):
            return []
        return [(b"access-control-allow-origin", allowed), _EXPOSED]


class PreflightMiddleware:
    """ASGI middleware that answers preflight requests (Fetch 3.2.2), which have no credentials."""

    def __init__(self, app: ASGIApp, allowed: AllowedOrigins) -> None:
        self.app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_preflight = scope["type"] == "http" and scope["method"] == "OPTIONS" and _values(scope, b"access-control-request-method")
        if not is_preflight or not (origin := _values(scope, b"origin")):
            await self.app(scope, receive, send)
        elif self._allowed.value_for(origin) is None:
            await _refuse(send, b", ".join(origin).decode("latin-1"))
        else:
            requested = b", ".join(_values(scope, b"access-control-request-headers"))
            headers = [_METHODS, (b"access-control-allow-headers", requested), _MAX_AGE]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})


def _values(scope: Scope, wanted: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == wanted]


async def _refuse(send: Send, origin: str) -> None:
    problem = refused_preflight(origin)
    logs.bind(problem=problem.type)
    body = problem_json(problem)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
