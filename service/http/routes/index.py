"""Route of the root: where everything is."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from ras_triage.service.api.version import installed_version

router = APIRouter(tags=["health"])

_VARY: Final = {"vary": "Accept"}
_LOCATION: Final = {"Location": {"description": "Path of the page", "schema": {"type": "string", "format": "uri-reference"}}}
_REDIRECT: Final[dict[int | str, dict[str, Any]]] = {
    307: {"description": "To a browser: the page that describes every call", "headers": _LOCATION}
}


class Links(BaseModel):
    """Paths of the service."""

    documentation: str = Field("/docs", examples=["/docs"])
    """Description of every call, as a page."""
    openapi: str = Field("/openapi.json", examples=["/openapi.json"])
    """Description of every call, in OpenAPI."""
    decisions: str = Field("/v1/decisions", examples=["/v1/decisions"])
    """Decide an event (POST), list decisions (GET)."""
    policies: str = Field("/v1/policies", examples=["/v1/policies"])
    """Policies under which events are decided."""
    health: str = Field("/healthz", examples=["/healthz"])
    """Whether the process runs."""
    readiness: str = Field("/readyz", examples=["/readyz"])
    """Whether events are accepted."""


class ServiceInfo(BaseModel):
    """Name, version and paths of the service."""

    name: str = Field("ras-triage", examples=["ras-triage"])
    """Name of the product."""
    version: str = Field(examples=["0.1.0"])
    """Version of the product."""
    links: Links = Links()
    """Where to go on."""


@router.get(
    "/",
    operation_id="getServiceInfo",
    response_model=ServiceInfo,
    responses=_REDIRECT,
)
async def show_info(request: Request, response: Response) -> ServiceInfo | Response:
    """Return name, version and paths of the service; a browser is redirected to `/docs`. Needs no authentication."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(Links().documentation, headers=_VARY)
    response.headers.update(_VARY)
    return ServiceInfo(version=installed_version())
