"""Events for the page: errors of a small fleet with several kernels, with every action."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.paths import ROOT, VECTORS

_KERNELS: Final = ("5.10.223", "6.1.176", "6.12.107", "7.3.4")
_GUESTS: Final = ("guest-qemu.json", "guest-announced.json")
EVENTS: Final = 120


def page_events(count: int = EVENTS) -> list[dict[str, Any]]:
    """Return recorded events, and now and then one of a machine with guests, as a fleet would send them."""
    recorded = [_events(kernel) for kernel in _KERNELS]
    guests = [json.loads((ROOT / "docs" / "examples" / name).read_text(encoding="utf-8")) for name in _GUESTS]
    chosen = [
        guests[number // 12 % len(guests)] if number % 12 == 7 else recorded[number % len(recorded)][number * 37 % 370]
        for number in range(count)
    ]
    return [event | {"source": _source(number), "id": f"e-{number}"} for number, event in enumerate(chosen)]


def _events(kernel: str) -> list[dict[str, Any]]:
    lines = (VECTORS / f"linux-{kernel}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["event"] for line in lines]


def _source(number: int) -> str:
    """Return the name of a machine; some report far more errors than others."""
    return f"rack{number % 4 + 1}-node{number * number % 11 + 1:02}"
