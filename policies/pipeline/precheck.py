"""Stages 1 to 3 as one: events that come through the same door with the same header share what they come to."""

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
    """What is settled before a record's sections are looked into."""

    admission: Admission
    rank: GhesSeverity | None
    """The severity that the record is handled with; None where there is none to act on."""
    claimed: bool
    """Whether the abort, if it was one, counts as claimed by APEI."""
    stage_result: StageResult
    released_after: StageResult
    """The acknowledgement, where it comes only after the record was processed."""


def precheck(notification: Notification, block: StatusBlock | None, policy: Policy, facts: Facts) -> Precheck:
    """Admit the notification, read the record and judge its severity."""
    header = None if block is None else block_header(block, policy, facts)
    return _open(policy, notification_context(notification, facts), header, reboot_delay(facts), facts.host.sysctl is not None)


@lru_cache(maxsize=2048)
def _open(policy: Policy, door: NotificationContext, header: BlockHeader | None, delay: int | None, sysctl_known: bool) -> Precheck:
    admission = admit(door, policy)
    reading = read_record(door, header, admission, policy)
    stage_results = [_kernel(policy), admission.stage_result, reading.stage_result]
    rank = None
    if reading.acted_on and header is not None:
        rank, judged = judge_severity(policy, header.severity, header.worst_section, delay)
        stage_results.append(judged)
        if rank is GhesSeverity.PANIC and not sysctl_known:
            stage_results.append(StageResult(assumptions=(ASSUMED_SYSCTL,)))
    released = StageResult(reading.released_after) if reading.released_after else EMPTY_RESULT
    return Precheck(admission, rank, reading.claimed, merge_results(stage_results), released)


def _kernel(policy: Policy) -> StageResult:
    """What is not known about the kernel itself."""
    if not policy.unknowns:
        return EMPTY_RESULT
    return StageResult(reasons=policy.unknowns, assumptions=tuple([Assumption("host.kernel", what) for what in policy.unknowns]))
