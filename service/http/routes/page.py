"""Routes of the web page's files."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response
from starlette.exceptions import HTTPException

from ras_triage.service.http.immutable import matches_etag
from ras_triage.service.page.assets import DOCUMENT, Asset, load_assets

PATH: Final = "/page"

router = APIRouter(prefix=PATH, include_in_schema=False)

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content security policy: own scripts and styles only, and no HTML from strings."""


@router.get("/{name}")
async def show_asset(name: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Return a file of the page. Needs no authentication."""
    asset = load_assets().get(name)
    if asset is None:
        raise HTTPException(404)
    return _asset_response(asset, if_none_match, {})


def page_response(request: Request) -> Response:
    """Return the page itself."""
    return _asset_response(load_assets()[DOCUMENT], request.headers.get("if-none-match"), {"vary": "Accept"})


def _asset_response(asset: Asset, if_none_match: str | None, headers: dict[str, str]) -> Response:
    """Return a file, or 304 if the browser has it. A browser asks each time, so that it never mixes files of two versions."""
    headers = {"etag": asset.etag, "cache-control": "no-cache", "content-security-policy": PAGE_POLICY, **headers}
    if if_none_match is not None and matches_etag(if_none_match, asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
