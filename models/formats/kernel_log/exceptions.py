"""CPU exceptions of a kernel log, each built from all lines about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ras_triage.models.event import Event
from ras_triage.models.formats.kernel_log.boot import Boot
from ras_triage.models.formats.kernel_log.exception_lines import ExceptionLine, Stage, TakenFrom, TaskLine
from ras_triage.models.formats.kernel_log.lines import FORMAT, LogLine, follows, memory_size, seconds_between
from ras_triage.models.formats.results import FoundError, Position
from ras_triage.models.host import Host, Sysctl, ThreadRef
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField, ObservedAction, ObservedOops, ObservedPanic, ObservedSignal, group_actions
from ras_triage.models.syndrome import abort_syndrome

_MAX_LINES_APART: Final = 200
"""Most lines between two lines about one exception: registers, call trace and modules are printed between them."""
_MAX_SECONDS: Final = 10.0
"""Longest time between them: a serial console needs 60 ms for a line at 9600 baud."""
_REPEAT_SECONDS: Final = 0.001
"""Longest time between two prints of one line."""

_KILLED: Final = ("Attempted to kill init!", "Attempted to kill the idle task!", "Aiee, killing interrupt handler!")
"""Panics of an oops or a signal that ends a task without which the kernel cannot run (`do_exit`)."""
_SERROR_PANICS: Final = ("bad mode", "Unhandled exception")
"""Panics that name an SError only together with the line before."""


class LogException:
    """A CPU exception that is being parsed."""

    __slots__ = ("_likely_release", "_prints", "actions", "address", "boot", "cpu", "first", "has_panic", "is_closed", "kind", "last",
                 "machine", "release", "size", "stage", "syndrome", "taken_from", "tid")  # fmt: skip

    def __init__(self, line: LogLine, found: ExceptionLine, boot: Boot) -> None:
        self.first = self.last = line
        self.machine = line.machine
        self.boot = boot
        self.kind = found.kind
        self.stage = found.stage
        self.syndrome, self.address, self.taken_from = found.syndrome, found.address, found.taken_from
        self.cpu, self.tid = found.cpu, found.tid
        self.release: str | None = None
        self._likely_release = found.release
        self.actions: list[ObservedAction] = [found.action]
        self.has_panic = isinstance(found.action, ObservedPanic)
        self.is_closed = False
        """Whether the machine has booted since, or the error is finished."""
        self._prints = 1
        """Number of times that the last line was printed."""
        self.size = memory_size(line.text)

    def accepts(self, line: LogLine, found: ExceptionLine) -> bool:
        """Return whether a line is about this exception: nothing in it contradicts the lines so far, and it comes later in their order."""
        if self.is_closed or found.kind != self.kind or not self._is_near(line) or _differ(self.first.caller, line.caller):
            return False
        known = (self.syndrome, self.address, self.taken_from, self.cpu, self.tid)
        if any(map(_differ, known, (found.syndrome, found.address, found.taken_from, found.cpu, found.tid))):
            return False
        return found.stage > self.stage or self._is_repeated(line, found)

    def _is_repeated(self, line: LogLine, found: ExceptionLine) -> bool:
        """Return whether the line is the last one, printed again."""
        if found.stage != self.stage or found.stage is Stage.OUTCOME or line.text != self.last.text:
            return False
        apart = seconds_between(self.last, line)
        return line.number == self.last.number + 1 if apart is None else 0 <= apart <= _REPEAT_SECONDS

    def add(self, line: LogLine, found: ExceptionLine) -> None:
        """Add a line that this exception accepts."""
        self.last = line
        self.size += memory_size(line.text)
        if found.stage == self.stage:
            self._prints += 1
            return
        self.stage = found.stage
        self.syndrome = found.syndrome if self.syndrome is None else self.syndrome
        self.address = found.address if self.address is None else self.address
        self.taken_from = self.taken_from or found.taken_from
        self.cpu = found.cpu if self.cpu is None else self.cpu
        self.tid = found.tid if self.tid is None else self.tid
        self.actions.append(found.action)

    def accepts_panic(self, line: LogLine, panic: ObservedPanic) -> bool:
        """Return whether a panic is the outcome of this exception."""
        if self.is_closed or self.has_panic or not self._is_near(line):
            return False
        if panic.cause == "oops":
            return any(isinstance(action, ObservedOops) for action in self.actions)
        if self.kind == "sei":
            return panic.cause == "serror" or (panic.cause is None and _why(panic).startswith(_SERROR_PANICS))
        outcomes = (ObservedOops, ObservedSignal)
        return panic.cause is None and _why(panic).startswith(_KILLED) and any(isinstance(action, outcomes) for action in self.actions)

    def add_panic(self, line: LogLine, panic: ObservedPanic) -> None:
        """Add a panic that this exception accepts."""
        self.last = line
        self.size += memory_size(line.text)
        self.has_panic = True
        self.actions.append(replace(panic, cause="serror") if self.kind == "sei" else panic)

    def accepts_task(self, line: LogLine, task: TaskLine) -> bool:
        """Return whether a line names the thread that this exception interrupted."""
        return self.release is None and not self.is_closed and self._is_near(line) and not _differ(self.cpu, task.cpu)

    def add_task(self, line: LogLine, task: TaskLine) -> None:
        """Add the thread that was running, and the kernel's release."""
        self.last = line
        self.release = task.release
        self.cpu = task.cpu if self.cpu is None else self.cpu
        self.tid = task.tid if self.tid is None else self.tid

    def accepts_state(self, line: LogLine) -> bool:
        """Return whether a processor state is that of this exception."""
        return self.taken_from is None and not self.is_closed and self._is_near(line)

    def _is_near(self, line: LogLine) -> bool:
        return follows(self.last, line, _MAX_SECONDS) and 0 < line.number - self.last.number <= _MAX_LINES_APART

    # Conversion to an event

    def notification(self, source_id: int | None = None) -> Notification:
        """Return the notification that the exception is."""
        return Notification(
            type=NotificationType(self.kind),
            source_id=source_id,
            syndrome=_FATAL_SERROR if self._panicked_without_syndrome() else self.syndrome,
            fault_address=self.address,
            taken_from=self.taken_from or _LIKELY[self.kind],
        )

    def _panicked_without_syndrome(self) -> bool:
        """Return whether only the panic shows that the syndrome of an SError was a fatal one (`arm64_is_fatal_ras_serror`)."""
        return self.kind == "sei" and self.syndrome is None and self.has_panic

    def host_facts(self) -> dict[str, Any]:
        """Return the facts about the machine as fields of `Host`."""
        facts = self.boot.host_facts()
        if self.release is not None:
            facts["kernel"] = self.release
        elif "kernel" not in facts and self._likely_release is not None:
            facts["kernel"] = self._likely_release
        if self.tid is not None and self.taken_from != "guest":
            facts["current"] = ThreadRef(pid=self.tid, tid=self.tid)
        if self._shows_panic_on_oops():
            facts["sysctl"] = Sysctl(panic_on_oops=1)
        return facts

    def _shows_panic_on_oops(self) -> bool:
        """Return whether the kernel panicked because of kernel.panic_on_oops: only an oops in an interrupt panics without it (`die`)."""
        panics = (action for action in self.actions if isinstance(action, ObservedPanic))
        return any(panic.cause == "oops" and "in interrupt" not in panic.said for panic in panics)

    def assumed(self) -> list[AssumedField]:
        """Return the assumed fields of the notification and of the host facts."""
        assumed = []
        if self._likely_release is not None and self.release is None and self.boot.release is None:
            why = f"the log does not name the kernel; those after 4.15 print another line than `{self.first.text[:60]}`"
            assumed.append(AssumedField("/host/kernel", self._likely_release, why))
        if self._panicked_without_syndrome():
            why = "not printed; the panic shows that it is fatal, as every implementation defined one"
            assumed.append(AssumedField("/notification/syndrome", f"{_FATAL_SERROR:#x}", why))
        if self.taken_from is None:
            why = "neither the exception class nor the processor state is printed"
            assumed.append(AssumedField("/notification/taken_from", _LIKELY[self.kind], why))
        if self.tid is not None and self.taken_from != "guest":
            assumed.append(AssumedField("/host/current/pid", str(self.tid), "the kernel prints the id of the thread, not of its process"))
        if self._shows_panic_on_oops():
            why = "the oops ended in a panic, and not in an interrupt; other settings have their defaults"
            assumed.append(AssumedField("/host/sysctl/kernel.panic_on_oops", "1", why))
        return assumed

    def lost(self) -> list[str]:
        """Return a phrase for each fact about the exception that the log does not have."""
        lost = []
        if self.syndrome is None:
            lost.append("the syndrome: no such line")
        elif self.kind == "sea" and abort_syndrome(self.syndrome).fnv:
            lost.append("the fault address: FAR_ELx is not valid, bit 10 (FnV) of the syndrome is set")
        elif self.kind == "sea" and self.address is None:
            lost.append("the fault address: not printed")
        if self._prints > 1:
            lost.append(f"whether one error or more: `{self.first.text[:80]}` is printed {self._prints} times at once; one is assumed")
        if self.actions and self.stage is Stage.FIRMWARE:
            lost.append("what the kernel did: the SError was taken by firmware or a vendor's handler before it")
        return lost

    def finish(self, _: NotificationType | None) -> FoundError:
        """Return the exception as an error without a record."""
        event = Event(
            source=self.first.host, time=self.first.when, notification=self.notification(), host=Host(**self.host_facts())
        )  # fmt: skip
        assumed = (AssumedField("/status_block", "none", "the log has no record of this error"), *self.assumed())
        return FoundError(event, FORMAT, Position(line=self.first.number), assumed, tuple(self.lost()), group_actions(self.actions))


_LIKELY: Final[dict[str, TakenFrom]] = {"sea": "user", "sei": "kernel"}
"""Interrupted context where none is printed."""
_FATAL_SERROR: Final = 0xBF000000
"""ESR_EL1 of an SError with an implementation defined syndrome (EC 0x2f, IL, IDS), which Linux does not survive."""


def _differ(one: object, other: object) -> bool:
    """Return whether two facts contradict each other; None is unknown."""
    return one is not None and other is not None and one != other


def _why(panic: ObservedPanic) -> str:
    return panic.said.partition("not syncing: ")[2]
