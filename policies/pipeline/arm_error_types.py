"""The ARM error type byte, of which three numberings are in circulation (`ras_triage.models.sections.arm_processor`)."""

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
    """Whether an error type (u8) is a cache error, or one among others. Mirrors `ghes_handle_arm_hw_error` for the first two numberings."""
    return kind == _CACHE_ENUMERATED if numbering == "legacy" else bool(kind & _CACHE_BITS[numbering])


def policy_numbering(policy: Policy) -> str:
    """The numbering in which a policy reads what nobody told it to read otherwise."""
    return "uefi-2.10" if policy.behaviours.arm_error_type_bitmask else "legacy"


def stated_numbering(policy: Policy, facts: Facts) -> str | None:
    """The numbering that was told, to a policy that heeds it."""
    return facts.arm_numbering or (facts.host.arm_error_types if policy.behaviours.arm_error_types_heeded else None)


def assumed_numbering(policy: Policy) -> tuple[Assumption, ...]:
    """What a policy assumes that was told nothing. A kernel assumes nothing: it reads in its own way, whatever firmware means."""
    return (Assumption("host.arm_error_types", policy_numbering(policy)),) if policy.behaviours.arm_error_types_heeded else ()


def error_type_meaning(kind: int, numbering: str) -> str:
    """What an error type (u8) says in a numbering."""
    named = describe_error_type(kind)[numbering]
    return named if isinstance(named, str) else " and ".join(named or ()) or "nothing"
