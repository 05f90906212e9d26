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

from ras_triage.models.decision import Decision, Log, MemoryFailure, Oops, Panic, Signal, SoftOffline
from ras_triage.models.frozen import frozen
from ras_triage.models.observed import (
    AssumedField,
    ObservedAction,
    ObservedActions,
    ObservedMemoryFailure,
    ObservedMessage,
    ObservedOops,
    ObservedPanic,
    ObservedSignal,
    ObservedSoftOffline,
)

Verdict = Literal["agree", "differ", "cannot_tell"]


@frozen
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


@frozen
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
_SPELT_OUT: Final = 16
"""Steps of one kind that a comparison lists."""
_FLAGS: Final = "/status_block/sections/*/flags"


class _Signals(NamedTuple):
    """The planned signals of one kind."""

    threads: frozenset[int | None]
    """Processes and threads that get one; None: one whose pid nobody told."""
    words: str


class _Plan:
    """A decision and what it rests on without being told, so that a line can be looked up without going through the plan."""

    def __init__(self, decision: Decision, assumed: frozenset[str]) -> None:
        self.decision = decision
        self.assumed = assumed
        """Host facts, and fields of the event as JSON pointers with `*` for an index."""
        self.failures: dict[int, MemoryFailure] = {}
        self.offlined: dict[int, SoftOffline] = {}
        """The first step for each page frame."""
        for step in decision.plan:
            if isinstance(step, MemoryFailure):
                self.failures.setdefault(step.pfn, step)
            elif isinstance(step, SoftOffline):
                self.offlined.setdefault(step.pfn, step)
        failures = [f"memory failure for {step.pfn:#x}" for step in decision.plan if isinstance(step, MemoryFailure)]
        self.failures_words = _list(failures)
        panics = [step for step in decision.plan if isinstance(step, Panic)]
        self.panics = frozenset(step.cause for step in panics)
        self.panics_words = _list([f"panic: {step.message}" for step in panics])
        self.has_oops = any(isinstance(step, Oops) for step in decision.plan)
        self.logs = {about: _list(_logged(decision, words)) for about, words in _NOTES.items()}
        self.signals = {signal: _signals(decision, signal) for signal in ("SIGBUS", "SIGKILL")}

    def judge(self, seen: ObservedAction, decided: str, agrees: bool, may_owe_it_to: frozenset[str]) -> Comparison:
        """A line beside what was decided; a difference may be owed to something that was assumed."""
        if agrees:
            return Comparison(seen.line, seen.said, decided, "agree")
        if self.decision.certainty == "depends":
            return Comparison(seen.line, seen.said, decided, "cannot_tell", f"the outcome depends: {self.decision.reasons[0]}")
        owed = sorted(self.assumed & may_owe_it_to)
        if owed:
            return Comparison(seen.line, seen.said, decided, "cannot_tell", f"the decision rests on an assumption about `{owed[0]}`")
        return Comparison(seen.line, seen.said, decided, "differ")


def compare(observed: ObservedActions | None, decision: Decision, assumed: Iterable[AssumedField] = ()) -> Agreement:
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


def _first_of_each_page(failures: tuple[ObservedMemoryFailure, ...]) -> tuple[ObservedMemoryFailure, ...]:
    """Later lines about a page come from reports that were not printed."""
    first: dict[int, ObservedMemoryFailure] = {}
    for seen in failures:
        first.setdefault(seen.pfn, seen)
    return tuple(first.values())


def _list(words: list[str]) -> str:
    """The words in a row; of very many the first."""
    more = f", and {len(words) - _SPELT_OUT} more" if len(words) > _SPELT_OUT else ""
    return ", ".join(words[:_SPELT_OUT]) + more


def _logged(decision: Decision, words: str) -> list[str]:
    return [step.what for step in decision.plan if isinstance(step, Log) and step.what.startswith(words)]


def _signals(decision: Decision, signal: str) -> _Signals:
    steps = (*decision.plan, *decision.next_access)
    planned = [step for step in steps if isinstance(step, Signal) and step.signal == signal]
    threads = frozenset(thread for step in planned for thread in (step.pid, step.pid if step.tid is None else step.tid))
    words = [f"{step.signal} to {'an unknown thread' if step.pid is None else step.pid}" for step in planned]
    return _Signals(threads, _list(words))


def _memory_failure(seen: ObservedMemoryFailure, plan: _Plan) -> Comparison:
    there = plan.failures.get(seen.pfn)
    if there is None:
        owed = _SEVERITIES | ({"host.page_size"} if plan.failures else set())
        return plan.judge(seen, plan.failures_words or _NOTHING, False, owed)
    words = f"{there.page_type or 'no words'}: {there.result or 'no result'}"
    return plan.judge(seen, words, (there.page_type, there.result) == (seen.page_type, seen.result), _PAGE)


def _soft_offline(seen: ObservedSoftOffline, plan: _Plan) -> Comparison:
    there = plan.offlined.get(seen.pfn)
    if there is None:
        return plan.judge(seen, _NOTHING, False, _SEVERITIES | {_FLAGS, "host.page_size"})
    return plan.judge(seen, f"soft offline: {there.result}", there.result == seen.result, _PAGE)


def _signal(seen: ObservedSignal, plan: _Plan) -> Comparison:
    """A signal agrees with a planned one to the same thread, or to one whose pid nobody told."""
    planned = plan.signals[seen.signal]
    agrees = None in planned.threads or seen.pid in planned.threads
    return plan.judge(seen, planned.words or _NOTHING, agrees, _TASKS | _SEVERITIES | {_NOTIFICATION})


def _panic(seen: ObservedPanic, plan: _Plan) -> Comparison:
    words = plan.panics_words or "no panic"
    if seen.cause is None:
        return Comparison(seen.line, seen.said, words, "cannot_tell", "the panic may have another cause")
    may_owe_it_to = _SEVERITIES if seen.cause == "ghes" else _PAGE | {_NOTIFICATION}
    return plan.judge(seen, words, seen.cause in plan.panics, may_owe_it_to)


def _oops(seen: ObservedOops, plan: _Plan) -> Comparison:
    return plan.judge(seen, "an oops" if plan.has_oops else _NOTHING, plan.has_oops, frozenset({_NOTIFICATION}))


_NOTES: Final = {"error_type": "Unhandled processor error type", "address": "Invalid address in generic error data"}
"""What the plan says in the same case."""


def _note(seen: ObservedMessage, plan: _Plan) -> Comparison | None:
    """Notes that a plan has as well; the others confirm and refute nothing."""
    logged = plan.logs.get(seen.about)
    if logged is None:
        return None
    return plan.judge(seen, logged or _NOTHING, bool(logged), _SEVERITIES | {"host.valid_ranges"})
