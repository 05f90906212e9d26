"""Processor time of processes, and who listens on a port, from /proc."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Return seconds of processor time of a process and all below it, also of those that ended and were waited for."""
    times: dict[int, float] = {}
    below: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        process = int(path.parent.name)
        times[process] = sum(map(int, fields[11:15])) / TICKS
        below.setdefault(int(fields[1]), []).append(process)
    pids = [pid]
    for parent in pids:
        pids += below.get(parent, [])
    return sum(times.get(process, 0.0) for process in pids)


def listener(port: int) -> int | None:
    """Return the process that listens on a TCP port, the first of those that share it, or None if it is not one of this machine's."""
    inodes = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for fields in map(str.split, (PROC / "net" / table).read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    holders = (int(path.parts[2]) for path in PROC.glob("[0-9]*/fd/*") if _link(path) in inodes)
    return min(holders, default=None)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def machine() -> str:
    """Return what figures depend on: processor, how many, kernel, Python."""
    found = re.search(r"model name\s*: (.*)", (PROC / "cpuinfo").read_text())
    name = found[1] if found else os.uname().machine
    return f"{os.cpu_count()} x {name}, Linux {os.uname().release}, Python {platform.python_version()}"
