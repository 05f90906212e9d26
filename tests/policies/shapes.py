"""Events of any size in each dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ras_triage.models.decision import Decision
from ras_triage.models.event import Event
from ras_triage.models.host import Host
from ras_triage.models.memslots import Memslots
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.decide import decide_parsed
from ras_triage.policies.pipeline.poisoned_pages import add_poisoned_pages
from tests.growth import Counted
from tests.policies import events as e

BASE = 0x4000_0000
"""Physical address of the huge page that every section hits."""
HVA = 0x7F00_0000_0000
"""Where process `FIRST` maps it."""
FIRST = 1000
BARE = 0x20_0000_0000
FAR_AWAY = 0x100_0000_0000
HUGE = 30
DISTINCT = 100
"""Types of sections that are not known: as many as are cached, so that it is not the cache that is measured."""


@dataclass(frozen=True)
class Shape:
    """How many there are of each thing."""

    sections: int = 1
    infos: int = 0
    bare_sections: int = 0
    """Their pages have no fact."""
    other_sections: int = 0
    pcie_sections: int = 0
    mappings: int = 1
    pages: int = 0
    poisoned_pages: int = 0
    tasks: int = 0
    threads: int = 0
    valid_ranges: int = 0
    pci_devices: int = 0
    recent: int = 0
    vms: int = 0
    vms_of_one_process: int = 0
    dying_vms: int = 0
    vcpus: int = 0
    memslots: int = 0
    aliases: int = 0
    remembered: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def sections(shape: Shape) -> list[bytes]:
    address = [BASE + 4096 * index for index in range(max(shape.sections, shape.infos))]
    found = [e.memory(address=address[index]) for index in range(shape.sections)]
    if shape.infos:
        found.append(e.arm(*[e.error_info(2, address=address[index]) for index in range(shape.infos)]))
    found += [e.memory(address=BARE + 4096 * index) for index in range(shape.bare_sections)]
    found += [e.other((1 + index % DISTINCT).to_bytes(16, "big")) for index in range(shape.other_sections)]
    return found + [e.pcie(bus=1 + index % 255) for index in range(shape.pcie_sections)]


def pages(shape: Shape) -> list[dict[str, Any]]:
    """Small facts come first and count, each for one section's page; then the huge one; then some elsewhere."""
    small = [fact(BASE + 4096 * index, shift=12, dirty=True) for index in range(shape.pages)]
    huge = fact(BASE, shift=HUGE, state="thp", dirty=True, mappings=[mapping(FIRST + index) for index in range(shape.mappings)])
    elsewhere = [
        fact(FAR_AWAY + 4096 * index, dirty=True, poisoned=True, mappings=[mapping(FIRST, BASE + 4096 * index)])
        for index in range(shape.poisoned_pages)
    ]
    return [*small, huge, *elsewhere]


def fact(address: int, **more: Any) -> dict[str, Any]:
    return {"physical_address": address, "state": "anonymous", "mappings": [mapping(FIRST, address)], **more}


def mapping(pid: int, address: int = BASE) -> dict[str, Any]:
    return {"pid": pid, "address": HVA + address - BASE}


def vms(shape: Shape) -> list[dict[str, Any]]:
    found = [{"id": f"vm-{index}", "pid": FIRST + index} for index in range(shape.vms)]
    found += [{"id": f"same-{index}", "pid": FIRST} for index in range(shape.vms_of_one_process)]
    found += [{"id": f"dies-{index}", "pid": FIRST, "vmm": "kvmtool"} for index in range(shape.dying_vms)]
    if shape.vcpus or shape.memslots or shape.aliases:
        apart = [slot(index, guest=index, host=FAR_AWAY + (index << 21)) for index in range(shape.memslots)]
        over = [slot(index, guest=0, host=HVA, size=1 << HUGE, as_id=1 + index) for index in range(shape.aliases)]
        vcpus = [{"index": index, "tid": 50_000 + index} for index in range(shape.vcpus)]
        found.insert(0, {"id": "first", "pid": FIRST, "vcpus": vcpus, "memslots": apart + over, "guest": {"ghes": ["sea", "gpio"]}})
    return found


def slot(number: int, guest: int, host: int, size: int = 1 << 21, as_id: int = 0) -> dict[str, Any]:
    return {"slot": number, "as_id": as_id, "guest_phys_addr": guest << 21, "memory_size": size, "userspace_addr": host}


def facts(shape: Shape) -> dict[str, Any]:
    threads = [{"tid": 60_000 + index, "mce_kill": "late"} for index in range(shape.threads)]
    found = {
        "page_size": 4096,
        "ras_extension": True,
        "config": {},
        "sysctl": {"vm.memory_failure_early_kill": 1},
        "current": {"pid": FIRST, "tid": FIRST},
        "tasks": [{"pid": FIRST, "threads": threads}, *({"pid": FIRST + index} for index in range(1, shape.tasks + 1))],
        "pages": pages(shape),
        "valid_ranges": [
            *({"start": FAR_AWAY + (index << 40), "size": 4096} for index in range(shape.valid_ranges)),
            {"start": BASE, "size": 1 << HUGE},
            {"start": BARE, "size": 1 << HUGE},
        ],
        "pci_devices": ["0000:ff:00.0"] * shape.pci_devices,
        "recent": [{"status_block": b"\1", "age_ms": 1}] * shape.recent,
        "vms": vms(shape),
    }
    return {name: part for name, part in {**found, **shape.facts}.items() if part is not None}


def build(shape: Shape, notification: Any = None) -> tuple[Event, StatusBlock]:
    """The event, whose lists count who looks into them, and its status block; without what is remembered of its pages."""
    event = e.event(notification or e.sea(error_block_length=1 << 24), e.block(*sections(shape)), facts(shape))
    count_looks(event.host)
    return event, parse_block(event.status_block or b"")


def decide(shape: Shape, policy: Policy) -> Callable[[], Decision]:
    """The work of deciding the event, with what is remembered of its pages."""
    sent, block = build(shape)
    poisoned = tuple(PoisonedPage(BASE + 4096 * index, 12) for index in range(shape.remembered))
    return lambda: decide_parsed(sent.model_copy(update={"host": add_poisoned_pages(sent.host, poisoned)}), block, policy, "")


def count_looks(host: Host) -> None:
    """Put counting tuples in the place of a host's own."""
    for name, part in host.__dict__.items():
        if isinstance(part, tuple):
            host.__dict__[name] = Counted(part)
            for element in part:
                for inner, inside in getattr(element, "__dict__", {}).items():
                    if isinstance(inside, tuple) and not isinstance(inside, Memslots):
                        element.__dict__[inner] = Counted(inside)
