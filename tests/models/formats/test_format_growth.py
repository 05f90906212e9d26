"""Tests of the run time of all input formats: O(n log n) in each repeated part."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any

import pytest

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats import encoded_bytes
from ras_triage.models.formats.cper import read_cper, write_record
from ras_triage.models.formats.erst import PSTORE_CREATOR, log_lines, read_pstore_record
from ras_triage.models.formats.hest import notifications, read_hest
from ras_triage.models.formats.json_text import read_documents
from ras_triage.models.formats.kernel_log import reader
from ras_triage.models.formats.kernel_log.actions import read_action
from ras_triage.models.formats.kernel_log.grammar import HEAD
from ras_triage.models.formats.kernel_log.journal import MAX_ENTRY, UnreadableLines, to_kernel_lines
from ras_triage.models.formats.kernel_log.lines import MAX_LINE, parse_line
from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.kernel_log.section_lines import is_section_line
from ras_triage.models.formats.kernel_log.wrapping import PendingLine
from ras_triage.models.formats.libcper.reader import read_libcper
from ras_triage.models.formats.qemu.injection import read_qmp
from ras_triage.models.formats.ras import trace_text
from ras_triage.models.formats.ras.rasdaemon import READERS, read_rows
from ras_triage.models.formats.ras.trace import read_trace
from ras_triage.models.formats.ras.traced_event import InvalidFieldError
from ras_triage.models.formats.redfish import read_redfish
from ras_triage.models.formats.results import FoundError
from ras_triage.models.records.block_fields import decode_structured, describe_block, encode_structured
from ras_triage.models.records.cper_record import CperRecord, SectionDescriptor, encode_record
from ras_triage.models.records.guid import ARM_PROCESSOR, MEMORY, guid, guid_text
from tests.growth import Work, require_n_log_n_of_time, squares

Line = Callable[[int], str]

RECORD = "[  100.000000] {1}[Hardware Error]: "
LOG: dict[str, Line] = {
    "other line": lambda _: "[  100.000000] usb 1-1: new device",
    "line without a mark": lambda _: "nothing that the kernel prints",
    "line that ends in =": lambda _: "a piece of a line=",
    "line of its own that ends in =": lambda _: "Memory failure: 0x1: x=",
    "long line without a mark": lambda _: "0" * 70,
    "record": lambda index: f"[  100.000000] {{{index}}}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 0",
    "record without a number": lambda _: "[  100.000000] [Hardware Error]: event severity: fatal",
    "machine": lambda index: f"2026-11-22T10:00:00+0100 node-{index} kernel: {{1}}[Hardware Error]: event severity: fatal",
    "boot": lambda index: f"[    0.000000] Linux version 6.12.{index} (a@b) #1",
    "section": lambda index: f"{RECORD}Error {index}, type: recoverable",
    "memory section": lambda _: f"{RECORD}  section_type: memory error",
    "ARM section": lambda _: f"{RECORD}  section_type: ARM processor error",
    "section of no known type": lambda index: f"{RECORD}  section type: unknown, {index:08x}-0000-0000-0000-000000000000",
    "section length": lambda _: f"{RECORD}  section length: 0x10",
    "FRU id": lambda index: f"{RECORD}  fru_id: {index:08x}-0000-0000-0000-000000000000",
    "FRU text": lambda index: f"{RECORD}  fru_text: {index}",
    "address": lambda index: f"{RECORD}  physical_address: {index << 12:#018x}",
    "location": lambda index: f"{RECORD}  node:{index} card:1",
    "ARM error info": lambda index: f"{RECORD}   Error info structure {index}:",
    "ARM error type": lambda index: f"{RECORD}   error_type: {index % 256:#04x}: cache error",
    "ARM address": lambda index: f"{RECORD}   physical fault address: {index << 12:#018x}",
    "ARM context": lambda index: f"{RECORD}   Context info structure {index}:",
    "row of bytes": lambda index: f"{RECORD}  {index * 16:08x}: 00000000 00000000 00000000 00000000",
    "line that is not understood": lambda index: f"{RECORD}  rubbish {index}",
    "refusal": lambda _: f"{RECORD}  section length is too small",
    "warning": lambda _: "[  100.000000] [Firmware Warn]: error section length is too small",
    "page that was handled": lambda index: f"[  100.000000] Memory failure: {index:#x}: recovery action for dirty LRU page: Recovered",
    "note": lambda index: f"[  100.000000] [Firmware Warn]: GHES: Unhandled processor error type: {index % 256:#04x}: cache error",
    "signal": lambda index: f"[  100.000000] Memory failure: {index:#x}: Sending SIGBUS to a:{index} due to hardware memory corruption",
    "panic": lambda _: "[  100.000000] Kernel panic - not syncing: Fatal hardware error!",
    "SError": lambda index: f"[  100.000000] SError Interrupt on CPU{index % 4096}, code 0xbe000011 -- SError",
    "error recovery": lambda _: "[  100.000000] pcieport 0000:c9:02.0: AER: aer_status: 0x00200000, aer_mask: 0x00100020",
    "oops": lambda index: f"[  100.000000] Internal error: synchronous external abort: 96000410 [#{index % 4096}] SMP",
}
ARM = [LOG["record"](1), LOG["section"](0), LOG["ARM section"](0), LOG["ARM error info"](0)]
HEADS = {name for name in LOG if "section" in name or "FRU" in name or "not understood" in name}
UNTYPED = [LOG["record"](1), LOG["section"](0), LOG["line that is not understood"](0)]
"""First lines of a log: a section whose fields are parsed, and one of unknown type."""


def alternating(one: Line, other: Line, size: int) -> Iterable[str]:
    return chain.from_iterable((one(index), other(index)) for index in range(size))


def one_behind_the_other(one: Line, other: Line, size: int) -> Iterable[str]:
    return chain(map(one, range(size)), map(other, range(size)))


def encoded(lines: Iterable[str]) -> list[bytes]:
    return [f"{line}\n".encode() for line in lines]


def reading_log(lines: Iterable[str]) -> Work:
    raw = encoded(lines)
    return lambda: list(read_kernel_log(raw))


@pytest.mark.parametrize("one", LOG)
def test_lines_of_a_kernel_log_do_not_multiply(one: str) -> None:
    def reading(other: str, begun: list[str], arrange: Callable[[Line, Line, int], Iterable[str]], size: int) -> Work:
        return reading_log([*begun, *arrange(LOG[one], LOG[other], size)])

    names = list(LOG)
    others = names[names.index(one) :]
    for begun, arrange in ((ARM, alternating), (ARM, one_behind_the_other), (UNTYPED, alternating)):
        some = [other for other in others if begun is ARM or {one, other} & HEADS]
        assert [other for other in some if squares(partial(reading, other, begun, arrange))] == [], arrange.__name__


TRACE: dict[str, Line] = {
    "arm_event": lambda index: (
        f" <...>-211 [002] d..1. 0.000129: arm_event: affinity: 0 MPIDR: {index:#x} ARM Processor Err Info data len: 4096"
    ),
    "mc_event": lambda _: " <...>-211 [002] d..1. 0.000129: mc_event: 1 Corrected error: a on b (mc: 0 location: 0 grain: 6)",
    "aer_event": lambda _: " <...>-211 [002] d..1. 0.000129: aer_event: 0000:01:00.0 PCIe Bus Error: severity=Fatal, Bad TLP",
    "row of a dump": lambda index: f"  {index * 16:08x}: 00000000 00000000 00000000 00000000",
    "kernel's words": lambda index: f"cpu: 0; error: 2; affinity level: 255; MPIDR: {index:016x}; ARM Processor Err Info data len: 0",
    "another line": lambda _: "nothing",
}


@pytest.mark.parametrize("one", TRACE)
def test_lines_of_a_trace_do_not_multiply(one: str) -> None:
    def reading(other: str, arrange: Callable[[Line, Line, int], Iterable[str]], size: int) -> Work:
        lines = encoded([TRACE["arm_event"](0), *arrange(TRACE[one], TRACE[other], size)])
        return lambda: list(read_trace(lines))

    for arrange in (alternating, one_behind_the_other):
        assert [other for other in TRACE if squares(partial(reading, other, arrange))] == [], arrange.__name__


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def record(sections: int, record_id: int = 0) -> bytes:
    block = encode_structured({"severity": "recoverable", "sections": [{"type": "memory", "physical_address": 4096}] * sections})
    event = next(iter(read_cper(block))).event  # type: ignore[union-attr]
    return write_record(event, record_id=record_id)


def stored(size: int) -> bytes:
    text = b"Panic#1 Part1\n" + b"<4>[    1.000000] x\n" * size
    section = SectionDescriptor(
        section_offset=200, section_length=len(text), section_type=guid("c197e04e-d545-4a70-9c17-a5549419eb12"), severity=1
    )
    return encode_record(CperRecord(severity=1, record_length=200 + len(text), creator_id=PSTORE_CREATOR, sections=(section,), body=text))


def error_sources(size: int) -> bytes:
    body = b"".join(struct.pack("<HHHBBIII12x28sI", 9, index, 0xFFFF, 0, 1, 1, 1, 4096, b"\x07\x1c", 4096) for index in range(size))
    return struct.pack("<4sI28xI", b"HEST", 40 + len(body), size) + body


def libcper(sections: int = 1, infos: int = 0) -> Any:
    memory = {"sectionType": {"data": guid_text(MEMORY), "type": "Platform Memory"}}, {"Memory": {"physicalAddress": 4096}}
    arm = {"sectionType": {"data": guid_text(ARM_PROCESSOR), "type": "ARM"}}, {"ArmProcessor": {"errorInfo": [{"version": 0}] * infos}}
    descriptors, bodies = zip(*[memory] * sections, *[arm] * bool(infos), strict=True)
    return {"sectionDescriptors": descriptors, "sections": bodies}


def entry(payload: bytes = b"") -> dict[str, Any]:
    return {"DiagnosticDataType": "CPER", "DiagnosticData": payload.decode()}


def nested(depth: int, width: int) -> Any:
    inner: Any = [entry() for _ in range(width)]
    for _ in range(depth):
        inner = [inner]
    return {"Members": inner}


def journal(size: int) -> list[bytes]:
    return [as_json({"__REALTIME_TIMESTAMP": "1", "_TRANSPORT": "kernel", "MESSAGE": "x"}) + b"\n"] * size


def block(kind: str, **many: Any) -> bytes:
    return encode_structured({"severity": "recoverable", "sections": [{"type": kind, **many}]})


def finished(work: Callable[[], object]) -> Work:
    """Do the same for hostile bytes, which must raise the expected error."""

    def run() -> object:
        try:
            return work()
        except (MalformedBytes, InvalidFieldError) as error:
            return error

    return run


INPUTS: dict[str, Callable[[int], Work]] = {
    "lines that end in =": lambda size: reading_log(["Memory failure: 0x1: x="] * size),
    "a row of bytes that goes on": lambda size: reading_log([f"{RECORD}00000000: 00000000 00000000  {'x' * 30}", *["y" * 70] * size]),
    "pieces of a line": lambda size: reading_log(
        chain.from_iterable([f"{RECORD}phys", "ical_", "address: 0x", "0000000045678000"] for _ in range(size))
    ),
    "dump of a trace": lambda size: (
        lambda: trace_text.parse_arm_event(
            "MPIDR: 1 ARM Processor Err Info data len: 9999999\n" + "\n".join(TRACE["row of a dump"](index) for index in range(size))
        )
    ),
    "first line of a trace, and lines behind it": lambda size: (
        lambda: list(read_trace(encoded([TRACE["arm_event"](1).replace("MPIDR: 0x1", "x" * 20 * size), *["nothing"] * size])))
    ),
    "journal": lambda size: lambda: list(to_kernel_lines(journal(size), UnreadableLines())),
    "journal entry over many lines": lambda size: (
        lambda: list(to_kernel_lines([b"{\n", *[b'"a": "b",\n'] * size, b"}\n"], UnreadableLines()))
    ),
    "journal entry with empty lines": lambda size: lambda: list(to_kernel_lines([b"{\n", *[b"\n"] * size, b"}\n"], UnreadableLines())),
    "journal message of bytes": lambda size: lambda: list(to_kernel_lines([as_json({"MESSAGE": [65] * size})], UnreadableLines())),
    "Redfish members": lambda size: lambda: list(read_redfish(as_json(nested(0, size)))),
    "Redfish lists in lists": lambda size: lambda: list(read_redfish(as_json(nested(min(size, 150), size)))),
    "Redfish lines": lambda size: lambda: list(read_redfish(b"\n".join([as_json(entry())] * size))),
    "libcper sections": lambda size: lambda: list(read_libcper(as_json(libcper(sections=size)))),
    "libcper error infos": lambda size: lambda: list(read_libcper(as_json(libcper(infos=size)))),
    "libcper documents": lambda size: lambda: list(read_libcper(as_json([libcper()] * size))),
    "JSON lines that are none": lambda size: lambda: list(read_documents(b"{}\n" + b"{\n" * size)),
    "QMP messages": lambda size: lambda: list(read_qmp(as_json({"execute": "x"}) * size)),
    "QMP blanks": lambda size: lambda: list(read_qmp(b" \n," * size + b"{}")),
    "hexadecimal": lambda size: lambda: encoded_bytes.unpack_text(b"00 \n" * size, any, "bytes"),
    "words of memory": lambda size: lambda: encoded_bytes.unpack_words(b"0000: 0x00000000\n" * size),
    "comments": lambda size: lambda: encoded_bytes.unpack_text(b"# x\n" * size + b"00", any, "bytes"),
    "CPER records": lambda size: lambda: list(read_cper(b"".join(record(1, index) for index in range(size)))),
    "CPER signatures": lambda size: lambda: list(read_cper(b"CPER\1\1\xff\xff\xff\xff" * size)),
    "CPER sections": lambda size: lambda: list(read_cper(record(size))),
    "status block": lambda size: lambda: list(read_cper(record(size)[200:])),
    "pstore lines": lambda size: lambda: list(log_lines([read_pstore_record(stored(size))])),
    "pstore records": lambda size: lambda: list(log_lines([read_pstore_record(stored(1))] * size)),
    "error sources": lambda size: lambda: notifications(read_hest(error_sources(size))),
    "rows of rasdaemon": lambda size: lambda: list(read_rows("mc_event", [{"id": index, "address": index} for index in range(size)])),
    "sections of fields": lambda size: lambda: describe_block(encode_structured({"severity": 0, "sections": [{"type": "memory"}] * size})),
    "error infos of fields": lambda size: lambda: describe_block(block("arm_processor", error_infos=[{"error_type": 2}] * size)),
    "contexts of fields": lambda size: lambda: describe_block(block("arm_processor", contexts=[{"type": 0, "registers": ""}] * size)),
    "trailing bytes": lambda size: lambda: decode_structured(block("memory", trailing=bytes(64 * size))),
}
"""Inputs of a size, by their repeated part."""

LARGE = {"lines that end in =": 256, "a row of bytes that goes on": 512}
"""Inputs that are parsed piece by piece."""


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_grows_no_faster_than_n_log_n(name: str) -> None:
    assert not squares(lambda size: finished(INPUTS[name](size)))
    require_n_log_n_of_time(lambda size: finished(INPUTS[name](size)), LARGE.get(name, 48))


FRAGMENTS = (
    "a", "0", "1", " ", "[", "[ ", "{1}", "(", "=", ":", "0x", "0x1: ", "1,", "a.", ": ", "] ", "kernel: ", "GHES: a:1: ", "a:1 ",
    "bank:1 ", "\x1b[", "deadbeef-", "MPIDR: 0", "1 Corrected error: ", "(mc: 1 ", "FRU: ", "severity: 1; ", "data len: 1",
    "pfn=0x1 page_type=", "raw data: 00 ", "Fatal section type: ", "#\n", "ghes_inject", "2026-01-01 00:00:00 ", "<1>", "6,1,1,-;",
    "Program execution ",
)  # fmt: skip
"""Fragments for long lines that stress every pattern."""

COLUMNS = ("err_msg", "driver_detail", "location", "dev_name", "host", "hdr_ts", "timestamp", "error_type")
PATTERNS: dict[str, Callable[[str], object]] = {
    "log line": lambda text: parse_line(text, 1),
    "what the kernel did": lambda text: read_action(text, 1),
    "head": HEAD.fullmatch,
    "section": is_section_line,
    "mc_event": trace_text.parse_mc_event,
    "aer_event": trace_text.parse_aer_event,
    "arm_event": trace_text.parse_arm_event,
    "non_standard_event": trace_text.parse_non_standard_event,
    "extlog_mem_event": trace_text.parse_extlog_mem_event,
    "memory_failure_event": trace_text.parse_memory_failure_event,
    "trace line": lambda text: list(read_trace([text.encode()])),
    "row": lambda text: [list(read_rows(table, [dict.fromkeys(COLUMNS, text)])) for table in READERS],
    "text of bytes": lambda text: (encoded_bytes.is_encoded(text.encode()), encoded_bytes.unpack_words(text.encode())),
    "journal": lambda text: list(to_kernel_lines([text.encode()], UnreadableLines())),
}


BEFORE = {"extlog_mem_event": "1 fatal error: x physical addr: 1 (mask lsb: 1)", "trace line": "[1] 0.1: mc_event: "}
"""Line starts that make the parser look at the rest of the line."""


@pytest.mark.parametrize("name", PATTERNS)
def test_no_line_causes_quadratic_backtracking(name: str) -> None:
    for fragment in FRAGMENTS:
        text = BEFORE.get(name, "") + fragment * (MAX_LINE // len(fragment))
        require_n_log_n_of_time(partial(reading_beginning, PATTERNS[name], text), MAX_LINE // 16)


def reading_beginning(read: Callable[[str], object], text: str, size: int) -> Work:
    return finished(lambda: read(text[:size]))


def test_a_line_is_put_together_up_to_a_length() -> None:
    """Check that joining of lines that end in `=` is limited."""
    text = f"{RECORD}a line="
    held, number = PendingLine(text, parse_line(text, 1)), 2
    while number < 1000 and held.join("a piece=", number, is_whole=True, is_candidate=False):
        number += 1
    assert 200 < number < 400
    assert held.line.text.startswith("a linea piecea piece")
    assert held.line.number == 1
    assert held.last == number - 1


def test_records_are_done_with_where_too_much_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [*ARM, *(LOG["ARM address"](index) for index in range(200))]
    assert len(list(read_kernel_log(encoded(lines)))) == 1
    monkeypatch.setattr(reader, "_MAX_SIZE", 10_000)
    found = list(read_kernel_log(encoded(lines)))
    assert 2 < len(found) < 20
    assert all(isinstance(one, FoundError) for one in found)


def test_an_entry_of_empty_lines_holds_nothing() -> None:
    """Check that the number of held values is limited."""
    lines = chain([b"{\n"], (b"\n" for _ in range(2 * MAX_ENTRY)), [b'"MESSAGE": "x"\n', b"}\n"])
    tracemalloc.start()
    try:
        last = deque(to_kernel_lines(lines, UnreadableLines()), maxlen=1).pop()
        assert tracemalloc.get_traced_memory()[1] < MAX_ENTRY
    finally:
        tracemalloc.stop()
    assert last == b"x\n"
