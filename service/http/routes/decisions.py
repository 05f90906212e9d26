"""Decisions: made, one by one and in batches, and looked up."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from ras_triage.service.api.content_encoding import decoded_chunks, require_known_encoding
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.problems import ProblemError, too_large, too_many_counts, unknown_decision
from ras_triage.service.api.summaries import PageJson, StatsJson
from ras_triage.service.api.times import rfc3339
from ras_triage.service.engine.evaluation import EventDocument
from ras_triage.service.engine.responses import wrap_decision
from ras_triage.service.http.batch_response import BatchResponse
from ras_triage.service.http.batch_run import ARRAY, NDJSON, BatchFormat, BatchRun
from ras_triage.service.http.dependencies import (
    Body,
    MetricsOf,
    PrincipalOf,
    RepeatName,
    RuntimeOf,
    clock_of,
    flag,
    only_parameters,
    repeat_name,
    require_parameters,
    runtime_of,
    work_of,
)
from ras_triage.service.http.disconnects import WhileConnected
from ras_triage.service.http.filters import FILTERS, MAX_COUNTS, BucketOf, CursorOf, FilterOf, GroupByOf, parse_last_event_id
from ras_triage.service.http.openapi import CONFLICT, EVENT_STREAM, IDEMPOTENCY, LINKED, batch_body, json_body, parameter
from ras_triage.service.http.streaming.response import EventStream
from ras_triage.service.http.summaries import page_json, stats_json
from ras_triage.service.security.guard import is_still_authorised
from ras_triage.service.telemetry import logs

router = APIRouter(prefix="/v1/decisions", tags=["decisions"])

MAX_PAGE: Final = 1000

_DRY_RUN: Final = parameter("dry_run", "query", "boolean", "Decide and keep nothing: `id` and `decided_at` are null")
_IDEMPOTENCY_KEY: Final = parameter("idempotency-key", "header", "string", IDEMPOTENCY)

_JSON: Final = "application/json"
_NDJSON_TYPES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})


@router.post(
    "",
    status_code=201,
    response_model=DecisionResponse,
    responses={
        200: {"model": DecisionResponse, "description": "Decided before, or decided with `dry_run`, of which nothing is kept"},
        **CONFLICT,
    },
    openapi_extra=json_body("Event") | {"parameters": [_DRY_RUN, _IDEMPOTENCY_KEY]},
)
async def decide(request: Request, body: Body) -> Response:
    """Decide one hardware error; the answer leaves when it is durable.

    A status block that the kernel would refuse is no error of the request: the decision says `reject`, as the kernel does.
    """
    # It reads its parameters itself: as dependencies of a route that is called so often, they cost half as much as deciding does.
    require_parameters(request, ("dry_run",))
    intake, name = runtime_of(request).intake, repeat_name(request)
    dry_run = flag(request, "dry_run")
    with WhileConnected(request.receive):
        if dry_run:
            return Response(await intake.decide_dry_run(EventDocument(body)), media_type=_JSON)
        answered = await intake.decide(EventDocument(body, name))
    logs.bind(decision_id=answered.id)
    return Response(answered.body, status_code=200 if answered.repeat else 201, media_type=_JSON)


@router.post("/batch", dependencies=[Depends(only_parameters())], openapi_extra=batch_body())
async def decide_batch(request: Request, runtime: RuntimeOf, principal: PrincipalOf, metrics: MetricsOf, name: RepeatName) -> Response:
    """Decide many, in order: a JSON array, or NDJSON in and NDJSON out; streamed both ways, packed with gzip or zstd or not.

    Each result is an answer, or the problem with its event; each leaves when it is durable.
    """
    limit, encoding = runtime.settings.max_batch_bytes, request.headers.get("content-encoding", "")
    require_known_encoding(encoding)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise ProblemError(too_large(limit))
    form, work, clock = _form(request), work_of(request), clock_of(request)
    work.require()
    clock.expect_items()
    batch = BatchRun(
        form,
        runtime.intake,
        runtime.writer,
        name=name,
        item_limit=runtime.settings.max_body_bytes,
        spill_limit=runtime.settings.spill_bytes,
        pace=principal.pace,
        workers=runtime.workers,
        metrics=metrics,
        work=work,
        clock=clock,
        held=request.scope["held"],
    )
    return BatchResponse(batch, form, decoded_chunks(request.stream(), encoding, limit))


def _form(request: Request) -> BatchFormat:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return NDJSON if media_type in _NDJSON_TYPES else ARRAY


@router.get("", response_model=PageJson, responses=LINKED, dependencies=[Depends(only_parameters(*FILTERS, "cursor", "limit"))])
async def list_decisions(
    request: Request,
    response: Response,
    runtime: RuntimeOf,
    asked: FilterOf,
    cursor: CursorOf,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> PageJson:
    """Decisions, newest first, a page at a time; `Link` leads to the next."""
    page = page_json(await runtime.read(lambda store: store.page(asked, cursor, limit)))
    if page.next is not None:
        further = request.url.include_query_params(cursor=page.next)
        response.headers["link"] = f'<{further.path}?{further.query}>; rel="next"'
    return page


@router.get("/stats", response_model=StatsJson, dependencies=[Depends(only_parameters(*FILTERS, "bucket", "group_by"))])
async def count_decisions(runtime: RuntimeOf, asked: FilterOf, bucket_ms: BucketOf, group_by: GroupByOf) -> StatsJson:
    """Counts over time, grouped by one or two fields. A decision with several sections or addresses counts for each of them."""
    counts = await runtime.read(lambda store: store.stats(asked, group_by, bucket_ms, MAX_COUNTS + 1))
    if len(counts) > MAX_COUNTS:
        raise ProblemError(too_many_counts(MAX_COUNTS))
    return stats_json(counts, group_by, bucket_ms)


@router.get("/stream", dependencies=[Depends(only_parameters(*FILTERS))], responses=EVENT_STREAM, response_class=Response)
async def follow(
    request: Request,
    runtime: RuntimeOf,
    asked: FilterOf,
    last_event_id: Annotated[
        str | None, Header(description="Go on behind this `id`; without it, begin with what is decided from now on")
    ] = None,
) -> Response:
    """Decisions as server-sent events, in the order in which they were kept, without a gap or a repeat also across a cut.

    `decision` events carry what a list shows. `purged` says that decisions between the last event seen and this one are gone.
    """
    last = None if last_event_id is None else parse_last_event_id(last_event_id)
    client = request.headers.get("authorization"), request.headers.get("host")
    return EventStream(await runtime.streams.subscribe(asked, last, client, partial(is_still_authorised, request)))


@router.get("/{identity}", response_model=DecisionResponse, dependencies=[Depends(only_parameters())])
async def show(identity: str, runtime: RuntimeOf) -> Response:
    """One decision, whole, as it was answered first."""
    kept = await runtime.read(lambda store: store.decision(identity))
    if kept is None:
        raise ProblemError(unknown_decision(identity))
    return Response(wrap_decision(kept.decision, identity=kept.id, decided_at=rfc3339(kept.decided_at_ms)), media_type=_JSON)


@router.get("/{identity}/event", dependencies=[Depends(only_parameters())], response_model=dict[str, Any])
async def show_event(identity: str, runtime: RuntimeOf) -> Response:
    """The event that a decision was made for, byte for byte as it was sent."""
    event = await runtime.read(lambda store: store.event(identity))
    if event is None:
        raise ProblemError(unknown_decision(identity))
    return Response(event, media_type=_JSON)
