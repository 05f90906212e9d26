"""Kernel log messages about SErrors and synchronous external aborts.

Sources: `arm64_serror_panic`, `bad_mode` and `die` in arch/arm64/kernel/traps.c, `do_sea`, `do_mem_abort` and `arm64_show_signal` in
arch/arm64/mm/fault.c and kernel/traps.c, `kvm_handle_guest_abort` in arch/arm64/kvm/mmu.c, `dump_stack_print_info`, Linux 4.4 to 7.3.
"""

from __future__ import annotations

import re
from dataclasses import replace
from enum import IntEnum
from typing import Final, Literal

from ras_triage.models.frozen import frozen
from ras_triage.models.observed import ObservedAction, ObservedMessage, ObservedOops, ObservedPanic, ObservedSerror, ObservedSignal
from ras_triage.models.syndrome import ExceptionClass, abort_syndrome, is_table_walk_fault

KEYWORDS: Final = (b"SError", b"Bad mode in ", b"ynchronous ", b"nhandled ", b"Internal error: ", b"Unsupported FSC: ")
"""Every line that `read_exception` and `read_other_abort` parse contains one of these."""

TASK_KEYWORD: Final = b"omm: "
"""Keyword of the lines that `read_task` parses."""

STATE_KEYWORD: Final = b"pstate"
"""Keyword of the lines that `read_processor_state` parses."""

TakenFrom = Literal["user", "kernel", "guest"]


class Stage(IntEnum):
    """Position of a line among those that one exception prints."""

    FIRMWARE = 0
    """Firmware, or a vendor's handler, that takes the exception before the kernel."""
    KERNEL = 1
    """The kernel's first line."""
    UNHANDLED = 2
    """A second line, of an abort that no record accounts for (`do_mem_abort`, before 4.20)."""
    OUTCOME = 3
    """What the kernel does: an oops, a signal or a panic."""


@frozen
class ExceptionLine:
    """A line about one exception."""

    kind: Literal["sea", "sei"]
    stage: Stage
    syndrome: int | None
    """ESR_ELx; None: not printed."""
    action: ObservedAction
    address: int | None = None
    """FAR_ELx"""
    taken_from: TakenFrom | None = None
    """None: not printed."""
    cpu: int | None = None
    tid: int | None = None
    """Id of the thread that was running."""
    release: str | None = None
    """A release of a kernel that prints such a line, where later ones print another."""
    is_continuation: bool = False
    """Whether the line is about a hardware error only behind another line about it."""


@frozen
class TaskLine:
    """The thread that was running, and the kernel's release (`dump_stack_print_info`)."""

    cpu: int | None
    tid: int
    release: str


_ESR = r"(?:0x)?(?P<esr>[0-9a-f]{8,16})"
_SERROR = re.compile(rf"SError Interrupt on CPU(?P<cpu>\d{{1,5}}), code {_ESR}\b.*")
_BAD_MODE = re.compile(rf"Bad mode in Error handler detected(?: on CPU(?P<cpu>\d{{1,5}}))?, code {_ESR}\b.*")
_BAD_MODE_OOPS = re.compile(r"Internal error: Oops - bad mode: 0 \[#\d{1,5}\].*")
_BAD_MODE_RELEASE: Final = "4.14.x"
_VECTOR = re.compile(rf"Unhandled \d\d-bit el\d[ht] error exception on CPU(?P<cpu>\d{{1,5}}), ESR {_ESR}\b.*")
_VENDOR_SERROR = re.compile(rf"(?:CPU:? ?(?P<cpu>\d{{1,5}}): ?)?SError(?: detected)?[:,] .*?\besr=?:? ?{_ESR}\b.*", re.IGNORECASE)
_SPSR = re.compile(r"\bspsr=?:? ?(?:0x)?(?P<state>[0-9a-f]{1,16})\b", re.IGNORECASE)
_ABORT = re.compile(rf"(?:Synchronous External Abort|Unhandled fault): .{{0,80}} ?\({_ESR}\) at (?:0x)?(?P<address>[0-9a-f]{{1,16}})\b.*")
_OOPS = re.compile(rf"Internal error: (?P<name>.{{0,80}}?) ?: ?{_ESR} \[#\d{{1,5}}\].*")
_TRUNCATED_OOPS = re.compile(rf"Internal error: synchronous .{{0,60}}: {_ESR}\b.*")
_KILLED = re.compile(rf"(?P<comm>.{{0,16}})\[(?P<tid>\d{{1,10}})\]: unhandled exception: .{{0,60}}, ESR {_ESR}, .*")
_GUEST = re.compile(rf"kvm \[\d{{1,10}}\]: Unsupported FSC: .*\bESR_EL2={_ESR}\b.*")
_CLAIMED = re.compile(r".*GHES: (?P<comm>.{1,15}):(?P<tid>\d{1,10}): synchronous unrecoverable error \(SIGBUS\)")
_OTHER_ABORT = re.compile(r"Unhandled (?:fault|prefetch abort): .*external abort.*|(?:ERROR: +)?Unhandled External Abort received on .*")
"""An abort with a syndrome of another architecture, such as 32-bit Arm's, or one that firmware (TF-A) takes."""

_TASK = re.compile(
    r"(?:CPU: (?P<cpu>\d{1,5}) (?:UID: \d{1,10} )?PID: |Pid: )(?P<tid>\d{1,10}),? [Cc]omm: .{0,40}? "
    r"(?:Kdump: loaded )?(?:Not tainted|Tainted: [A-Z \[\]=,_]{1,200}?) {1,8}(?P<release>\d{1,3}\.\d{1,3}[.\d]*\S{0,100}) #.*"
)
_STATE = re.compile(r"(?:.* )?pstate ?: (?P<state>[0-9a-f]{8,16})\b.*")

_CLASSES: Final[dict[int, TakenFrom]] = {
    ExceptionClass.INSTRUCTION_ABORT_LOWER: "user",
    ExceptionClass.DATA_ABORT_LOWER: "user",
    ExceptionClass.INSTRUCTION_ABORT_SAME: "kernel",
    ExceptionClass.DATA_ABORT_SAME: "kernel",
}
"""Exception classes of aborts. The kernel's own handlers get those from a lower level only from user space."""


def read_exception(text: str, line: int) -> ExceptionLine | None:
    """Return the exception that a line is about; None for any other line.

    `text` is the kernel's message without the log prefix.
    """
    for pattern, make in _READERS:
        if (match := pattern.fullmatch(text)) and (found := make(match, line)):
            return found
    return None


def read_panic(panic: ObservedPanic) -> ExceptionLine | None:
    """Return the exception that a panic names, where no other line about it is left; None for any other panic."""
    if panic.cause == "serror":
        return ExceptionLine("sei", Stage.OUTCOME, None, panic)
    if panic.cause == "oops" and "synchronous external abort: " in panic.said:
        return ExceptionLine("sea", Stage.OUTCOME, None, panic, taken_from="kernel")
    return None


def read_other_abort(text: str, line: int) -> ObservedMessage | None:
    """Return the message of an abort whose syndrome is not one of arm64; None for any other line."""
    return ObservedMessage(line, text, "other") if _OTHER_ABORT.fullmatch(text) else None


def read_task(text: str) -> TaskLine | None:
    """Return the thread and the release that a line names; None for any other line."""
    match = _TASK.fullmatch(text)
    if match is None:
        return None
    return TaskLine(int(match["cpu"]) if match["cpu"] else None, int(match["tid"]), match["release"])


def read_processor_state(text: str) -> TakenFrom | None:
    """Return what the CPU executed by the processor state that a line has; None for any other line."""
    match = _STATE.fullmatch(text)
    return _executed(int(match["state"], 16)) if match else None


def _executed(state: int) -> TakenFrom:
    """Return what a CPU executed by PSTATE or SPSR_ELx: M[3:0] is 0 in EL0 only (DDI 0487, C5.2.19)."""
    return "kernel" if state & 0xF else "user"


def _serror(match: re.Match[str], line: int) -> ExceptionLine:
    cpu, syndrome = int(match["cpu"]), int(match["esr"], 16)
    return ExceptionLine("sei", Stage.KERNEL, syndrome, ObservedSerror(line, match[0], cpu, syndrome), cpu=cpu)


def _bad_mode(match: re.Match[str], line: int) -> ExceptionLine:
    """Return the SError of a kernel without `do_serror`: an oops, which panics only as any other does."""
    action = ObservedMessage(line, match[0], "other")
    cpu = int(match["cpu"]) if match["cpu"] else None
    return ExceptionLine("sei", Stage.KERNEL, int(match["esr"], 16), action, cpu=cpu, release=_BAD_MODE_RELEASE)


def _bad_mode_oops(match: re.Match[str], line: int) -> ExceptionLine:
    return ExceptionLine("sei", Stage.OUTCOME, None, ObservedOops(line, match[0], 0), is_continuation=True)


def _vendor_serror(match: re.Match[str], line: int) -> ExceptionLine:
    state, cpu = _SPSR.search(match[0]), match["cpu"]
    return ExceptionLine(
        "sei",
        Stage.FIRMWARE,
        int(match["esr"], 16),
        ObservedMessage(line, match[0], "other"),
        taken_from=_executed(int(state["state"], 16)) if state else None,
        cpu=int(cpu) if cpu else None,
    )


def _abort(match: re.Match[str], line: int) -> ExceptionLine | None:
    action = ObservedMessage(line, match[0], "other")
    stage = Stage.UNHANDLED if match[0].startswith("Unhandled") else Stage.KERNEL
    return _external_abort(match, stage, action, address=int(match["address"], 16))


def _oops(match: re.Match[str], line: int) -> ExceptionLine | None:
    return _external_abort(match, Stage.OUTCOME, ObservedOops(line, match[0], int(match["esr"], 16)))


def _killed(match: re.Match[str], line: int) -> ExceptionLine | None:
    action: ObservedAction = _sigbus(match, line)
    if is_table_walk_fault(int(match["esr"], 16) & 0x3F):
        action = ObservedMessage(line, match[0], "other")  # which signal depends on the release
    return _external_abort(match, Stage.OUTCOME, action, tid=int(match["tid"]))


def _claimed(match: re.Match[str], line: int) -> ExceptionLine:
    """Return the abort of a record that queued nothing (`ghes_do_proc`)."""
    action = _sigbus(match, line)
    return ExceptionLine("sea", Stage.OUTCOME, None, action, taken_from="user", tid=action.pid)


def _sigbus(match: re.Match[str], line: int) -> ObservedSignal:
    comm = match["comm"].encode("latin-1").decode("utf-8", "replace")
    return ObservedSignal(line, match[0], "SIGBUS", int(match["tid"]), comm, None)


def _guest(match: re.Match[str], line: int) -> ExceptionLine | None:
    found = _external_abort(match, Stage.OUTCOME, ObservedMessage(line, match[0], "other"))
    return found and replace(found, taken_from="guest")


def _external_abort(
    match: re.Match[str], stage: Stage, action: ObservedAction, *, address: int | None = None, tid: int | None = None
) -> ExceptionLine | None:
    """Return the line of an abort; None if its syndrome is not that of an external abort."""
    syndrome = int(match["esr"], 16)
    taken_from = _CLASSES.get(syndrome >> 26 & 0x3F)
    if taken_from is None or not abort_syndrome(syndrome).is_external:
        return None
    return ExceptionLine("sea", stage, syndrome, action, address=address, taken_from=taken_from, tid=tid)


_READERS: Final = (
    (_SERROR, _serror),
    (_BAD_MODE, _bad_mode),
    (_BAD_MODE_OOPS, _bad_mode_oops),
    (_VECTOR, _serror),
    (_VENDOR_SERROR, _vendor_serror),
    (_ABORT, _abort),
    (_OOPS, _oops),
    (_TRUNCATED_OOPS, _oops),
    (_KILLED, _killed),
    (_GUEST, _guest),
    (_CLAIMED, _claimed),
)
