"""Events, status blocks and host facts for tests, packed without the codec."""

from __future__ import annotations

import struct
from typing import Any, TypeVar

from ras_triage.models.decision import Action, Decision, Log, MemoryFailure, QueueMemoryFailure, Reject, Signal, SoftOffline
from ras_triage.models.event import Event
from ras_triage.models.host import Host
from ras_triage.models.records import guid
from ras_triage.policies.catalog.policies import Policy, resolve_policy
from ras_triage.policies.decide import decide

Step = TypeVar("Step")
Signalled = tuple[int | None, str, int | None, int | None]
"""Thread, code (SIGKILL where it is no SIGBUS), address, lsb."""

RECOVERABLE, FATAL, CORRECTED, INFORMATIONAL = 0, 1, 2, 3
PRIMARY, CONTAINMENT_WARNING, RESET, THRESHOLD, NOT_ACCESSIBLE, LATENT = 1, 2, 4, 8, 16, 32

L510, L61, L612, L73 = "linux-5.10.223", "linux-6.1.192", "linux-6.12.107", "linux-7.3.4"
ALL = (L510, L61, L612, L73)

ASYNCHRONOUS = ("polled", "external", "sci", "gsiv", "gpio", "sdei")
IRQ_LIKE = ASYNCHRONOUS[:-1]

PID, TID, OTHER = 103, 104, 200
"""The process that consumes the error, the thread that does, and a process that shares its pages."""
PFN = 0x56EDD
PAGE = PFN << 12
PA = PAGE + 0x40
VA = 0xFFFF_0000_0000 | PAGE
"""As far into any huge page as `PAGE` is."""
FAR = VA + 0x40
ESR_USER = 0x9200_0010
"""A data abort from a lower level, DFSC 0x10, FAR valid."""
FNV = 1 << 10
S1PTW = 1 << 7
VENDOR = guid.guid("d7c86cf1-1b1c-4fc9-9a5e-0a0f3e8f0a01")


def section(
    kind: bytes, payload: bytes, severity: int = RECOVERABLE, flags: int = 0, *, revision: int = 0x300, length: int | None = None
) -> bytes:
    """A data entry; `length` is what it says of its payload where that is not the truth."""
    stated = len(payload) if length is None else length
    head = struct.pack("<16sIHBBI16s20s", kind, severity, revision, 0, flags, stated, bytes(16), bytes(20))
    return head + (bytes(8) if revision >> 8 >= 3 else b"") + payload


def memory(severity: int = RECOVERABLE, flags: int = 0, *, address: int | None = PA, size: int = 80) -> bytes:
    payload = struct.pack("<QQQ", 0x4002 if address is not None else 0x4000, 0, address or 0).ljust(80, b"\0")
    return section(guid.MEMORY, payload[:size], severity, flags)


def error_info(kind: int, *, address: int | None = PA, length: int = 32, information: int = 0) -> bytes:
    valid = 0x10 if address is not None else 0
    return struct.pack("<BBHBHBQQQ", 0, length, valid, kind, 0, 0, information, 0, address or 0)


def arm(*infos: bytes, severity: int = RECOVERABLE, flags: int = 0, count: int | None = None, size: int | None = None) -> bytes:
    head = struct.pack("<IHHI", 0, len(infos) if count is None else count, 0, 40 + 32 * len(infos)).ljust(40, b"\0")
    payload = head + b"".join(infos)
    return section(guid.ARM_PROCESSOR, payload if size is None else payload[:size], severity, flags)


def pcie(
    severity: int = RECOVERABLE, flags: int = 0, *, valid: int = 0x88, status: int = 0x4000, mask: int = 0, bus: int = 1, port_type: int = 0
) -> bytes:
    payload = bytearray(208)
    struct.pack_into("<QI", payload, 0, valid, port_type)
    struct.pack_into("<BBHB", payload, 31, 0, 0, 0, bus)
    struct.pack_into("<II", payload, 116, status, mask)
    return section(guid.PCIE, bytes(payload), severity, flags)


def cxl_event(kind: bytes = guid.CXL_DRAM, severity: int = RECOVERABLE, *, length: int = 144, valid: int = 4) -> bytes:
    return section(kind, struct.pack("<IQ", length, valid).ljust(144, b"\0"), severity)


def cxl_protocol(severity: int = RECOVERABLE, *, valid: int = 0x43, agent: int = 2, error_length: int = 88) -> bytes:
    payload = bytearray(116 + 88)
    struct.pack_into("<QB", payload, 0, valid, agent)
    struct.pack_into("<HH", payload, 108, 0, error_length)
    return section(guid.CXL_PROTOCOL, bytes(payload), severity)


def other(kind: bytes = VENDOR, severity: int = RECOVERABLE, flags: int = 0) -> bytes:
    return section(kind, bytes(16), severity, flags)


def block(
    *sections: bytes,
    severity: int = RECOVERABLE,
    status: int = 1,
    data_length: int | None = None,
    raw: tuple[int, int] = (0, 0),
    tail: bytes = b"",
) -> bytes:
    """A status block; `raw` is offset and length of its raw data, `tail` what lies behind the sections."""
    data = b"".join(sections)
    return struct.pack("<5I", status, raw[0], raw[1], len(data) if data_length is None else data_length, severity) + data + tail


def page(state: str = "anonymous", *pids: int, **facts: Any) -> dict[str, Any]:
    """A page fact for `PAGE`, mapped by each process at `VA`; without `pids` by the consumer, `unmapped=True` by none."""
    unmapped = facts.pop("unmapped", False)
    mapped_by = () if unmapped else pids or (PID,)
    shift = facts.get("shift", 12)
    start = PAGE & -(1 << shift)
    mappings = [{"pid": pid, "address": VA - (PAGE - start)} for pid in mapped_by]
    return {"physical_address": start, "state": state, "mappings": mappings, **facts}


def host(*pages: dict[str, Any], early: bool | int = False, **facts: Any) -> dict[str, Any]:
    """Host facts without gaps that matter: thread `TID` of `PID` ran, `OTHER` exists, sysctls have their defaults."""
    sysctl = {"vm.memory_failure_early_kill": int(early)} | facts.pop("sysctl", {})
    known = {
        "page_size": 4096,
        "ras_extension": True,
        "config": {},
        "sysctl": sysctl,
        "current": {"pid": PID, "tid": TID},
        "tasks": [{"pid": PID, "threads": [{"tid": PID}, {"tid": TID}]}, {"pid": OTHER}],
        "pages": list(pages) or [page(dirty=True)],
        "valid_ranges": [{"start": 0x4000_0000, "size": 0x4000_0000}],
        "pci_devices": ["0000:01:00.0"],
    }
    return known | facts


def repeat(data: bytes, age_ms: int = 2000, printed: bool = True) -> dict[str, Any]:
    """A record handled before."""
    return {"status_block": data, "age_ms": age_ms, "printed": printed}


def sea(syndrome: int | None = ESR_USER, **fields: Any) -> dict[str, Any]:
    return {"type": "sea", "syndrome": syndrome, "fault_address": FAR, **fields}


def sei(syndrome: int | None, taken_from: str = "user", **fields: Any) -> dict[str, Any]:
    return {"type": "sei", "syndrome": syndrome, "taken_from": taken_from, **fields}


def event(notification: str | dict[str, Any], data: bytes | None = None, facts: dict[str, Any] | None = None) -> Event:
    return Event(notification=notification, status_block=data, host=Host(**(host() if facts is None else facts)))  # type: ignore[arg-type]


def decided(
    policy: str | Policy, notification: str | dict[str, Any], data: bytes | None = None, facts: dict[str, Any] | None = None
) -> Decision:
    """What a policy decides."""
    return decide(event(notification, data, facts), resolve_policy(policy) if isinstance(policy, str) else policy)


def steps(decision: Decision, kind: type[Step]) -> list[Step]:
    return [step for step in decision.plan if isinstance(step, kind)]


def signals(decision: Decision) -> list[Signalled]:
    return [_signalled(step) for step in steps(decision, Signal)]


def later(decision: Decision) -> list[Signalled]:
    """The signals of the next access."""
    return [_signalled(step) for step in decision.next_access if isinstance(step, Signal)]


def _signalled(step: Signal) -> Signalled:
    return step.tid, step.code if step.signal == "SIGBUS" else step.signal, step.address, step.lsb


def queued(decision: Decision) -> list[tuple[int, tuple[str, ...], str]]:
    return [(step.pfn, step.flags, step.context) for step in steps(decision, QueueMemoryFailure)]


def failures(decision: Decision) -> list[tuple[int, str | None, str | None, int | None]]:
    return [(step.pfn, step.page_type, step.result, step.returns) for step in steps(decision, MemoryFailure)]


def offlined(decision: Decision) -> list[tuple[int, str, int]]:
    return [(step.pfn, step.result, step.returns) for step in steps(decision, SoftOffline)]


def logged(decision: Decision, words: str) -> bool:
    return any(words in step.what for step in steps(decision, Log))


def rejected(decision: Decision, words: str = "") -> bool:
    return any(words in step.why for step in steps(decision, Reject))


def outcomes(decision: Decision, name: str) -> list[str]:
    """What the rules of that name concluded."""
    return [fired.outcome for fired in decision.rationale if fired.rule == name]


def is_only_logged(decision: Decision) -> bool:
    """Whether the kernel writes and acknowledges, and nothing else."""
    kinds = {step.kind for step in decision.plan}
    return decision.action is Action.HANDLED and kinds <= {"log", "acknowledge"} and not decision.next_access


AR, AO, OBJERR, KERNEL, SIGKILL = "BUS_MCEERR_AR", "BUS_MCEERR_AO", "BUS_OBJERR", "SI_KERNEL", "SIGKILL"
BUSKERN: Signalled = (TID, KERNEL, None, None)
"""A SIGBUS without an address, forced on the interrupted thread."""
