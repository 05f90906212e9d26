"""Stages 1 to 3 as one: events that come through the same door with the same header share what they come to."""

from __future__ import annotations

from functools import lru_cache

from models.decision import Assumption
from models.notification import Notification
from models.severity import GhesSeverity
from models.status_block import StatusBlock
from models.value import value
from policies.admit import Admission, Door, admit, door_of
from policies.catalog import Policy
from policies.facts import ASSUMED_SYSCTL, Facts
from policies.finding import NOTHING, Finding, join
from policies.read import Header, header_of, read
from policies.severity import judge, reboot_delay


@value
class Opening:
    """What is settled before a record's sections are looked into."""

    admission: Admission
    rank: GhesSeverity | None
    """The severity that the record is handled with; None where there is none to act on."""
    claimed: bool
    """Whether the abort, if it was one, counts as claimed by APEI."""
    finding: Finding
    released_after: Finding
    """The acknowledgement, where it comes only after the record was processed."""


def open_event(notification: Notification, block: StatusBlock | None, policy: Policy, facts: Facts) -> Opening:
    """Admit the notification, read the record and judge its severity."""
    header = None if block is None else header_of(block, policy, facts)
    return _open(policy, door_of(notification, facts), header, reboot_delay(facts), facts.host.sysctl is not None)


@lru_cache(maxsize=2048)
def _open(policy: Policy, door: Door, header: Header | None, delay: int | None, sysctl_known: bool) -> Opening:
    admission = admit(door, policy)
    reading = read(door, header, admission, policy)
    findings = [_kernel(policy), admission.finding, reading.finding]
    rank = None
    if reading.acted_on and header is not None:
        rank, judged = judge(policy, header.severity, header.worst_section, delay)
        findings.append(judged)
        if rank is GhesSeverity.PANIC and not sysctl_known:
            findings.append(Finding(assumptions=(ASSUMED_SYSCTL,)))
    released = Finding(reading.released_after) if reading.released_after else NOTHING
    return Opening(admission, rank, reading.claimed, join(findings), released)


def _kernel(policy: Policy) -> Finding:
    """What is not known about the kernel itself."""
    if not policy.unknowns:
        return NOTHING
    return Finding(reasons=policy.unknowns, assumptions=tuple([Assumption("host.kernel", what) for what in policy.unknowns]))
