"""Tests of records that are copied from an earlier one: they are what parsing line by line gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.kernel_log.reader import LogItem, read_kernel_log
from ras_triage.models.formats.kernel_log.record import LogRecord
from ras_triage.models.formats.kernel_log.record_templates import RecordTemplates
from ras_triage.models.formats.results import FoundError

MEMORY = (
    "Hardware error from APEI Generic Hardware Error Source: 2",
    "event severity: recoverable",
    " Error 0, type: recoverable",
    "  section_type: memory error",
    "  physical_address: {address}",
    "  node:0 card:1 module:0 rank:0 bank:257 bank_group:1 bank_address:1 device:0 row:75492 column:8 ",
    "  error_type: 3, multi-bit ECC",
)
PROCESSOR = (
    "Hardware error from APEI Generic Hardware Error Source: 9",
    "event severity: recoverable",
    " Error 0, type: recoverable",
    "  section_type: ARM processor error",
    "  MIDR: 0x00000000481fd010",
    "  Error info structure 0:",
    "  num errors: 1",
    "   error_type: 0x02: cache error",
    "   virtual fault address: {address}",
    "   physical fault address: {address}",
    "  Error info structure 1:",
    "  num errors: 1",
    "   error_type: 0x04: TLB error",
    "   physical fault address: {address}",
)
REFUSED = (*MEMORY[:5], "  section length is too small", *MEMORY[5:])
LONE = (*MEMORY[:4], "  physical_address: {address} # seen twice", *MEMORY[5:])
LINES = (
    "Memory failure: 0x40001: recovery action for dirty LRU page: Recovered",
    "Memory failure: 0x40001: Sending SIGBUS to a:12 due to hardware memory corruption",
    "Synchronous External Abort: synchronous external abort (0x96000010) at 0x0000000040000000",
    "Linux version 6.12.1 (a@b) #1",
    "{1}[Hardware Error]:   physical_address: 0x0000000040001000",
    "{3}[Hardware Error]: event severity: fatal",
    "[Firmware Warn]: error section length is too small",
    "usb 1-1: new device",
)


def printed(texts: Sequence[str], number: int, address: int, seconds: float) -> Iterator[bytes]:
    for text in texts:
        yield f"[{seconds:12.6f}] {{{number}}}[Hardware Error]: {text.format(address=f'{address:#018x}')}\n".encode()


def dense(records: Sequence[tuple[int, int]], between: Sequence[int], kinds: Sequence[Sequence[str]], ends: bytes = b"\n") -> list[bytes]:
    lines: list[bytes] = []
    for index, (kind, address) in enumerate(records):
        lines += printed(kinds[kind % len(kinds)], index + 1, address, 100 + index / 4)
        if index < len(between) and between[index] < len(LINES):
            lines.append(f"[{100 + index / 4:12.6f}] {LINES[between[index]]}\n".encode())
    return [line[:-1] + ends for line in lines]


def line_by_line(lines: Sequence[bytes], monkeypatch: pytest.MonkeyPatch) -> list[LogItem]:
    with monkeypatch.context() as patch:
        patch.setattr(RecordTemplates, "find", lambda *_: None)
        return list(read_kernel_log(lines))


ADDRESSES = st.sampled_from((0, 0x40001000, 0x40002000, 0xFFFF_FFFF_FFFF_FFFF)) | st.integers(0, (1 << 64) - 1)


@given(
    records=st.lists(st.tuples(st.integers(0, 3), ADDRESSES), max_size=60),
    between=st.lists(st.integers(0, 3 * len(LINES)), max_size=60),
    cut=st.lists(st.integers(0, 800), max_size=2),
    ends=st.sampled_from((b"\n", b"\r\n", b"")),
)
def test_a_copied_record_is_what_its_lines_give(records, between, cut, ends) -> None:
    lines = dense(records, between, (MEMORY, PROCESSOR, REFUSED, LONE), ends)
    for at in cut:
        del lines[at : at + 1]
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert list(read_kernel_log(lines)) == line_by_line(lines, monkeypatch)


@pytest.mark.parametrize("texts", [MEMORY, PROCESSOR])
def test_few_records_of_a_dense_log_are_parsed_line_by_line(texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check also those at the end of the lines that are read at once."""
    parsed: set[int] = set()
    add = LogRecord.add
    monkeypatch.setattr(LogRecord, "add", lambda self, line, head: (parsed.add(self.first.number), add(self, line, head)))
    lines = dense([(0, 0x40000000 + (index << 12)) for index in range(400)], (), (texts,))
    found = list(read_kernel_log(lines))
    assert len(found) == 400
    assert all(isinstance(one, FoundError) for one in found)
    assert len(parsed) < 6


def test_records_are_given_while_lines_still_arrive() -> None:
    arrived = 0

    def arriving() -> Iterator[bytes]:
        nonlocal arrived
        for line in dense([(0, index << 12) for index in range(2000)], (), (MEMORY,)):
            arrived += 1
            yield line

    next(iter(read_kernel_log(arriving())))
    assert arrived < 4000
