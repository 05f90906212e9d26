"""What every route asks of a request: its settings, its body within limits, and no parameter that is not known."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from ras_triage.service.api.content_encoding import decoded_chunks
from ras_triage.service.api.problems import ProblemError, invalid_header, invalid_parameter, too_large, truncate_text
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.limits.admission import ClientWork, client_of
from ras_triage.service.http.limits.body_deadlines import BodyClock
from ras_triage.service.http.limits.concurrency import ActiveRequest, ConcurrencyLimits
from ras_triage.service.http.middleware.limits import BodyBudget
from ras_triage.service.http.openapi import IDEMPOTENCY, MAX_IDEMPOTENCY_KEY
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.http.server.peers import peer_of
from ras_triage.service.security.principal import Principal
from ras_triage.service.telemetry.metrics import Metrics

_BOOL: Final = TypeAdapter(bool)


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


SettingsOf = Annotated[Settings, Depends(_settings)]


def runtime_of(request: Request) -> Runtime:
    """What the application has while it runs."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _runtime(request: Request) -> Runtime:
    return runtime_of(request)


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
        raise ProblemError(too_large(limit))
    encoding = request.headers.get("content-encoding", "")
    held: BodyBudget = request.scope["held"]
    pieces: list[bytes] = []
    async for piece in decoded_chunks(request.stream(), encoding, limit):
        held.add(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


Body = Annotated[bytes, Depends(_body)]


def work_of(request: Request) -> ClientWork:
    """Return what queues the events of a batch or import for its client."""
    principal: Principal = request.state.principal
    peer = peer_of(request.client.host if request.client else "")
    limits: ConcurrencyLimits = request.app.state.limits
    return ClientWork(limits.admission, client_of(principal, peer))


def clock_of(request: Request) -> BodyClock:
    """Return the clock of the request's body."""
    active: ActiveRequest = request.scope["active_request"]
    return active.clock


def repeat_name(request: Request) -> bytes | None:
    """What tells a repeat of a request: its Idempotency-Key, together with who sends it. Raises Refused."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_IDEMPOTENCY_KEY:
        raise ProblemError(invalid_header("Idempotency-Key", f"expected 1 to {MAX_IDEMPOTENCY_KEY} characters"))
    principal: Principal = request.state.principal
    return hashlib.sha256(to_json(["key", principal.name, key])).digest()


async def _repeat_name(
    request: Request,
    idempotency_key: Annotated[str | None, Header(description=IDEMPOTENCY)] = None,  # noqa: ARG001 - for the document
) -> bytes | None:
    return repeat_name(request)


RepeatName = Annotated[bytes | None, Depends(_repeat_name)]


def require_parameters(request: Request, names: Sequence[str]) -> None:
    """Raises Refused for any query parameter other than these, or one of them twice: neither must be a silence."""
    for name in request.query_params:
        if name not in names:
            raise ProblemError(invalid_parameter(name, "there is no such parameter"))
        if len(request.query_params.getlist(name)) > 1:
            raise ProblemError(invalid_parameter(name, "it is given more than once"))


def only_parameters(*names: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses query parameters other than these, and repeated ones."""

    async def check(request: Request) -> None:
        require_parameters(request, names)

    return check


def flag(request: Request, name: str) -> bool:
    """A query parameter that is true or false, and false where it is absent. Raises Refused."""
    text = request.query_params.get(name)
    if text is None:
        return False
    try:
        return _BOOL.validate_python(text)
    except ValidationError:
        raise ProblemError(invalid_parameter(name, f"`{truncate_text(text)}` is neither `true` nor `false`")) from None
