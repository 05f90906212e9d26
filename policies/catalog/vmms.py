"""Behaviour flags of virtual machine monitors (VMMs)."""

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
    """A VMM's behaviours where VMMs differ. False is always the behaviour of a VMM that does not handle hardware errors."""

    handles_sigbus: bool = False
    """Without it any SIGBUS ends the VMM."""
    asks_for_early_signals: bool = False
    """prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY)."""
    tells_action_optional: bool = False
    """The guest is notified of a lost page before it accesses the page."""
    tells_every_page: bool = False
    """Every guest page in the range of `si_addr_lsb` is reported, not only the one at `si_addr`."""
    waits_for_acknowledgement: bool = False
    """A record that the guest has not acknowledged delays the next one. Without it the VMM exits."""
    falls_back_on_serror: bool = False
    """An error without an exact address becomes a virtual SError. Without it the VMM exits."""
    listens_without_source: bool = False
    """A signal is handled even where the guest has no SEA source."""
    every_thread_listens: bool = False
    """SIGBUS is handled in every thread, not only in vCPU threads."""
    outlives_its_own_access: bool = False
    """An access of the VMM's own code is not repeated. Without it the VMM repeats it, and the second signal kills it."""


@frozen
class Vmm:
    """A virtual machine monitor."""

    name: str
    summary: str
    evidence: str
    mirrors: str | None
    """The function that handles the signal, where its source was read."""
    behaviours: VmmBehaviours
    exits: Mapping[str, str]
    """Why it exits, by cause: any `signal`, other `code`, other `thread`, no `source`, memory `elsewhere`, no `acknowledgement`."""


FLAGS: Final = tuple(field.name for field in fields(VmmBehaviours))


@lru_cache(maxsize=1)
def vmms() -> Mapping[str, Vmm]:
    """Return all VMMs by the name in host facts."""
    table = tomllib.loads(files("ras_triage.policies.catalog").joinpath("vmms.toml").read_text(encoding="utf-8"))
    return {name: _vmm(name, **row) for name, row in table.items()}


def _vmm(name: str, summary: str, evidence: str, exits: dict[str, str], mirrors: str | None = None, **flags: bool) -> Vmm:
    return Vmm(name, summary, evidence, mirrors, VmmBehaviours(**flags), exits)
