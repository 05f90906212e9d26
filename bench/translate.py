"""How fast a VM's address is translated, against deciding the host side of the same event in the same run.

usage: python bench/translate.py [--slots N] [--rounds N]

Figures are medians in microseconds; machines differ and drift, so compare the ratios within one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from ratios import keep

from ras_triage.models.event import Event, event_key
from ras_triage.models.host import Vm
from ras_triage.models.records.status_block import parse_block
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide_parsed
from ras_triage.policies.guest.translation import translate

RAM, STRIDE = 0xFFFF_4000_0000, 1 << 21
PAGE = RAM + 0x6000


def machine(slots: int) -> dict[str, Any]:
    """A VM whose slots lie apart in host memory and follow each other in the guest's."""
    table = [
        {"slot": number, "guest_phys_addr": number << 20, "memory_size": 1 << 20, "userspace_addr": RAM + number * STRIDE}
        for number in range(slots)
    ]
    return {
        "id": "vm-1",
        "pid": 103,
        "vmm": "standard",
        "vcpus": [{"index": 0, "tid": 104}],
        "memslots": table,
        "guest": {"ghes": ["sea", "gpio"]},
    }


def event(*vms: dict[str, Any]) -> Event:
    page = {"physical_address": "0x56edd000", "state": "anonymous", "dirty": True, "mappings": [{"pid": 103, "address": PAGE}]}
    return Event.model_validate(
        {
            "notification": {"type": "sea", "taken_from": "guest"},
            "status_block": {"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x56edd040"}]},
            "host": {"kernel": "7.3.4", "current": {"pid": 103, "tid": 104}, "pages": [page], "vms": list(vms) or None},
        }
    )


def microseconds(work: Callable[[], object], rounds: int) -> float:
    """The median over the rounds."""
    clock = time.perf_counter
    spent = []
    for _ in range(rounds):
        began = clock()
        work()
        spent.append(clock() - began)
    return statistics.median(spent) * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--slots", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=2000)
    options = arguments.parse_args()
    facts = machine(options.slots)
    vm = Vm.model_validate(facts)
    alone, with_vm = event(), event(facts)
    policy, block = resolve_policy("linux-7.3.4"), parse_block(alone.status_block or b"")
    rows = {
        "validate the VM's facts, once for each event": microseconds(lambda: Vm.model_validate(facts), options.rounds // 20),
        "decide the host side": microseconds(lambda: decide_parsed(alone, block, policy, event_key(alone)), options.rounds),
        "decide both sides": microseconds(lambda: decide_parsed(with_vm, block, policy, ""), options.rounds),
        "translate one page": microseconds(lambda: translate(vm, PAGE, 12), options.rounds),
        "translate 2 MiB": microseconds(lambda: translate(vm, PAGE, 21), options.rounds),
        "translate 1 GiB, over every slot": microseconds(lambda: translate(vm, PAGE, 30), options.rounds),
    }
    print(f"{options.slots} slots")
    for name, taken in rows.items():
        print(f"  {taken:>9.1f} us  {name}")
    ratio = rows["translate one page"] / rows["decide the host side"]
    print(f"  translating takes {ratio:.2f} of what deciding the host side takes")
    keep(f"translating a page of a VM with {options.slots} memory slots", "deciding the host side of the event", ratio)


if __name__ == "__main__":
    main()
