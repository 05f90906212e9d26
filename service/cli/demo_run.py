"""Demonstration: a recorded error, decided over HTTP under two kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from pydantic import TypeAdapter

from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running

INTRODUCTION = """\
A database read data that a CPU cache had corrupted. Firmware wrote an ARM processor error record with a physical address, and the
processor took a synchronous external abort. The record was injected into two kernels under QEMU. Here it is sent to the service as an
event of two hosts with these kernels:
"""

_RECORD = (
    "EQAAAAAAAAAAAAAAkAAAAAAAAAAWPZ7hEbzkEZyqwgUdXUawAAAAAAADAABIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAFAAAAAQAAAEgAAAAAAAAAAAAAgAAAAADB0D9BAAAAAAEAAAAAAAAAACAQAAIAAAAAAAAAAAAAAAAA"
    "AAAAAAAAQLD1XAAAAAA="
)
"""The status block of the recorded case `arm-sea-new-cache-2-pa`, 164 bytes."""

_KERNELS = ("5.10.223", "6.12.107")


def _event(kernel: str) -> dict[str, Any]:
    page = {"physical_address": "0x5cf5b000", "state": "anonymous", "mappings": [{"pid": 4711, "address": "0xffffbc6d1000"}]}
    return {
        "source": f"node-{kernel}",
        "notification": {"type": "sea", "syndrome": "0x92000010", "fault_address": "0xffffbc6d1040", "taken_from": "user"},
        "status_block": _RECORD,
        "host": {
            "kernel": kernel,
            "page_size": 4096,
            "config": {},
            "sysctl": {},
            "current": {"pid": 4711, "tid": 4711},
            "tasks": [{"pid": 4711, "name": "database"}],
            "pages": [page],
        },
    }


@contextmanager
def demo_service() -> Iterator[tuple[str, list[DecisionResponse]]]:
    """Run the service on a free loopback port and send the event once for each kernel. Yields its URL and the decisions."""
    responses = TypeAdapter(DecisionResponse)
    with running(Settings()) as url:
        yield url, [responses.validate_json(httpx.post(f"{url}/v1/decisions", json=_event(kernel)).content) for kernel in _KERNELS]
