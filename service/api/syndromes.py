"""Questions about syndromes, and their answers: what a value means, and what KVM makes of one."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from ras_triage.models.decision import Assumption, PolicyRef, Rationale
from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.kvm import VcpuEvents, decode_vcpu_events
from ras_triage.models.scalars import Base64, Flag, Hex64, Many, WireModel
from ras_triage.models.syndrome_fields import SyndromeKind, decode_syndrome, syndrome_summary
from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy, resolve_policy
from ras_triage.policies.guest.kvm import GuestException, LinuxGuest, VcpuState, set_vcpu_events
from ras_triage.policies.pipeline.facts import ASSUMED_RAS
from ras_triage.service.api.json_limits import require_countable
from ras_triage.service.api.problems import ProblemError, invalid, malformed, unknown_policy
from ras_triage.service.config.settings import Settings

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
    values: Annotated[Many[Hex64], Field(min_length=1, max_length=MAX_VALUES)] | None = None
    kind: SyndromeKind | None = None
    """How to take the values. Absent: what fits the 25 bits of VSESR_EL2 is one, everything else is an ESR_ELx."""
    vcpu_events: VcpuEventsForm | None = None
    """The structure's fields, or its 64 bytes in base64 as a decision's `inject_serror` has them."""
    kernel: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The host's release; without it, and without a `policy`, the service's default policy answers."""
    policy: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    host_ras: Flag | None = None
    """FEAT_RAS on the host's CPUs; absent: assumed."""
    guest_ras: Flag | None = None
    """FEAT_RAS as the guest sees it; absent: what the host has, and never more than that."""
    serror_masked: Flag | None = None
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


@lru_cache(maxsize=1)
def _request() -> TypeAdapter[SyndromeRequest]:
    return TypeAdapter(SyndromeRequest)


@lru_cache(maxsize=1)
def _answer() -> TypeAdapter[SyndromeAnswer]:
    return TypeAdapter(SyndromeAnswer)


def read_syndrome_request(document: bytes) -> SyndromeRequest:
    """A request from its JSON. Raises Refused."""
    require_countable(document)
    try:
        return _request().validate_json(document)
    except ValidationError as error:
        raise ProblemError(invalid(error, document, "request")) from None


def answer_syndromes(request: SyndromeRequest, settings: Settings) -> SyndromeAnswer:
    """The answer to one question. Raises Refused where a policy is not known, or bytes are not the structure."""
    if request.vcpu_events is not None:
        return _inject(request, _events(request.vcpu_events), _policy(request, settings))
    if request.values is not None:
        return Explanations(tuple(explain_syndrome(one, request.kind) for one in request.values))
    return explain_syndrome(request.value or 0, request.kind)


def syndromes_json(answer: SyndromeAnswer) -> bytes:
    """The answer's bytes: equal questions get equal ones."""
    return _answer().dump_json(answer)


def explain_syndrome(syndrome: int, kind: SyndromeKind | None = None) -> Explanation:
    """A 64-bit value taken apart."""
    decoded = decode_syndrome(syndrome, kind)
    fields = (FieldReading(field.name, field.bits, field.value, field.meaning, field.section, field.reserved) for field in decoded.fields)
    return Explanation(syndrome, decoded.kind, syndrome_summary(decoded), tuple(fields))


def _events(given: VcpuEventsInput | bytes) -> VcpuEvents:
    if isinstance(given, bytes):
        try:
            return decode_vcpu_events(given)
        except MalformedBytes as error:
            raise ProblemError(malformed(error, "/vcpu_events")) from None
    return VcpuEvents(given.serror_pending, given.serror_has_esr, given.ext_dabt_pending, given.serror_esr)


def _policy(request: SyndromeRequest, settings: Settings) -> Policy:
    try:
        if request.policy is not None:
            return find_policy(request.policy, settings.custom)
        return settings.default_policy if request.kernel is None else resolve_policy(f"linux-{request.kernel}")
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error), "/kernel" if request.policy is None else "/policy")) from None


def _inject(request: SyndromeRequest, events: VcpuEvents, policy: Policy) -> InjectionAnswer:
    host_ras = request.host_ras is not False
    vcpu = VcpuState(host_ras, host_ras and request.guest_ras is not False, request.serror_masked)
    done = set_vcpu_events(events, vcpu, policy)
    return InjectionAnswer(
        policy=policy.reference,
        accepted=done.accepted,
        errno=done.errno,
        guest_esr=done.guest_esr,
        linux_guest=done.linux_guest,
        arrivals=done.arrivals,
        explanation=None if done.guest_esr is None else explain_syndrome(done.guest_esr, "esr"),
        certainty="depends" if done.reasons else "certain",
        reasons=done.reasons,
        rationale=done.rationale,
        assumptions=(*((ASSUMED_RAS,) if request.host_ras is None else ()), *done.assumptions),
    )
