"""Route that creates tickets for event streams."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from ras_triage.service.http.dependencies import PrincipalOf, only_parameters
from ras_triage.service.security.guard import Security
from ras_triage.service.security.tickets import LIFETIME_S, TICKETS_PATH

router = APIRouter(prefix=TICKETS_PATH, tags=["decisions"])


class StreamTicket(BaseModel):
    """A ticket for event streams, in place of `Authorization`."""

    ticket: str = Field(examples=["rtt_Z0hV3k0b2oQ1n5m6xw7c8v9a1s2d3f4g5h6j7k8l9p0"])
    """Value of the parameter `ticket` of `GET /v1/decisions/stream`."""
    valid_s: int = Field(examples=[LIFETIME_S])
    """Seconds for which the ticket opens streams, as often as needed. A stream that it opened stays open."""


@router.post("", status_code=201, operation_id="createStreamTicket", response_model=StreamTicket, dependencies=[Depends(only_parameters())])
async def create_stream_ticket(request: Request, principal: PrincipalOf) -> StreamTicket:
    """Create a ticket for `GET /v1/decisions/stream`, for the EventSource of a browser, which cannot send `Authorization`.

    The ticket is valid for that path alone, and only while the key or token that it was created with is valid.
    """
    security: Security = request.app.state.security
    return StreamTicket(ticket=security.issue_ticket(request, principal), valid_s=LIFETIME_S)
