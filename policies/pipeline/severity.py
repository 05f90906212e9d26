"""Stage 3: severity of the record, and panic for a fatal one."""

from __future__ import annotations

from ras_triage.models.decision import Log, Panic, Step
from ras_triage.models.severity import GhesSeverity, ghes_severity, severity_name
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.stage_result import StageResult, rule

CONTAINMENT_WARNING = 1 << 1
"""Data entry flag: the error was not contained (ACPI 6.5 table 18.12)."""

FORCED_TIMEOUT_S = 30
TAINT = Log("the kernel is tainted: machine check")


def reboot_delay(facts: Facts) -> int | None:
    """Return the seconds until a panicked kernel reboots (kernel.panic); None: never."""
    timeout = facts.sysctl.panic_timeout
    return max(timeout, 0) if timeout else None


def is_fatal(policy: Policy, severity: int, worst_section: bool) -> bool:
    """Return whether a record leads to a panic, whatever its sections request."""
    return ghes_severity(severity) is GhesSeverity.PANIC or (policy.behaviours.worst_section_panics and worst_section)


def judge_severity(policy: Policy, severity: int, worst_section: bool, delay: int | None) -> tuple[GhesSeverity, StageResult]:
    """Return the severity that the record is handled with. Mirrors `ghes_severity` and `__ghes_panic`.

    `delay`: seconds until a panicked kernel reboots, None for never.
    """
    rank = ghes_severity(severity)
    given = severity_name(severity)
    if not is_fatal(policy, severity, worst_section):
        return rank, StageResult((), (rule(policy, "severity.block", rank.name.lower(), "ghes_severity", block_severity=given),))
    honours = policy.behaviours.panic_honours_timeout
    message = "GHES: Fatal hardware error" if honours else "Fatal hardware error!"
    delay = delay if honours or delay is not None else FORCED_TIMEOUT_S
    outcome = "panic" if rank is GhesSeverity.PANIC else "panic: a section is fatal, or its error is not contained"
    fired = (
        rule(policy, "severity.block", outcome, "ghes_severity", block_severity=given),
        rule(policy, "severity.panic", message, "__ghes_panic", "panic_honours_timeout", reboots_after_s=delay),
    )
    taints: tuple[Step, ...] = (TAINT,) if policy.behaviours.ghes_panic_taints else ()
    return GhesSeverity.PANIC, StageResult((*taints, Panic("ghes", message, delay)), fired)
