"""What every route asks of a request: its settings, its body within limits, and no parameter that is not known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from service.limits import Held
from service.problems import Refused, invalid_parameter, too_large
from service.settings import Settings


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


SettingsOf = Annotated[Settings, Depends(_settings)]


async def _body(request: Request, settings: SettingsOf) -> bytes:
    """The body as sent. Raises Refused as soon as it is longer than the limit, announced or not, or too much is held already."""
    limit = settings.max_body_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise Refused(too_large(limit))
    chunks: list[bytes] = []
    left = limit
    held: Held = request.scope["held"]
    async for chunk in request.stream():
        left -= len(chunk)
        if left < 0:
            raise Refused(too_large(limit))
        held.add(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


Body = Annotated[bytes, Depends(_body)]


def only_parameters(*names: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses query parameters other than these: a misspelt one must not be a silence."""

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                raise Refused(invalid_parameter(name, "there is no such parameter"))

    return check
