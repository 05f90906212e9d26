"""Stage 3: the record's severity, and what a kernel that panics does next."""

from __future__ import annotations

from functools import lru_cache

from models.decision import Log, Panic, Step
from models.severity import GhesSeverity, ghes_severity, severity_name
from models.status_block import StatusBlock
from policies.catalog import Policy
from policies.facts import ASSUMED_SYSCTL, Facts
from policies.finding import Finding, rule

CONTAINMENT_WARNING = 1 << 1
"""Data entry flag: the error was not contained (ACPI 6.5 table 18.12)."""

FORCED_TIMEOUT_S = 30
TAINT = Log("the kernel is tainted: machine check")


def reboot_delay(facts: Facts) -> int | None:
    """Seconds until a panicked kernel reboots (kernel.panic); None: never."""
    timeout = facts.sysctl.panic_timeout
    return max(timeout, 0) if timeout else None


def is_fatal(policy: Policy, block: StatusBlock) -> bool:
    """Whether the record ends in a panic whatever its sections ask for."""
    if ghes_severity(block.error_severity) is GhesSeverity.PANIC:
        return True
    return policy.behaviours.worst_section_panics and any(
        entry.flags & CONTAINMENT_WARNING or ghes_severity(entry.error_severity) is GhesSeverity.PANIC for entry in block.entries
    )


def judge(block: StatusBlock, policy: Policy, facts: Facts) -> tuple[GhesSeverity, Finding]:
    """The severity that the record is handled with. Mirrors `ghes_severity` and `__ghes_panic`."""
    if not is_fatal(policy, block):
        return _survives(policy, block.error_severity)
    assumptions = () if facts.host.sysctl else (ASSUMED_SYSCTL,)
    finding = _panics(policy, block.error_severity, reboot_delay(facts))
    return GhesSeverity.PANIC, finding._replace(assumptions=assumptions)


@lru_cache(maxsize=1024)
def _survives(policy: Policy, severity: int) -> tuple[GhesSeverity, Finding]:
    rank = ghes_severity(severity)
    fired = rule(policy, "severity.block", rank.name.lower(), "ghes_severity", block_severity=severity_name(severity))
    return rank, Finding((), (fired,))


@lru_cache(maxsize=1024)
def _panics(policy: Policy, severity: int, delay: int | None) -> Finding:
    honours = policy.behaviours.panic_honours_timeout
    message = "GHES: Fatal hardware error" if honours else "Fatal hardware error!"
    delay = delay if honours or delay is not None else FORCED_TIMEOUT_S
    outcome = "panic" if ghes_severity(severity) is GhesSeverity.PANIC else "panic: a section is fatal or its error is not contained"
    fired = (
        rule(policy, "severity.block", outcome, "ghes_severity", block_severity=severity_name(severity)),
        rule(policy, "severity.panic", message, "__ghes_panic", "panic_honours_timeout", reboots_after_s=delay),
    )
    taints: tuple[Step, ...] = (TAINT,) if policy.behaviours.ghes_panic_taints else ()
    return Finding((*taints, Panic("ghes", message, delay)), fired)
