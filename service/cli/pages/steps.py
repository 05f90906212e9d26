"""Texts for the steps of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ras_triage.models.decision import (
    Acknowledge,
    ExitToVmm,
    InjectAbort,
    InjectSerror,
    Log,
    MemoryFailure,
    Oops,
    Panic,
    QueueMemoryFailure,
    RecordGuestError,
    RecoverPcie,
    Reject,
    ReportCxl,
    Signal,
    SoftOffline,
    Step,
    Translate,
    VmmExits,
)

_ERRNO = {
    1: "EPERM",
    2: "ENOENT",
    5: "EIO",
    6: "ENXIO",
    11: "EAGAIN",
    12: "ENOMEM",
    14: "EFAULT",
    16: "EBUSY",
    22: "EINVAL",
    95: "EOPNOTSUPP",
    131: "ENOTRECOVERABLE",
    133: "EHWPOISON",
}
"""Linux error numbers that memory failure handling returns (include/uapi/asm-generic/errno.h)."""

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size_text(shift: int) -> str:
    """Return 2^shift bytes in the largest unit that fits."""
    unit, rest = divmod(shift, 10)
    if unit >= len(_UNITS):
        return f"2^{shift} bytes"
    return "1 byte" if shift == 0 else f"{1 << rest} {_UNITS[unit]}"


def length_text(length: int) -> str:
    """Return a number of bytes in the largest unit of which it is a multiple."""
    shift = next((step for step in (40, 30, 20, 10) if length and not length & (1 << step) - 1), 0)
    return "1 byte" if length == 1 else f"{length >> shift} {_UNITS[shift // 10]}"


def return_value(value: int | None) -> str:
    """Return the return value of a kernel function: `0`, or the name of the error."""
    return "0" if not value else f"-{_ERRNO.get(-value, str(-value))}"


def value_text(value: Any) -> str:
    """Return a JSON value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {value_text(member)}" for name, member in value.items())
    return "none" if value is None else str(value)


def _log(step: Log) -> str:
    return step.what


def _reject(step: Reject) -> str:
    return f"rejected: {step.why}"


def _queue(step: QueueMemoryFailure) -> str:
    flags = [flag.replace("_", " ") for flag in step.flags] or ["action optional"]
    where = "a kernel worker" if step.context == "kworker" else "the interrupted thread, before it returns to user space"
    return f"page frame {step.pfn:#x} is queued for {where}: {', '.join(flags)}"


def _memory_failure(step: MemoryFailure) -> str:
    what = f"{step.page_type or 'no message'}: {step.result}" if step.result else (step.page_type or "no message")
    returns = f", returns {return_value(step.returns)}" if step.returns else ""
    return f"memory failure on page frame {step.pfn:#x}: {what}{returns}"


def _soft_offline(step: SoftOffline) -> str:
    returns = f", returns {return_value(step.returns)}" if step.returns else ""
    return f"soft offline of page frame {step.pfn:#x}: {step.result}{returns}"


def _signal(step: Signal) -> str:
    thread = "the interrupted thread" if step.tid is None else f"thread {step.tid}"
    process = "" if step.pid is None else f" of process {step.pid}"
    place = "no address" if step.address is None else f"address {step.address:#x}"
    lost = "" if step.lsb is None else f", {size_text(step.lsb)} lost"
    return f"{step.signal} ({step.code}) to {thread}{process}: {place}{lost}{', forced' if step.forced else ''}"


def _oops(step: Oops) -> str:
    where = "an unknown thread" if step.pid is None else f"process {step.pid}"
    if step.context == "kworker":
        where = "a kernel worker, which ends"
    return f"kernel oops in the context of {where}: {step.cause}"


def _recover_pcie(step: RecoverPcie) -> str:
    what = "is handed to AER recovery" if step.recovers else "is only reported"
    return f"PCIe device {step.device} ({step.severity}) {what}"


def _report_cxl(step: ReportCxl) -> str:
    return f"CXL: {step.event}"


def _acknowledge(step: Acknowledge) -> str:
    return f"the record is acknowledged to firmware {step.when.replace('_', ' ')}"


_SHOWN = 4
"""Ranges or holes that a line lists; the others are counted."""


def _translate(step: Translate) -> str:
    ranges = [f"{length_text(part.length)} at {part.ipa:#x} (slot {part.slot}{_space(part.as_id)})" for part in step.ranges]
    holes = [f"{length_text(hole.length)} at host address {hole.hva:#x}" for hole in step.holes]
    guest = f"is guest memory of {step.vm}: {_listed(ranges)}" if ranges else f"is not guest memory of {step.vm}"
    return f"host address {step.hva:#x} {guest}" + (f"; in no slot: {_listed(holes)}" if ranges and holes else "")


def _space(as_id: int) -> str:
    return f" of address space {as_id}" if as_id else ""


def _listed(parts: list[str]) -> str:
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return ", ".join(parts[:_SHOWN]) + more


def _record_guest_error(step: RecordGuestError) -> str:
    return f"a record for {step.ipa:#x} is written to the {step.notification} source of {step.vm} ({len(step.status_block)} bytes)"


def _inject_abort(step: InjectAbort) -> str:
    return f"{_vcpu(step)} takes an abort: its guest sees ESR_EL1 {step.guest_esr:#x}"


def _vmm_exits(step: VmmExits) -> str:
    return f"{step.vm} ends because its VMM exits: {step.why}"


def _inject_serror(step: InjectSerror) -> str:
    syndrome = f"with VSESR_EL2 {step.vsesr_el2:#x}" if step.has_esr else "without a syndrome"
    return f"virtual SError for {_vcpu(step)} {syndrome}: its guest sees ESR_EL1 {step.guest_esr:#x}"


def _exit_to_vmm(step: ExitToVmm) -> str:
    return f"{_vcpu(step)} leaves KVM_RUN with {step.exit}"


def _vcpu(step: InjectAbort | InjectSerror | ExitToVmm) -> str:
    vcpu = "the interrupted vCPU" if step.vcpu is None else f"vCPU {step.vcpu}"
    return vcpu if step.vm is None else f"{vcpu} of {step.vm}"


def _panic(step: Panic) -> str:
    after = "stays down" if step.reboots_after_s is None else f"reboots after {step.reboots_after_s} s"
    return f"kernel panic, the machine {after}: “{step.message}”"


_DESCRIPTIONS: dict[type[Any], Callable[[Any], str]] = {
    Log: _log,
    Reject: _reject,
    QueueMemoryFailure: _queue,
    MemoryFailure: _memory_failure,
    SoftOffline: _soft_offline,
    Signal: _signal,
    Oops: _oops,
    RecoverPcie: _recover_pcie,
    ReportCxl: _report_cxl,
    Acknowledge: _acknowledge,
    Translate: _translate,
    RecordGuestError: _record_guest_error,
    InjectAbort: _inject_abort,
    VmmExits: _vmm_exits,
    InjectSerror: _inject_serror,
    ExitToVmm: _exit_to_vmm,
    Panic: _panic,
}


def describe_step(step: Step) -> str:
    """Return one step of a plan as a line of text."""
    return _DESCRIPTIONS[type(step)](step)
