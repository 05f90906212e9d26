"""What other readings of an event would have meant, where they come to another action.

Three of an event's inputs may stand for more than one thing, and each is read in its other ways while everything else stays: the numbering
of ARM error types, whether the notification was synchronous, and the state of pages. No reading is combined with another, and a reading's
own ambiguities are not followed, so that there are never more than a handful.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ras_triage.models.decision import Action, Alternative, DecisionWarning, Step
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Page, PageState, Task
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.status_block import StatusBlock
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline import page_states
from ras_triage.policies.pipeline.arm_error_types import NUMBERINGS, error_type_meaning, is_cache_error, policy_numbering, stated_numbering
from ras_triage.policies.pipeline.facts import DEFAULT_PAGE, Facts
from ras_triage.policies.pipeline.memory import Frame, HandledFrame, traits_of
from ras_triage.policies.pipeline.page_states import PageOutcome
from ras_triage.policies.pipeline.precheck import precheck
from ras_triage.policies.pipeline.sections import MemoryFailureRequest, QueuedFrame
from ras_triage.policies.pipeline.stage_result import merge_results
from ras_triage.policies.pipeline.stages import HandlingStages, SectionStages, headline, run_handling_stages, run_section_stages

NOTIFICATION_TYPE: Final = "/notification/type"
ARM_ERROR_TYPES: Final = "/host/arm_error_types"
"""Pointers into an event at which an assumption makes it ambiguous."""

_SPELT_OUT: Final = 4
"""Error types that a warning spells out."""


class AlternativeReadings(NamedTuple):
    """What a decision says of the readings that it did not take."""

    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[DecisionWarning, ...] = ()


NO_ALTERNATIVES: Final = AlternativeReadings()


@frozen
class DecidedCase:
    """A course that was decided, and what it was decided from."""

    action: Action
    block: StatusBlock | None
    policy: Policy
    facts: Facts
    walked: SectionStages
    course: HandlingStages
    assumed: frozenset[str]


def is_ambiguous(walked: SectionStages, course: HandlingStages, facts: Facts, assumed: frozenset[str]) -> bool:
    """Whether anything in an event may stand for more than one thing, as far as a quick look tells."""
    if assumed or (walked.walk is not None and walked.walk.arm_types and facts.host.arm_error_types is None):
        return True
    return bool(course.handled) and any(map(_is_assumed, course.handled))


def alternative_readings(case: DecidedCase) -> AlternativeReadings:
    """The readings that come to another action."""
    found = [_numberings(case)]
    if NOTIFICATION_TYPE in case.assumed:
        found.append(_notifications(case))
    if assumed := [done for done in case.course.handled if _is_assumed(done)]:
        found.append(_pages(case, assumed, _STATES, _STATE_IS_ASSUMED))
        found.append(_pages(case, assumed, _DIRTINESS, _DIRTINESS_IS_ASSUMED))
    found = [other for other in found if other is not NO_ALTERNATIVES]
    if len(found) < 2:
        return found[0] if found else NO_ALTERNATIVES
    alternatives, warnings = zip(*found, strict=True)
    return AlternativeReadings(tuple(chain.from_iterable(alternatives)), tuple(chain.from_iterable(warnings)))


def _other_action(case: DecidedCase, course: HandlingStages) -> tuple[Action, tuple[Step, ...]] | None:
    """The action and plan of a course that comes to another action than the decision's."""
    action = headline(chain.from_iterable([stage_result.steps for stage_result in course.stage_results]))
    return None if action is case.action else (action, merge_results(course.stage_results).steps)


def _come_to(alternatives: Iterable[Alternative]) -> str:
    return ", ".join(f"{_words(alternative.when)} comes to `{alternative.action}`" for alternative in alternatives)


def _words(when: dict[str, Any]) -> str:
    return " and ".join(f"`{name}` {str(value).lower()}" for name, value in when.items())


# The numbering of ARM error types

_IF_HEEDED: Final[dict[str, Any]] = {"policy.flags.arm_error_types_heeded": True}


def _numberings(case: DecidedCase) -> AlternativeReadings:
    """The record does not tell in which numbering its error types stand, and the host's facts may not either.

    A kernel does not ask, and reads on in its own numbering: then an alternative is what it would do if it heeded the firmware's.
    """
    walk, host, policy = case.walked.walk, case.facts.host, case.policy
    told = host.arm_error_types is not None and ARM_ERROR_TYPES not in case.assumed
    if told or walk is None or not walk.arm_types:
        return NO_ALTERNATIVES
    kinds = tuple(dict.fromkeys(walk.arm_types))
    heeds, taken = policy.behaviours.arm_error_types_heeded, stated_numbering(policy, case.facts) or policy_numbering(policy)
    found: list[tuple[str, Action, tuple[Step, ...]]] = []
    for alike in _unlike(kinds, taken):
        if not _is_quiet(case) and (other := _other_action(case, _read_in(alike[0], case))):
            found += [(numbering, *other) for numbering in alike]
    if not found:
        return NO_ALTERNATIVES
    found.sort(key=itemgetter(0))
    more = {} if heeds else _IF_HEEDED
    alternatives = tuple([Alternative({"host.arm_error_types": numbering} | more, action, plan) for numbering, action, plan in found])
    comes_to = tuple([(numbering, action) for numbering, action, _ in found])
    return AlternativeReadings(alternatives, (_of_types(kinds, taken, heeds, comes_to),))


def _read_in(numbering: str, case: DecidedCase) -> HandlingStages:
    facts = Facts(case.facts.host, arm_numbering=numbering)
    walked = run_section_stages(case.walked.notification, case.walked.opening, case.block, case.policy, facts)
    return run_handling_stages(walked, case.policy, facts)


def _is_quiet(case: DecidedCase) -> bool:
    """Whether nothing that happens to a page can reach beyond it: nobody consumed the error or asked to be told, and nothing panics."""
    facts = case.facts
    if case.walked.notification.type is NotificationType.SEA or facts.early_kill or not facts.sysctl.recovery or _may_panic(case):
        return False
    return not any(map(_asks_to_be_told, facts.host.tasks or ()))


def _asks_to_be_told(task: Task) -> bool:
    return task.mce_kill == "early" or any(thread.mce_kill == "early" for thread in task.threads)


def _may_panic(case: DecidedCase) -> bool:
    """Whether a page of the kernel's own is the end of the machine."""
    return case.policy.behaviours.panic_on_unrecoverable_sysctl and bool(case.facts.sysctl.panic_on_unrecoverable)


@lru_cache(maxsize=256)
def _unlike(kinds: tuple[int, ...], taken: str) -> tuple[tuple[str, ...], ...]:
    """The numberings in which other error types are cache errors than in `taken`, those together that agree about it."""
    alike: dict[tuple[bool, ...], tuple[str, ...]] = {}
    for numbering in NUMBERINGS:
        caches = tuple(is_cache_error(kind, numbering) for kind in kinds)
        alike[caches] = (*alike.get(caches, ()), numbering)
    return tuple(numberings for numberings in alike.values() if taken not in numberings)


@lru_cache(maxsize=256)
def _of_types(kinds: tuple[int, ...], taken: str, heeds: bool, comes_to: tuple[tuple[str, Action], ...]) -> DecisionWarning:
    disputed = [kind for kind in kinds if len({is_cache_error(kind, numbering) for numbering in NUMBERINGS}) > 1]
    meanings = "; ".join(
        f"{kind:#04x} is " + ", ".join(f"{error_type_meaning(kind, numbering)} ({numbering})" for numbering in NUMBERINGS)
        for kind in disputed[:_SPELT_OUT]
    )
    because = "is taken" if heeds else "is this kernel's own reading, whatever the firmware means"
    others = ", ".join(f"{numbering} comes to `{action}`" for numbering, action in comes_to)
    return DecisionWarning("ambiguous_arm_error_type", f"ARM error type {meanings}: {taken} {because}, and {others}")


# Synchronous or not


def _notifications(case: DecidedCase) -> AlternativeReadings:
    """Whether a thread consumed the error is the notification's to say, and nobody told which it was."""
    notification = case.walked.notification
    synchronous = notification.type is NotificationType.SEA
    other = NotificationType.POLLED if synchronous else NotificationType.SEA
    taken = notification.model_copy(update={"type": other})
    opening = precheck(taken, case.block, case.policy, case.facts)
    came_to = _other_action(
        case, run_handling_stages(run_section_stages(taken, opening, case.block, case.policy, case.facts), case.policy, case.facts)
    )
    if came_to is None:
        return NO_ALTERNATIVES
    alternative = Alternative({"notification.type": other.value}, *came_to)
    code = "assumed_synchronous" if synchronous else "assumed_asynchronous"
    detail = f"nobody told the notification, and `{notification.type}` is taken: {_come_to((alternative,))}"
    return AlternativeReadings((alternative,), (DecisionWarning(code, detail),))


# The state of pages


class _PageReading(NamedTuple):
    """Something else that pages may be taken for."""

    when: dict[str, Any]
    untold: Page
    """What a page without a fact is taken for."""
    reread: Callable[[Page], Page]
    """What a page fact is taken for: the fact itself where it leaves nothing open."""


def _in_state(representative: Page, page: Page) -> Page:
    """A mapped page whose state is not told, unless what is told of it contradicts."""
    told_otherwise = page.dirty is not None and representative.dirty is not None and page.dirty is not representative.dirty
    if page.poisoned or not page.mappings or page.state is not PageState.UNKNOWN or told_otherwise:
        return page
    told = page.dirty if representative.dirty is None else representative.dirty
    return page.model_copy(update={"state": representative.state, "dirty": told})


def _with_content(dirty: bool, page: Page) -> Page:
    """A mapped page of which it is not told whether it is dirty."""
    return page if page.poisoned or not page.mappings or page.dirty is not None else page.model_copy(update={"dirty": dirty})


def _state_reading(when: dict[str, Any], page: Page) -> _PageReading:
    return _PageReading(when, page, partial(_in_state, page))


_STATES: Final = (
    _state_reading({"page.state": "page_cache", "page.dirty": False}, Page(physical_address=0, state=PageState.PAGE_CACHE, dirty=False)),
    _state_reading({"page.state": "kernel"}, Page(physical_address=0, state=PageState.KERNEL)),
    _state_reading({"page.state": "slab"}, Page(physical_address=0, state=PageState.SLAB)),
)
"""One page for each fate that differs from a dirty anonymous page's.

Of a clean page cache page nothing is lost, as of a free one. No handler exists for a page of the kernel's, nor for one of guest_memfd or a
huge page that cannot be split; of those that it owns, slab among them, vm.panic_on_unrecoverable_memory_failure makes a panic. A dirty page
cache page is no reading of its own: its users are signalled exactly as those of an anonymous one.
"""

_DIRTINESS: Final = tuple(_PageReading({"page.dirty": dirty}, DEFAULT_PAGE, partial(_with_content, dirty)) for dirty in (True, False))

PAGE_READINGS: Final = len(_STATES) + len(_DIRTINESS)
"""How often an event is decided again at most because something of a page is not told."""

_STATE_IS_ASSUMED: Final = "the state of a page is not told, and an anonymous one is taken"
_DIRTINESS_IS_ASSUMED: Final = "whether a page is dirty is not told, and what its state makes likely is taken"


def _is_assumed(done: HandledFrame) -> bool:
    """Whether something was assumed of a page on which its handling depends."""
    page = done.frame.page
    if page is DEFAULT_PAGE or ((page.dirty is None or page.state is PageState.UNKNOWN) and page.mappings):
        return done.outcome is not None and not done.again
    return False


def _pages(case: DecidedCase, assumed: list[HandledFrame], readings: Iterable[_PageReading], because: str) -> AlternativeReadings:
    """All assumed pages read alike; of the readings that come to the same action, the first."""
    items = [] if case.walked.walk is None else case.walked.walk.items
    seen = {tuple(_effects(done.frame, done.outcome, case) for done in assumed)}
    found: dict[Action, Alternative] = {}
    for reading in readings:
        effects = tuple(_effects(done.frame, _outcome(done, reading, case), case) for done in assumed)
        if effects in seen:
            continue
        seen.add(effects)
        course = run_handling_stages(
            case.walked, case.policy, Facts(case.facts.host, reading.untold), [_reread(item, reading) for item in items]
        )
        other = _other_action(case, course)
        if other and other[0] not in found:
            found[other[0]] = Alternative(reading.when, *other)
    alternatives = tuple(found.values())
    return (
        AlternativeReadings(alternatives, (DecisionWarning("assumed_page_state", f"{because}: {_come_to(alternatives)}"),))
        if found
        else NO_ALTERNATIVES
    )


def _reread(item: QueuedFrame, reading: _PageReading) -> QueuedFrame:
    return item if item.page is None else QueuedFrame(item.address, item.request, reading.reread(item.page))


def _outcome(done: HandledFrame, reading: _PageReading, case: DecidedCase) -> PageOutcome | None:
    """What a reading makes of a page that was handled."""
    frame = done.frame
    page = reading.untold if frame.page is DEFAULT_PAGE else reading.reread(frame.page)
    return (
        done.outcome if page is frame.page else page_states.page_outcome(case.policy, traits_of(replace(frame, page=page), case.facts))[0]
    )


def _effects(frame: Frame, outcome: PageOutcome | None, case: DecidedCase) -> tuple[Any, ...]:
    """What of an outcome can reach beyond its page: pages with equal effects come to the same action."""
    if outcome is None:
        return ()
    panics = outcome.kernel_owned and _may_panic(case)
    returns = outcome.returns if frame.item.request is MemoryFailureRequest.ACTION_REQUIRED else 0
    return (panics, returns, *((outcome.kill, outcome.late, outcome.stays_mapped) if frame.places else ()))
