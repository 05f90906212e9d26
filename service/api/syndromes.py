"""Questions about syndromes, and their answers: what a value means, and what KVM makes of one."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ras_triage.models.decision import Assumption, PolicyRef, Rationale
from ras_triage.models.frozen import frozen
from ras_triage.models.kvm import GuestException, LinuxGuest
from ras_triage.models.scalars import Base64, FailFastTuple, Hex64, StrictBool, WireModel
from ras_triage.models.syndrome_fields import SyndromeKind

MAX_VALUES: Final = 1000
"""Values that one request may ask for."""


def _number(given: Any) -> Any:
    """true and false are as good as 1 and 0, which C knows."""
    return int(given) if isinstance(given, bool) else given


Byte = Annotated[int, BeforeValidator(_number, json_schema_input_type=int | bool), Field(strict=True, ge=0, lt=256)]


class VcpuEventsInput(WireModel):
    """struct kvm_vcpu_events of arm64, its reserved bytes zero (Documentation/virt/kvm/api.rst 4.32)."""

    serror_pending: Byte = 0
    serror_has_esr: Byte = 0
    ext_dabt_pending: Byte = 0
    serror_esr: Hex64 = 0


def _form(given: Any) -> str:
    return "fields" if isinstance(given, (dict, VcpuEventsInput)) else "bytes"


VcpuEventsForm = Annotated[Annotated[VcpuEventsInput, Tag("fields")] | Annotated[Base64, Tag("bytes")], Discriminator(_form)]


class SyndromeRequest(WireModel):
    """`value` or `values` to be explained, or `vcpu_events` for KVM_SET_VCPU_EVENTS on a host."""

    value: Hex64 | None = None
    values: Annotated[FailFastTuple[Hex64], Field(min_length=1, max_length=MAX_VALUES)] | None = None
    kind: SyndromeKind | None = None
    """How to take the values. Absent: what fits the 25 bits of VSESR_EL2 is one, everything else is an ESR_ELx."""
    vcpu_events: VcpuEventsForm | None = None
    """The structure's fields, or its 64 bytes in base64 as a decision's `inject_serror` has them."""
    kernel: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The host's release; without it, and without a `policy`, the service's default policy answers."""
    policy: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    host_ras: StrictBool | None = None
    """FEAT_RAS on the host's CPUs; absent: assumed."""
    guest_ras: StrictBool | None = None
    """FEAT_RAS as the guest sees it; absent: what the host has, and never more than that."""
    serror_masked: StrictBool | None = None
    """PSTATE.A of the vCPU; absent: not known."""

    @model_validator(mode="after")
    def _asks_one_thing(self) -> SyndromeRequest:
        if sum(given is not None for given in (self.value, self.values, self.vcpu_events)) != 1:
            raise ValueError("expected `value`, `values` or `vcpu_events`, one of the three")
        about_injection = (self.kernel, self.policy, self.host_ras, self.guest_ras, self.serror_masked)
        if self.vcpu_events is None and any(given is not None for given in about_injection):
            raise ValueError("`kernel`, `policy`, `host_ras`, `guest_ras` and `serror_masked` go with `vcpu_events`")
        if self.vcpu_events is not None and self.kind is not None:
            raise ValueError("`kind` goes with `value` or `values`")
        return self


@frozen
class FieldReading:
    """A field of a syndrome."""

    name: str
    """The architecture's."""
    bits: str
    """`12:10`, or `24` for a single bit."""
    value: Hex64
    meaning: str
    section: str
    """Where the Arm ARM defines it."""
    reserved: bool
    """These bits are RES0 in this syndrome, and are set."""


@frozen
class Explanation:
    """A syndrome taken apart."""

    value: Hex64
    kind: SyndromeKind
    summary: str
    fields: tuple[FieldReading, ...]
    """Highest bits first; RES0 bits only where they are set."""


@frozen
class Explanations:
    """Several syndromes taken apart, in the order asked for."""

    syndromes: tuple[Explanation, ...]


@frozen
class InjectionAnswer:
    """What comes of one KVM_SET_VCPU_EVENTS."""

    policy: PolicyRef
    accepted: bool
    errno: int
    """0, or the positive error number that the ioctl fails with."""
    guest_esr: Hex64 | None
    """ESR_EL1 of the first exception that the guest takes; null where it takes none."""
    linux_guest: LinuxGuest | None
    """What a Linux guest does with the SError; null where none arrives."""
    arrivals: tuple[GuestException, ...]
    """The exceptions, in the order in which the guest takes them."""
    explanation: Explanation | None
    """`guest_esr` taken apart."""
    certainty: Literal["certain", "depends"]
    reasons: tuple[str, ...]
    rationale: tuple[Rationale, ...]
    assumptions: tuple[Assumption, ...]


SyndromeAnswer = Explanation | Explanations | InjectionAnswer
