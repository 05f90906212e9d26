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
    summary: str
    flags: tuple[str, ...]
    """Behaviour flags that are set."""


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy in the list."""

    name: str
    digest: str
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
    vmms: tuple[VmmEntry, ...] = ()
    """Built-in ones, then those of VMM files."""


@dataclass(frozen=True, slots=True)
class FlagValue:
    """Value of one behaviour flag in one policy."""

    flag: str
    value: bool
    since: str | None
    """Release from which this kernel's series has the behaviour."""
    summary: str
    mirrors: str | None
    """Kernel function."""
    evidence: Evidence | None
    """How the value is known for the policy's release; null for a flag that no kernel has, or that the policy itself sets."""


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """A policy with all of its behaviour flags."""

    name: str
    digest: str
    release: str
    notes: tuple[str, ...]
    """Caveats."""
    flags: tuple[FlagValue, ...]


@dataclass(frozen=True, slots=True)
class FlagDifference:
    """A behaviour flag in which two policies differ."""

    flag: str
    a: bool
    b: bool
    since: str | None
    """Release from which the series of the policy with the flag has the behaviour."""
    summary: str
    mirrors: str | None
    """Kernel function."""


@dataclass(frozen=True, slots=True)
class Difference:
    """All behaviour flags in which two policies differ."""

    a: PolicyRef
    b: PolicyRef
    differs: tuple[FlagDifference, ...]
