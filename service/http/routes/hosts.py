"""Hosts: facts kept for a source, and the pages that its decisions poisoned."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import ValidationError
from pydantic_core import to_json

from ras_triage.models.frozen import frozen
from ras_triage.models.host import Host
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import ProblemError, invalid, precondition_failed, unknown_source
from ras_triage.service.api.times import rfc3339
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.sources import facts_digest
from ras_triage.service.engine.used_facts import LOOP_BYTES
from ras_triage.service.http.dependencies import Body, PrincipalOf, RuntimeOf, only_parameters
from ras_triage.service.http.openapi import TAGGED, json_body
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.store.port import HostFacts
from ras_triage.service.telemetry.logs import audit

router = APIRouter(tags=["hosts"])

MAX_SOURCE: Final = 256
MAX_PAGES: Final = 10_000
"""Poisoned pages that one answer lists."""


@frozen
class HostJson:
    """The facts kept for a source."""

    source: str
    version: int
    """From 1, up with every change."""
    digest: str
    """Content hash of the facts."""
    changed_at: str
    """RFC 3339, UTC."""
    host: Host


@frozen
class PageAddress:
    """A page that counts as poisoned."""

    physical_address: str
    """Of the base page that failed, bytes."""
    shift: int
    """log2 of the bytes around it that count as poisoned with it."""


@frozen
class PoisonedJson:
    """The pages that decisions poisoned since the source's machine started."""

    source: str
    pages: tuple[PageAddress, ...]


SourceName = Annotated[str, Path(min_length=1, max_length=MAX_SOURCE)]
"""As an event may give it."""

IfMatch = Annotated[str | None, Header(description="The `ETag` that the facts must still have")]


def _answer(facts: HostFacts, content: bytes) -> Response:
    """A `HostJson`, its facts as they are kept: what was not told is not in it."""
    head = to_json(
        {"source": facts.source, "version": facts.version, "digest": facts_digest(content), "changed_at": rfc3339(facts.changed_at_ms)}
    )
    return Response(head[:-1] + b',"host":' + content + b"}", media_type="application/json", headers={"etag": _etag(facts)})


def _etag(facts: HostFacts | None) -> str:
    return f'"{facts.version if facts is not None and facts.facts is not None else 0}"'


def _matches(if_match: str, newest: HostFacts | None) -> bool:
    """Whether the condition holds (RFC 9110 13.1.1). Version 0, which no answer has, stands for facts that are not there."""
    if if_match.strip() == "*":
        return newest is not None and newest.facts is not None
    return _etag(newest) in (tag.strip() for tag in if_match.split(","))


def _host_json(_: Settings, body: bytes) -> bytes:
    """Return facts as they are kept. Raises Refused."""
    require_value_limit(body)
    try:
        host = Host.model_validate_json(body)
    except ValidationError as error:
        raise ProblemError(invalid(error, body, "host")) from None
    return host.model_dump_json(exclude_unset=True).encode()


async def _change(runtime: Runtime, source: str, content: bytes | None, if_match: str | None) -> HostFacts:
    """The source's next version, durable. Raises Refused, StoreError."""
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
        runtime.sources.facts_saved(source)
    return facts


@router.put(
    "/v1/hosts/{source:path}",
    response_model=HostJson,
    responses=TAGGED,
    dependencies=[Depends(only_parameters())],
    openapi_extra=json_body("Host"),
)
async def put_host(source: SourceName, body: Body, runtime: RuntimeOf, principal: PrincipalOf, if_match: IfMatch = None) -> Response:
    """Keep facts for a source. They go into its events that bring none of their own, from now on."""
    is_long = len(body) > LOOP_BYTES
    content = await runtime.workers.run(_host_json, body) if is_long else _host_json(runtime.settings, body)
    facts = await _change(runtime, source, content, if_match)
    audit("host.put", source, principal.name, version=facts.version)
    return _answer(facts, content)


@router.get("/v1/hosts/{source:path}", response_model=HostJson, responses=TAGGED, dependencies=[Depends(only_parameters("version"))])
async def get_host(
    source: SourceName,
    runtime: RuntimeOf,
    version: Annotated[int | None, Query(ge=1, lt=1 << 53, description="An earlier version, as a decision names it")] = None,
) -> Response:
    """The facts kept for a source."""
    facts = await runtime.read(lambda store: store.host(source, version))
    if facts is None or facts.facts is None:
        raise ProblemError(unknown_source(source))
    return _answer(facts, facts.facts)


@router.delete("/v1/hosts/{source:path}", status_code=204, dependencies=[Depends(only_parameters())])
async def delete_host(source: SourceName, runtime: RuntimeOf, principal: PrincipalOf, if_match: IfMatch = None) -> None:
    """Keep facts for a source no longer. Earlier versions can still be read, as decisions name them."""
    facts = await _change(runtime, source, None, if_match)
    audit("host.delete", source, principal.name, version=facts.version)


@router.get("/v1/poisoned-pages/{source:path}", dependencies=[Depends(only_parameters())])
async def get_poisoned(source: SourceName, runtime: RuntimeOf) -> PoisonedJson:
    """The pages of a source that its decisions poisoned; of very many the first."""
    pages = await runtime.read(lambda store: store.poisoned(source, MAX_PAGES))
    return PoisonedJson(source, tuple(PageAddress(hex(page.address), page.shift) for page in pages))


@router.delete("/v1/poisoned-pages/{source:path}", status_code=204, dependencies=[Depends(only_parameters())])
async def forget_poisoned(source: SourceName, runtime: RuntimeOf, principal: PrincipalOf) -> None:
    """Forget them: the machine was started again."""
    runtime.sources.state(source).forget_pages()
    count = await runtime.writer.call(partial(runtime.store.forget_poisoned, source))
    audit("poisoned_pages.delete", source, principal.name, pages=count)
