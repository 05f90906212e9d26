"""Syndrome requests and responses: decoding, and injection by KVM."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ras_triage.models.decision import Assumption, PolicyRef, Rationale
from ras_triage.models.frozen import frozen
from ras_triage.models.kvm import VCPU_EVENTS, GuestException, LinuxGuest
from ras_triage.models.scalars import BASE64_JSON, U8, FailFastTuple, Hex64, StrictBool, WireModel, decode_text
from ras_triage.models.syndrome_fields import SyndromeKind

MAX_VALUES: Final = 1000
"""Largest number of values in one request."""


def _number(value: Any) -> Any:
    """Convert true and false to 1 and 0, as in C."""
    return int(value) if isinstance(value, bool) else value


Byte = Annotated[U8, BeforeValidator(_number, json_schema_input_type=U8 | bool)]


class VcpuEventsInput(WireModel):
    """struct kvm_vcpu_events of arm64, its reserved bytes zero (Documentation/virt/kvm/api.rst 4.32)."""

    serror_pending: Byte = 0
    """u8, a boolean: an SError is pending."""
    serror_has_esr: Byte = 0
    """u8, a boolean: `serror_esr` is its syndrome."""
    ext_dabt_pending: Byte = 0
    """u8, a boolean: an external data abort is pending."""
    serror_esr: Hex64 = 0
    """u64; KVM accepts bits 24:0, the ISS."""


def _form(value: Any) -> str:
    return "fields" if isinstance(value, (dict, VcpuEventsInput)) else "bytes"


def _decode_vcpu_events(value: Any) -> Any:
    """Decode the base64 or hexadecimal of the structure. Raises ValueError."""
    if not isinstance(value, str):
        return value
    return decode_text(value, lambda data: len(data) == VCPU_EVENTS.size, "the 64 bytes of the structure")


_EncodedVcpuEvents = Annotated[bytes, BeforeValidator(_decode_vcpu_events), *BASE64_JSON]

VcpuEventsForm = Annotated[Annotated[VcpuEventsInput, Tag("fields")] | Annotated[_EncodedVcpuEvents, Tag("bytes")], Discriminator(_form)]


class SyndromeRequest(WireModel):
    """`value` or `values` to decode, or `vcpu_events` for KVM_SET_VCPU_EVENTS on a host."""

    value: Hex64 | None = None
    """One value to decode."""
    values: Annotated[FailFastTuple[Hex64], Field(min_length=1, max_length=MAX_VALUES)] | None = None
    """Values to decode, at most 1000."""
    kind: SyndromeKind | None = None
    """Kind of the values. Absent: VSESR_EL2 if a value fits into 25 bits, else ESR_ELx."""
    vcpu_events: VcpuEventsForm | None = None
    """The fields of the structure, or its 64 bytes in base64, as in a decision's `inject_serror`."""
    kernel: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Kernel release of the host; without it and `policy`, the service's default policy applies."""
    policy: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Policy of the host; takes precedence over `kernel`."""
    host_ras: StrictBool | None = None
    """Whether the host's CPUs have FEAT_RAS; absent: assumed."""
    guest_ras: StrictBool | None = None
    """Whether the guest sees FEAT_RAS; absent: as the host. Never more than the host has."""
    guest_serror_masked: StrictBool | None = None
    """PSTATE.A of the guest's vCPU; absent: false, as in a Linux guest that is running."""
    serror_masked: StrictBool | None = None
    """Earlier name of `guest_serror_masked`."""

    @model_validator(mode="after")
    def _asks_one_thing(self) -> SyndromeRequest:
        if sum(value is not None for value in (self.value, self.values, self.vcpu_events)) != 1:
            raise ValueError("expected exactly one of `value`, `values` and `vcpu_events`")
        about_injection = (self.kernel, self.policy, self.host_ras, self.guest_ras, self.guest_serror_masked, self.serror_masked)
        if self.vcpu_events is None and any(value is not None for value in about_injection):
            raise ValueError("`kernel`, `policy`, `host_ras`, `guest_ras`, `guest_serror_masked` and `serror_masked` require `vcpu_events`")
        if self.guest_serror_masked is not None and self.serror_masked is not None:
            raise ValueError("`serror_masked` is an earlier name of `guest_serror_masked`; expected only one of them")
        if self.vcpu_events is not None and self.kind is not None:
            raise ValueError("`kind` requires `value` or `values`")
        return self


@frozen
class FieldReading:
    """Field of a syndrome."""

    name: str
    """As in the Arm ARM."""
    bits: str
    """`12:10`, or `24` for a single bit."""
    value: Hex64
    """Value of the field."""
    meaning: str
    """What the value means."""
    section: str
    """Section of the Arm ARM that defines it."""
    reserved: bool
    """Whether these are RES0 bits that are set."""


@frozen
class Explanation:
    """Decoded syndrome."""

    value: Hex64
    """The decoded value."""
    kind: SyndromeKind
    """Register that the value is of."""
    summary: str
    """The syndrome in one line."""
    fields: tuple[FieldReading, ...]
    """Highest bits first; RES0 bits only where they are set."""


@frozen
class Explanations:
    """Several decoded syndromes, in the order of the request."""

    syndromes: tuple[Explanation, ...]
    """The decoded values."""


@frozen
class InjectionResult:
    """Result of one KVM_SET_VCPU_EVENTS."""

    policy: PolicyRef
    """The policy of the host."""
    accepted: bool
    """Whether the ioctl succeeds."""
    errno: int
    """0, or the positive error number that the ioctl fails with."""
    guest_esr: Hex64 | None
    """ESR_EL1 of the first exception that the guest takes; null: none."""
    linux_guest: LinuxGuest | None
    """What a Linux guest does with the SError; null: no SError arrives."""
    arrivals: tuple[GuestException, ...]
    """Exceptions, in the order in which the guest takes them."""
    explanation: Explanation | None
    """`guest_esr`, decoded."""
    certainty: Literal["certain", "depends"]
    """`depends` if the result depends on facts that the request lacks; see `reasons`."""
    reasons: tuple[str, ...]
    """Reasons why the result depends on unknown facts; empty if it is certain."""
    rationale: tuple[Rationale, ...]
    """The rules that applied, in order."""
    assumptions: tuple[Assumption, ...]
    """Facts that the request lacks, and the defaults used instead."""


SyndromeResponse = Explanation | Explanations | InjectionResult
