"""struct kvm_vcpu_events of arm64 (Documentation/virt/kvm/api.rst 4.31)."""

from __future__ import annotations

import struct
from typing import Final, Literal

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import Hex64
from ras_triage.models.syndrome import ISS_MASK, SERROR_ESR_BASE

VCPU_EVENTS: Final = struct.Struct("<BBB5sQ48s")
PAD_LENGTH: Final = 5
RESERVED_LENGTH: Final = 48

EXT_DABT_ESR: Final = 0x9600_0010
"""ESR_EL1 of the data abort that `ext_dabt_pending` injects while the guest runs at EL1: IL set, fault status code 0x10, FnV clear."""
SIGN_EXTENSION: Final = 0xFFFF_FFFF << 32
"""Bits 63:32 of a 32-bit value with bit 31 set that was sign-extended to 64 bits."""


@frozen
class VcpuEvents:
    """The exceptions that KVM_SET_VCPU_EVENTS makes pending.

    The first three fields are u8 that KVM treats as booleans: every value except 0 is true.
    """

    serror_pending: int = 0
    serror_has_esr: int = 0
    ext_dabt_pending: int = 0
    serror_esr: int = 0
    """u64; KVM uses bits 24:0, the ISS."""
    pad: bytes = bytes(PAD_LENGTH)
    """5 bytes that must be zero."""
    reserved: bytes = bytes(RESERVED_LENGTH)
    """48 bytes that must be zero."""


def encode_vcpu_events(events: VcpuEvents) -> bytes:
    """Return the 64 bytes of the structure."""
    return VCPU_EVENTS.pack(
        events.serror_pending, events.serror_has_esr, events.ext_dabt_pending, events.pad, events.serror_esr, events.reserved
    )


def decode_vcpu_events(data: bytes) -> VcpuEvents:
    """Parse the structure; reserved bytes are preserved. Raises MalformedBytes for a length other than 64 bytes."""
    if len(data) != VCPU_EVENTS.size:
        detail = f"struct kvm_vcpu_events: expected {VCPU_EVENTS.size} bytes, got {len(data)}"
        raise MalformedBytes(detail, offset=min(len(data), VCPU_EVENTS.size), field="kvm_vcpu_events")
    pending, has_esr, ext_dabt, pad, esr, reserved = VCPU_EVENTS.unpack(data)
    return VcpuEvents(pending, has_esr, ext_dabt, esr, pad, reserved)


def guest_serror_esr(iss: int, *, ras_extension: bool) -> int:
    """Return the guest's ESR_EL1 for a virtual SError with the 25-bit `iss` that the CPU delivers.

    Without the RAS extension there is no VSESR_EL2, and the CPU provides a syndrome with ISS 0.
    """
    return SERROR_ESR_BASE | (iss & ISS_MASK if ras_extension else 0)


LinuxGuest = Literal["survives", "panics"]


@frozen
class GuestException:
    """An exception that the guest takes."""

    exception: Literal["data_abort", "serror"]
    """Kind of the exception."""
    esr: Hex64
    """ESR_EL1 of the guest."""
    when: Literal["at_once", "when_unmasked"]
    """`at_once`: before the vCPU's next instruction. `when_unmasked`: as soon as SErrors are unmasked in the guest."""
