"""Whether single events pay in a worker process: handing them over and back, against reading, deciding and serialising them.

usage: python bench/handover.py [--rounds N]

Microseconds of processor time for each event, of both processes together, medians of the rounds. The other process answers at once with as
many bytes as a decision has, so that only the way there and back is measured: as bytes over a pipe, one event at a time and several that
wait together, and with the event and the decision as pickled objects.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import time
from collections.abc import Callable
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection

from error_stream import error_stream
from ratios import keep

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.service.engine.responses import decision_json

EVENTS = 1000
TOGETHER = (1, 8, 32)


def answer(pipe: Connection, decision: bytes) -> None:
    """Answer groups of events until an empty one, then say how much processor time that took."""
    began = time.process_time()
    while events := pipe.recv():
        pipe.send([decision] * len(events))
    pipe.send(time.process_time() - began)


def hand_over(lines: list[bytes], decision: bytes, together: int) -> float:
    """Return microseconds for each event."""
    ours, theirs = Pipe()
    child = Process(target=answer, args=(theirs, decision))
    child.start()
    began = time.process_time()
    for start in range(0, len(lines), together):
        ours.send(lines[start : start + together])
        ours.recv()
    spent = time.process_time() - began
    ours.send([])
    spent += ours.recv()
    child.join()
    return spent / len(lines) * 1e6


def spent_on(work: Callable[[], object]) -> float:
    """Return microseconds for each event."""
    began = time.process_time()
    work()
    return (time.process_time() - began) / EVENTS * 1e6


def one_round(lines: list[bytes]) -> dict[str, float]:
    policy = resolve_policy("linux-6.12.107")
    events = [Event.model_validate_json(line) for line in lines]
    decisions = [decide(event, policy) for event in events]
    texts = list(map(decision_json, decisions))
    values = list(zip(events, decisions, strict=True))
    handed = {f"hand over as bytes, {together} together": hand_over(lines, texts[0], together) for together in TOGETHER}
    return {
        "read": spent_on(lambda: [Event.model_validate_json(line) for line in lines]),
        "decide": spent_on(lambda: [decide(event, policy) for event in events]),
        "serialise": spent_on(lambda: list(map(decision_json, decisions))),
        **handed,
        "pickle and unpickle event and decision": spent_on(lambda: [pickle.loads(pickle.dumps(value, 5)) for value in values]),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=7)
    rounds = arguments.parse_args().rounds
    lines = [json.dumps(event, separators=(",", ":")).encode() for event in error_stream(EVENTS)]
    one_round(lines)
    taken = [one_round(lines) for _ in range(rounds)]
    for name in taken[0]:
        print(f"{statistics.median(one[name] for one in taken):>7.0f} us  {name}", flush=True)
        if name not in {"read", "decide", "serialise"}:
            ratio = statistics.median(one[name] / (one["read"] + one["decide"] + one["serialise"]) for one in taken)
            keep(f"{name}: an event to another process and its decision back", "reading, deciding and serialising it", ratio)


if __name__ == "__main__":
    main()
