"""Decoded hardware errors of a fleet, the same for every server and engine that is compared.

One error in three is of an Arm processor, the others are memory errors; each host runs one VM, whose memory the errors hit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

HOSTS = 1000
PAGE, LINE = 4096, 64
GUEST_RAM, RAM_SIZE = 0x4000_0000, 0x4000_0000
MAPPED_AT = 0xFFFF_8000_0000
VMM_PID = 103

SEVERITIES = {"corrected": 78, "recoverable": 17, "fatal": 4, "informational": 1}
NOTIFICATIONS = ("sea", "gpio", "polled", "external")


def error_stream(number: int, seed: int = 15) -> Iterator[dict[str, Any]]:
    """Yield as many events as JSON values, as `POST /v1/decisions` takes them; numbers are numbers, for languages that compare them."""
    chance = random.Random(seed)
    for index in range(number):
        yield _event(chance, f"node-{index % HOSTS}")


def _event(chance: random.Random, source: str) -> dict[str, Any]:
    frame = chance.randrange(RAM_SIZE // PAGE) * PAGE
    severity = chance.choices(list(SEVERITIES), list(SEVERITIES.values()))[0]
    address = GUEST_RAM + frame + chance.randrange(PAGE // LINE) * LINE
    section = _processor_section(address) if chance.random() < 0.3 else _memory_section(chance, address)
    return {
        "source": source,
        "notification": {"type": chance.choice(NOTIFICATIONS), "source_id": 1},
        "status_block": {"severity": severity, "sections": [{"severity": severity} | section]},
        "host": {
            "kernel": "6.12.107",
            "page_size": PAGE,
            "current": {"pid": VMM_PID, "tid": VMM_PID},
            "tasks": [{"pid": VMM_PID, "name": "vmm", "mce_kill": chance.choice(["early", "default"])}],
            "pages": [_page(frame)],
            "vms": [{"id": "vm-1", "pid": VMM_PID, "vmm": "standard", "memslots": [_slot()]}],
        },
    }


def _processor_section(address: int) -> dict[str, Any]:
    return {"type": "arm_processor", "flags": [], "error_infos": [{"error_type": 2, "physical_fault_address": address}]}


def _memory_section(chance: random.Random, address: int) -> dict[str, Any]:
    flags = ["threshold_exceeded"] if chance.random() < 0.1 else []
    place = {"node": 1, "card": 2, "module": 3}
    return {"type": "memory", "flags": flags, "physical_address": address, "memory_error_type": 2} | place


def _page(frame: int) -> dict[str, Any]:
    mapping = {"pid": VMM_PID, "address": MAPPED_AT + frame}
    return {"physical_address": GUEST_RAM + frame, "state": "anonymous", "dirty": True, "mappings": [mapping]}


def _slot() -> dict[str, int]:
    return {"slot": 0, "guest_phys_addr": GUEST_RAM, "memory_size": RAM_SIZE, "userspace_addr": MAPPED_AT}
