"""Conversion of requests to response bytes, for HTTP and the command line."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import SchemaSerializer, to_json

from ras_triage.models.decision import Decision
from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import BlockInput, Event, event_key
from ras_triage.models.formats.hest import is_table
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Range
from ras_triage.models.records.block_fields import describe_block
from ras_triage.models.records.cper_record import SIGNATURE, describe_record
from ras_triage.models.records.field_map import FieldPosition, field_positions
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.models.scalars import BASE64_JSON, FailFastTuple, HexadecimalBytes, WireModel, decode_text, encode_base64
from ras_triage.policies.catalog.choice import choose_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy
from ras_triage.policies.catalog.vmms import UnknownVmm, require_known_vmms
from ras_triage.policies.decide import decide_parsed
from ras_triage.policies.workload import TooMuchWork, require_workload
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import URN, ErrorDetail, Problem, ProblemError, invalid, invalid_value, malformed, unknown_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.input_detection import DetectedInput, InputKind

if TYPE_CHECKING:
    from ras_triage.service.api.error_sources import HestResponse


@lru_cache(maxsize=1)
def _serializer() -> SchemaSerializer:
    return TypeAdapter(Decision).serializer


def policy_of(event: Event, settings: Settings, *, uses_stored_facts: bool = False) -> Policy:
    """Return the policy that an event selects. Raises ProblemError if the policy is unknown.

    `uses_stored_facts`: the host facts are the stored ones of the source.
    """
    try:
        return choose_policy(event, settings.default_policy, settings.custom_policies)
    except UnknownPolicy as error:
        if event.policy is not None:
            raise ProblemError(unknown_policy(str(error), "/policy")) from None
        if uses_stored_facts:
            raise ProblemError(unknown_policy(f"{error}; this kernel is in the stored facts of source `{event.source}`", "")) from None
        raise ProblemError(unknown_policy(str(error), "/host/kernel")) from None


def require_vmms(event: Event, settings: Settings, *, uses_stored_facts: bool = False) -> None:
    """Raise ProblemError if the host facts name an unknown VMM; `uses_stored_facts` as for `policy_of`."""
    try:
        require_known_vmms(event.host, settings.custom_vmms)
    except UnknownVmm as error:
        if uses_stored_facts:
            raise ProblemError(invalid_value("event", "", f"{error}; it is in the stored facts of source `{event.source}`")) from None
        raise ProblemError(invalid_value("event", f"/host/vms/{error.index}/vmm", str(error))) from None


def require_affordable(
    event: Event,
    block: StatusBlock | None,
    settings: Settings,
    policy: Policy,
    *,
    stored_pages: int = 0,
    uses_stored_facts: bool = False,
) -> None:
    """Raise ProblemError if deciding the event would take more steps than `max_workload` allows.

    `stored_pages`: number of stored poisoned pages that the event refers to; `uses_stored_facts`: as for `policy_of`.
    """
    try:
        require_workload(event, block, settings.max_workload, policy, known_poisoned=stored_pages)
    except TooMuchWork as error:
        raise ProblemError(too_much_work(error, uses_stored_facts=uses_stored_facts)) from None


def too_much_work(error: TooMuchWork, *, uses_stored_facts: bool) -> Problem:
    """Return the problem of an event whose decision would take more steps than the setting `max_workload` allows.

    `uses_stored_facts`: the host facts are the stored ones of the source, so that no JSON pointer into the event leads to them.
    """
    one, other = error.factors
    faults = tuple(
        ErrorDetail("" if uses_stored_facts and factor.pointer.startswith("/host") else factor.pointer, str(factor))
        for factor in error.factors
    )
    detail = f"{one} x {other}: about {error.steps} steps for one event; `max_workload` is {error.limit}"
    return Problem(f"{URN}too-much-work", "too much work for one event", 422, detail, faults)


def decide_event(event: Event, settings: Settings) -> Decision:
    """Return the decision under the policy that the event selects.

    Raises ProblemError if the policy or a VMM is unknown, or deciding would take more steps than `max_workload` allows.
    """
    policy = policy_of(event, settings)
    require_vmms(event, settings)
    block = None if event.status_block is None else parse_block(event.status_block)
    require_affordable(event, block, settings, policy)
    return decide_parsed(event, block, policy, event_key(event), custom_vmms=settings.custom_vmms)


def decision_json(decision: Decision, used: UsedFacts | None = None) -> bytes:
    """Encode a decision. Equal events under equal policies and stored facts give equal bytes."""
    facts = b"null" if used is None else to_json(used)
    return b'{"host_facts":' + facts + b"," + _serializer().to_json(decision)[1:]


def wrap_decision(decision: bytes, *, identity: str | None = None, decided_at: str | None = None, repeat: bool = False) -> bytes:
    """Return the response: `id`, `decided_at` and `repeat`, then the encoded decision.

    Id and time are null if nothing is stored, so that equal events get equal bytes.
    """
    return to_json({"id": identity, "decided_at": decided_at, "repeat": repeat})[:-1] + b"," + decision[1:]


MAX_HEST_BYTES: Final = 256 << 10
"""Longest HEST in a request, in bytes: 2800 generic sources. The shortest source has 4 bytes, and 200 in the response."""
MAX_RAM_RANGES: Final = 1024


def _decode_record_text(value: Any) -> Any:
    return decode_text(value, lambda data: data.startswith(SIGNATURE), "a CPER record") if isinstance(value, str) else value


def _decode_table_text(value: Any) -> Any:
    return decode_text(value, is_table, "a HEST") if isinstance(value, str) else value


_EncodedRecord = Annotated[bytes, BeforeValidator(_decode_record_text), *BASE64_JSON]
_EncodedTable = Annotated[bytes, BeforeValidator(_decode_table_text), *BASE64_JSON]


@frozen
class BlockLayout:
    """Bytes of a status block, and where its fields are."""

    data: str
    """The block in base64."""
    fields: tuple[FieldPosition, ...]
    """In order of their structures, at most 4096."""


class DecodeRequest(WireModel):
    """Decode request: exactly one of `status_block`, `record` and `hest`."""

    status_block: BlockInput | None = None
    """ACPI Generic Error Status Block (ACPI 6.5 18.3.2.7.1), in base64 or hexadecimal, or as fields."""
    layout: bool = False
    """Whether the response has `layout`, the bytes of `status_block` and the position of each field in them."""
    record: _EncodedRecord | None = None
    """CPER record (UEFI 2.10 N.2), in base64 or hexadecimal."""
    hest: Annotated[_EncodedTable, Field(max_length=MAX_HEST_BYTES)] | None = None
    """Hardware Error Source Table (ACPI 6.5 18.3.2), in base64 or hexadecimal, at most 256 KiB."""
    kernel: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Kernel release that reads `hest`; without it and `policy`, the newest that was analysed."""
    policy: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Policy under which `hest` is read; takes precedence over `kernel`."""
    ram: Annotated[FailFastTuple[Range], Field(max_length=MAX_RAM_RANGES)] | None = None
    """Memory that the kernel maps as RAM; a register of `hest` in it is refused."""

    @model_validator(mode="after")
    def _is_one(self) -> DecodeRequest:
        if sum(value is not None for value in (self.status_block, self.record, self.hest)) != 1:
            raise ValueError("expected exactly one of `status_block`, `record` and `hest`")
        if self.hest is None and any(value is not None for value in (self.kernel, self.policy, self.ram)):
            raise ValueError("`kernel`, `policy` and `ram` require `hest`")
        if self.layout and self.status_block is None:
            raise ValueError("`layout` requires `status_block`")
        return self


def decode_response(document: bytes, settings: Settings) -> dict[str, Any] | HestResponse:
    """Return the response to a decode request. Raises ProblemError."""
    require_value_limit(document)
    try:
        request = DecodeRequest.model_validate_json(document)
    except ValidationError as error:
        raise ProblemError(invalid(error, document, "request", DecodeRequest)) from None
    if request.hest is not None:
        return _error_sources(request.hest, request, settings)
    if request.record is not None:
        return explain_bytes(DetectedInput(InputKind.RECORD, request.record), "/record")
    block = request.status_block or b""
    found = explain_bytes(DetectedInput(InputKind.STATUS_BLOCK, block), "/status_block")
    return found | {"layout": BlockLayout(encode_base64(block), field_positions(block))} if request.layout else found


def _error_sources(table: bytes, request: DecodeRequest, settings: Settings) -> HestResponse:
    from ras_triage.service.engine.error_sources import decode_hest, hest_policy  # noqa: PLC0415 - deciding starts faster without it

    policy = hest_policy(request.kernel, request.policy, settings, in_document=True)
    ram = tuple((one.start, one.start + one.size) for one in request.ram or ())
    try:
        return decode_hest(table, policy, ram)
    except MalformedBytes as error:
        raise ProblemError(malformed(error, "/hest")) from None


def explain_bytes(detected: DetectedInput, pointer: str = "") -> dict[str, Any]:
    """Return a record or status block as fields with their meanings, and its `encoding` if it was hexadecimal. Raises ProblemError."""
    try:
        fields = describe_record(detected.data) if detected.kind is InputKind.RECORD else describe_block(detected.data)
    except MalformedBytes as error:
        raise ProblemError(malformed(error, pointer)) from None
    return {**fields, "encoding": "hexadecimal"} if isinstance(detected.data, HexadecimalBytes) else fields
