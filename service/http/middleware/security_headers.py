"""Security headers of every response (ASGI middleware)."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_DEFAULT_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
_DOCS_POLICY: Final = (
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
"""Policy for `/docs`: Swagger UI needs inline scripts and styles."""
_DOCS_PATHS: Final = ("/docs",)
_HSTS: Final = b"max-age=31536000"


def security_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the security headers of the response to a request."""
    path: str = scope["path"]
    headers = [*_ALWAYS, (b"content-security-policy", _DOCS_POLICY if path.startswith(_DOCS_PATHS) else _DEFAULT_POLICY)]
    if path.startswith("/v1/"):
        headers.append((b"cache-control", b"no-store"))
    if scope["scheme"] == "https":
        headers.append((b"strict-transport-security", _HSTS))
    return headers


class SecurityHeadersMiddleware:
    """ASGI middleware that adds the security headers that a response lacks."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in security_headers(scope) if pair[0] not in present)]
            await send(message)

        await self.app(scope, receive, add)
