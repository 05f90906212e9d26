"""Route of the root: where everything is."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from ras_triage.service.api.version import installed_version
from ras_triage.service.http.routes.page import page_response

router = APIRouter(tags=["health"])

_VARY: Final = {"vary": "Accept"}
_PAGE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Name, version and paths; to a browser, the page", "content": {"text/html": {"schema": {"type": "string"}}}}
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
    responses=_PAGE,
)
async def show_info(request: Request, response: Response) -> ServiceInfo | Response:
    """Return name, version and paths of the service; a browser gets the page. Needs no authentication."""
    if "text/html" in request.headers.get("accept", ""):
        return page_response(request)
    response.headers.update(_VARY)
    return ServiceInfo(version=installed_version())
