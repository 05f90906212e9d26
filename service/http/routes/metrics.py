"""Route of the Prometheus metrics."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from ras_triage.service.security.guard import requires
from ras_triage.service.telemetry.metrics import Metrics

router = APIRouter(tags=["health"])

_TEXT: Final = {"schema": {"type": "string"}}
_FORMATS: Final[dict[str, Any]] = {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}


async def _require_access(request: Request) -> None:
    if not request.app.state.settings.metrics_public:
        await requires("read")(request)


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    dependencies=[Depends(_require_access)],
    responses={200: {"description": "Prometheus text format, or OpenMetrics if the request accepts it", "content": _FORMATS}},
)
def measures(request: Request) -> Response:
    """Return metrics for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    document, media_type = metrics.render(request.headers.get("accept", ""))
    return Response(document, headers={"content-type": media_type})
