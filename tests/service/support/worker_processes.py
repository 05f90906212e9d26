"""Worker processes of a service that runs."""

from __future__ import annotations

from pathlib import Path

from tests.service.support.raw_connections import wait_until
from tests.service.support.server_process import Service


def worker_pids(service: Service) -> list[int]:
    """Return the process ids of what the service started."""
    tasks = Path(f"/proc/{service.process.pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, be it that nobody waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until_ended(pids: list[int]) -> None:
    """Wait until all of these processes have ended."""
    wait_until(lambda: all(map(has_ended, pids)))
