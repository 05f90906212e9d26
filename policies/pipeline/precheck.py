"""Stages 1 to 3, cached by notification and block header."""

from __future__ import annotations

from functools import lru_cache

from ras_triage.models.decision import Assumption
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification
from ras_triage.models.records.status_block import StatusBlock
from ras_triage.models.severity import GhesSeverity
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.admission import Admission, NotificationContext, admit, notification_context
from ras_triage.policies.pipeline.facts import ASSUMED_SYSCTL, Facts
from ras_triage.policies.pipeline.record import BlockHeader, block_header, read_record
from ras_triage.policies.pipeline.severity import judge_severity, reboot_delay
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, merge_results


@frozen
class Precheck:
    """The outcome of stages 1 to 3, before a record's sections are read."""

    admission: Admission
    rank: GhesSeverity | None
    """The severity that the record is handled with; None where there is no record to process."""
    claimed: bool
    """Whether an abort counts as claimed by APEI."""
    is_handled: bool
    """Whether a well-formed record was read."""
    stage_result: StageResult
    released_after: StageResult
    """The acknowledgement, where it follows the processing of the record."""


def run_precheck(notification: Notification, block: StatusBlock | None, policy: Policy, facts: Facts) -> Precheck:
    """Admit the notification, read the record and judge its severity."""
    header = None if block is None else block_header(block, policy, facts)
    context = notification_context(notification, facts)
    return _run_precheck(policy, context, header, reboot_delay(facts), facts.host.sysctl is not None)


@lru_cache(maxsize=2048)
def _run_precheck(
    policy: Policy, context: NotificationContext, header: BlockHeader | None, delay: int | None, sysctl_known: bool
) -> Precheck:
    admission = admit(context, policy)
    record = read_record(context, header, admission, policy)
    stage_results = [_kernel(policy), admission.stage_result, record.stage_result]
    rank = None
    if record.is_processed and header is not None:
        rank, judged = judge_severity(policy, header.severity, header.worst_section, delay)
        stage_results.append(judged)
        if rank is GhesSeverity.PANIC and not sysctl_known:
            stage_results.append(StageResult(assumptions=(ASSUMED_SYSCTL,)))
    released = StageResult(record.released_after) if record.released_after else EMPTY_RESULT
    return Precheck(admission, rank, record.claimed, record.is_handled, merge_results(stage_results), released)


def _kernel(policy: Policy) -> StageResult:
    """Return what is unknown about the kernel itself."""
    if not policy.unknowns:
        return EMPTY_RESULT
    return StageResult(reasons=policy.unknowns, assumptions=tuple([Assumption("host.kernel", what) for what in policy.unknowns]))
