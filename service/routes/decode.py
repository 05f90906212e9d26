"""Decoding: bytes to structure, nothing decided."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from service.answers import explain, explain_json
from service.openapi import json_body
from service.requests import Body, only_parameters
from service.sniff import Kind, sniff, sniff_bytes

router = APIRouter(prefix="/v1/decode", tags=["decode"], dependencies=[Depends(only_parameters())])


class Decoded(BaseModel):
    """Bytes as fields."""

    record: dict[str, Any] | None = None
    """A CPER record's header and section descriptors; only where a record was sent."""
    notification: str | None = None
    """A CPER record's notification type, by name or GUID."""
    status_block: dict[str, Any]
    """The block, structured: it can be posted as an event's `status_block` and gives the same bytes."""
    readings: list[dict[str, Any]]
    """For each section: its name, and what codes and bits mean."""


@router.post("", response_model=Decoded, openapi_extra=json_body("DecodeRequest", octet_stream=True))
async def decode_one(request: Request, body: Body) -> Response:
    """Take a status block or CPER record apart: as base64 in JSON, or as it is (`application/octet-stream`)."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/octet-stream":
        answer = explain(sniff_bytes(body))
    elif media_type == "application/json" or (sniffed := sniff(body)).kind is Kind.JSON:
        answer = explain_json(body)
    else:
        answer = explain(sniffed)
    return Response(to_json(answer), media_type="application/json")
