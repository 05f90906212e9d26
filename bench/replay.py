"""How fast stored events are replayed, compared with deciding the same events from memory.

usage: python bench/replay.py [--rounds N]

A replay reads event and decision from the store, sends them to a worker, decides and compares. Here all of it runs on one core, in turns
with deciding; figures are medians over the rounds, and only the ratio is worth comparing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import pickle
import statistics

from decide import on_fleet_hosts, recorded
from ratios import in_turns, keep

from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import EventDocument, parse_event, predecide
from ras_triage.service.engine.replays.replay_slice import replay_slice
from ras_triage.service.engine.replays.runner import SLICE, read_slice
from ras_triage.service.http.runtime import open_runtime
from ras_triage.service.store.port import Filter, Store
from ras_triage.service.store.temporary import TemporaryStore

SETTINGS = Settings(batch_workers=0)
AFTER = resolve_policy("linux-7.3.4").reference


async def store_all(lines: list[bytes]) -> Store:
    """Decide and store events without a service around it, which closes its store at the end."""
    store = TemporaryStore()
    close, store.close = store.close, lambda: None  # type: ignore[method-assign]
    async with open_runtime(SETTINGS, store, lambda: 1_795_435_200_000) as runtime:
        for start in range(0, len(lines), SLICE):
            for outcome in await runtime.intake.admit([EventDocument(line) for line in lines[start : start + SLICE]]):
                await runtime.intake.await_response(outcome)  # type: ignore[arg-type]
    store.close = close  # type: ignore[method-assign]
    return store


def decide_all(lines: list[bytes]) -> None:
    for line in lines:
        predecide(EventDocument(line), SETTINGS)


def replay_all(store: Store, expected: int) -> None:
    compared, position = 0, None
    while True:
        part = read_slice(Filter(), position, store)
        changes = replay_slice(SETTINGS, pickle.loads(pickle.dumps(part.cases)), None, AFTER)
        compared += changes.compared
        if (position := part.next) is None:
            break
    assert compared == expected, (compared, expected)


def report(title: str, events: list[bytes], rounds: int) -> None:
    lines = list({parse_event(EventDocument(event)).keys.event_key: event for event in events}.values())  # equal events are stored once
    store = asyncio.run(store_all(lines))
    decide_all(lines), replay_all(store, len(lines))
    gc.collect()
    gc.freeze()
    times = in_turns(rounds, lambda: decide_all(lines), lambda: replay_all(store, len(lines)))
    deciding, replaying = (statistics.median(taken) / len(lines) for taken in times)
    ratio = statistics.median(one / other for one, other in zip(*times, strict=True))
    print(f"\n{title}: {len(lines)} events")
    print(f"  {1 / deciding:>9,.0f} events per second decided from memory")
    print(f"  {1 / replaying:>9,.0f} events per second replayed")
    print(f"  a replay runs at {ratio:.2f} of the rate of deciding")
    keep(f"replaying {title}", "deciding them from memory", 1 / ratio)
    store.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    bare = recorded()
    report("recorded cases, hosts with hardly any facts", bare, rounds)
    report("the same errors, every host with a fleet's facts", on_fleet_hosts(bare), rounds)


if __name__ == "__main__":
    main()
