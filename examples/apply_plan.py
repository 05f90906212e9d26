"""Simulator client that applies the plans of decisions to a toy machine: `python examples/apply_plan.py URL EVENTS.ndjson`.

It prints the final state of each machine (`source`), as examples/apply_plan.cpp does. The API key is in RAS_TRIAGE_TOKEN.
Exit status: 0 all events were applied, 1 the service did not respond, 2 some events were refused.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ras_triage import Client
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


def take_away(machine: Machine, step: Any) -> None:
    """Apply the outcome of `memory_failure()` or `soft_offline_page()` to the page frame.

    A frame that was taken away before stays as it was, and so does one without a result.
    """
    name = hex(step.pfn)
    if name in machine.queue:
        machine.queue.remove(name)
    frame = machine.frame(step.pfn)
    soft = step.kind == "soft_offline"
    if step.result == "recovered":
        frame.content = "copied" if soft else "lost"
        frame.state = "offline"
        frame.mapped_by = []
    elif not soft and step.result is not None and frame.state != "offline":
        frame.state = "poisoned"


def queue_memory_failure(machine: Machine, step: Any) -> None:
    machine.queue.append(hex(step.pfn))
    if "soft_offline" not in step.flags:
        machine.frame(step.pfn).content = "lost"


def signal_fields(step: Any) -> dict[str, Any]:
    """Return a signal with the range of bytes that are lost: 2^lsb bytes, aligned to their number."""
    lost = None
    if step.address is not None and step.lsb is not None:
        lost = [hex(step.address & -(1 << step.lsb)), 1 << step.lsb]
    address = hex_or_none(step.address)
    return {"tid": name_of(step.tid), "signal": step.signal, "code": step.code, "address": address, "lost": lost, "forced": step.forced}


def deliver(machine: Machine, step: Any) -> None:
    pid = name_of(step.pid)
    machine.task(step.pid).signals.append(signal_fields(step))
    if step.signal == "SIGKILL" or not any(guest.pid == pid for guest in machine.guests.values()):
        machine.end_process(pid)


def oops(machine: Machine, step: Any) -> None:
    machine.log.append(f"oops: {step.cause}")
    if step.context == "interrupted_thread":
        machine.end_process(name_of(step.pid))


def acknowledge(machine: Machine, step: Any) -> None:
    machine.record = f"acknowledged {step.when}"


def recover_pcie(machine: Machine, step: Any) -> None:
    machine.devices[step.device] = f"{step.severity}, {'recovery queued' if step.recovers else 'logged'}"


def panic(machine: Machine, step: Any) -> None:
    reboot = "no reboot" if step.reboots_after_s is None else f"reboot after {step.reboots_after_s} s"
    machine.log.append(f"panic: {step.message} ({step.cause}, {reboot})")
    machine.state = "panicked"


def translate(machine: Machine, step: Any) -> None:
    machine.guest(step.vm).lost += [{"ipa": hex(one.ipa), "length": one.length} for one in step.ranges]


def record_guest_error(machine: Machine, step: Any) -> None:
    guest = machine.guest(step.vm)
    memory = guest.error_sources.setdefault(step.notification, bytearray(ERROR_SOURCE_BYTES))
    memory[: len(step.status_block)] = step.status_block
    guest.records.append({"notification": step.notification, **read_record(memory)})


def read_record(memory: bytearray) -> dict[str, Any]:
    """Read a record as the guest's driver does, and clear its block status, so that the source is free again.

    20 bytes of status block (ACPI 6.5 18.3.2.7.1), 72 of data entry, then the memory section, address at offset 16 (UEFI 2.10 N.2.5).
    """
    (data_length,) = struct.unpack_from("<I", memory, 12)
    (address,) = struct.unpack_from("<Q", memory, 20 + 72 + 16)
    memory[:4] = bytes(4)
    return {"bytes": 20 + data_length, "physical_address": hex(address)}


def inject_abort(machine: Machine, step: Any) -> None:
    take_exception(machine, step, {"exception": "abort", "esr": hex(step.guest_esr)})


def inject_serror(machine: Machine, step: Any) -> None:
    """Read the first bytes of struct kvm_vcpu_events: serror_pending, serror_has_esr, 6 more, serror_esr."""
    pending, has_esr, vsesr = struct.unpack_from("<BB6xQ", step.vcpu_events)
    taken = {"exception": "serror", "esr": hex(step.guest_esr), "pending": pending, "has_esr": has_esr, "vsesr": hex(vsesr)}
    take_exception(machine, step, taken)


def take_exception(machine: Machine, step: Any, taken: dict[str, Any]) -> None:
    machine.guest(step.vm).exceptions.setdefault(name_of(step.vcpu), []).append(taken)


def exit_to_vmm(machine: Machine, step: Any) -> None:
    fields = {name: hex(content) for name, content in step.fields.items()}
    machine.guest(step.vm).exits.append({"vcpu": name_of(step.vcpu), "exit": step.exit, "fields": fields})


def vmm_exits(machine: Machine, step: Any) -> None:
    guest = machine.guest(step.vm)
    machine.log.append(f"vmm exits: {step.why}")
    guest.state = "stopped"
    machine.end_process(guest.pid)


HANDLERS: Mapping[str, Callable[[Machine, Any], None]] = {
    "log": lambda machine, step: machine.log.append(step.what),
    "reject": lambda machine, step: machine.log.append(f"rejected: {step.why}"),
    "report_cxl": lambda machine, step: machine.log.append(f"cxl event: {step.event}"),
    "acknowledge": acknowledge,
    "queue_memory_failure": queue_memory_failure,
    "memory_failure": take_away,
    "soft_offline": take_away,
    "signal": deliver,
    "oops": oops,
    "recover_pcie": recover_pcie,
    "translate": translate,
    "record_guest_error": record_guest_error,
    "inject_abort": inject_abort,
    "inject_serror": inject_serror,
    "exit_to_vmm": exit_to_vmm,
    "vmm_exits": vmm_exits,
    "panic": panic,
}
"""What the simulator does for each kind of step."""


def apply_decision(machine: Machine, event: Mapping[str, Any], decision: DecisionResponse) -> Machine:
    """Apply a whole decision; a machine that had panicked has rebooted by now."""
    if machine.state == "panicked":
        machine = Machine(boots=machine.boots + 1)
    prepare(machine, event)
    for step in decision.plan:
        HANDLERS[step.kind](machine, step)
    for task in machine.tasks.values():
        task.next_access = []
    for step in decision.next_access:
        if step.kind == "signal":
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
    parser = argparse.ArgumentParser(description="Send events to a service, and apply the plans to a toy machine.")
    parser.add_argument("url", help="service, such as http://127.0.0.1:8080")
    parser.add_argument("events", help="file with one event a line")
    options = parser.parse_args()
    try:
        with Client(options.url, token=os.environ.get("RAS_TRIAGE_TOKEN")) as client, open(options.events, "rb") as lines:
            machines, refused = run(client, (line for line in lines if line.strip()))
    except OSError as failure:
        parser.error(f"{options.events}: {failure.strerror}")
    except ClientError as failure:
        print(f"{options.url}: {failure}", file=sys.stderr)
        return 1
    print(json.dumps({source: state_of(machine) for source, machine in machines.items()}, indent=2, sort_keys=True, ensure_ascii=False))
    return 2 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
