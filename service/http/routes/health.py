"""Whether the service runs, whether it can keep what it decides, and how it is doing."""

from __future__ import annotations

from typing import Any, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from ras_triage.service.api.problems import ProblemError, not_ready
from ras_triage.service.security.guard import requires
from ras_triage.service.store.port import StoreError
from ras_triage.service.store.writer import WriteQueueFull
from ras_triage.service.telemetry.metrics import Metrics

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The answer of a probe."""

    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def liveness() -> Health:
    """The process runs."""
    return Health()


@router.get("/readyz")
async def readiness(request: Request) -> Health:
    """The store takes writes, seen by one, no event was turned away because it could not be read, and the service is not stopping.

    A single request would also get a place, and its decision one in the queue of the writer. Otherwise 503, and the problem says why.
    """
    runtime = request.app.state.runtime
    if runtime.stopping.is_set():
        raise ProblemError(not_ready("the service is stopping"))
    try:
        await runtime.writer.probe()
    except TimeoutError:
        raise ProblemError(not_ready("the store did not answer in time")) from None
    except StoreError as error:
        raise ProblemError(not_ready(f"the store takes no writes: {error}")) from None
    if (why := runtime.intake.unavailable_reason) is not None:
        raise ProblemError(not_ready(f"the store cannot be read: {why}"))
    if request.app.state.limits.requests.full:
        raise ProblemError(not_ready("the limit of concurrent requests is reached"))
    try:
        runtime.writer.require_room(1, 0)
    except WriteQueueFull as error:
        raise ProblemError(not_ready(str(error))) from None
    return Health()


_TEXT: Final = {"schema": {"type": "string"}}
_FORMATS: Final[dict[str, Any]] = {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}


async def _may_measure(request: Request) -> None:
    if not request.app.state.settings.metrics_public:
        await requires("read")(request)


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(_may_measure)],
    responses={200: {"description": "Prometheus' text format, or OpenMetrics where the request accepts it", "content": _FORMATS}},
)
def measures(request: Request) -> Response:
    """Metrics for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    document, media_type = metrics.render(request.headers.get("accept", ""))
    return Response(document, headers={"content-type": media_type})
