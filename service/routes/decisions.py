"""Decisions: one event in, one decision out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from uuid_utils import uuid7

from service.answers import Answer, decide_event, decision_json, envelop, read_event
from service.openapi import json_body
from service.requests import Body, SettingsOf, only_parameters

router = APIRouter(prefix="/v1/decisions", tags=["decisions"])


@router.post(
    "",
    status_code=201,
    response_model=Answer,
    responses={200: {"model": Answer, "description": "Decided with `dry_run`; nothing is kept"}},
    dependencies=[Depends(only_parameters("dry_run"))],
    openapi_extra=json_body("Event"),
)
async def decide_one(
    body: Body,
    settings: SettingsOf,
    dry_run: Annotated[bool, Query(description="Decide and keep nothing: `id` and `decided_at` are null")] = False,
) -> Response:
    """Decide one hardware error.

    A status block that the kernel would refuse is no error of the request: the decision says `reject`, as the kernel does.
    """
    decision = decision_json(decide_event(read_event(body), settings))
    if dry_run:
        return Response(envelop(decision), media_type="application/json")
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Response(envelop(decision, identity=str(uuid7()), decided_at=now), status_code=201, media_type="application/json")
