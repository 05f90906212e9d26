"""What virtual machine monitors do where they differ: one flag each, and `vmms.toml` says who has it. Rules ask for flags alone."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from importlib.resources import files
from typing import Final

from ras_triage.models.frozen import frozen


@frozen
class VmmBehaviours:
    """False is always what a monitor does that knows nothing of hardware errors."""

    handles_sigbus: bool = False
    """Any SIGBUS ends the others."""
    asks_for_early_signals: bool = False
    """prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY)."""
    tells_action_optional: bool = False
    """The guest learns of a lost page before it touches it."""
    tells_every_page: bool = False
    """All that `si_addr_lsb` covers is told, not just the guest page at `si_addr`."""
    waits_for_acknowledgement: bool = False
    """A record that the guest has not acknowledged delays the next one; others die."""
    falls_back_on_serror: bool = False
    """What cannot be told exactly becomes a virtual SError; others die."""
    listens_without_source: bool = False
    """A signal counts even where the guest has no SEA source."""
    every_thread_listens: bool = False
    """SIGBUS is handled in every thread, not in vCPU threads alone."""
    outlives_its_own_access: bool = False
    """An access of the monitor's own code is given up; others repeat it, and die of the second signal."""


@frozen
class Vmm:
    """A virtual machine monitor."""

    name: str
    summary: str
    evidence: str
    mirrors: str | None
    """The function that acts on the signal, where there is one to read."""
    behaviours: VmmBehaviours
    exits: Mapping[str, str]
    """How it ends: for any `signal`, an unknown `code`, the wrong `thread`, no `source`, memory `elsewhere`, no `acknowledgement`."""


FLAGS: Final = tuple(field.name for field in fields(VmmBehaviours))


@lru_cache(maxsize=1)
def vmms() -> Mapping[str, Vmm]:
    """Every monitor that is known, by the name that host facts use."""
    table = tomllib.loads(files("ras_triage.policies.catalog").joinpath("vmms.toml").read_text(encoding="utf-8"))
    return {name: _vmm(name, **row) for name, row in table.items()}


def _vmm(name: str, summary: str, evidence: str, exits: dict[str, str], mirrors: str | None = None, **flags: bool) -> Vmm:
    return Vmm(name, summary, evidence, mirrors, VmmBehaviours(**flags), exits)
