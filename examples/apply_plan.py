"""Simulator client that applies the plans of decisions to a toy machine: `python examples/apply_plan.py URL EVENTS.ndjson`.

It prints the final state of each machine (`source`), as examples/apply_plan.cpp does. The API key is in RAS_TRIAGE_TOKEN.
Exit status: 0 all events were applied, 1 the service did not respond, 2 some events were refused.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ras_triage import Client
from ras_triage.models import decision as steps
from ras_triage.service.client import ClientError, DecisionResponse, Problem, ProblemResponse

TRANSIENT = (408, 429, 502, 503, 504)
ERROR_SOURCE_BYTES = 1024
PAGE_SIZE = 4096
"""Of a machine that says nothing else; a page frame number is an address divided by it."""


@dataclass
class Frame:
    """A page frame."""

    state: str = "unknown"
    content: str = "intact"
    mapped_by: list[str] = field(default_factory=list)


@dataclass
class Task:
    """A process. Only one that runs a guest handles SIGBUS; all others end."""

    state: str = "running"
    signals: list[dict[str, Any]] = field(default_factory=list)
    next_access: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Guest:
    """A virtual machine: the memory of its error sources, and what its vCPUs took."""

    pid: str = "unknown"
    state: str = "running"
    lost: list[dict[str, Any]] = field(default_factory=list)
    error_sources: dict[str, bytearray] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    exceptions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    exits: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Machine:
    """A machine; a name is its page frame number, process id, name of a guest or PCIe function."""

    boots: int = 1
    state: str = "running"
    record: str = "none"
    frames: dict[str, Frame] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    guests: dict[str, Guest] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def frame(self, pfn: int) -> Frame:
        return self.frames.setdefault(hex(pfn), Frame())

    def task(self, pid: int | None) -> Task:
        return self.tasks.setdefault(name_of(pid), Task())

    def guest(self, name: str | None) -> Guest:
        return self.guests.setdefault(name_of(name), Guest())

    def end_process(self, pid: str) -> None:
        """End a process, and the guests that it runs."""
        self.tasks.setdefault(pid, Task()).state = "ended"
        for guest in self.guests.values():
            if guest.pid == pid:
                guest.state = "stopped"


def name_of(value: int | str | None) -> str:
    return "unknown" if value is None else str(value)


def hex_or_none(value: int | None) -> str | None:
    return None if value is None else hex(value)


def number(value: int | str) -> int:
    """Return an address of an event, which is a number or a hexadecimal string."""
    return value if isinstance(value, int) else int(value, 16)


def prepare(machine: Machine, event: Mapping[str, Any]) -> None:
    """Add what the event says about the machine, and let firmware write the record."""
    host = event.get("host") or {}
    page_size = host.get("page_size") or PAGE_SIZE
    for page in host.get("pages") or ():
        name = hex(number(page["physical_address"]) // page_size)
        mapped_by = [name_of(mapping["pid"]) for mapping in page.get("mappings") or ()]
        machine.frames.setdefault(name, Frame("poisoned" if page.get("poisoned") else page["state"], "intact", mapped_by))
    for task in host.get("tasks") or ():
        machine.task(task["pid"])
    for vm in host.get("vms") or ():
        machine.guests.setdefault(vm["id"], Guest(name_of(vm["pid"])))
    machine.record = "written" if event.get("status_block") else "none"


def apply(machine: Machine, step: steps.Step) -> None:
    """Do on the machine what a step of a plan says."""
    match step:
        case steps.Acknowledge():
            machine.record = f"acknowledged {step.when}"
        case steps.QueueMemoryFailure():
            queue(machine, step)
        case steps.MemoryFailure() | steps.SoftOffline():
            take_away(machine, step)
        case steps.Signal():
            deliver(machine, step)
        case steps.Oops():
            oops(machine, step)
        case steps.RecoverPcie():
            machine.devices[step.device] = f"{step.severity}, {'recovery queued' if step.recovers else 'logged'}"
        case steps.Panic():
            panic(machine, step)
        case steps.Log() | steps.Reject() | steps.ReportCxl():
            machine.log.append(log_line(step))
        case _:
            apply_to_guest(machine, step)


def log_line(step: steps.Log | steps.Reject | steps.ReportCxl) -> str:
    match step:
        case steps.Log():
            return step.what
        case steps.Reject():
            return f"rejected: {step.why}"
        case steps.ReportCxl():
            return f"cxl event: {step.event}"


def queue(machine: Machine, step: steps.QueueMemoryFailure) -> None:
    machine.queue.append(hex(step.pfn))
    if "soft_offline" not in step.flags:
        machine.frame(step.pfn).content = "lost"


def oops(machine: Machine, step: steps.Oops) -> None:
    machine.log.append(f"oops: {step.cause}")
    if step.context == "interrupted_thread":
        machine.end_process(name_of(step.pid))


def panic(machine: Machine, step: steps.Panic) -> None:
    reboot = "no reboot" if step.reboots_after_s is None else f"reboot after {step.reboots_after_s} s"
    machine.log.append(f"panic: {step.message} ({step.cause}, {reboot})")
    machine.state = "panicked"


def take_away(machine: Machine, step: steps.MemoryFailure | steps.SoftOffline) -> None:
    """Apply the outcome of `memory_failure()` or `soft_offline_page()` to the page frame; without a result the frame stays as it was."""
    name = hex(step.pfn)
    if name in machine.queue:
        machine.queue.remove(name)
    frame = machine.frame(step.pfn)
    if step.result == "recovered":
        frame.content = "copied" if isinstance(step, steps.SoftOffline) else "lost"
        frame.state = "offline"
        frame.mapped_by = []
    elif isinstance(step, steps.MemoryFailure) and step.result is not None:
        frame.state = "poisoned"


def signal_fields(step: steps.Signal) -> dict[str, Any]:
    """Return a signal with the range of bytes that are lost: 2^lsb bytes, aligned to their number."""
    lost = None
    if step.address is not None and step.lsb is not None:
        lost = [hex(step.address & -(1 << step.lsb)), 1 << step.lsb]
    address = hex_or_none(step.address)
    return {"tid": name_of(step.tid), "signal": step.signal, "code": step.code, "address": address, "lost": lost, "forced": step.forced}


def deliver(machine: Machine, step: steps.Signal) -> None:
    pid = name_of(step.pid)
    machine.task(step.pid).signals.append(signal_fields(step))
    if step.signal == "SIGKILL" or not any(guest.pid == pid for guest in machine.guests.values()):
        machine.end_process(pid)


def apply_to_guest(machine: Machine, step: steps.Step) -> None:
    match step:
        case steps.Translate():
            machine.guest(step.vm).lost += [{"ipa": hex(one.ipa), "length": one.length} for one in step.ranges]
        case steps.RecordGuestError():
            guest = machine.guest(step.vm)
            memory = guest.error_sources.setdefault(step.notification, bytearray(ERROR_SOURCE_BYTES))
            memory[: len(step.status_block)] = step.status_block
            guest.records.append({"notification": step.notification, **read_record(memory)})
        case steps.InjectAbort():
            take_exception(machine.guest(step.vm), step.vcpu, {"exception": "abort", "esr": hex(step.guest_esr)})
        case steps.InjectSerror():
            pending, has_esr, vsesr = struct.unpack_from("<BB6xQ", step.vcpu_events)
            taken = {"exception": "serror", "esr": hex(step.guest_esr), "pending": pending, "has_esr": has_esr, "vsesr": hex(vsesr)}
            take_exception(machine.guest(step.vm), step.vcpu, taken)
        case steps.ExitToVmm():
            fields = {name: hex(content) for name, content in step.fields.items()}
            machine.guest(step.vm).exits.append({"vcpu": name_of(step.vcpu), "exit": step.exit, "fields": fields})
        case steps.VmmExits():
            guest = machine.guest(step.vm)
            machine.log.append(f"vmm exits: {step.why}")
            guest.state = "stopped"
            machine.end_process(guest.pid)
        case _:
            machine.log.append(f"step `{step.kind}` is not known to this simulator")


def take_exception(guest: Guest, vcpu: int | None, taken: dict[str, Any]) -> None:
    guest.exceptions.setdefault(name_of(vcpu), []).append(taken)


def read_record(memory: bytearray) -> dict[str, Any]:
    """Read a record as the guest's driver does, and clear its block status, so that the source is free again.

    20 bytes of status block (ACPI 6.5 18.3.2.7.1), 72 of data entry, then the memory section, address at offset 16 (UEFI 2.10 N.2.5).
    """
    (data_length,) = struct.unpack_from("<I", memory, 12)
    (address,) = struct.unpack_from("<Q", memory, 20 + 72 + 16)
    memory[:4] = bytes(4)
    return {"bytes": 20 + data_length, "physical_address": hex(address)}


def apply_decision(machine: Machine, event: Mapping[str, Any], decision: DecisionResponse) -> Machine:
    """Apply a whole decision; a machine that had panicked has rebooted by now."""
    if machine.state == "panicked":
        machine = Machine(boots=machine.boots + 1)
    prepare(machine, event)
    for step in decision.plan:
        apply(machine, step)
    for task in machine.tasks.values():
        task.next_access = []
    for step in decision.next_access:
        if isinstance(step, steps.Signal):
            machine.task(step.pid).next_access.append(signal_fields(step))
    return machine


def explain(problem: Problem) -> str:
    """Return a problem in one line for each error, each with its place."""
    places = [f"  `{error.pointer}`: {error.detail}" for error in problem.errors]
    return "\n".join([f"{problem.type} ({problem.status}): {problem.detail}", *places])


def run(client: Client, lines: Iterable[bytes]) -> tuple[dict[str, Machine], int]:
    """Return the machines after the events of NDJSON lines, and how many events were refused."""
    machines: dict[str, Machine] = {}
    applied: set[str | None] = set()
    refused = 0
    for place, line in enumerate(lines, 1):
        try:
            decision = client.decide(line)
        except ProblemResponse as failure:
            if failure.problem.status in TRANSIENT:
                raise
            print(f"line {place}: {explain(failure.problem)}", file=sys.stderr)
            refused += 1
            continue
        print(f"line {place}: {decision.action}, {decision.certainty}, {len(decision.plan)} steps", file=sys.stderr)
        if decision.id in applied:  # the same event again: its plan was carried out
            continue
        applied.add(decision.id)
        event = json.loads(line)
        source = event.get("source") or "machine"
        machines[source] = apply_decision(machines.get(source, Machine()), event, decision)
    return machines, refused


def state_of(machine: Machine) -> dict[str, Any]:
    """Return what is printed of a machine: everything but the raw memory of the guests' error sources."""
    state = asdict(machine)
    for guest in state["guests"].values():
        del guest["error_sources"]
    return state


def main() -> int:
    url, path = sys.argv[1:]
    try:
        with Client(url, token=os.environ.get("RAS_TRIAGE_TOKEN")) as client, open(path, "rb") as lines:
            machines, refused = run(client, (line for line in lines if line.strip()))
    except ClientError as failure:
        print(f"{url}: {failure}", file=sys.stderr)
        return 1
    print(json.dumps({source: state_of(machine) for source, machine in machines.items()}, indent=2, sort_keys=True, ensure_ascii=False))
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
