"""Definition of a policy, and responses for policies: list, details, comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, StrictBool, StringConstraints

from ras_triage.models.decision import Evidence, PolicyRef
from ras_triage.models.scalars import WireModel

_MAX_NOTES: Final = 32
_MAX_NOTE: Final = 500
"""Notes of a policy, and characters of each."""


class PolicyDefinition(WireModel):
    """A custom policy: a built-in one, and the flags that differ."""

    base: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(examples=["linux-6.12.107"])
    """`linux-<release>` or `uniform`."""
    notes: Annotated[tuple[Annotated[str, StringConstraints(max_length=_MAX_NOTE)], ...], Field(max_length=_MAX_NOTES)] = ()
    """Caveats that its users should know."""
    flags: dict[str, StrictBool] = Field(default_factory=dict, examples=[{"queued_accumulates": True}])
    """Behaviour flags that differ from the base, as in `GET /v1/policies/{name}`."""


@dataclass(frozen=True, slots=True)
class VmmEntry:
    """A VMM in the list."""

    name: str
    """Value of `host.vms[].vmm`."""
    digest: str
    """Content hash of the VMM's behaviours."""
    summary: str
    """The VMM in one line."""
    flags: tuple[str, ...]
    """Behaviour flags that are set."""


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy in the list."""

    name: str
    """Name of the policy."""
    digest: str
    """Content hash of the policy; equal digests decide alike."""
    release: str
    """Kernel release that the policy mirrors or is based on."""
    brings: tuple[str, ...]
    """Behaviour flags that this release set."""
    drops: tuple[str, ...]
    """Behaviour flags that this release cleared."""


@dataclass(frozen=True, slots=True)
class PolicyList:
    """All named policies, every release at which a behaviour changed, and all VMMs."""

    default: str
    """Policy for events that name neither a policy nor a kernel."""
    policies: tuple[PolicyEntry, ...]
    """Policies, oldest release first, then `uniform` and custom ones."""
    vmms: tuple[VmmEntry, ...] = ()
    """Built-in ones, then those of VMM files."""


@dataclass(frozen=True, slots=True)
class FlagValue:
    """Value of one behaviour flag in one policy."""

    flag: str
    """Name of the behaviour flag."""
    value: bool
    """Whether the policy has the behaviour."""
    since: str | None
    """Release from which this kernel's series has the behaviour."""
    summary: str
    """The behaviour in one line."""
    mirrors: str | None
    """Kernel function."""
    evidence: Evidence | None
    """How the value is known for the policy's release; null for a flag that no kernel has, or that the policy itself sets."""


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """A policy with all of its behaviour flags."""

    name: str
    """Name of the policy."""
    digest: str
    """Content hash of the policy; equal digests decide alike."""
    release: str
    """Kernel release that the policy mirrors or is based on."""
    notes: tuple[str, ...]
    """Caveats."""
    flags: tuple[FlagValue, ...]
    """All behaviour flags."""


@dataclass(frozen=True, slots=True)
class FlagDifference:
    """A behaviour flag in which two policies differ."""

    flag: str
    """Name of the behaviour flag."""
    a: bool
    """Whether policy `a` has the behaviour."""
    b: bool
    """Whether policy `b` has the behaviour."""
    since: str | None
    """Release from which the series of the policy with the flag has the behaviour."""
    summary: str
    """The behaviour in one line."""
    mirrors: str | None
    """Kernel function."""


@dataclass(frozen=True, slots=True)
class Difference:
    """All behaviour flags in which two policies differ."""

    a: PolicyRef
    """The first policy."""
    b: PolicyRef
    """The second policy."""
    differs: tuple[FlagDifference, ...]
    """Flags that only one of them has."""
