"""Decisions for tests of stores."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

from ras_triage.models.poison import PoisonedPage
from ras_triage.service.store.port import NewDecision, Store, Summary

OpenStore = Callable[[], Store]

NOON = 1_795_435_200_000
"""Milliseconds since 1970: a time like any other."""


def identity(number: int) -> str:
    return str(UUID(int=(0x7 << 76) | (0b10 << 62) | number))


def name(text: str) -> bytes:
    """A repeat key."""
    return hashlib.sha256(text.encode()).digest()


def page(address: int, shift: int = 12) -> PoisonedPage:
    return PoisonedPage(address, shift)


def entry(
    number: int,
    *,
    repeat_key: bytes | None = None,
    poisons: tuple[PoisonedPage, ...] = (),
    forgets: bool = False,
    size: int = 0,
    **fields: Any,
) -> NewDecision:
    """The entry of decision `number`, made that many milliseconds after noon; `size`: incompressible bytes after its event."""
    summary = {
        "id": identity(number),
        "decided_at_ms": NOON + number,
        "source": "node-1",
        "event_id": f"event-{number}",
        "event_key": f"sha256:{number:064x}",
        "policy": "linux-6.12.107",
        "policy_digest": "sha256:" + "ab" * 32,
        "action": "signal",
        "certainty": "certain",
        "notification": "sea",
        "severity": "recoverable",
        "sections": ("memory",),
        "physical_addresses": (0x1000 * number,),
        **fields,
    }
    event = b'{"event":%d}' % number + random.Random(number).randbytes(size)
    return NewDecision(Summary(**summary), repeat_key, event, b'{"decision":%d}' % number, poisons, forgets)
