"""Routes of poisoned pages."""

from __future__ import annotations

from functools import partial
from typing import Final

from fastapi import APIRouter, Depends

from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import HexText
from ras_triage.service.http.dependencies import PrincipalOf, RuntimeOf, SourceName, only_parameters
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


@router.get("/v1/poisoned-pages/{source:path}", operation_id="getPoisonedPages", dependencies=[Depends(only_parameters())])
async def get_poisoned(source: SourceName, runtime: RuntimeOf) -> PoisonedJson:
    """Return the poisoned pages of a source, at most the first 10,000."""
    pages = await runtime.read(lambda store: store.poisoned(source, MAX_PAGES))
    return PoisonedJson(source, tuple(PageAddress(hex(page.address), page.shift) for page in pages))


@router.delete(
    "/v1/poisoned-pages/{source:path}", operation_id="forgetPoisonedPages", status_code=204, dependencies=[Depends(only_parameters())]
)
async def forget_poisoned(source: SourceName, runtime: RuntimeOf, principal: PrincipalOf) -> None:
    """Forget the poisoned pages of a source, after its machine was restarted."""
    runtime.sources.state(source).reboot()
    count = await runtime.writer.call(partial(runtime.store.forget_poisoned, source))
    audit("poisoned_pages.delete", source, principal.name, pages=count)
