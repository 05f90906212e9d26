"""Lists and counts as JSON or CSV, in pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Query, Request, Response
from pydantic_core import to_json

from ras_triage.service.api import csv_rows
from ras_triage.service.http.negotiation import qualities

MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
"""Rows of a page."""

PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows per page")]

TableForm = Literal["json", "csv"]


async def _form(
    request: Request,
    form: Annotated[
        TableForm | None, Query(alias="format", description="`csv`, or `json`; without it, CSV if `Accept` prefers `text/csv`")
    ] = None,
) -> TableForm:
    if form is not None:
        return form
    wanted = qualities(request.headers.get("accept", ""))
    return "csv" if wanted.get(csv_rows.MEDIA_TYPE, 0.0) > wanted.get("application/json", 0.0) else "json"


TableFormOf = Annotated[TableForm, Depends(_form)]


def rows_csv(model: type[Any], rows: Sequence[Any]) -> bytes:
    """Return instances of a dataclass as CSV, with the names of its fields as the header."""
    names = tuple(field.name for field in fields(model))
    return csv_rows.csv_rows(names, ([getattr(row, name) for name in names] for row in rows))


def table_response(request: Request, form: TableForm, content: Any, as_csv: Callable[[], bytes], cursor: str | None = None) -> Response:
    """Return the response in the form that was asked for; `cursor`: that of the next page, for `Link`."""
    headers = {"vary": "Accept"}
    if cursor is not None:
        following = request.url.include_query_params(cursor=cursor)
        headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
    if form == "csv":
        return Response(as_csv(), media_type=csv_rows.MEDIA_TYPE, headers=headers)
    return Response(to_json(content), media_type="application/json", headers=headers)
