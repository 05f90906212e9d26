"""Comparison of a decision with the actions in a kernel log.

A kernel log proves only what it contains. Lines are lost to rate limits, to the duplicate cache, to the console log level and to logs that
end early. A migrated page and the signal of a retried access are not logged at all. So a step of the plan without a line is neither
confirmed nor refuted, and a line that the plan cannot explain is a difference.

Where the plan depends on assumptions (page, mappings, notification type), such a line may refute an assumption instead: the verdict is
then `cannot_tell`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import Decision, Log, MemoryFailure, Oops, Panic, RecoverPcie, Reject, Signal, SoftOffline
from ras_triage.models.frozen import frozen
from ras_triage.models.observed import (
    AssumedField,
    ObservedAction,
    ObservedActions,
    ObservedMemoryFailure,
    ObservedMessage,
    ObservedOops,
    ObservedPanic,
    ObservedRecovery,
    ObservedSerror,
    ObservedSignal,
    ObservedSoftOffline,
)

Verdict = Literal["agree", "differ", "cannot_tell"]


@frozen
class Comparison:
    """One line of the log and the matching part of the plan."""

    line: int
    """Line number in the log, from 1."""
    observed: str
    """The line as the kernel printed it."""
    decided: str
    """The matching part of the plan."""
    verdict: Verdict
    """Whether the line agrees with the plan."""
    because: str | None = None
    """Reason for `cannot_tell`."""


@frozen
class Agreement:
    """Result of a comparison."""

    verdict: Verdict
    """`differ` if any line differs; else `agree` if any agrees."""
    comparisons: tuple[Comparison, ...] = ()
    """One for each line that could be compared."""

    @property
    def differences(self) -> tuple[Comparison, ...]:
        """Return the lines that the decision cannot explain."""
        return tuple(compared for compared in self.comparisons if compared.verdict == "differ")


_PAGE: Final = frozenset({"host.pages", "host.pages.dirty", "host.valid_ranges", "host.sysctl"})
_TASKS: Final = _PAGE | {"host.tasks", "host.current"}
_NOTHING: Final = "no such step"

_NOTIFICATION: Final = "/notification/type"
_SEVERITIES: Final = frozenset({"/status_block/severity", "/status_block/sections/*/severity"})
_MAX_LISTED: Final = 16
"""Number of steps of one kind that a comparison lists."""
_FLAGS: Final = "/status_block/sections/*/flags"


class _Signals(NamedTuple):
    """The planned signals of one kind."""

    threads: frozenset[int | None]
    """Processes and threads that get one; None: one with an unknown pid."""
    decided: str


class _Plan:
    """Index of a decision's steps, and the assumptions behind it."""

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
        self.decided_failures = _list(failures)
        panics = [step for step in decision.plan if isinstance(step, Panic)]
        self.panics = frozenset(step.cause for step in panics)
        self.decided_panics = _list([f"panic: {step.message}" for step in panics])
        rejects = any(isinstance(step, Reject) for step in decision.plan)
        self.why_not_read = frozenset({_NOTIFICATION} if rejects else ())
        """The assumption that explains why a record that the kernel handled is not read in the plan."""
        self.recoveries = [step for step in decision.plan if isinstance(step, RecoverPcie)]
        self.has_oops = any(isinstance(step, Oops) for step in decision.plan)
        self.logs = {about: _list(_logged(decision, beginning)) for about, beginning in _MESSAGES.items()}
        self.signals = {signal: _signals(decision, signal) for signal in ("SIGBUS", "SIGKILL")}

    def judge(self, action: ObservedAction, decided: str, relevant: frozenset[str], *, agrees: bool) -> Comparison:
        """Compare a line with the plan. A difference is `cannot_tell` where one of the `relevant` facts was assumed."""
        if agrees:
            return Comparison(action.line, action.said, decided, "agree")
        if self.decision.certainty == "depends":
            return Comparison(action.line, action.said, decided, "cannot_tell", f"the decision is uncertain: {self.decision.reasons[0]}")
        doubtful = sorted(self.assumed & relevant)
        if doubtful:
            return Comparison(
                action.line, action.said, decided, "cannot_tell", f"the decision depends on an assumption about `{doubtful[0]}`"
            )
        return Comparison(action.line, action.said, decided, "differ")


def compare(observed: ObservedActions | None, decision: Decision, assumed: Iterable[AssumedField] = ()) -> Agreement:
    """Compare a decision with the actions in a kernel log. Pure; `observed` None or empty gives `cannot_tell`.

    `assumed`: fields of the event that the log does not state and its importer assumed.
    """
    if observed is None:
        return Agreement("cannot_tell")
    fields = {re.sub(r"/\d+(?=/|$)", "/*", assumption.field) for assumption in assumed}
    plan = _Plan(decision, frozenset(fields | {assumption.fact for assumption in decision.assumptions}))
    comparisons = (
        *(_memory_failure(action, plan) for action in _first_of_each_page(observed.memory_failures)),
        *(_soft_offline(action, plan) for action in observed.soft_offlines),
        *(_signal(action, plan) for action in observed.signals),
        *(_panic(action, plan) for action in observed.panics),
        *(_oops(action, plan) for action in observed.oopses),
        *(_serror(action, plan) for action in observed.serrors),
        *(_recovery(action, plan) for action in observed.recoveries),
        *(compared for action in observed.notes if (compared := _message(action, plan)) is not None),
    )
    verdicts = {compared.verdict for compared in comparisons}
    verdict: Verdict = "differ" if "differ" in verdicts else "agree" if "agree" in verdicts else "cannot_tell"
    return Agreement(verdict, comparisons)


def _first_of_each_page(failures: tuple[ObservedMemoryFailure, ...]) -> tuple[ObservedMemoryFailure, ...]:
    """Return the first line about each page: later ones come from records that were not printed."""
    first: dict[int, ObservedMemoryFailure] = {}
    for action in failures:
        first.setdefault(action.pfn, action)
    return tuple(first.values())


def _list(texts: list[str]) -> str:
    """Join texts with commas, only the first of very many."""
    more = f", and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more


def _logged(decision: Decision, beginning: str) -> list[str]:
    return [step.what for step in decision.plan if isinstance(step, Log) and step.what.startswith(beginning)]


def _signals(decision: Decision, signal: str) -> _Signals:
    steps = (*decision.plan, *decision.next_access)
    planned = [step for step in steps if isinstance(step, Signal) and step.signal == signal]
    threads = frozenset(thread for step in planned for thread in (step.pid, step.pid if step.tid is None else step.tid))
    decided = [f"{step.signal} to {'an unknown thread' if step.pid is None else step.pid}" for step in planned]
    return _Signals(threads, _list(decided))


def _memory_failure(action: ObservedMemoryFailure, plan: _Plan) -> Comparison:
    planned = plan.failures.get(action.pfn)
    if planned is None:
        relevant = _SEVERITIES | plan.why_not_read | ({"host.page_size"} if plan.failures else set())
        return plan.judge(action, plan.decided_failures or _NOTHING, relevant, agrees=False)
    decided = f"{planned.page_type or 'no report'}: {planned.result or 'no result'}"
    agrees = (planned.page_type, planned.result) == (action.page_type, action.result)
    return plan.judge(action, decided, _PAGE, agrees=agrees)


def _soft_offline(action: ObservedSoftOffline, plan: _Plan) -> Comparison:
    planned = plan.offlined.get(action.pfn)
    if planned is None:
        return plan.judge(action, _NOTHING, _SEVERITIES | {_FLAGS, "host.page_size"}, agrees=False)
    return plan.judge(action, f"soft offline: {planned.result}", _PAGE, agrees=planned.result == action.result)


def _signal(action: ObservedSignal, plan: _Plan) -> Comparison:
    """Compare a signal: it agrees with a planned one to the same thread, or to a thread with an unknown pid."""
    planned = plan.signals[action.signal]
    agrees = None in planned.threads or action.pid in planned.threads
    return plan.judge(action, planned.decided or _NOTHING, _TASKS | _SEVERITIES | {_NOTIFICATION}, agrees=agrees)


def _panic(action: ObservedPanic, plan: _Plan) -> Comparison:
    decided = plan.decided_panics or "no panic"
    if action.cause is None:
        return Comparison(action.line, action.said, decided, "cannot_tell", "the panic may have another cause")
    relevant = _SEVERITIES if action.cause == "ghes" else _PAGE | {_NOTIFICATION}
    return plan.judge(action, decided, relevant, agrees=action.cause in plan.panics)


def _oops(action: ObservedOops, plan: _Plan) -> Comparison:
    return plan.judge(action, "an oops" if plan.has_oops else _NOTHING, frozenset({_NOTIFICATION}), agrees=plan.has_oops)


def _serror(action: ObservedSerror, plan: _Plan) -> Comparison:
    """Compare an SError that the kernel reports: it does so only where it panics (`arm64_serror_panic`)."""
    relevant = frozenset({"host.ras_extension", "notification.syndrome"})
    return plan.judge(action, plan.decided_panics or "no panic", relevant, agrees="serror" in plan.panics)


def _recovery(action: ObservedRecovery, plan: _Plan) -> Comparison:
    """Compare a message of PCIe error recovery: its result is not decided, only whether it runs."""
    is_queued = action.result == "queued"
    steps = [step for step in plan.recoveries if is_queued or step.recovers]
    decided = _list([f"{step.device} is handed to AER recovery" for step in steps])
    agrees = bool(steps) and (not is_queued or action.device in {step.device for step in steps})
    return plan.judge(
        action, decided or _NOTHING, _SEVERITIES | plan.why_not_read | {"host.pci_devices", "host.config", _FLAGS}, agrees=agrees
    )


_MESSAGES: Final = {"error_type": "Unhandled processor error type", "address": "Invalid address in generic error data"}
"""Beginnings of the plan's log steps that match a message."""


def _message(action: ObservedMessage, plan: _Plan) -> Comparison | None:
    """Compare a message that a plan can contain; None for any other, which confirms and refutes nothing."""
    logged = plan.logs.get(action.about)
    if logged is None:
        return None
    return plan.judge(action, logged or _NOTHING, _SEVERITIES | {"host.valid_ranges"}, agrees=bool(logged))
