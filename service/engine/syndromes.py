"""Syndrome requests: decoding and KVM injection."""

from __future__ import annotations

from functools import lru_cache

from pydantic import TypeAdapter, ValidationError

from ras_triage.models.decision import Assumption
from ras_triage.models.errors import MalformedBytes
from ras_triage.models.kvm import VcpuEvents, decode_vcpu_events
from ras_triage.models.scalars import ASSUMED_HEXADECIMAL, HexadecimalBytes
from ras_triage.models.syndrome_fields import SyndromeKind, decode_syndrome, syndrome_summary
from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy, release_policy
from ras_triage.policies.guest.kvm import VcpuState, set_vcpu_events
from ras_triage.policies.pipeline.facts import ASSUMED_RAS
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import ProblemError, invalid, malformed, unknown_policy
from ras_triage.service.api.syndromes import (
    Explanation,
    Explanations,
    FieldReading,
    InjectionResult,
    SyndromeRequest,
    SyndromeResponse,
    VcpuEventsInput,
)
from ras_triage.service.config.settings import Settings


@lru_cache(maxsize=1)
def _request() -> TypeAdapter[SyndromeRequest]:
    return TypeAdapter(SyndromeRequest)


@lru_cache(maxsize=1)
def _answer() -> TypeAdapter[SyndromeResponse]:
    return TypeAdapter(SyndromeResponse)


def read_syndrome_request(document: bytes) -> SyndromeRequest:
    """Parse a request. Raises ProblemError."""
    require_value_limit(document)
    try:
        return _request().validate_json(document)
    except ValidationError as error:
        raise ProblemError(invalid(error, document, "request", SyndromeRequest)) from None


def answer_syndromes(request: SyndromeRequest, settings: Settings) -> SyndromeResponse:
    """Return the response. Raises ProblemError for an unknown policy or malformed `vcpu_events` bytes."""
    if request.vcpu_events is not None:
        return _inject(request, _events(request.vcpu_events), _policy(request, settings))
    if request.values is not None:
        return Explanations(tuple(explain_syndrome(one, request.kind) for one in request.values))
    return explain_syndrome(request.value or 0, request.kind)


def syndromes_json(answer: SyndromeResponse) -> bytes:
    """Encode a response; equal requests give equal bytes."""
    return _answer().dump_json(answer)


def explain_syndrome(syndrome: int, kind: SyndromeKind | None = None) -> Explanation:
    """Decode a 64-bit syndrome into its fields."""
    decoded = decode_syndrome(syndrome, kind)
    fields = (FieldReading(field.name, field.bits, field.value, field.meaning, field.section, field.reserved) for field in decoded.fields)
    return Explanation(syndrome, decoded.kind, syndrome_summary(decoded), tuple(fields))


def _events(events: VcpuEventsInput | bytes) -> VcpuEvents:
    if isinstance(events, bytes):
        try:
            return decode_vcpu_events(events)
        except MalformedBytes as error:
            raise ProblemError(malformed(error, "/vcpu_events")) from None
    return VcpuEvents(events.serror_pending, events.serror_has_esr, events.ext_dabt_pending, events.serror_esr)


def _policy(request: SyndromeRequest, settings: Settings) -> Policy:
    try:
        if request.policy is not None:
            return find_policy(request.policy, settings.custom_policies)
        return settings.default_policy if request.kernel is None else release_policy(request.kernel)
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error), "/kernel" if request.policy is None else "/policy")) from None


def _inject(request: SyndromeRequest, events: VcpuEvents, policy: Policy) -> InjectionResult:
    host_ras = request.host_ras is not False
    masked = request.serror_masked if request.guest_serror_masked is None else request.guest_serror_masked
    vcpu = VcpuState(host_ras, host_ras and request.guest_ras is not False, masked)
    done = set_vcpu_events(events, vcpu, policy)
    return InjectionResult(
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
        assumptions=(*((ASSUMED_RAS,) if request.host_ras is None else ()), *done.assumptions, *_assumed_encoding(request)),
    )


def _assumed_encoding(request: SyndromeRequest) -> tuple[Assumption, ...]:
    is_hexadecimal = isinstance(request.vcpu_events, HexadecimalBytes)
    return (Assumption("vcpu_events", ASSUMED_HEXADECIMAL),) if is_hexadecimal else ()
