"""Route that decodes status blocks, CPER records and HESTs."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from ras_triage.models.records.block_fields import StructuredBlock
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import LOOP_BYTES
from ras_triage.service.engine.input_detection import InputKind, detect_bytes, detect_input
from ras_triage.service.engine.responses import BlockLayout, decode_response, explain_bytes
from ras_triage.service.http.dependencies import Body, RuntimeOf, SettingsOf, only_parameters
from ras_triage.service.http.openapi import json_body, json_response

router = APIRouter(prefix="/v1/decode", tags=["decode"], dependencies=[Depends(only_parameters())])


class DecodeResponse(BaseModel):
    """Fields of a status block or CPER record."""

    record: dict[str, Any] | None = None
    """Header and section descriptors; only of a CPER record."""
    notification: str | None = None
    """Notification type of a CPER record, as name or GUID."""
    status_block: StructuredBlock
    """Fields of the block; valid as the `status_block` of an event, encodes to the same bytes."""
    readings: list[dict[str, Any]]
    """For each section: its name, and the meanings of codes and bits."""
    layout: BlockLayout | None = None
    """Bytes and positions, with `layout` in the request."""
    encoding: Literal["hexadecimal"] | None = None
    """Encoding of the text, if it was read as hexadecimal."""


@router.post(
    "",
    operation_id="decode",
    response_class=Response,
    responses={200: json_response("DecodeResponse", "HestResponse", description="The fields")},
    openapi_extra=json_body("DecodeRequest", octet_stream=True),
)
async def decode_one(request: Request, body: Body, settings: SettingsOf, runtime: RuntimeOf) -> Response:
    """Decode a status block or CPER record: base64 or hexadecimal in JSON, or bytes (`application/octet-stream`).

    Of a HEST (`hest`, in JSON only), return the error sources, which of them a kernel reads, and why not the others.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_long = len(body) > LOOP_BYTES
    document = await runtime.workers.run(_decode, body, media_type) if is_long else _decode(settings, body, media_type)
    return Response(document, media_type="application/json")


def _decode(settings: Settings, body: bytes, media_type: str) -> bytes:
    if media_type == "application/octet-stream":
        return to_json(explain_bytes(detect_bytes(body)))
    if media_type == "application/json" or (detected := detect_input(body)).kind is InputKind.JSON:
        return to_json(decode_response(body, settings))
    return to_json(explain_bytes(detected))
