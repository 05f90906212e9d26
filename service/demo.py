"""A first look: a record that QEMU wrote, decided over HTTP under two kernels that disagree."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import TypeAdapter

from service.answers import Answer
from service.server import running
from service.settings import Settings

INTRODUCTION = """\
A CPU cache lost data of a database while the database was reading it. Firmware, here QEMU, wrote an ARM processor error with a physical
address, and the processor took a synchronous external abort. The record is posted to the service twice, from two hosts:
"""

_RECORD = (
    "AQAAAAAAAAAAAAAAkAAAAAAAAAAWPZ7hEbzkEZyqwgUdXUawAAAAAAADAABIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAFAAAAAQAAAEgAAAAAAAAAAAAAgAAAAAAQBQ8AAAAAAAAAAAAAAAAAACAUAAIBAAMPAJEAAAAAAO++"
    "rd4AAAAA776t3gAAAAA="
)
"""164 bytes from the cover letter of QEMU's ARM processor error injection series (kvm mailing list, 16 August 2024)."""

_KERNELS = ("6.1.100", "6.12.107")


def _event(kernel: str) -> dict[str, Any]:
    page = {"physical_address": "0xdeadb000", "state": "anonymous", "mappings": [{"pid": 4711, "address": "0xffff897d5000"}]}
    return {
        "source": f"node-{kernel}",
        "notification": {"type": "sea", "syndrome": "0x92000010", "fault_address": "0xffff897d5eef", "taken_from": "user"},
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


def ask() -> list[Answer]:
    """Start the service on a free loopback port, post the event once for each kernel, stop the service."""
    answers = TypeAdapter(Answer)
    with running(Settings()) as url:
        return [answers.validate_json(httpx.post(f"{url}/v1/decisions", json=_event(kernel)).content) for kernel in _KERNELS]
