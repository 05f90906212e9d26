"""Reports of defects: unexpected exceptions while an event is processed."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any, Final, Literal

from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.hooks import call_each

Stage = Literal["decide", "store", "import"]
"""What failed: parsing or deciding an event, storing its decision, or reading an item of an imported file."""

LINES: Final = 10
"""Log lines per defect and `PERIOD_S`; further occurrences are only counted."""
PERIOD_S: Final = 60.0

_MAX_KINDS: Final = 256
"""Distinct defects whose log lines are limited separately."""
_LAST_FRAMES: Final = 1
_DIGITS: Final = 16
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""Event ids that may be logged: the same form as `X-Request-Id`."""


@dataclass(slots=True)
class _Lines:
    """Count of log lines for one defect in the current period."""

    since: float = -inf
    logged: int = 0
    unlogged: int = 0


class Defects:
    """Logs and counts defects. Not thread-safe: call it in the event loop's thread."""

    def __init__(self) -> None:
        self.hooks: list[Callable[[Stage], None]] = []
        """Called for each defect."""
        self._lines: OrderedDict[tuple[object, ...], _Lines] = OrderedDict()

    def report(
        self, stage: Stage, facts: Mapping[str, Any], *, item: int | None = None, event_id: str | None = None, document: bytes | None = None
    ) -> None:
        """Log a defect and the event that caused it. `facts`: from `logs.explain`.

        `item`: index in the batch or file, from 0. `document`: the event as it was sent; only its SHA-256 is logged.
        """
        call_each(self.hooks, stage)
        lines = self._of_kind((stage, facts.get("error"), *facts.get("frames", ())[-_LAST_FRAMES:]))
        if monotonic() - lines.since > PERIOD_S:
            lines.since, lines.logged = monotonic(), 0
        if lines.logged >= LINES:
            lines.unlogged += 1
            return
        lines.logged += 1
        known = _identify(item, event_id, document) | _unlogged(lines)
        logs.log(logging.ERROR, "defect", stage=stage, **known, **facts)

    def _of_kind(self, kind: tuple[object, ...]) -> _Lines:
        lines = self._lines.setdefault(kind, _Lines())
        self._lines.move_to_end(kind)
        if len(self._lines) > _MAX_KINDS:
            self._lines.popitem(last=False)
        return lines


def _identify(item: int | None, event_id: str | None, document: bytes | None) -> dict[str, Any]:
    """Return facts that identify the event without quoting it."""
    facts: dict[str, Any] = {}
    if item is not None:
        facts["item"] = item
    if event_id is not None and _SANE_ID.fullmatch(event_id):
        facts["event_id"] = event_id
    if document is not None:
        facts["event_sha256"] = hashlib.sha256(document).hexdigest()[:_DIGITS]
    return facts


def _unlogged(lines: _Lines) -> dict[str, Any]:
    """Return how many lines were suppressed before this one."""
    unlogged, lines.unlogged = lines.unlogged, 0
    return {"unlogged": unlogged} if unlogged else {}
