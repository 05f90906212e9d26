"""Route that imports a file."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from ras_triage.models.event import Event
from ras_triage.models.formats.hest import is_table, unpack_table
from ras_triage.models.notification import Notification, NotificationName
from ras_triage.policies.catalog.choice import choose_policy
from ras_triage.policies.catalog.policies import UnknownPolicy
from ras_triage.service.api.content_encoding import decoded_chunks, require_known_encoding
from ras_triage.service.api.problems import ProblemError, invalid_parameter, unknown_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.dependencies import PrincipalOf, RepeatKey, RuntimeOf, clock_of, only_parameters, require_length, work_of
from ras_triage.service.http.import_run import ImportRequest, ImportRun
from ras_triage.service.http.openapi import NDJSON, lines
from ras_triage.service.http.streamed_response import StreamedResponse
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, read_sources

router = APIRouter(prefix="/v1/import", tags=["decisions"])

_MAX_TABLE: Final = 8 << 10
"""Characters: enough for 60 generic error sources; many proxies refuse longer request lines."""
_PER_LINE: Final = "One `ImportLine` per line; the last has the counts if the import is complete, else a problem"
_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    "responses": {
        "200": {
            "description": "Items of the file with their decisions",
            "content": {NDJSON: lines("ImportLine", _PER_LINE)},
        }
    },
}


@router.post(
    "",
    operation_id="importRecords",
    response_class=Response,
    dependencies=[Depends(only_parameters("as", "notification", "text_field", "hest", "kernel", "policy", "dry_run"))],
    openapi_extra=_BODY,
)
async def import_file(
    request: Request,
    runtime: RuntimeOf,
    principal: PrincipalOf,
    repeat_key: RepeatKey,
    form: Annotated[InputFormat | None, Query(alias="as", description="Input format; default: detected from the content")] = None,
    notification: Annotated[NotificationName | None, Query(description="Notification type of the errors")] = None,
    text_field: Annotated[
        str | None, Query(min_length=1, max_length=128, description="JSON field with the lines of a collected log; default: known ones")
    ] = None,
    hest: Annotated[
        str | None,
        Query(max_length=_MAX_TABLE, pattern="^[A-Za-z0-9_=-]*$", description="HEST table of the machine, base64url or hex"),
    ] = None,
    kernel: Annotated[str | None, Query(min_length=1, max_length=128, description="Kernel release of the machine, as 6.12.107")] = None,
    policy: Annotated[str | None, Query(min_length=1, max_length=128, description="Decide under this policy")] = None,
    dry_run: Annotated[bool, Query(description="Decide and store nothing")] = False,
) -> Response:
    """Import a file and decide each error in it: kernel logs, CPER, Redfish, libcper, rasdaemon, QEMU, events.

    The response is streamed NDJSON: a line for each error with its assumptions, for each unreadable record, and for each other item.
    """
    limit, encoding = runtime.settings.max_batch_bytes, request.headers.get("content-encoding", "")
    require_known_encoding(encoding)
    require_length(request, limit)
    options = ImportOptions(notification, kernel, policy, text_field, {} if hest is None else _sources(hest))
    _require_policy(options, runtime.settings)
    work, clock = work_of(request), clock_of(request)
    work.require()
    clock.expect_items()
    run = ImportRun(ImportRequest(form, options, dry_run, repeat_key), runtime, principal, work, clock)
    return StreamedResponse(run, NDJSON, decoded_chunks(request.stream(), encoding, limit))


def _sources(hest: str) -> dict[int, Notification]:
    """Return the error sources of a HEST table in base64url or hexadecimal. Raises ProblemError."""
    if is_table(table := unpack_table(hest.encode())):
        return read_sources(table)
    try:
        table = urlsafe_b64decode(hest + "=" * (-len(hest) % 4))
    except ValueError:
        raise ProblemError(invalid_parameter("hest", "invalid base64url")) from None
    return read_sources(table)


def _require_policy(options: ImportOptions, settings: Settings) -> None:
    """Raise ProblemError for an unknown policy: once for the request instead of once per error."""
    event = Event.model_validate({"notification": {"type": "gsiv"}, "host": {"kernel": options.kernel}, "policy": options.policy})
    try:
        choose_policy(event, settings.default_policy, settings.custom_policies)
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error))) from None
