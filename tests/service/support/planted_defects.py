"""`ras-triage` with planted defects in a rule, a codec and the store.

Worker processes load the main module of their service, and with it the defects.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ras_triage.models.records import status_block
from ras_triage.policies import decide
from ras_triage.service.api.problems import URN
from ras_triage.service.cli.main import main
from ras_triage.service.engine import attempts, intake
from ras_triage.service.engine.batch import workers
from ras_triage.service.store.port import NewDecision
from ras_triage.service.store.sqlite import SqliteStore

SPOILT = b"spoilt"
"""In a status block: reading it fails."""


class PlantedError(Exception):
    """A defect; its text is a secret."""


def fail() -> None:
    raise PlantedError("secret")


def deepen() -> None:
    deepen()


def exhaust() -> None:
    raise MemoryError


def hang() -> None:
    time.sleep(3600)


def spin() -> None:
    while True:
        pass


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


ACTIONS: dict[int, Callable[[], None]] = {601: fail, 602: deepen, 603: exhaust, 604: hang, 605: spin, 606: die}
"""By the `source_id` of a notification."""

RAISING = (601, 602, 603)

GOOD = {"notification": "polled"}
"""An event without a defect."""


def marked(source_id: int) -> dict[str, Any]:
    """Return an event that runs into a defect of the rule."""
    return {"notification": {"type": "polled", "source_id": source_id}}


def outcomes(responses: list[dict[str, Any]]) -> list[str]:
    """Return the action of each decision, and the type of each problem."""
    return [response["action"] if "action" in response else response["type"].removeprefix(URN) for response in responses]


def plant(patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Plant the defects."""
    run_precheck, parse_entry = decide.run_precheck, status_block._parse_entry

    def rule(notification: Any, *arguments: Any) -> Any:
        if notification.source_id in ACTIONS:
            ACTIONS[notification.source_id]()
        return run_precheck(notification, *arguments)

    def codec(data: bytes, offset: int) -> Any:
        if SPOILT in data:
            fail()
        return parse_entry(data, offset)

    patch(decide, "run_precheck", rule)
    patch(status_block, "_parse_entry", codec)
    patch(SqliteStore, "append", _refusing(SqliteStore.append))


def shorten_limits() -> None:
    """Give every batch to the workers, and end what stalls soon."""
    workers.INLINE_EVENTS_COLD = workers.INLINE_EVENTS = 0
    intake.LOOP_S = 0.3
    attempts.LIMIT_S = 0.3


def _refusing(append: Callable[[Any, Sequence[NewDecision]], None]) -> Callable[[Any, Sequence[NewDecision]], None]:
    def refuse(store: Any, entries: Sequence[NewDecision]) -> None:
        for entry in entries:
            if entry.summary.source == "unkept":
                fail()
            while entry.summary.source == "stuck":
                time.sleep(0.05)
        append(store, entries)

    return refuse


if __name__ in {"__main__", "__mp_main__"}:
    plant()
    shorten_limits()
if __name__ == "__main__":
    sys.exit(main())
