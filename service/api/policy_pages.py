"""Policies as they are shown: on the list, one by one, and side by side."""

from __future__ import annotations

from dataclasses import dataclass

from ras_triage.models.decision import PolicyRef
from ras_triage.policies.catalog.behaviours import FLAGS
from ras_triage.policies.catalog.change_points import added_flags, change_points, removed_flags
from ras_triage.policies.catalog.policies import Policy, flag_differences, flag_meanings, uniform_policy
from ras_triage.service.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy on the list."""

    name: str
    digest: str
    release: str
    """The kernel that the policy mirrors, or is based on."""
    brings: tuple[str, ...]
    """The flags that this very release set."""
    drops: tuple[str, ...]
    """The flags that this very release cleared."""


@dataclass(frozen=True, slots=True)
class PolicyList:
    """Every policy with a name of its own, and every release at which a behaviour changed."""

    default: str
    """Decides events that name neither a policy nor a kernel."""
    policies: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Flag:
    """One behaviour under one policy."""

    flag: str
    value: bool
    since: str | None
    """The release from which this kernel's series behaves so."""
    summary: str
    mirrors: str | None
    """Kernel function."""


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """A policy, flag by flag."""

    name: str
    digest: str
    release: str
    notes: tuple[str, ...]
    """What a reader must know before relying on it."""
    flags: tuple[Flag, ...]


@dataclass(frozen=True, slots=True)
class Differing:
    """One behaviour in which two policies differ."""

    flag: str
    a: bool
    b: bool
    since: str | None
    """The release from which the series of the one that has it behaves so."""
    summary: str
    mirrors: str | None
    """Kernel function."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The flags in which two policies differ."""

    a: PolicyRef
    b: PolicyRef
    differs: tuple[Differing, ...]


def list_policies(settings: Settings) -> PolicyList:
    """`uniform`, the operator's own, and the releases from the oldest on."""
    own = (uniform_policy(), *settings.custom.values())
    releases = (_entry(policy, added_flags(policy), removed_flags(policy)) for policy in change_points())
    return PolicyList(settings.default_policy.name, (*(_entry(policy) for policy in own), *releases))


def _entry(policy: Policy, brings: tuple[str, ...] = (), drops: tuple[str, ...] = ()) -> Entry:
    return Entry(policy.name, policy.digest, _release(policy), brings, drops)


def _release(policy: Policy) -> str:
    return str(policy.release)


def page(policy: Policy) -> PolicyPage:
    """Every flag in the order in which flags are listed everywhere."""
    flags = (Flag(flag, getattr(policy.behaviours, flag), policy.since.get(flag), *flag_meanings()[flag]) for flag in FLAGS)
    return PolicyPage(policy.name, policy.digest, _release(policy), policy.notes, tuple(flags))


def compare(a: Policy, b: Policy) -> Difference:
    """What holds under one and not under the other."""
    differs = (
        Differing(flag, ours, theirs, (a if ours else b).since.get(flag), *flag_meanings()[flag])
        for flag, (ours, theirs) in flag_differences(a, b).items()
    )
    return Difference(PolicyRef(a.name, a.digest), PolicyRef(b.name, b.digest), tuple(differs))
