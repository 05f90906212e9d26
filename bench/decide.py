"""How fast events are decoded, decided and encoded, and where the time goes.

usage: python bench/decide.py [--rounds N]

The recorded cases, whose hosts have hardly any facts, the same errors on hosts with as many facts as a fleet sends, and a mix of both.
Figures are medians over the rounds; machines differ and drift, so compare the ratios within one run.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from ratios import keep

from ras_triage.models.event import Event, event_key
from ras_triage.models.records.status_block import parse_block
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide_parsed
from ras_triage.service.engine.responses import decision_json

STAGES = (
    "validate the event",
    "parse the status block",
    "compute its key",
    "choose the policy",
    "decide",
    "encode the decision",
    "serialise the event",
)
VALIDATE, DECIDE, SERIALISE = 0, 4, 6

BATCH = 32
"""Events that are read at once."""

VECTORS = Path(__file__).parent.parent / "tests" / "vectors"

FLEET_HOST: dict[str, Any] = {
    "config": {"apei_sea": True, "memory_failure": True, "apei_pcie_aer": True, "sdei": True},
    "sysctl": {"vm.memory_failure_early_kill": 0, "vm.memory_failure_recovery": 1, "kernel.panic": 0},
    "arm_error_types": "uefi-2.10",
    "pci_devices": [f"0000:{bus:02x}:00.0" for bus in range(1, 9)],
    "tasks": [{"pid": pid, "name": "worker", "threads": [{"tid": pid + tid} for tid in range(1, 9)]} for pid in range(1000, 1200, 10)],
    "vms": [
        {
            "id": f"vm-{index}",
            "pid": 1000 + 10 * index,
            "vmm": "qemu",
            "vcpus": [{"index": vcpu, "tid": 1001 + 10 * index + vcpu} for vcpu in range(4)],
            "memslots": [
                {
                    "slot": slot,
                    "guest_phys_addr": hex(0x40000000 + slot * 0x10000000),
                    "memory_size": "0x10000000",
                    "userspace_addr": hex(0xFFFF00000000 + slot * 0x20000000),
                }
                for slot in range(4)
            ],
        }
        for index in range(4)
    ],
}


def recorded() -> list[bytes]:
    paths = sorted(path for path in VECTORS.glob("*.jsonl") if not path.name.startswith("kvm-"))
    return [json.dumps(json.loads(line)["event"]).encode() for path in paths for line in path.read_text().splitlines()]


def on_fleet_hosts(events: list[bytes]) -> list[bytes]:
    def grown(line: bytes) -> bytes:
        event = json.loads(line)
        host = event["host"]
        event["host"] = FLEET_HOST | host | {"tasks": FLEET_HOST["tasks"] + host.get("tasks", [])}
        return json.dumps(event | {"source": "node-17", "time": "2026-11-22T10:00:00Z"}).encode()

    return [grown(line) for line in events]


def one_round(lines: list[bytes]) -> list[float]:
    """Seconds that each stage took; events go through the stages in small batches, as a stream is read."""
    clock = time.perf_counter
    spent = [0.0] * len(STAGES)
    for start in range(0, len(lines), BATCH):
        batch = lines[start : start + BATCH]
        began = clock()
        events = [Event.model_validate_json(line) for line in batch]
        validated = clock()
        blocks = [parse_block(event.status_block or b"") for event in events]
        parsed = clock()
        keys = [event_key(event) for event in events]
        keyed = clock()
        policies = [resolve_policy(f"linux-{event.host.kernel}") for event in events]
        chosen = clock()
        decisions = list(map(decide_parsed, events, blocks, policies, keys))
        decided = clock()
        for decision in decisions:
            decision_json(decision)
        encoded = clock()
        for event in events:
            event.model_dump_json()
        moments = (began, validated, parsed, keyed, chosen, decided, encoded, clock())
        for stage, (before, after) in enumerate(pairwise(moments)):
            spent[stage] += after - before
    return spent


def report(title: str, lines: list[bytes], rounds: int) -> None:
    one_round(lines)
    gc.collect()
    gc.freeze()
    spent = [one_round(lines) for _ in range(rounds)]
    medians = [statistics.median(taken) / len(lines) for taken in zip(*spent, strict=True)]
    pipeline = dict(zip(STAGES[:-1], medians, strict=False))
    whole = sum(pipeline.values())
    print(f"\n{title}: {len(lines)} events, {statistics.mean(map(len, lines)):.0f} bytes each")
    print(f"  {1 / whole:>9,.0f} events per second through the whole pipeline on one core")
    for name, taken in pipeline.items():
        print(f"  {taken * 1e6:>9.1f} us  {taken / whole:>4.0%}  {name}")
    ratio = statistics.median(times[DECIDE] / (times[VALIDATE] + times[SERIALISE]) for times in spent)
    print(f"  deciding takes {ratio:.2f} of what validating and serialising the same event take")
    keep(f"deciding an event, with reasons ({title})", "validating and serialising the same event", ratio)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=9)
    rounds = arguments.parse_args().rounds
    bare = recorded()
    full = on_fleet_hosts(bare)
    report(
        "mixed: every other host with a fleet's facts", [line for pair in zip(bare[::2], full[1::2], strict=False) for line in pair], rounds
    )
    report("recorded cases only, hosts with hardly any facts", bare, rounds)
    report("the same errors, every host with a fleet's facts", full, rounds)


if __name__ == "__main__":
    main()
