"""Routes of poisoned pages."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import HexText
from ras_triage.service.http.dependencies import PrincipalOf, RuntimeOf, SourceName, only_parameters
from ras_triage.service.http.lists.cursors import PageRequest, page_request
from ras_triage.service.http.lists.filters import ContainedTexts, CursorText, SourceTexts, parse_addresses, parse_sources
from ras_triage.service.http.lists.tables import DEFAULT_PAGE, PageLimit, TableFormOf, rows_csv, table_response
from ras_triage.service.http.openapi import linked_table
from ras_triage.service.store.port import PoisonedPosition, PoisonFilter
from ras_triage.service.telemetry.logs import audit

router = APIRouter(tags=["hosts"])

MAX_PAGES: Final = 10_000
"""Pages in one response."""


@frozen
class PageAddress:
    """A poisoned page."""

    physical_address: HexText
    """Address of the base page that failed, in bytes."""
    shift: int
    """log2 of the size of the poisoned area in bytes."""


@frozen
class PoisonedJson:
    """The pages that decisions poisoned since the machine was started."""

    source: str
    """The `source` of events."""
    pages: tuple[PageAddress, ...]
    """By address, at most 10,000."""


@frozen
class PoisonedEntryJson:
    """A poisoned page with its source."""

    source: str
    """The `source` of events."""
    physical_address: HexText
    """Address of the base page that failed, in bytes."""
    shift: int
    """log2 of the size of the poisoned area in bytes."""


@frozen
class PoisonedListJson:
    """Poisoned pages of all sources, by source and address."""

    pages: tuple[PoisonedEntryJson, ...]
    """By source and address."""
    next: str | None
    """`cursor` of the next page of the list; null: last page."""
    damaged: int = 0
    """Number of entries that are missing because their rows are corrupt."""


async def _poisoned_request(
    source: SourceTexts = (), physical_address: ContainedTexts = (), cursor: CursorText = None
) -> PageRequest[PoisonFilter]:
    return page_request(PoisonFilter(*parse_sources(source), parse_addresses(physical_address)), cursor, (str, str, int))


@router.get(
    "/v1/poisoned-pages",
    operation_id="listPoisonedPages",
    response_model=PoisonedListJson,
    responses=linked_table("Poisoned pages, by source and address"),
    dependencies=[
        Depends(only_parameters("source", "physical_address", "cursor", "limit", "format", repeatable=("source", "physical_address")))
    ],
)
async def list_poisoned(
    request: Request,
    runtime: RuntimeOf,
    asked: Annotated[PageRequest[PoisonFilter], Depends(_poisoned_request)],
    form: TableFormOf,
    limit: PageLimit = DEFAULT_PAGE,
) -> Response:
    """List the poisoned pages of all sources, by source and address, in pages; `Link` has the next page."""
    after = None if asked.position is None else PoisonedPosition(*asked.position)
    found = await runtime.read(lambda store: store.poisoned_pages(asked.filters, after, limit))
    pages = tuple(PoisonedEntryJson(source, hex(page.address), page.shift) for source, page in found.pages)
    cursor = None if found.next is None else asked.cursor(found.next.source, found.next.start, found.next.shift)
    return table_response(request, form, PoisonedListJson(pages, cursor, found.damaged), lambda: rows_csv(PoisonedEntryJson, pages), cursor)


@router.get("/v1/poisoned-pages/{source:name}", operation_id="getPoisonedPages", dependencies=[Depends(only_parameters())])
async def get_poisoned(source: SourceName, runtime: RuntimeOf) -> PoisonedJson:
    """Return the poisoned pages of a source, at most the first 10,000."""
    pages = await runtime.read(lambda store: store.poisoned(source, MAX_PAGES))
    return PoisonedJson(source, tuple(PageAddress(hex(page.address), page.shift) for page in pages))


@router.delete(
    "/v1/poisoned-pages/{source:name}", operation_id="forgetPoisonedPages", status_code=204, dependencies=[Depends(only_parameters())]
)
async def forget_poisoned(source: SourceName, runtime: RuntimeOf, principal: PrincipalOf) -> None:
    """Forget the poisoned pages of a source, after its machine was restarted."""
    runtime.sources.state(source).reboot()
    count = await runtime.writer.call(partial(runtime.store.forget_poisoned, source))
    audit("poisoned_pages.delete", source, principal.name, pages=count)
