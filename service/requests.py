"""What every route asks of a request: its settings, its body within limits, and no parameter that is not known."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from pydantic_core import to_json

from service.batch.unpacking import unpacked
from service.limits import Held
from service.metrics import Metrics
from service.problems import Refused, invalid_header, invalid_parameter, too_large
from service.runtime import Runtime
from service.security.principal import Principal
from service.settings import Settings

MAX_IDEMPOTENCY_KEY: Final = 255


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


SettingsOf = Annotated[Settings, Depends(_settings)]


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeOf = Annotated[Runtime, Depends(_runtime)]


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


MetricsOf = Annotated[Metrics, Depends(_metrics)]


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


PrincipalOf = Annotated[Principal, Depends(_principal)]
"""Who asks; the guard has let them in."""


async def _body(request: Request) -> bytes:
    """The body as sent. Raises Refused as soon as it is longer than the limit, announced or not, or too much is held already."""
    settings: Settings = request.app.state.settings
    limit = settings.max_body_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise Refused(too_large(limit))
    encoding = request.headers.get("content-encoding", "")
    held: Held = request.scope["held"]
    pieces: list[bytes] = []
    async for piece in unpacked(request.stream(), encoding, limit):
        held.add(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


Body = Annotated[bytes, Depends(_body)]


async def _repeat_name(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(description=f"Makes a repeat of this very request recognisable; 1 to {MAX_IDEMPOTENCY_KEY} characters")
    ] = None,
) -> bytes | None:
    if idempotency_key is None:
        return None
    if not 0 < len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
        raise Refused(invalid_header("Idempotency-Key", f"expected 1 to {MAX_IDEMPOTENCY_KEY} characters"))
    principal: Principal = request.state.principal
    return hashlib.sha256(to_json(["key", principal.name, idempotency_key])).digest()


RepeatName = Annotated[bytes | None, Depends(_repeat_name)]
"""What tells a repeat of a request: its Idempotency-Key, together with who sends it."""


def only_parameters(*names: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses query parameters other than these, or one of them twice: neither must be a silence."""

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                raise Refused(invalid_parameter(name, "there is no such parameter"))
            if len(request.query_params.getlist(name)) > 1:
                raise Refused(invalid_parameter(name, "it is given more than once"))

    return check
