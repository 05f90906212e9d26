"""Training of the dictionary that compresses stored events and decisions.

usage: python bench/train_dictionary.py ID

Writes `service/store/dictionaries/<ID>.dict`, ID in hexadecimal. Stored frames need their dictionary for ever: a new one gets a new id,
which `ras_triage.service.store.compression.DICTIONARY` then names. The samples are the recorded events, every second one on a host with the
facts that a fleet sends, and their decisions under four kernels.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard
from decide import on_fleet_hosts, recorded

from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.service.api.event_json import read_event
from ras_triage.service.engine.responses import decision_json

BYTES = 32 << 10
KERNELS = ("linux-5.10.223", "linux-6.1.176", "linux-6.12.107", "linux-7.3.4")
FOLDER = Path(__file__).parent.parent / "service" / "store" / "dictionaries"


def samples() -> Iterator[bytes]:
    """Yield events as clients write them, and their decisions."""
    bare = recorded()
    for number, (short, full) in enumerate(zip(bare, on_fleet_hosts(bare), strict=True)):
        event = json.loads(full if number % 2 else short) | {"id": f"e-{number}", "source": f"node-{number % 100}"}
        sent = json.dumps(event, separators=None if number % 4 < 2 else (",", ":")).encode()
        yield sent
        yield decision_json(decide(read_event(sent), resolve_policy(KERNELS[number % len(KERNELS)])))


def main() -> None:
    path = FOLDER / f"{int(sys.argv[1], 16):x}.dict"
    if path.exists():
        raise SystemExit(f"{path} exists; stored decisions need it")
    shuffled = list(samples())
    random.Random(1).shuffle(shuffled)
    path.write_bytes(zstandard.train_dictionary(BYTES, shuffled, dict_id=int(sys.argv[1], 16)).as_bytes())


if __name__ == "__main__":
    main()
