"""Whether what a kernel said it did agrees with a decision.

A kernel log is evidence of what is in it and of nothing else: lines are lost to rate limits, to the duplicate cache, to the console's log
level and to logs that end early, and a page that is simply migrated or a signal that a retried access brings is not logged at all. So a
step of the plan that no line speaks of is neither confirmed nor refuted. What is refuted is a line that the plan cannot explain.

Where the plan rests on assumptions (which page, mapped by whom, how the error was notified), a line that it cannot explain may just as
well refute one of those: then nothing can be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from models.decision import Decision, Log, MemoryFailure, Oops, Panic, Signal, SoftOffline
from models.formats.observed import Observed, Seen, SeenMemoryFailure, SeenNote, SeenOops, SeenPanic, SeenSignal, SeenSoftOffline
from models.formats.reading import Assumed
from models.value import value

Verdict = Literal["agree", "differ", "cannot_tell"]


@value
class Comparison:
    """One line of the log beside the plan."""

    line: int
    """In the log, from 1."""
    observed: str
    """The kernel's own words."""
    decided: str
    """What the plan has in its place."""
    verdict: Verdict
    because: str | None = None
    """Why nothing can be told."""


@value
class Agreement:
    """Whether the log and the decision agree."""

    verdict: Verdict
    """`differ` if any line differs; else `agree` if any agrees."""
    comparisons: tuple[Comparison, ...] = ()

    @property
    def differences(self) -> tuple[Comparison, ...]:
        """The lines that the decision cannot explain."""
        return tuple(compared for compared in self.comparisons if compared.verdict == "differ")


_PAGE: Final = frozenset({"host.pages", "host.pages.dirty", "host.valid_ranges", "host.sysctl"})
_TASKS: Final = _PAGE | {"host.tasks", "host.current"}
_NOTHING: Final = "nothing of the kind"

_NOTIFICATION: Final = "/notification/type"
_SEVERITIES: Final = frozenset({"/status_block/severity", "/status_block/sections/*/severity"})
_FLAGS: Final = "/status_block/sections/*/flags"


class _Plan(NamedTuple):
    """A decision and what it rests on without being told."""

    decision: Decision
    assumed: frozenset[str]
    """Host facts, and fields of the event as JSON pointers with `*` for an index."""

    def judge(self, seen: Seen, decided: str, agrees: bool, may_owe_it_to: frozenset[str]) -> Comparison:
        """A line beside what was decided; a difference may be owed to something that was assumed."""
        if agrees:
            return Comparison(seen.line, seen.said, decided, "agree")
        if self.decision.certainty == "depends":
            return Comparison(seen.line, seen.said, decided, "cannot_tell", f"the outcome depends: {self.decision.reasons[0]}")
        owed = sorted(self.assumed & may_owe_it_to)
        if owed:
            return Comparison(seen.line, seen.said, decided, "cannot_tell", f"the decision rests on an assumption about `{owed[0]}`")
        return Comparison(seen.line, seen.said, decided, "differ")


def compare(observed: Observed | None, decision: Decision, assumed: Iterable[Assumed] = ()) -> Agreement:
    """Hold a decision against what the kernel said. Pure; `observed` None or empty gives `cannot_tell`.

    `assumed`: what the reader of the log had to assume for the event that was decided.
    """
    if observed is None:
        return Agreement("cannot_tell")
    fields = {re.sub(r"/\d+(?=/|$)", "/*", assumption.field) for assumption in assumed}
    plan = _Plan(decision, frozenset(fields | {assumption.fact for assumption in decision.assumptions}))
    comparisons = (
        *(_memory_failure(seen, plan) for seen in _first_of_each_page(observed.memory_failures)),
        *(_soft_offline(seen, plan) for seen in observed.soft_offlines),
        *(_signal(seen, plan) for seen in observed.signals),
        *(_panic(seen, plan) for seen in observed.panics),
        *(_oops(seen, plan) for seen in observed.oopses),
        *(compared for seen in observed.notes if (compared := _note(seen, plan)) is not None),
    )
    verdicts = {compared.verdict for compared in comparisons}
    verdict: Verdict = "differ" if "differ" in verdicts else "agree" if "agree" in verdicts else "cannot_tell"
    return Agreement(verdict, comparisons)


def _first_of_each_page(failures: tuple[SeenMemoryFailure, ...]) -> tuple[SeenMemoryFailure, ...]:
    """Later lines about a page come from reports that were not printed."""
    first: dict[int, SeenMemoryFailure] = {}
    for seen in failures:
        first.setdefault(seen.pfn, seen)
    return tuple(first.values())


def _memory_failure(seen: SeenMemoryFailure, plan: _Plan) -> Comparison:
    planned = [step for step in plan.decision.plan if isinstance(step, MemoryFailure)]
    there = next((step for step in planned if step.pfn == seen.pfn), None)
    if there is None:
        frames = ", ".join(f"memory failure for {step.pfn:#x}" for step in planned)
        return plan.judge(seen, frames or _NOTHING, False, _SEVERITIES | ({"host.page_size"} if planned else set()))
    words = f"{there.page_type or 'no words'}: {there.result or 'no result'}"
    return plan.judge(seen, words, (there.page_type, there.result) == (seen.page_type, seen.result), _PAGE)


def _soft_offline(seen: SeenSoftOffline, plan: _Plan) -> Comparison:
    there = next((step for step in plan.decision.plan if isinstance(step, SoftOffline) and step.pfn == seen.pfn), None)
    if there is None:
        return plan.judge(seen, _NOTHING, False, _SEVERITIES | {_FLAGS, "host.page_size"})
    return plan.judge(seen, f"soft offline: {there.result}", there.result == seen.result, _PAGE)


def _signal(seen: SeenSignal, plan: _Plan) -> Comparison:
    """A signal agrees with a planned one to the same thread, or to one whose pid nobody told."""
    steps = (*plan.decision.plan, *plan.decision.next_access)
    planned = [step for step in steps if isinstance(step, Signal) and step.signal == seen.signal]
    agrees = any(step.pid is None or seen.pid in (step.pid, step.tid) for step in planned)
    words = ", ".join(f"{step.signal} to {'an unknown thread' if step.pid is None else step.pid}" for step in planned)
    return plan.judge(seen, words or _NOTHING, agrees, _TASKS | _SEVERITIES | {_NOTIFICATION})


def _panic(seen: SeenPanic, plan: _Plan) -> Comparison:
    planned = [step for step in plan.decision.plan if isinstance(step, Panic)]
    words = ", ".join(f"panic: {step.message}" for step in planned) or "no panic"
    if seen.cause is None:
        return Comparison(seen.line, seen.said, words, "cannot_tell", "the panic may have another cause")
    may_owe_it_to = _SEVERITIES if seen.cause == "ghes" else _PAGE | {_NOTIFICATION}
    return plan.judge(seen, words, any(step.cause == seen.cause for step in planned), may_owe_it_to)


def _oops(seen: SeenOops, plan: _Plan) -> Comparison:
    planned = any(isinstance(step, Oops) for step in plan.decision.plan)
    return plan.judge(seen, "an oops" if planned else _NOTHING, planned, frozenset({_NOTIFICATION}))


_NOTES: Final = {"error_type": "Unhandled processor error type", "address": "Invalid address in generic error data"}
"""What the plan says in the same case."""


def _note(seen: SeenNote, plan: _Plan) -> Comparison | None:
    """Notes that a plan has as well; the others confirm and refute nothing."""
    words = _NOTES.get(seen.about)
    if words is None:
        return None
    logged = [step.what for step in plan.decision.plan if isinstance(step, Log) and step.what.startswith(words)]
    return plan.judge(seen, ", ".join(logged) or _NOTHING, bool(logged), _SEVERITIES | {"host.valid_ranges"})
