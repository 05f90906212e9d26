"""Routes of replays: decide stored events again under another policy."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import ProblemError, invalid, unknown_replay
from ras_triage.service.api.replays.replays import Replay, ReplayList, ReplayRequest
from ras_triage.service.engine.replays.runner import order_replay
from ras_triage.service.http.dependencies import Body, PrincipalOf, RuntimeOf, only_parameters
from ras_triage.service.http.lists.filters import parse_filter
from ras_triage.service.http.openapi import json_body, json_response
from ras_triage.service.telemetry.logs import audit

router = APIRouter(prefix="/v1/replays", tags=["replays"], dependencies=[Depends(only_parameters())])

WAIT_S: Final = 1.0
"""Seconds for which a request waits for the end of a new replay, so that the response to a small one has its results."""

ReplayId = Annotated[str, Path(description="`id` of a replay")]


@router.post(
    "",
    operation_id="createReplay",
    status_code=201,
    response_class=Response,
    responses={201: json_response("Replay", description="The replay, which runs in the background")},
    openapi_extra=json_body("ReplayRequest"),
)
async def create_replay(request: Request, body: Body, runtime: RuntimeOf, principal: PrincipalOf) -> Response:
    """Decide stored events again under another policy, and count which decisions change.

    The events are decided with the host facts, poisoned pages and recent records of their first decision. The replay runs in the
    background, one at a time, and after a restart goes on; the response is sent after a second at the latest.
    """
    wanted = _read_request(body)
    given = wanted.filter.model_dump(exclude_none=True, mode="json")
    filters = await parse_filter(request, **{name: value for name, value in wanted.filter if value is not None})
    order = order_replay(runtime.settings, filters, given, wanted.before, wanted.after)
    identity = await runtime.replays.create(order)
    audit("replay.create", identity, principal.name)
    await runtime.replays.wait(identity, WAIT_S)
    return Response(to_json(await _found(runtime, identity)), 201, {"location": f"/v1/replays/{identity}"}, "application/json")


def _read_request(body: bytes) -> ReplayRequest:
    require_value_limit(body)
    try:
        return ReplayRequest.model_validate_json(body)
    except ValidationError as error:
        raise ProblemError(invalid(error, body, "request", ReplayRequest)) from None


async def _found(runtime: RuntimeOf, identity: str) -> Replay:
    replay = await runtime.replays.get(identity)
    if replay is None:
        raise ProblemError(unknown_replay(identity))
    return replay


@router.get("", operation_id="listReplays")
async def list_replays(runtime: RuntimeOf) -> ReplayList:
    """List the replays, newest first."""
    return ReplayList(await runtime.replays.list())


@router.get("/{identity}", operation_id="getReplay")
async def get_replay(identity: ReplayId, runtime: RuntimeOf) -> Replay:
    """Return a replay with its progress and what changes so far."""
    return await _found(runtime, identity)


@router.delete("/{identity}", operation_id="removeReplay", status_code=204)
async def remove_replay(identity: ReplayId, runtime: RuntimeOf, principal: PrincipalOf) -> None:
    """Cancel a replay that has not ended, which keeps its results so far, or delete one that has."""
    if not await runtime.replays.remove(identity):
        raise ProblemError(unknown_replay(identity))
    audit("replay.remove", identity, principal.name)
