"""Routes of decisions: decide, list, count, stream."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from ras_triage.service.api.content_encoding import decoded_chunks, require_known_encoding
from ras_triage.service.api.decision_response import AlternativesResponse, BatchView
from ras_triage.service.api.problems import ProblemError, too_many_counts, unknown_decision
from ras_triage.service.api.summaries import PageJson, StatsJson
from ras_triage.service.api.times import rfc3339
from ras_triage.service.engine.evaluation import EventDocument
from ras_triage.service.engine.responses import wrap_decision
from ras_triage.service.engine.stored.alternatives import stored_alternatives
from ras_triage.service.engine.stored.inputs import read_inputs
from ras_triage.service.http.batch_run import ARRAY, CLOUD_EVENTS, NDJSON, BatchFormat, BatchRun
from ras_triage.service.http.cloud_events import is_cloud_batch, received_event
from ras_triage.service.http.dependencies import (
    Body,
    MetricsOf,
    PrincipalOf,
    RepeatKey,
    RuntimeOf,
    clock_of,
    only_parameters,
    read_body,
    repeat_key,
    require_length,
    require_parameters,
    runtime_of,
    work_of,
)
from ras_triage.service.http.direct_route import DirectRoute
from ras_triage.service.http.disconnects import WhileConnected
from ras_triage.service.http.immutable import IfNoneMatch, immutable_response
from ras_triage.service.http.lists.filters import (
    FILTERS,
    LAST_EVENT_ID,
    MAX_COUNTS,
    BucketOf,
    FilterOf,
    GroupByOf,
    LastEventIdOf,
    PageRequestOf,
    filled_buckets,
)
from ras_triage.service.http.lists.summaries import decisions_csv, page_json, stats_csv, stats_json
from ras_triage.service.http.lists.tables import DEFAULT_PAGE, PageLimit, TableFormOf, table_response
from ras_triage.service.http.openapi import (
    CONFLICT,
    EVENT_STREAM,
    IDEMPOTENCY,
    IMMUTABLE,
    LOCATED,
    NOT_MODIFIED,
    batch_body,
    event_body,
    json_response,
    linked_table,
    parameter,
    table,
)
from ras_triage.service.http.streamed_response import StreamedResponse
from ras_triage.service.http.streaming.response import EventStream
from ras_triage.service.security.guard import is_still_authorised, require_request_scope, stream_client
from ras_triage.service.security.scopes import DRY_RUN, is_dry_run
from ras_triage.service.security.tickets import PARAMETER
from ras_triage.service.store.port import FIELDS, Cursor, Store
from ras_triage.service.telemetry import logs

router = APIRouter(prefix="/v1/decisions", tags=["decisions"])

_TICKET: Final = "Ticket from `POST /v1/decisions/stream-tickets`, where `Authorization` cannot be sent"
_DRY_RUN: Final = parameter(DRY_RUN, "query", "boolean", "Decide and store nothing: `id` and `decided_at` are null")
_IDEMPOTENCY_KEY: Final = parameter("idempotency-key", "header", "string", IDEMPOTENCY)

DecisionId = Annotated[str, Path(description="`id` of a decision")]

_JSON: Final = "application/json"
_NDJSON_TYPES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})


@router.post(
    "",
    operation_id="decide",
    status_code=201,
    response_class=Response,
    responses={
        201: json_response("DecisionResponse", description="The decision, which is durable") | LOCATED,
        200: json_response("DecisionResponse", description="A repeat of an earlier event, or a dry run"),
        **CONFLICT,
    },
    openapi_extra=event_body() | {"parameters": [_DRY_RUN, _IDEMPOTENCY_KEY]},
)
async def decide(request: Request, body: Body) -> Response:
    """Decide one hardware error. The response is sent when the decision is durable.

    A status block that the kernel would reject is not an error of the request: the decision has a step `reject`. The event may be in a
    CloudEvent 1.0, in structured or binary mode.
    """
    require_parameters(request, (DRY_RUN,))
    intake, key = runtime_of(request).intake, repeat_key(request)
    dry_run = is_dry_run(request)
    document = EventDocument(received_event(request, body), key)
    with WhileConnected(request.receive):
        if dry_run:
            return Response((await intake.decide_dry_run(document)).body, media_type=_JSON)
        answered = await intake.decide(document)
    logs.bind(decision_id=answered.id)
    if answered.repeat:
        return Response(answered.body, media_type=_JSON)
    return Response(answered.body, 201, {"location": f"/v1/decisions/{answered.id}"}, _JSON)


async def _decide(request: Request) -> Response:
    await require_request_scope(request)
    return await decide(request, await read_body(request))


DIRECT: Final = DirectRoute(router.prefix, _decide, "POST")
"""`decide`, for the application to put before all routes."""


@router.post("/batch", operation_id="decideBatch", dependencies=[Depends(only_parameters(DRY_RUN, "view"))], openapi_extra=batch_body())
async def decide_batch(
    request: Request,
    runtime: RuntimeOf,
    principal: PrincipalOf,
    metrics: MetricsOf,
    key: RepeatKey,
    dry_run: Annotated[
        bool, Query(description="Decide each event as if the others were not there, and store nothing: `id` and `decided_at` are null")
    ] = False,
    view: Annotated[BatchView, Query(description="`summary`: of each decision only id, action, certainty and event key")] = "full",
) -> Response:
    """Decide many events: a JSON array, NDJSON or a batch of CloudEvents.

    The body may be compressed with gzip or zstd, and is streamed in both directions.
    Each result is a decision or a problem, in the order of the events, with the `index` and the `event_id` of its event. Each is sent when
    it is durable.
    """
    limit, encoding = runtime.settings.max_batch_bytes, request.headers.get("content-encoding", "")
    require_known_encoding(encoding)
    require_length(request, limit)
    batch_format, work, clock = _batch_format(request), work_of(request), clock_of(request)
    work.require()
    clock.expect_items()
    batch = BatchRun(
        batch_format,
        runtime.intake,
        runtime.writer,
        repeat_key=None if dry_run else key,
        dry_run=dry_run,
        view=view,
        item_limit=runtime.settings.max_body_bytes,
        spill_limit=runtime.settings.spill_bytes,
        pace=principal.pace,
        workers=runtime.workers,
        metrics=metrics,
        work=work,
        clock=clock,
        budget=request.scope["body_budget"],
    )
    return StreamedResponse(batch, batch_format.media_type, decoded_chunks(request.stream(), encoding, limit))


def _batch_format(request: Request) -> BatchFormat:
    """Return the format of a batch by its content type. Raises ProblemError."""
    if is_cloud_batch(request):
        return CLOUD_EVENTS
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return NDJSON if media_type in _NDJSON_TYPES else ARRAY


@router.get(
    "",
    operation_id="listDecisions",
    response_model=PageJson,
    responses=linked_table("Decisions, newest first"),
    dependencies=[Depends(only_parameters(*FILTERS, "cursor", "limit", "format", repeatable=FIELDS))],
)
async def list_decisions(
    request: Request, runtime: RuntimeOf, asked: PageRequestOf, form: TableFormOf, limit: PageLimit = DEFAULT_PAGE
) -> Response:
    """List decisions, newest first, in pages; `Link` has the next page."""
    position = None if asked.position is None else Cursor(*asked.position)
    page = await runtime.read(lambda store: store.page(asked.filters, position, limit))
    cursor = None if page.next is None else asked.cursor(page.next.decided_at_ms, page.next.sequence)
    content = page_json(page, cursor)
    return table_response(request, form, content, lambda: decisions_csv(content), cursor)


@router.get(
    "/stats",
    operation_id="countDecisions",
    response_model=StatsJson,
    responses=table("Counts by bucket of time"),
    dependencies=[Depends(only_parameters(*FILTERS, "bucket", "group_by", "fill", "format", repeatable=(*FIELDS, "group_by")))],
)
async def count_decisions(
    request: Request,
    runtime: RuntimeOf,
    filters: FilterOf,
    bucket_ms: BucketOf,
    group_by: GroupByOf,
    form: TableFormOf,
    fill: Annotated[bool, Query(description="Include empty buckets, from `since` or the first decision to `until` or now")] = False,
) -> Response:
    """Count decisions over time, grouped by up to three fields. One with several sections or addresses counts for each of them."""
    counts = await runtime.read(lambda store: store.stats(filters, group_by, bucket_ms, MAX_COUNTS + 1))
    if len(counts) > MAX_COUNTS:
        raise ProblemError(too_many_counts(MAX_COUNTS))
    filled = filled_buckets(counts, filters, bucket_ms, runtime.clock_ms()) if fill else range(0)
    content = stats_json(counts, group_by, bucket_ms, filled)
    return table_response(request, form, content, lambda: stats_csv(content))


@router.get(
    "/stream",
    operation_id="streamDecisions",
    dependencies=[Depends(only_parameters(*FILTERS, LAST_EVENT_ID, PARAMETER, repeatable=FIELDS))],
    responses=EVENT_STREAM,
    response_class=Response,
)
async def follow(
    request: Request,
    runtime: RuntimeOf,
    filters: FilterOf,
    resumed_after: LastEventIdOf,
    ticket: Annotated[str | None, Query(description=_TICKET)] = None,  # noqa: ARG001 - for the OpenAPI document
) -> Response:
    """Stream decisions as server-sent events in the order in which they were stored, without gaps or repeats after a reconnect.

    `decision` events have the fields of a list. `purged` says that decisions between the last event and this one were purged.
    """
    client, check = stream_client(request), partial(is_still_authorised, request)
    return EventStream(await runtime.streams.subscribe(filters, resumed_after, client, check))


@router.get(
    "/{identity}",
    operation_id="getDecision",
    response_class=Response,
    responses={200: json_response("DecisionResponse", description="The decision") | IMMUTABLE, **NOT_MODIFIED},
    dependencies=[Depends(only_parameters())],
)
async def show(identity: DecisionId, runtime: RuntimeOf, if_none_match: IfNoneMatch = None) -> Response:
    """Return one decision as it was first returned. It never changes."""
    stored = await runtime.read(lambda store: store.decision(identity))
    if stored is None:
        raise ProblemError(unknown_decision(identity))
    document = wrap_decision(stored.decision, identity=stored.id, decided_at=rfc3339(stored.decided_at_ms))
    return immutable_response(document, if_none_match)


@router.get("/{identity}/alternatives", operation_id="getAlternatives", dependencies=[Depends(only_parameters())])
async def show_alternatives(identity: DecisionId, runtime: RuntimeOf) -> AlternativesResponse:
    """Return what an unknown fact or another input would change about a decision.

    The event is decided again with the stored facts that it was decided with: under every reading of the facts that it leaves open, and
    with one or two changes until some lead to another action.
    """

    def explore(store: Store) -> AlternativesResponse | None:
        inputs = read_inputs(store, identity)
        return None if inputs is None else stored_alternatives(inputs, runtime.settings)

    found = await runtime.read(explore)
    if found is None:
        raise ProblemError(unknown_decision(identity))
    return found


@router.get(
    "/{identity}/event",
    operation_id="getEvent",
    dependencies=[Depends(only_parameters())],
    response_class=Response,
    responses={200: json_response("Event", description="The event") | IMMUTABLE, **NOT_MODIFIED},
)
async def show_event(identity: DecisionId, runtime: RuntimeOf, if_none_match: IfNoneMatch = None) -> Response:
    """Return the event of a decision, byte for byte as received."""
    event = await runtime.read(lambda store: store.event(identity))
    if event is None:
        raise ProblemError(unknown_decision(identity))
    return immutable_response(event, if_none_match)
