"""Dependencies of routes: runtime, principal, body, parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

from fastapi import Depends, Header, Path, Request
from pydantic_core import to_json
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect

from ras_triage.models.errors import suggestion
from ras_triage.service.api.content_encoding import decoded_chunks
from ras_triage.service.api.problems import ProblemError, invalid_header, invalid_parameter, too_large
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

_MAX_SOURCE: Final = 256


class _NameConvertor(Convertor[str]):
    """The rest of a path, unless it is empty; `{source:name}` in the path of a route."""

    regex = ".+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _NameConvertor())

SourceName = Annotated[str, Path(min_length=1, max_length=_MAX_SOURCE, description="The `source` of events")]
"""The `source` of events, in a path."""


async def _settings(request: Request) -> Settings:
    return runtime_of(request).settings


SettingsOf = Annotated[Settings, Depends(_settings)]


def runtime_of(request: Request) -> Runtime:
    """Return the runtime of the application."""
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
"""The authenticated caller."""


def require_length(request: Request, limit: int) -> None:
    """Raise ProblemError if the `Content-Length` of a request exceeds a limit in bytes."""
    content_length = request.headers.get("content-length", "")
    if content_length.isdecimal() and int(content_length) > limit:
        raise ProblemError(too_large(limit))


async def read_body(request: Request) -> bytes:
    """Return the body, decompressed. Raises ProblemError when it exceeds the size limit or the request memory limit."""
    settings: Settings = request.app.state.settings
    limit = settings.max_body_bytes
    require_length(request, limit)
    encoding = request.headers.get("content-encoding", "")
    budget: BodyBudget = request.scope["body_budget"]
    if not encoding:
        return await _read_plain_body(request, budget, limit)
    pieces: list[bytes] = []
    async for piece in decoded_chunks(request.stream(), encoding, limit):
        budget.add(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


async def _read_plain_body(request: Request, budget: BodyBudget, limit: int) -> bytes:
    """Return a body without content encoding, for which the generators of `decoded_chunks` would cost more than the reading."""
    pieces: list[bytes] = []
    left, more = limit, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        left -= len(piece)
        if left < 0:
            raise ProblemError(too_large(limit))
        budget.add(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


Body = Annotated[bytes, Depends(read_body)]


def work_of(request: Request) -> ClientWork:
    """Return the work queue of the client of a batch or import."""
    principal: Principal = request.state.principal
    peer = peer_of(request.client.host if request.client else "")
    limits: ConcurrencyLimits = request.app.state.limits
    return ClientWork(limits.admission, client_of(principal, peer))


def clock_of(request: Request) -> BodyClock:
    """Return the clock of the request's body."""
    active: ActiveRequest = request.scope["active_request"]
    return active.clock


def repeat_key(request: Request) -> bytes | None:
    """Return a hash of the Idempotency-Key and the principal, which identifies a repeat; None without a key. Raises ProblemError."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_IDEMPOTENCY_KEY:
        raise ProblemError(invalid_header("Idempotency-Key", f"invalid length; expected 1 to {MAX_IDEMPOTENCY_KEY} characters"))
    principal: Principal = request.state.principal
    return hashlib.sha256(to_json(["key", principal.name, key])).digest()


async def _repeat_key(
    request: Request,
    idempotency_key: Annotated[str | None, Header(description=IDEMPOTENCY)] = None,  # noqa: ARG001 - for the OpenAPI document
) -> bytes | None:
    return repeat_key(request)


RepeatKey = Annotated[bytes | None, Depends(_repeat_key)]


def require_parameters(request: Request, names: Sequence[str], repeatable: Sequence[str] = ()) -> None:
    """Raise ProblemError for an unknown query parameter, and for a repeated one that is not `repeatable`."""
    if not request.scope["query_string"]:
        return
    for name in request.query_params:
        if name not in names:
            raise ProblemError(invalid_parameter(name, _unknown(names) + suggestion(name, names)))
        if name not in repeatable and len(request.query_params.getlist(name)) > 1:
            raise ProblemError(invalid_parameter(name, "repeated parameter; expected it once"))


def _unknown(names: Sequence[str]) -> str:
    expected = ", ".join(f"`{name}`" for name in names)
    return f"unknown parameter; expected {f'one of {expected}' if names else 'none'}"


def only_parameters(*names: str, repeatable: Sequence[str] = ()) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency that refuses unknown query parameters, and repeated ones that are not `repeatable`."""

    async def check(request: Request) -> None:
        require_parameters(request, names, repeatable)

    return check
