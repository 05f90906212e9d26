"""Responses for policies: list, details, comparison."""

from __future__ import annotations

from dataclasses import dataclass

from ras_triage.models.decision import Evidence, PolicyRef


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
