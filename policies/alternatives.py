"""Alternative interpretations of an event that lead to another decision.

Four inputs of an event can be ambiguous: the numbering of ARM error types, whether the notification was synchronous, AER registers that the
source does not show, and the state of pages. Each is replaced alone by its other values. Interpretations are not combined, and their own
ambiguities are not followed, so the number of decisions is bounded (`PAGE_INTERPRETATIONS`, `NUMBERINGS`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ras_triage.models.decision import Action, Alternative, DecisionWarning, RecoverPcie, Step
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Page, PageState, Task
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.guid import PCIE
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.models.sections.pcie import DEVICE_ID_VALID, DEVICE_WINDOW, read_device, write_aer_status
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline import page_states
from ras_triage.policies.pipeline.arm_error_types import NUMBERINGS, error_type_meaning, is_cache_error, policy_numbering, stated_numbering
from ras_triage.policies.pipeline.facts import DEFAULT_PAGE, Facts
from ras_triage.policies.pipeline.memory import Frame, HandledFrame, traits_of
from ras_triage.policies.pipeline.page_states import PageOutcome
from ras_triage.policies.pipeline.sections import MemoryFailureRequest, QueuedFrame
from ras_triage.policies.pipeline.stage_result import merge_results
from ras_triage.policies.pipeline.stages import HandlingStages, SectionStages, headline, run_handling_stages, run_section_stages, run_stages

NOTIFICATION_TYPE: Final = "/notification/type"
ARM_ERROR_TYPES: Final = "/host/arm_error_types"
"""JSON pointers into an event where an assumption makes it ambiguous."""

_MAX_LISTED: Final = 4
"""Number of error types that a warning lists."""


class Alternatives(NamedTuple):
    """Alternatives of a decision, and the warnings that go with them."""

    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[DecisionWarning, ...] = ()


NO_ALTERNATIVES: Final = Alternatives()


@frozen
class DecidedCase:
    """A decided event: its action, its inputs and the results of its stages."""

    action: Action
    block: StatusBlock | None
    policy: Policy
    facts: Facts
    sections: SectionStages
    handling: HandlingStages
    assumed: frozenset[str]


def is_ambiguous(sections: SectionStages, handling: HandlingStages, facts: Facts, assumed: frozenset[str]) -> bool:
    """Return whether an event may be ambiguous. Cheap, and may be wrong in the direction of True."""
    if assumed or (sections.walk is not None and sections.walk.arm_error_types and facts.host.arm_error_types is None):
        return True
    return bool(handling.handled) and any(map(_is_assumed, handling.handled))


def find_alternatives(case: DecidedCase) -> Alternatives:
    """Return the interpretations that lead to another action, or in the case of AER registers to device recovery."""
    found = [_numberings(case)]
    if NOTIFICATION_TYPE in case.assumed:
        found.append(_notifications(case))
    if sections := [int(match[1]) for field in sorted(case.assumed) if (match := _VALIDATION_BITS.fullmatch(field))]:
        found.append(_aer_registers(case, sections))
    if assumed := [done for done in case.handling.handled if _is_assumed(done)]:
        found.append(_pages(case, assumed, _STATES, _STATE_IS_ASSUMED))
        found.append(_pages(case, assumed, _DIRTINESS, _DIRTINESS_IS_ASSUMED))
    found = [other for other in found if other is not NO_ALTERNATIVES]
    if len(found) < 2:
        return found[0] if found else NO_ALTERNATIVES
    alternatives, warnings = zip(*found, strict=True)
    return Alternatives(tuple(chain.from_iterable(alternatives)), tuple(chain.from_iterable(warnings)))


def _other_action(case: DecidedCase, handling: HandlingStages) -> tuple[Action, tuple[Step, ...]] | None:
    """Return action and plan of an interpretation, or None where the action is the decision's."""
    action = headline(chain.from_iterable([stage_result.steps for stage_result in handling.stage_results]))
    return None if action is case.action else (action, merge_results(handling.stage_results).steps)


def _handle(notification: Notification, block: StatusBlock | None, case: DecidedCase) -> HandlingStages:
    """Run all stages for another notification or status block."""
    return run_stages(notification, block, case.policy, case.facts)


def _other_actions(alternatives: Iterable[Alternative]) -> str:
    others = " or ".join(f"`{alternative.action}` with {_words(alternative.when)}" for alternative in alternatives)
    return f"the action would be {others}"


def _words(when: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={str(value).lower()}`" for name, value in when.items())


# The numbering of ARM error types

_WITH_FIRMWARE_NUMBERING: Final[dict[str, Any]] = {"policy.flags.arm_error_types_heeded": True}


def _numberings(case: DecidedCase) -> Alternatives:
    """Return the alternatives for the numbering of ARM error types, which neither the record nor, maybe, the host facts state.

    A kernel ignores the firmware's numbering. Its alternatives say what it would do with `arm_error_types_heeded`.
    """
    walk, host, policy = case.sections.walk, case.facts.host, case.policy
    stated = host.arm_error_types is not None and ARM_ERROR_TYPES not in case.assumed
    if stated or walk is None or not walk.arm_error_types:
        return NO_ALTERNATIVES
    kinds = tuple(dict.fromkeys(walk.arm_error_types))
    uses_firmware_numbering, assumed = (
        policy.behaviours.arm_error_types_heeded,
        stated_numbering(policy, case.facts) or policy_numbering(policy),
    )
    found: list[tuple[str, Action, tuple[Step, ...]]] = []
    for equivalent in _other_numberings(kinds, assumed):
        if not _is_local(case) and (other := _other_action(case, _handle_in(equivalent[0], case))):
            found += [(numbering, *other) for numbering in equivalent]
    if not found:
        return NO_ALTERNATIVES
    found.sort(key=itemgetter(0))
    more = {} if uses_firmware_numbering else _WITH_FIRMWARE_NUMBERING
    alternatives = tuple([Alternative({"host.arm_error_types": numbering} | more, action, plan) for numbering, action, plan in found])
    actions = tuple([(numbering, action) for numbering, action, _ in found])
    return Alternatives(alternatives, (_numbering_warning(kinds, assumed, actions, uses_firmware_numbering=uses_firmware_numbering),))


def _handle_in(numbering: str, case: DecidedCase) -> HandlingStages:
    facts = Facts(case.facts.host, arm_numbering=numbering, custom_vmms=case.facts.custom_vmms)
    sections = run_section_stages(case.sections.notification, case.sections.precheck, case.block, case.policy, facts)
    return run_handling_stages(sections, case.policy, facts)


def _is_local(case: DecidedCase) -> bool:
    """Return whether no outcome for a page can signal or panic: no thread consumed the error or requested early signals."""
    facts = case.facts
    if case.sections.notification.type is NotificationType.SEA or facts.early_kill or not facts.sysctl.recovery or _may_panic(case):
        return False
    return not any(map(_requests_early_kill, facts.host.tasks or ()))


def _requests_early_kill(task: Task) -> bool:
    return task.mce_kill == "early" or any(thread.mce_kill == "early" for thread in task.threads)


def _may_panic(case: DecidedCase) -> bool:
    """Return whether an error in a page of the kernel panics."""
    return case.policy.behaviours.panic_on_unrecoverable_sysctl and bool(case.facts.sysctl.panic_on_unrecoverable)


@lru_cache(maxsize=256)
def _other_numberings(kinds: tuple[int, ...], assumed: str) -> tuple[tuple[str, ...], ...]:
    """Return the numberings that classify error types otherwise than `assumed`, grouped by equal classification."""
    groups: dict[tuple[bool, ...], tuple[str, ...]] = {}
    for numbering in NUMBERINGS:
        caches = tuple(is_cache_error(kind, numbering) for kind in kinds)
        groups[caches] = (*groups.get(caches, ()), numbering)
    return tuple(numberings for numberings in groups.values() if assumed not in numberings)


@lru_cache(maxsize=256)
def _numbering_warning(
    kinds: tuple[int, ...], assumed: str, actions: tuple[tuple[str, Action], ...], *, uses_firmware_numbering: bool
) -> DecisionWarning:
    disputed = [kind for kind in kinds if len({is_cache_error(kind, numbering) for numbering in NUMBERINGS}) > 1]
    meanings = "; ".join(
        f"{kind:#04x} is " + ", ".join(f"{error_type_meaning(kind, numbering)} ({numbering})" for numbering in NUMBERINGS)
        for kind in disputed[:_MAX_LISTED]
    )
    basis = "assumed" if uses_firmware_numbering else "used, this kernel's numbering whatever the firmware's"
    others = " or ".join(f"`{action}` with {numbering}" for numbering, action in actions)
    return DecisionWarning("ambiguous_arm_error_type", f"ARM error type {meanings}; {assumed} {basis}; the action would be {others}")


# Synchronous or asynchronous notification


def _notifications(case: DecidedCase) -> Alternatives:
    """Return the alternative for an assumed notification type: synchronous for asynchronous, or the reverse."""
    notification = case.sections.notification
    synchronous = notification.type is NotificationType.SEA
    other = NotificationType.POLLED if synchronous else NotificationType.SEA
    changed = notification.model_copy(update={"type": other})
    outcome = _other_action(case, _handle(changed, case.block, case))
    if outcome is None:
        return NO_ALTERNATIVES
    alternative = Alternative({"notification.type": other.value}, *outcome)
    code = "assumed_synchronous" if synchronous else "assumed_asynchronous"
    detail = f"notification type not given, `{notification.type}` assumed; with `{other}` the action would be `{alternative.action}`"
    return Alternatives((alternative,), (DecisionWarning(code, detail),))


# AER registers of a PCIe section

_VALIDATION_BITS: Final = re.compile(r"/status_block/sections/(\d{1,4})/validation_bits")
_UNSUPPORTED_REQUEST: Final = 1 << 20
_WITH_AER_REGISTERS: Final = DecisionWarning(
    "assumed_no_aer_registers",
    "AER registers of a PCIe section not given, assumed not valid; if they are, the device is handed to AER recovery",
)


def _aer_registers(case: DecidedCase, sections: list[int]) -> Alternatives:
    """Return the alternative for PCIe sections whose AER registers the source does not show: they are valid, with an unmasked status."""
    if case.block is None or not (data := _with_aer_registers(case.block, sections)):
        return NO_ALTERNATIVES
    handling = _handle(case.sections.notification, parse_block(data), case)
    steps = merge_results(handling.stage_results).steps
    if not any(isinstance(step, RecoverPcie) and step.recovers for step in steps):
        return NO_ALTERNATIVES
    return Alternatives((Alternative({"section.aer_registers": "valid"}, headline(steps), steps),), (_WITH_AER_REGISTERS,))


def _with_aer_registers(block: StatusBlock, sections: list[int]) -> bytes:
    """Return the block's bytes with valid AER registers in the PCIe sections whose device is known; empty if there is none."""
    data, changed = bytearray(block.data), False
    for index in sections:
        entry = block.entries[index] if index < len(block.entries) else None
        if entry is None or entry.section_type != PCIE or len(data) < entry.payload_offset + DEVICE_WINDOW:
            continue
        if read_device(block.window(entry.payload_offset, DEVICE_WINDOW)).validation_bits & DEVICE_ID_VALID:
            write_aer_status(data, entry.payload_offset, _UNSUPPORTED_REQUEST)
            changed = True
    return bytes(data) if changed else b""


# The state of pages


class _PageInterpretation(NamedTuple):
    """Another value for what a page fact does not state."""

    when: dict[str, Any]
    default_page: Page
    """Stands in for a page without a fact."""
    apply: Callable[[Page], Page]
    """Returns a page fact with the other value; the same object where the fact states the value."""


def _in_state(representative: Page, page: Page) -> Page:
    """Return a mapped page of unknown state in the state of `representative`, unless the fact contradicts it."""
    contradicts = page.dirty is not None and representative.dirty is not None and page.dirty is not representative.dirty
    if page.poisoned or not page.mappings or page.state is not PageState.UNKNOWN or contradicts:
        return page
    dirty = page.dirty if representative.dirty is None else representative.dirty
    return page.model_copy(update={"state": representative.state, "dirty": dirty})


def _with_content(dirty: bool, page: Page) -> Page:
    """Return a mapped page with `dirty` set where its fact does not state it."""
    return page if page.poisoned or not page.mappings or page.dirty is not None else page.model_copy(update={"dirty": dirty})


def _state_interpretation(when: dict[str, Any], page: Page) -> _PageInterpretation:
    return _PageInterpretation(when, page, partial(_in_state, page))


_STATES: Final = (
    _state_interpretation(
        {"page.state": "page_cache", "page.dirty": False}, Page(physical_address=0, state=PageState.PAGE_CACHE, dirty=False)
    ),
    _state_interpretation({"page.state": "kernel"}, Page(physical_address=0, state=PageState.KERNEL)),
    _state_interpretation({"page.state": "slab"}, Page(physical_address=0, state=PageState.SLAB)),
)
"""One page for each outcome that differs from a dirty anonymous page's.

A clean page cache page loses no data, like a free page. A kernel page has no handler, like a guest_memfd page or a huge page that cannot be
split. A slab page stands for those that the kernel owns, for which vm.panic_on_unrecoverable_memory_failure panics. A dirty page cache page
is missing because it signals exactly as an anonymous page does.
"""

_DIRTINESS: Final = tuple(
    _PageInterpretation({"page.dirty": dirty}, DEFAULT_PAGE, partial(_with_content, dirty)) for dirty in (True, False)
)

PAGE_INTERPRETATIONS: Final = len(_STATES) + len(_DIRTINESS)
"""Upper limit of further decisions for one event because a page fact leaves something open."""

_STATE_IS_ASSUMED: Final = "page state not given, `anonymous` assumed"
_DIRTINESS_IS_ASSUMED: Final = "`dirty` of a page not given, the usual value of its state assumed"


def _is_assumed(done: HandledFrame) -> bool:
    """Return whether the handling of a page depends on an assumption about it."""
    page = done.frame.page
    if page is DEFAULT_PAGE or ((page.dirty is None or page.state is PageState.UNKNOWN) and page.mappings):
        return done.outcome is not None and not done.was_poisoned
    return False


def _pages(case: DecidedCase, assumed: list[HandledFrame], interpretations: Iterable[_PageInterpretation], because: str) -> Alternatives:
    """Return the alternatives of pages with assumed facts, all changed alike; for each other action the first."""
    items = [] if case.sections.walk is None else case.sections.walk.queued_frames
    seen = {tuple(_effects(done.frame, done.outcome, case) for done in assumed)}
    found: dict[Action, Alternative] = {}
    for interpretation in interpretations:
        effects = tuple(_effects(done.frame, _outcome(done, interpretation, case), case) for done in assumed)
        if effects in seen:
            continue
        seen.add(effects)
        handling = run_handling_stages(
            case.sections,
            case.policy,
            Facts(case.facts.host, interpretation.default_page, custom_vmms=case.facts.custom_vmms),
            [_changed(item, interpretation) for item in items],
        )
        other = _other_action(case, handling)
        if other and other[0] not in found:
            found[other[0]] = Alternative(interpretation.when, *other)
    alternatives = tuple(found.values())
    return (
        Alternatives(alternatives, (DecisionWarning("assumed_page_state", f"{because}; {_other_actions(alternatives)}"),))
        if found
        else NO_ALTERNATIVES
    )


def _changed(item: QueuedFrame, interpretation: _PageInterpretation) -> QueuedFrame:
    return item if item.page is None else QueuedFrame(item.address, item.request, interpretation.apply(item.page))


def _outcome(done: HandledFrame, interpretation: _PageInterpretation, case: DecidedCase) -> PageOutcome | None:
    """Return the outcome of a handled page under an interpretation."""
    frame = done.frame
    page = interpretation.default_page if frame.page is DEFAULT_PAGE else interpretation.apply(frame.page)
    if page is frame.page:
        return done.outcome
    return page_states.page_outcome(case.policy, traits_of(replace(frame, page=page), case.policy, case.facts))[0]


def _effects(frame: Frame, outcome: PageOutcome | None, case: DecidedCase) -> tuple[Any, ...]:
    """Return the parts of an outcome that decide the action: pages with equal effects lead to the same one."""
    if outcome is None:
        return ()
    panics = outcome.kernel_owned and _may_panic(case)
    returns = outcome.returns if frame.item.request is MemoryFailureRequest.ACTION_REQUIRED else 0
    return (panics, returns, *((outcome.kill, outcome.leaves_poison_entry, outcome.stays_mapped) if frame.mappings else ()))
