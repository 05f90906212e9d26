"""Routes of host facts."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import ValidationError
from pydantic_core import to_json

from ras_triage.models.frozen import frozen
from ras_triage.models.host import Host
from ras_triage.models.scalars import TimeText
from ras_triage.policies.catalog.vmms import UnknownVmm, require_known_vmms
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import ProblemError, invalid, invalid_value, precondition_failed, unknown_source
from ras_triage.service.api.times import rfc3339
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.source_state import facts_digest
from ras_triage.service.engine.used_facts import LOOP_BYTES
from ras_triage.service.http.dependencies import Body, PrincipalOf, RuntimeOf, SourceName, only_parameters
from ras_triage.service.http.lists.cursors import PageRequest, page_request
from ras_triage.service.http.lists.filters import ChangedSince, ChangedUntil, CursorText, SourceTexts, ages_of, moment, parse_sources
from ras_triage.service.http.lists.tables import DEFAULT_PAGE, PageLimit, TableFormOf, rows_csv, table_response
from ras_triage.service.http.openapi import TAGGED, json_body, json_response, linked_table
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.store.port import HostFacts, HostFilter
from ras_triage.service.telemetry.logs import audit

router = APIRouter(tags=["hosts"])


@frozen
class HostJson:
    """A version of the host facts of a source."""

    source: str
    """The `source` of events."""
    version: int
    """From 1, incremented with every change."""
    digest: str
    """Content hash of the facts."""
    changed_at: TimeText
    """RFC 3339, UTC."""
    host: Host
    """The facts as they were sent; absent ones are left out."""


@frozen
class HostEntryJson:
    """Stored host facts in a list, without the facts."""

    source: str
    """The `source` of events."""
    version: int
    """The newest."""
    changed_at: TimeText
    """When it was stored: RFC 3339, UTC."""
    bytes: int
    """Length of the facts as JSON."""


@frozen
class HostListJson:
    """Sources with host facts, by name."""

    hosts: tuple[HostEntryJson, ...]
    """By name."""
    next: str | None
    """`cursor` of the next page; null: last page."""
    damaged: int = 0
    """Number of sources that are missing from this page because their rows are corrupt."""


IfMatch = Annotated[str | None, Header(description="Required `ETag` of the current version")]


def _response(facts: HostFacts, content: bytes) -> Response:
    """Return a `HostJson` with the facts as stored: without fields that were not set."""
    head = to_json(
        {"source": facts.source, "version": facts.version, "digest": facts_digest(content), "changed_at": rfc3339(facts.changed_at_ms)}
    )
    return Response(head[:-1] + b',"host":' + content + b"}", media_type="application/json", headers={"etag": _etag(facts)})


def _etag(facts: HostFacts | None) -> str:
    return f'"{facts.version if facts is not None and facts.facts is not None else 0}"'


def _matches(if_match: str, newest: HostFacts | None) -> bool:
    """Return whether the condition holds (RFC 9110 13.1.1). Version 0, which no response has, stands for no facts."""
    if if_match.strip() == "*":
        return newest is not None and newest.facts is not None
    return _etag(newest) in (tag.strip() for tag in if_match.split(","))


def _host_json(settings: Settings, body: bytes) -> bytes:
    """Return facts as they are stored. Raises ProblemError."""
    require_value_limit(body)
    try:
        host = Host.model_validate_json(body)
    except ValidationError as error:
        raise ProblemError(invalid(error, body, "host", Host)) from None
    try:
        require_known_vmms(host, settings.custom_vmms)
    except UnknownVmm as error:
        raise ProblemError(invalid_value("host", f"/vms/{error.index}/vmm", str(error))) from None
    return host.model_dump_json(exclude_unset=True).encode()


async def _change(runtime: Runtime, source: str, content: bytes | None, if_match: str | None) -> HostFacts:
    """Store the next version and return it when it is durable. Raises ProblemError, StoreError."""
    newest = runtime.sources.state(source).facts
    if if_match is not None and not _matches(if_match, newest):
        raise ProblemError(precondition_failed(_etag(newest)))
    if content is None and (newest is None or newest.facts is None):
        raise ProblemError(unknown_source(source))
    facts = HostFacts(source, 1 if newest is None else newest.version + 1, runtime.clock_ms(), content)
    runtime.sources.put_facts(facts)
    try:
        await runtime.writer.call(partial(runtime.store.put_host, facts))
    finally:
        runtime.sources.end_facts_change(source)
    return facts


async def _host_pages(
    request: Request, source: SourceTexts = (), since: ChangedSince = None, until: ChangedUntil = None, cursor: CursorText = None
) -> PageRequest[HostFilter]:
    filters = HostFilter(*parse_sources(source), moment(request, "since", since), moment(request, "until", until))
    return page_request(filters, cursor, (str,), ages_of(request))


@router.get(
    "/v1/hosts",
    operation_id="listHosts",
    response_model=HostListJson,
    responses=linked_table("Sources with host facts, by name"),
    dependencies=[Depends(only_parameters("source", "since", "until", "cursor", "limit", "format", repeatable=("source",)))],
)
async def list_hosts(
    request: Request,
    runtime: RuntimeOf,
    asked: Annotated[PageRequest[HostFilter], Depends(_host_pages)],
    form: TableFormOf,
    limit: PageLimit = DEFAULT_PAGE,
) -> Response:
    """List the sources that have host facts, by name, in pages; `Link` has the next page."""
    after = None if asked.position is None else asked.position[0]
    found = await runtime.read(lambda store: store.hosts(asked.filters, after, limit))
    hosts = tuple(HostEntryJson(host.source, host.version, rfc3339(host.changed_at_ms), host.bytes) for host in found.hosts)
    cursor = None if found.next is None else asked.cursor(found.next)
    return table_response(request, form, HostListJson(hosts, cursor, found.damaged), lambda: rows_csv(HostEntryJson, hosts), cursor)


@router.put(
    "/v1/hosts/{source:name}",
    operation_id="putHost",
    response_class=Response,
    responses={200: json_response("HostJson", description="The version of the facts") | TAGGED},
    dependencies=[Depends(only_parameters())],
    openapi_extra=json_body("Host"),
)
async def put_host(source: SourceName, body: Body, runtime: RuntimeOf, principal: PrincipalOf, if_match: IfMatch = None) -> Response:
    """Store host facts for a source. From now on they apply to its events without a `host`."""
    is_long = len(body) > LOOP_BYTES
    content = await runtime.workers.run(_host_json, body) if is_long else _host_json(runtime.settings, body)
    facts = await _change(runtime, source, content, if_match)
    audit("host.put", source, principal.name, version=facts.version)
    return _response(facts, content)


@router.get(
    "/v1/hosts/{source:name}",
    operation_id="getHost",
    response_class=Response,
    responses={200: json_response("HostJson", description="The version of the facts") | TAGGED},
    dependencies=[Depends(only_parameters("version"))],
)
async def get_host(
    source: SourceName,
    runtime: RuntimeOf,
    version: Annotated[int | None, Query(ge=1, lt=1 << 53, description="An earlier version, from `host_facts` of a decision")] = None,
) -> Response:
    """Return the host facts of a source."""
    facts = await runtime.read(lambda store: store.host(source, version))
    if facts is None or facts.facts is None:
        raise ProblemError(unknown_source(source, version))
    return _response(facts, facts.facts)


@router.delete("/v1/hosts/{source:name}", operation_id="deleteHost", status_code=204, dependencies=[Depends(only_parameters())])
async def delete_host(source: SourceName, runtime: RuntimeOf, principal: PrincipalOf, if_match: IfMatch = None) -> None:
    """Delete the host facts of a source. Earlier versions can still be read."""
    facts = await _change(runtime, source, None, if_match)
    audit("host.delete", source, principal.name, version=facts.version)
