"""Routes of the liveness and readiness probes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ras_triage.service.api.problems import ProblemError, not_ready
from ras_triage.service.store.port import StoreError
from ras_triage.service.store.writer import WriteQueueFull

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """Result of a probe."""

    status: Literal["ok"] = "ok"
    """The probe succeeded."""


@router.get("/healthz", operation_id="getLiveness")
async def liveness() -> Health:
    """Return 200 while the process runs."""
    return Health()


@router.get("/readyz", operation_id="getReadiness")
async def readiness(request: Request) -> Health:
    """Return 200 if the store is readable and writable, no limit is reached and the service is not stopping.

    Otherwise 503 with the reason.
    """
    runtime = request.app.state.runtime
    if runtime.stopping.is_set():
        raise ProblemError(not_ready("the service is stopping"))
    try:
        await runtime.writer.probe()
    except TimeoutError:
        raise ProblemError(not_ready("store timeout")) from None
    except StoreError as error:
        raise ProblemError(not_ready(f"the store is not writable: {error}")) from None
    if (reason := runtime.intake.unavailable_reason) is not None:
        raise ProblemError(not_ready(f"the store is not readable: {reason}"))
    if request.app.state.limits.requests.full:
        raise ProblemError(not_ready("the limit of concurrent requests is reached"))
    try:
        runtime.writer.require_room(1, 0)
    except WriteQueueFull as error:
        raise ProblemError(not_ready(str(error))) from None
    return Health()
