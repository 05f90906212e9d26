"""How fast a kernel log is read, and in how much memory.

usage: python bench/kernel_log.py [--rounds N] [--lines N] [--stream MIB]

The yardstick is reading the same file line by line and matching every line with one compiled regular expression. Times are those of the
processor, figures are medians over the rounds; machines differ and drift, so compare the ratios within one run. `--stream` sends a
generated log of so many MiB through the reader, which is never on disk or in memory as a whole, and reports the peak.
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ratios import in_turns, keep

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError

LINE = re.compile(rb"(?:<\d+>)?(?:\[ *\d+\.\d+\] ?)?(?:\{(\d+)\})?\[Hardware Error\]: *(.*)")

OTHERS = (
    "usb 1-1: new high-speed USB device number 4 using xhci_hcd",
    "eth0: link up, 10000Mbps, full-duplex, lpa 0x0000",
    "EXT4-fs (sda2): mounted filesystem with ordered data mode. Quota mode: none.",
    "audit: type=1400 audit(1700000000.123:45): apparmor=\"STATUS\" operation=\"profile_load\" profile=\"unconfined\" name=\"lsb_release\"",
    "systemd[1]: Started session-42.scope - Session 42 of User root.",
    "nvme nvme0: I/O 123 (I/O Cmd) QID 4 timeout, completion polled",
    "br-4f2a: port 3(veth1a2b3c) entered forwarding state",
    "IPv6: ADDRCONF(NETDEV_CHANGE): veth1a2b3c: link becomes ready",
)  # fmt: skip

MEMORY = (
    "Hardware error from APEI Generic Hardware Error Source: 2",
    "event severity: recoverable",
    " Error 0, type: recoverable",
    "  section_type: memory error",
    "  error_status: Storage error in DRAM memory (0x0000000000000400)",
    "  physical_address: 0x{address:016x}",
    "  node:0 card:1 module:0 rank:0 bank:257 bank_group:1 bank_address:1 device:0 row:75492 column:8 ",
    "  error_type: 3, multi-bit ECC",
)

PROCESSOR = (
    "Hardware error from APEI Generic Hardware Error Source: 9",
    "event severity: recoverable",
    " Error 0, type: recoverable",
    "  section_type: ARM processor error",
    "  MIDR: 0x00000000481fd010",
    "  Multiprocessor Affinity Register (MPIDR): 0x0000000081080000",
    "  running state: 0x1",
    "  Power State Coordination Interface state: 0",
    "  Error info structure 0:",
    "  num errors: 1",
    "   error_type: 0x02: cache error",
    "   error_info: 0x0000000024400017",
    "    transaction type: Instruction",
    "    cache level: 1",
    "    the error has been corrected",
    "   physical fault address: 0x{address:016x}",
)


def generated(lines_apart: int, *, is_varied: bool = False) -> Iterator[bytes]:
    """A log without end, with a record after every `lines_apart` lines of other things.

    `is_varied`: the records differ in more than number, time and address, so that none is a copy of an earlier one.
    """
    number, sequence = 0, 0
    while True:
        for _ in range(lines_apart):
            number += 1
            yield b"[%12.6f] %s\n" % (number / 1000, OTHERS[number % len(OTHERS)].encode())
        sequence += 1
        address = 0x40000000 + (sequence << 12)
        for line in (MEMORY, PROCESSOR)[sequence % 2]:
            text = line.replace("row:75492", f"row:{sequence % 65536}").replace("24400017", f"{sequence:08x}") if is_varied else line
            yield b"[%12.6f] {%d}[Hardware Error]: %s\n" % (number / 1000, sequence, text.format(address=address).encode())
        yield b"[%12.6f] Memory failure: 0x%x: recovery action for dirty LRU page: Recovered\n" % (number / 1000, address >> 12)


def matched(path: Path) -> int:
    """The yardstick."""
    match = LINE.match
    with path.open("rb") as log:
        return sum(1 for line in log if match(line))


def read(path: Path) -> int:
    with path.open("rb") as log:
        return sum(1 for found in read_kernel_log(log) if isinstance(found, FoundError))


def compare(title: str, lines_apart: int, lines: int, rounds: int, *, is_varied: bool = False) -> None:
    """Print the rates of both over the same file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.log"
        with path.open("wb") as log:
            log.writelines(islice(generated(lines_apart, is_varied=is_varied), lines))
        size, records = path.stat().st_size / (1 << 20), read(path)
        yardstick, ours = in_turns(rounds, lambda: matched(path), lambda: read(path))
    ratio = statistics.median(theirs / own for theirs, own in zip(yardstick, ours, strict=True))
    print(f"\n{title}: {lines} lines, {size:.0f} MiB, {records} records")
    for name, seconds in (("one regular expression", statistics.median(yardstick)), ("the reader", statistics.median(ours))):
        print(f"  {lines / seconds:>12,.0f} lines per second  {size / seconds:>7.1f} MiB/s  {name}")
    print(f"  the reader's rate is {ratio:.2f} of the yardstick's")
    keep(f"reading a kernel log, {title}", "matching each line with one regular expression", 1 / ratio)


def stream(mebibytes: int) -> None:
    """Print the peak memory of reading a log of that size."""
    sizes = 0

    def limited() -> Iterator[bytes]:
        nonlocal sizes
        for line in generated(3000):
            sizes += len(line)
            if sizes > mebibytes << 20:
                return
            yield line

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    records = sum(1 for found in read_kernel_log(limited()) if isinstance(found, FoundError))
    spent = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\n{mebibytes} MiB streamed in {spent:.0f} s, {records} records: the process grew by {grown:.1f} MiB at its peak")
    tracemalloc.start()
    sizes, few = 0, min(mebibytes, 16)
    mebibytes = few
    sum(1 for _ in read_kernel_log(limited()))
    print(f"of which Python objects, over the first {few} MiB: {tracemalloc.get_traced_memory()[1] / (1 << 20):.2f} MiB at their peak")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--lines", type=int, default=500_000)
    arguments.add_argument("--stream", type=int, default=64, metavar="MIB")
    chosen = arguments.parse_args()
    compare("one record in 3000 lines", 3000, chosen.lines, chosen.rounds)
    compare("a record after every 100 lines", 100, chosen.lines, chosen.rounds)
    compare("hardly anything but records", 1, min(chosen.lines, 50_000), chosen.rounds)
    compare("records of which none is like another", 1, min(chosen.lines, 50_000), chosen.rounds, is_varied=True)
    stream(chosen.stream)


if __name__ == "__main__":
    main()
