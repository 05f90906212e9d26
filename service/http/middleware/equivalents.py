"""HEAD as GET, and paths with a trailing slash (ASGI middleware)."""

from __future__ import annotations

from anyio import CancelScope
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """ASGI middleware that responds to HEAD with the status and headers of GET (RFC 9110 9.3.2). What is inside of it sees a GET."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        get = {**scope, "method": "GET"}
        with CancelScope() as response:

            async def send_head(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
                    response.cancel()  # an event stream would not end

            try:
                await self.app(get, receive, send_head)
            finally:
                scope.update({**get, "method": "HEAD"})


class TrailingSlashMiddleware:
    """ASGI middleware that ignores a trailing slash, unless a route has it: a `source` may end with one.

    A redirect would be followed by few clients for POST, and not by all for GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/") and not _has_route(scope, scope["app"].routes):
            scope["path"] = scope["path"].removesuffix("/")
            scope["raw_path"] = (scope.get("raw_path") or b"").removesuffix(b"/")
        await self.app(scope, receive, send)


def _has_route(scope: Scope, routes: list[BaseRoute]) -> bool:
    return any(route.matches(scope)[0] is not Match.NONE for route in routes)
