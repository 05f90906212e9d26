"""struct kvm_vcpu_events of arm64 (Documentation/virt/kvm/api.rst 4.31), 64 bytes."""

from __future__ import annotations

import struct

from models.syndrome import IDS, SERROR_ESR_BASE
from models.value import value

VCPU_EVENTS = struct.Struct("<BBB5xQ48x")


@value
class VcpuEvents:
    """The exceptions that KVM_SET_VCPU_EVENTS makes pending."""

    serror_pending: bool = False
    serror_has_esr: bool = False
    ext_dabt_pending: bool = False
    serror_esr: int = 0
    """u64; KVM takes bits 24:0, the ISS."""


def encode_vcpu_events(events: VcpuEvents) -> bytes:
    """The 64 bytes of the structure."""
    return VCPU_EVENTS.pack(events.serror_pending, events.serror_has_esr, events.ext_dabt_pending, events.serror_esr)


def guest_serror_esr(iss: int, *, ras_extension: bool) -> int:
    """ESR_EL1 as the guest sees a virtual SError with the 25-bit `iss`.

    Without the RAS extension there is no VSESR_EL2, and the CPU supplies a syndrome of its own with ISS 0.
    """
    return SERROR_ESR_BASE | (iss & (IDS | IDS - 1) if ras_extension else 0)
