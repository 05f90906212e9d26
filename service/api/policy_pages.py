"""Policies as they are shown: on the list, one by one, and side by side."""

from __future__ import annotations

from dataclasses import dataclass

from ras_triage.models.decision import PolicyRef


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
