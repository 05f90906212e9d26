"""Three numberings of the ARM processor error type byte."""

from __future__ import annotations

from typing import Final

from ras_triage.models.decision import Assumption
from ras_triage.models.sections.arm_processor import describe_error_type
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.facts import Facts

NUMBERINGS: Final = ("legacy", "uefi-2.10", "uefi-2.11")

_CACHE_ENUMERATED: Final = 0
_CACHE_BITS: Final = {"uefi-2.10": 1 << 1, "uefi-2.11": 1 << 0}


def is_cache_error(kind: int, numbering: str) -> bool:
    """Return whether an error type (u8) includes a cache error.

    Mirrors `ghes_handle_arm_hw_error` for the first two numberings; no kernel uses the third.
    """
    return kind == _CACHE_ENUMERATED if numbering == "legacy" else bool(kind & _CACHE_BITS[numbering])


def policy_numbering(policy: Policy) -> str:
    """Return the numbering that a policy uses by default."""
    return "uefi-2.10" if policy.behaviours.arm_error_type_bitmask else "legacy"


def stated_numbering(policy: Policy, facts: Facts) -> str | None:
    """Return the numbering from the host facts where the policy uses it; None: the policy's default."""
    return facts.arm_numbering or (facts.host.arm_error_types if policy.behaviours.arm_error_types_heeded else None)


def assumed_numbering(policy: Policy) -> tuple[Assumption, ...]:
    """Return the assumption of a policy that would use the host facts' numbering; a kernel has its own and assumes nothing."""
    return (Assumption("host.arm_error_types", policy_numbering(policy)),) if policy.behaviours.arm_error_types_heeded else ()


def error_type_meaning(kind: int, numbering: str) -> str:
    """Return the names of an error type (u8) in a numbering."""
    named = describe_error_type(kind)[numbering]
    return named if isinstance(named, str) else " and ".join(named or ()) or "nothing"
