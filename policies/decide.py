"""Decision of an event under a policy: all stages in order."""

from __future__ import annotations

from collections.abc import Mapping

from ras_triage.models.decision import Action, Assumption, Decision
from ras_triage.models.event import Event, event_key
from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.models.scalars import ASSUMED_HEXADECIMAL, HexadecimalBytes
from ras_triage.policies.alternatives import NO_ALTERNATIVES, Alternatives, DecidedCase, find_alternatives, is_ambiguous
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.catalog.vmms import NO_CUSTOM_VMMS, Vmm, require_known_vmms
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.poisoned_pages import poisoned_pages
from ras_triage.policies.pipeline.precheck import run_precheck
from ras_triage.policies.pipeline.stage_result import StageResult, merge_results
from ras_triage.policies.pipeline.stages import HandlingStages, headline, run_handling_stages, run_section_stages

NOTHING_ASSUMED: frozenset[str] = frozenset()
"""No assumptions about the event."""


def decide(
    event: Event, policy: Policy, assumed: frozenset[str] = NOTHING_ASSUMED, custom_vmms: Mapping[str, Vmm] = NO_CUSTOM_VMMS
) -> Decision:
    """Decide `event` under `policy`: what happens, in order, and why. Pure: equal arguments give equal decisions.

    `assumed`: JSON pointers into the event, such as `/notification/type`, whose values the sender assumed, in addition to those in the
    event's own `assumed`. They change only the `alternatives` and `warnings` of the decision.
    `custom_vmms`: VMMs that are not built in, by the name in host facts. Raises UnknownVmm.
    """
    require_known_vmms(event.host, custom_vmms)
    block = None if event.status_block is None else parse_block(event.status_block)
    return decide_parsed(event, block, policy, event_key(event), assumed, custom_vmms)


def decide_parsed(
    event: Event,
    block: StatusBlock | None,
    policy: Policy,
    key: str,
    assumed: frozenset[str] = NOTHING_ASSUMED,
    custom_vmms: Mapping[str, Vmm] = NO_CUSTOM_VMMS,
) -> Decision:
    """Decide an event whose VMMs are known, and whose status block and key the caller has already computed."""
    return decide_with_poison(event, block, policy, key, assumed, custom_vmms).decision


@frozen
class DecisionWithPoison:
    """A decision, and what it leaves behind on the machine."""

    decision: Decision
    poisoned: tuple[PoisonedPage, ...]
    """Pages that count as poisoned until the next reboot."""
    record_is_handled: bool
    """Whether the kernel read a well-formed record, so that the same one soon after is a duplicate."""


def decide_with_poison(
    event: Event,
    block: StatusBlock | None,
    policy: Policy,
    key: str,
    assumed: frozenset[str] = NOTHING_ASSUMED,
    custom_vmms: Mapping[str, Vmm] = NO_CUSTOM_VMMS,
) -> DecisionWithPoison:
    """Decide an event for a caller that remembers what each machine's decisions leave behind. Its VMMs are known."""
    if event.assumed:
        assumed = assumed.union(event.assumed)
    facts = Facts(event.host, custom_vmms=custom_vmms)
    precheck = run_precheck(event.notification, block, policy, facts)
    sections = run_section_stages(event.notification, precheck, block, policy, facts)
    handling = run_handling_stages(sections, policy, facts)
    found = merge_results(handling.stage_results)
    action = headline(found.steps)
    others = NO_ALTERNATIVES
    if is_ambiguous(sections, handling, facts, assumed):
        others = find_alternatives(
            DecidedCase(action=action, block=block, policy=policy, facts=facts, sections=sections, handling=handling, assumed=assumed)
        )
    decision = _conclude(event, policy, key, action, found, handling, others)
    return DecisionWithPoison(decision, poisoned_pages(handling.handled, facts), precheck.is_handled)


def _conclude(
    event: Event, policy: Policy, key: str, action: Action, found: StageResult, handling: HandlingStages, others: Alternatives
) -> Decision:
    """Return the decision from all results (stage 8): action, certainty and alternatives."""
    return Decision(
        event_key=key,
        source=event.source,
        policy=policy.reference,
        action=action,
        certainty="depends" if found.reasons else "certain",
        reasons=found.reasons,
        plan=found.steps,
        next_access=() if action is Action.PANIC else handling.at_next_access,
        rationale=found.rationale,
        assumptions=(*found.assumptions, *read) if (read := _hexadecimal_fields(event)) else found.assumptions,
        alternatives=others.alternatives,
        warnings=(*found.warnings, *others.warnings) if others.warnings else found.warnings,
    )


def _hexadecimal_fields(event: Event) -> tuple[Assumption, ...]:
    """Return an assumption for each status block of the event whose text was read as hexadecimal."""
    blocks = [] if event.status_block is None else [("status_block", event.status_block)]
    if event.host.recent:
        blocks += [(f"host.recent[{index}].status_block", one.status_block) for index, one in enumerate(event.host.recent)]
    return tuple([Assumption(fact, ASSUMED_HEXADECIMAL) for fact, data in blocks if isinstance(data, HexadecimalBytes)])


__all__ = ["NOTHING_ASSUMED", "DecisionWithPoison", "decide", "decide_parsed", "decide_with_poison"]
