"""The event model: one hardware error notification with host facts."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, GetJsonSchemaHandler, PlainSerializer, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, to_json

from ras_triage.models.host import Host
from ras_triage.models.notification import NotificationInput
from ras_triage.models.records.block_fields import StructuredBlock, decode_block_text, encode_structured
from ras_triage.models.scalars import Base64Text, FailFastTuple, WireModel, encode_base64
from ras_triage.models.times import to_utc, utc_text

MAX_BLOCK_BYTES = 1 << 20
"""Longest status block that a request may carry; Linux reads 64 KiB at most (GHES_ESTATUS_MAX_SIZE)."""


def _block_bytes(value: Any) -> Any:
    """Convert a block, which is base64 or hexadecimal of its bytes, or structured fields, to bytes."""
    return encode_structured(value) if isinstance(value, (dict, StructuredBlock)) else decode_block_text(value)


def _only_text(value: Any) -> Any:
    """Reject a number as a time: it could be seconds or milliseconds."""
    if not isinstance(value, (str, datetime)):
        raise ValueError("expected an RFC 3339 time such as `2026-11-22T10:00:00Z`")
    return value


def _require_utc(value: datetime) -> datetime:
    """Reject a time that is out of range in UTC; a valid time keeps its offset."""
    to_utc(value)
    return value


Time = Annotated[
    AwareDatetime,
    BeforeValidator(_only_text),
    AfterValidator(_require_utc),
    PlainSerializer(utc_text, return_type=str, when_used="json"),
]


class _BlockInputSchema:
    """JSON schema of the input, which is built only for the schema: it has all section types, and takes as long as the rest of an event."""

    json_schema_input_type: Any = Base64Text | StructuredBlock

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(self.json_schema_input_type).core_schema if handler.mode == "validation" else schema)


BlockInput = Annotated[
    bytes,
    Field(max_length=MAX_BLOCK_BYTES),
    BeforeValidator(_block_bytes),
    PlainSerializer(encode_base64, return_type=str, when_used="json"),
    _BlockInputSchema(),
]


MAX_ASSUMED = 4096
"""Most assumed fields of an event."""

Pointer = Annotated[str, Field(pattern="^/", max_length=256)]
"""JSON pointer (RFC 6901) into an event."""


class Event(WireModel):
    """One hardware error notification."""

    id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The sender's id, unique per source."""
    source: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Machine or simulator that saw the error."""
    time: Time | None = None
    """When the error was seen; RFC 3339 with a time zone."""
    policy: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Name of the policy that decides, as `linux-6.12.107` or `uniform`. Absent: that of `host.kernel`, else the service's default."""
    notification: NotificationInput
    """How the error was notified: the type only, or with its error source and registers."""
    status_block: BlockInput | None = None
    """The ACPI Generic Error Status Block (ACPI 6.5 18.3.2.7.1) as firmware wrote it; absent: there is no record."""
    host: Host = Host.model_construct()
    """Facts about the machine; absent: those kept for `source`, if any."""
    assumed: Annotated[FailFastTuple[Pointer], Field(max_length=MAX_ASSUMED)] | None = None
    """Fields whose values the sender does not know and has assumed, such as `/notification/type`. They do not change what is decided, only
    its `alternatives` and `warnings`."""


def event_json(event: Event) -> bytes:
    """Return an event as JSON for a request. Without `host` the JSON has none either: a service then uses its stored facts."""
    return _content(event, set())


def event_key(event: Event) -> str:
    """Return the content hash of an event, which is equal for equal events with different ids.

    The sender's `id` and `assumed` are not part of the content. An event without `host` differs from one with an empty `host`.
    """
    return "sha256:" + hashlib.sha256(_content(event, {"id", "assumed"})).hexdigest()


def _content(event: Event, exclude: set[str]) -> bytes:
    return to_json(event, exclude=exclude if "host" in event.model_fields_set else exclude | {"host"}, exclude_none=True)
