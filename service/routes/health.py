"""Whether the service runs, and whether it can answer."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The answer of a probe."""

    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def liveness() -> Health:
    """The process runs."""
    return Health()


@router.get("/readyz")
async def readiness() -> Health:
    """Decisions can be made: the policies were loaded when the service started, and nothing else is needed."""
    return Health()
