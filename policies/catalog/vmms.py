"""Built-in and custom virtual machine monitors (VMMs), and their behaviour flags.

UnknownVmm       no VMM has this name
InvalidVmm       a VMM file is malformed
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any, Final

from ras_triage.models.errors import suggestion
from ras_triage.models.frozen import frozen
from ras_triage.models.host import MAX_VMM_NAME, Host
from ras_triage.policies.catalog.definition_file import DefinitionFile, InvalidDefinition
from ras_triage.policies.catalog.policies import catalog_table, content_digest


class UnknownVmm(ValueError):
    """No VMM has this name."""

    def __init__(self, name: str, custom: Collection[str], index: int | None = None) -> None:
        """`index`: position in `host.vms`."""
        known = (*vmms(), *custom)
        super().__init__(f"unknown VMM `{name}`; expected one of {', '.join(f'`{other}`' for other in known)}{suggestion(name, known)}")
        self.index = index


class InvalidVmm(InvalidDefinition):
    """A VMM file is malformed."""


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
    """Why it exits, by the causes of `exit_causes`."""
    digest: str
    """Hash of everything that decides: name, flags, exits and function."""


NO_CUSTOM_VMMS: Final[Mapping[str, Vmm]] = {}

FLAGS: Final = tuple(field.name for field in fields(VmmBehaviours))

_KEYS: Final = ("name", "base", "summary", "evidence", "mirrors", "flags", "exits")

_EXITS_WITHOUT: Final = {
    "code": "falls_back_on_serror",
    "thread": "every_thread_listens",
    "source": "listens_without_source",
    "elsewhere": "falls_back_on_serror",
    "acknowledgement": "waits_for_acknowledgement",
}
"""The flag without which a VMM with a signal handler exits, by cause: another signal code, another thread, no source, memory elsewhere, no
acknowledgement."""

EXIT_CAUSES: Final = ("signal", *_EXITS_WITHOUT)


def exit_causes(does: VmmBehaviours) -> tuple[str, ...]:
    """Return the causes for which a VMM with these behaviours exits: any `signal`, or those of its handler."""
    if not does.handles_sigbus:
        return ("signal",)
    return tuple(cause for cause, flag in _EXITS_WITHOUT.items() if not getattr(does, flag))


@lru_cache(maxsize=1)
def vmms() -> Mapping[str, Vmm]:
    """Return the built-in VMMs by the name in host facts."""
    return {name: _built_in(name, **row) for name, row in catalog_table("vmms.toml").items()}


def _built_in(
    name: str,
    summary: str,
    evidence: str,
    mirrors: str | None = None,
    flags: Mapping[str, bool] | None = None,
    exits: Mapping[str, str] | None = None,
) -> Vmm:
    return _vmm(name, summary, evidence, mirrors, VmmBehaviours(**(flags or {})), exits or {})


def _vmm(name: str, summary: str, evidence: str, mirrors: str | None, behaviours: VmmBehaviours, exits: Mapping[str, str]) -> Vmm:
    content = {"name": name, "mirrors": mirrors, "behaviours": asdict(behaviours), "exits": dict(exits)}
    return Vmm(name, summary, evidence, mirrors, behaviours, exits, content_digest(content))


def find_vmm(name: str, custom: Mapping[str, Vmm]) -> Vmm:
    """Return the VMM of that name. Raises UnknownVmm."""
    found = vmms().get(name) or custom.get(name)
    if found is None:
        raise UnknownVmm(name, custom)
    return found


def require_known_vmms(host: Host, custom: Mapping[str, Vmm]) -> None:
    """Raise UnknownVmm for the first virtual machine whose VMM is neither built in nor in `custom`; its `index` is that of the machine."""
    for index, vm in enumerate(host.vms or ()):
        if vm.vmm not in vmms() and vm.vmm not in custom:
            raise UnknownVmm(vm.vmm, custom, index)


def load_vmm(text: str, custom: Collection[str]) -> Vmm:
    """Return a VMM from TOML text; `custom` are the names of the other custom VMMs.

    The text has `name`, and optionally `base` (a built-in VMM), `summary`, `evidence`, `mirrors`, under `[flags]` those that differ from
    the base, and under `[exits]` the reasons why it exits. Without a base, flags are false. Raises InvalidVmm, also for a name in use.
    """
    file = DefinitionFile(text, _KEYS, InvalidVmm)
    name = file.text("name")
    if len(name) > MAX_VMM_NAME:
        raise InvalidVmm(f"`name`: {len(name)} characters; expected at most {MAX_VMM_NAME}")
    if name in vmms() or name in custom:
        raise InvalidVmm(f"`name`: `{name}` is already in use; expected a new name")
    base = _base(file.text("base", ""))
    summary, evidence = file.text("summary", ""), file.text("evidence", "")
    mirrors = file.text("mirrors", base.mirrors or "") or None
    behaviours = replace(base.behaviours, **file.flags(FLAGS))
    exits = _exits(file.table("exits"), base, exit_causes(behaviours))
    return _vmm(name, summary, evidence, mirrors, behaviours, exits)


_NO_BASE: Final = _vmm("", "", "", None, VmmBehaviours(), {})


def _base(name: str) -> Vmm:
    """Return a base VMM; without a name one that has no flags."""
    try:
        return find_vmm(name, {}) if name else _NO_BASE
    except UnknownVmm as error:
        raise InvalidVmm(f"`base`: {error}") from None


def _exits(given: Mapping[str, Any], base: Vmm, causes: tuple[str, ...]) -> dict[str, str]:
    """Return a text for each cause: the given one, else that of the base. Raises InvalidVmm."""
    for cause, why in given.items():
        if cause not in EXIT_CAUSES:
            raise InvalidVmm(f"`exits.{cause}`: unknown cause; expected one of {', '.join(f'`{known}`' for known in EXIT_CAUSES)}")
        if cause not in causes:
            raise InvalidVmm(f"`exits.{cause}`: with these flags the VMM does not exit for this cause; expected no text")
        if not isinstance(why, str) or not why:
            raise InvalidVmm(f"`exits.{cause}`: empty or not a string; expected why the VMM exits")
    exits = {**base.exits, **given}
    if missing := [cause for cause in causes if cause not in exits]:
        raise InvalidVmm(f"`exits.{missing[0]}`: missing; with these flags the VMM exits for this cause, expected a text that says why")
    return {cause: exits[cause] for cause in causes}
