"""Importing: a file as it is, one line of answer for each thing in it."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from ras_triage.models.event import Event
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.policies.catalog.choice import choose_policy
from ras_triage.policies.catalog.policies import UnknownPolicy
from ras_triage.service.api.content_encoding import decoded_chunks, require_known_encoding
from ras_triage.service.api.problems import ProblemError, invalid_parameter, too_large, unknown_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.dependencies import PrincipalOf, RepeatName, RuntimeOf, clock_of, only_parameters, work_of
from ras_triage.service.http.import_response import ImportRequest, ImportResponse, ImportRun
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, read_sources

router = APIRouter(prefix="/v1/import", tags=["decisions"])

_MAX_TABLE: Final = 8 << 10
"""Characters; a table of 60 generic sources takes as many, and proxies pass on no longer request lines."""
_LINES: Final = {"schema": {"type": "string", "description": "JSON, one thing to a line; the last line has the counts"}}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    "responses": {"200": {"description": "What was found", "content": {"application/x-ndjson": _LINES}}},
}


@router.post(
    "",
    response_class=Response,
    dependencies=[Depends(only_parameters("as", "notification", "hest", "kernel", "policy", "dry_run"))],
    openapi_extra=_BODY,
)
async def import_file(
    request: Request,
    runtime: RuntimeOf,
    principal: PrincipalOf,
    name: RepeatName,
    form: Annotated[InputFormat | None, Query(alias="as", description="The format, where the content does not tell it")] = None,
    notification: Annotated[NotificationType | None, Query(description="How the errors were notified")] = None,
    hest: Annotated[
        str | None, Query(max_length=_MAX_TABLE, pattern="^[A-Za-z0-9_=-]*$", description="The machine's HEST table, base64url")
    ] = None,
    kernel: Annotated[str | None, Query(min_length=1, max_length=128, description="The machine's kernel, such as 6.12.107")] = None,
    policy: Annotated[str | None, Query(min_length=1, max_length=128, description="Decide under this policy")] = None,
    dry_run: Annotated[bool, Query(description="Decide and keep nothing")] = False,
) -> Response:
    """Find the errors in a file that is sent as it is, and decide each: kernel logs, CPER, Redfish, libcper, rasdaemon, QEMU, events.

    Streamed: NDJSON, a line for each error with what had to be assumed for it, for what could not be read, and for what else was there.
    """
    limit, encoding = runtime.settings.max_batch_bytes, request.headers.get("content-encoding", "")
    require_known_encoding(encoding)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise ProblemError(too_large(limit))
    told = ImportOptions(notification, kernel, policy, {} if hest is None else _sources(hest))
    _check(told, runtime.settings)
    queued, clock = work_of(request), clock_of(request)
    queued.require()
    clock.expect_items()
    work = ImportRun(ImportRequest(form, told, dry_run, name), runtime, principal, queued, clock)
    return ImportResponse(work, decoded_chunks(request.stream(), encoding, limit))


def _sources(hest: str) -> dict[int, Notification]:
    """The error sources of the table that came with the request. Raises Refused."""
    try:
        table = urlsafe_b64decode(hest + "=" * (-len(hest) % 4))
    except ValueError:
        raise ProblemError(invalid_parameter("hest", "expected base64url")) from None
    return read_sources(table)


def _check(told: ImportOptions, settings: Settings) -> None:
    """Raises Refused where there is no such policy: the same for every error, so it is said once."""
    event = Event.model_validate({"notification": {"type": "gsiv"}, "host": {"kernel": told.kernel}, "policy": told.policy})
    try:
        choose_policy(event, settings.default_policy, settings.custom)
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error))) from None
