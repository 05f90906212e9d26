"""Tests of the RAS trace text parser: round trips, and events are never merged."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.ras.trace import MAX_TEXT, read_trace
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.results import FoundError, UnreadableRecord
from ras_triage.models.notification import Notification
from ras_triage.models.records.block_fields import StructuredBlock, decode_structured
from ras_triage.models.records.guid import guid
from ras_triage.models.sections.arm_processor import ArmErrorInfo

FTRACE = "     kworker/2:1-211   [002] d..1.   120.000129: {}: {}"
DAEMON = "           <...>-211   [002] d..1.     0.000129 {} [ERROR] 2024-07-11 09:50:45 +0000 {}"
VENDOR = guid("e8ed898d-df16-43cc-8ecc-54f060ef157f")
INFO = ArmErrorInfo(error_type=2, error_information=0x91000F, physical_fault_address=0xABCD000).encode()


def read(*lines: str, **given):
    return list(read_trace((line.encode() + b"\n" for line in lines), **given))


def only(*lines: str):
    (item,) = read(*lines)
    return item


def block(reading: FoundError) -> StructuredBlock:
    return decode_structured(reading.event.status_block)


def section(*lines: str):
    return block(only(*lines)).sections[0]


MC = (
    "1 Uncorrected error: multi-bit ECC on DIMM_A1 (mc:0 location:0:1:-1 address:0x56edd040 grain:64 syndrome:0x00000000 "
    "APEI location: node:1 card:2 status(0x0000000000000400): Storage error in DRAM memory)"
)


def test_a_memory_controller_event_in_the_kernels_words():
    reading = only(FTRACE.format("mc_event", MC))
    memory = block(reading).sections[0]
    assert (memory.physical_address, memory.node, memory.card, memory.error_status, memory.memory_error_type) == (
        0x56EDD040,
        1,
        2,
        0x400,
        3,
    )
    assert (reading.format, reading.place.line, reading.event.time) == ("ras_trace", 1, None)
    assert any("2^6 bytes" in phrase for phrase in reading.lost)
    assert any("the time" in phrase for phrase in reading.lost)


def test_a_memory_controller_event_in_rasdaemons_words():
    text = "3 Corrected errors: Single-bit ECC on DIMM_A1 (mc: 0 location: 0:1 address: 0x56edd040 grain: 6 APEI location: node:1)"
    reading = only(DAEMON.format("mc_event", text))
    memory = block(reading).sections[0]
    assert (memory.physical_address, memory.node, memory.severity, memory.memory_error_type) == (0x56EDD040, 1, 2, 2)
    assert reading.event.time == datetime(2024, 7, 11, 9, 50, 45, tzinfo=UTC)
    assert {"the error count 3", "the DIMM label `DIMM_A1`"} <= set(reading.lost)
    assert any("2^6 bytes" in phrase for phrase in reading.lost)


@pytest.mark.parametrize(
    "head",
    [
        "kworker/2:1-211 [002] 120.000129: mc_event:             ",
        "          <idle>-0     [002] d.h1.   120.000129: mc_event: ",
        "          <idle>-0     (-----) [002] d.h1.   120.000129: mc_event: ",
        "kworker/2:1   211 [002]   120.000129: ras:mc_event: ",
        "Jul 11 09:50:45 host rasdaemon[812]: <idle>-0 [002] d.h1. 120.000129 mc_event ",
    ],
)
def test_ftrace_trace_cmd_perf_and_journals_put_different_things_before_an_event(head):
    assert section(head + MC).physical_address == 0x56EDD040


def test_an_address_and_a_syndrome_that_rasdaemon_leaves_out_are_absent():
    memory = section(DAEMON.format("mc_event", "1 Corrected error: x on y (mc: 0 grain: 0)"))
    assert memory.physical_address is None


def test_an_aer_event_in_the_kernels_words():
    names = "Poisoned TLP|Unsupported Request Error|0x80000000"
    text = f"0001:02:03.4 PCIe Bus Error: severity=Uncorrected, non-fatal, {names}, TLP Header={{0x1,0x2,0x3,0x4}}"
    pcie = section(FTRACE.format("aer_event", text))
    assert (pcie.segment, pcie.bus, pcie.device, pcie.function) == (1, 2, 3, 4)
    assert pcie.aer_uncorrectable_status == 1 << 12 | 1 << 20 | 1 << 31
    assert pcie.aer_header_log == struct.pack("<4I", 1, 2, 3, 4)
    assert pcie.severity == 0


def test_an_aer_event_without_a_header():
    pcie = section(FTRACE.format("aer_event", "0001:02:03.4 PCIe Bus Error: severity=Corrected, Bad TLP, TLP Header=Not available"))
    assert (pcie.aer_correctable_status, pcie.severity) == (1 << 6, 2)
    assert not any(pcie.aer_header_log or b"")


def test_an_aer_event_in_rasdaemons_words_tells_vendor_and_device():
    text = "0001:02:03.4 (Some Vendor Thing - vendor_id: 0x8086 device_id: 0x10fb) Bad TLP, Bad DLLP Corrected"
    pcie = section(DAEMON.format("aer_event", text))
    assert (pcie.vendor_id, pcie.device_id, pcie.aer_correctable_status) == (0x8086, 0x10FB, 1 << 6 | 1 << 7)
    old = section(DAEMON.format("aer_event", "0001:02:03.4 Completion Timeout Uncorrected (Fatal)"))
    assert (old.aer_uncorrectable_status, old.severity, old.vendor_id) == (1 << 14, 1, 0)


def kernel_arm(mpidr: int = 0x80000000, severity: int = 2, info: bytes = INFO, vendor: bytes = b"") -> str:
    return (
        f"cpu: 0; error: {severity}; affinity level: 255; MPIDR: {mpidr:016x}; MIDR: 00000000410fd490; running state: 1; PSCI state: 0; "
        f"ARM Processor Err Info data len: {len(info)}; ARM Processor Err Info raw data: {info.hex(' ')}; "
        "ARM Processor Err Context Info data len: 0; ARM Processor Err Context Info raw data: ; "
        f"Vendor Specific Err Info data len: {len(vendor)}; Vendor Specific Err Info raw data: {vendor.hex(' ')}"
    )


def dump(data: bytes) -> str:
    words = [f"{word:08x}" for (word,) in struct.iter_unpack("<I", data)]
    lines = [f"  {at * 4:08x}: " + " ".join(words[at : at + 4]) for at in range(0, len(words) + 1, 4)]
    return "\n".join(lines)


def daemon_arm(mpidr: int = 0x80000000, info: bytes = INFO, vendor: bytes = b"") -> list[str]:
    text = (
        f"affinity: -1 MPIDR: {mpidr:#x} MIDR: 0x410fd490 running_state: 1 psci_state: 0 ARM Processor Err Info data len: {len(info)}\n"
        + dump(info)
        + "\nARM processor error info:\n error_types: cache error error_info: 0x000000000091000f cache level: 2\n"
        + " ARM Processor Err Context Info data len: 0\n  00000000:  Vendor Specific Err Info data len: "
        + f"{len(vendor)}\n{dump(vendor)}\n cpu: 0\n severity: Recoverable"
    )
    return DAEMON.format("arm_event", text).split("\n")


def test_an_arm_event_in_the_kernels_words():
    reading = only(FTRACE.format("arm_event", kernel_arm(vendor=b"\x01\x02\x03")))
    arm = block(reading).sections[0]
    assert (arm.mpidr_el1, arm.midr_el1, arm.running_state, arm.error_affinity_level) == (0x80000000, 0x410FD490, 1, None)
    assert [info.encode() for info in arm.error_infos] == [INFO]
    assert (arm.vendor_info, arm.severity) == (b"\x01\x02\x03", 0)
    assert not any("MIDR" in phrase for phrase in reading.lost)


def test_an_arm_event_in_rasdaemons_words_over_many_lines():
    reading = only(*daemon_arm(vendor=bytes(range(20))))
    arm = block(reading).sections[0]
    assert [info.encode() for info in arm.error_infos] == [INFO]
    assert (arm.vendor_info, arm.severity, arm.midr_el1) == (bytes(range(20)), 0, 0x410FD490)
    assert reading.event.time == datetime(2024, 7, 11, 9, 50, 45, tzinfo=UTC)


def test_an_arm_event_of_an_older_kernel_has_the_header_only():
    reading = only(
        FTRACE.format("arm_event", "affinity level: 1; MPIDR: 0000000000000005; MIDR: 0000000000000000; running state: 1; PSCI state: 0")
    )
    arm = block(reading).sections[0]
    assert (arm.error_affinity_level, arm.mpidr_el1, arm.error_infos) == (1, 5, ())
    assert any("has no severity" in one.because for one in reading.assumed)


def test_the_kernels_words_behind_rasdaemons_line_are_the_same_event():
    first = daemon_arm()[0]
    reading = only(first, "<CANT FIND FIELD buf>" + kernel_arm())
    assert [info.encode() for info in block(reading).sections[0].error_infos] == [INFO]
    assert reading.event.time is not None


@pytest.mark.parametrize(
    "lines",
    [
        [daemon_arm()[0], kernel_arm(mpidr=5)],
        [daemon_arm()[0], kernel_arm(), kernel_arm()],
        [FTRACE.format("arm_event", kernel_arm()), kernel_arm()],
        [kernel_arm(), kernel_arm()],
        [*daemon_arm(), *daemon_arm()],
    ],
)
def test_two_events_never_become_one(lines):
    assert [type(item) for item in read(*lines)] == [FoundError, FoundError]


def test_lines_of_another_event_end_the_one_before():
    other = "           <...>-1 [001] d..1.     0.000129 mce_record 2024-07-11 09:50:45 +0000 bank=1"
    lines = [*daemon_arm()[:1], other, *daemon_arm()[1:]]
    reading, unread = read(*lines)
    assert block(reading).sections[0].error_infos == ()
    assert unread.reason == "`mce_record` is not supported in trace text"


def test_bytes_that_were_announced_and_not_printed_are_named():
    text = kernel_arm(info=INFO * 2).replace(INFO.hex(" ") + "; ARM", "; ARM")
    reading = only(FTRACE.format("arm_event", text))
    assert len(block(reading).sections[0].error_infos) == 1
    assert "err_info: 32 bytes of the stated length were not printed" in reading.lost


def test_a_non_standard_event_in_the_kernels_words_has_its_guid_in_record_order():
    printed = "-".join([VENDOR.hex()[:8], VENDOR.hex()[8:12], VENDOR.hex()[12:16], VENDOR.hex()[16:20], VENDOR.hex()[20:]])
    null = "00000000-0000-0000-0000-000000000000"
    text = f"severity: 1; sec type:{printed}; FRU: {null} slot 3; data len:3; raw data:01 02 03"
    vendor = section(FTRACE.format("non_standard_event", text))
    assert (vendor.type, vendor.payload, vendor.severity, vendor.fru_text, vendor.fru_id) == (VENDOR, b"\x01\x02\x03", 2, "slot 3", None)


def test_a_tool_that_prints_the_guid_of_a_known_section_is_understood():
    null = "00000000-0000-0000-0000-000000000000"
    text = f"severity: 2; sec type:61ec04fc-48e6-d813-25c9-8daa44750b12; FRU: {null} ; data len:96; raw data:{bytes(96).hex(' ')}"
    assert section(FTRACE.format("non_standard_event", text)).type == "memory2"


@pytest.mark.parametrize("name", ["e8ed898d-df16-43cc-8ecc-54f060ef157f", "Ampere Specific Error"])
def test_a_non_standard_event_in_rasdaemons_words(name):
    null = "00000000-0000-0000-0000-000000000000"
    text = f" Corrected section type: {name} fru text:  fru id: {null}  length: 10 error:\n{dump(bytes(range(8)))}"
    reading = only(*DAEMON.format("non_standard_event", text).split("\n"))
    vendor = block(reading).sections[0]
    assert (vendor.type, vendor.payload, vendor.severity) == (VENDOR, bytes(range(8)), 2)
    assert "error: 2 bytes of the stated length were not printed" in reading.lost


def test_an_extended_error_log_event_in_the_kernels_words():
    text = (
        "{3} corrected error: single-bit ECC physical addr: 00000000565dd000 (mask lsb: c) node:0 card:1 module:2 rank:3 "
        "DIMM location: not present. DMI handle: 0x0004 FRU: e8ed898d-df16-43cc-8ecc-54f060ef157f CPU_1"
    )
    reading = only(FTRACE.format("extlog_mem_event", text))
    memory = block(reading).sections[0]
    assert (memory.physical_address, memory.physical_address_mask) == (0x565DD000, 0xFFFFFFFFFFFFF000)
    assert (memory.card, memory.rank, memory.module_handle, memory.memory_error_type, memory.severity) == (1, 3, 4, 2, 2)
    assert (memory.fru_id, memory.fru_text) == (VENDOR, "CPU_1")
    assert any(one.field.endswith("physical_address_mask") for one in reading.assumed)


def test_an_extended_error_log_event_in_rasdaemons_words():
    text = (
        "2 recoverable error: multi-bit ECC physical addr: 0x565dd000 mask: 0xffffffffffffffff (node: 0 card: 1) CPU_1 "
        "e8ed898d-df16-43cc-8ecc-54f060ef157f"
    )
    memory = section(DAEMON.format("extlog_mem_event", text))
    assert (memory.physical_address, memory.physical_address_mask, memory.card) == (0x565DD000, None, 1)
    assert (memory.fru_id, memory.fru_text, memory.severity) == (VENDOR, "CPU_1", 0)


@pytest.mark.parametrize(
    "line",
    [
        FTRACE.format("memory_failure_event", "pfn 0x27caf: recovery action for dirty LRU page: Recovered"),
        DAEMON.format("memory_failure_event", "pfn=0x27caf page_type=dirty LRU page action_result=Recovered "),
    ],
)
def test_what_the_kernel_did_is_an_observation(line):
    row = only(line)
    assert isinstance(row, UnmatchedRow)
    assert (row.kind, row.table, row.place.line) == ("observation", "memory_failure_event", 1)
    assert dict(row.fields) == {"pfn": "0x27caf", "page_type": "dirty LRU page", "action_result": "Recovered"}


def test_the_callers_notification_outranks_the_assumed_one():
    (reading,) = read(FTRACE.format("mc_event", MC), notification=Notification(type="sea"))
    assert reading.event.notification.type == "sea"


@pytest.mark.parametrize("event", ["mc_event", "aer_event", "arm_event", "non_standard_event", "extlog_mem_event", "memory_failure_event"])
def test_an_event_that_is_cut_says_what_is_missing(event):
    items = read("nothing of interest", FTRACE.format(event, "1 Corrected error: cut"))
    assert [type(item) for item in items] == [UnreadableRecord]
    assert items[0].place.line == 2
    assert items[0].reason.startswith(f"invalid `{event}`: no ")


PREFIXES = {
    "nothing": "{}: ",
    "the system of the event": "ras:{}: ",
    "tp_printk": "[   12.345678] {}: ",
    "syslog": "Nov 22 10:00:00 node-17 kernel: [   12.345678] {}: ",
    "perf script": "     kworker/0:1-events   123 [001]   123.456789: ras:{}: ",
    "perf script with thread": "   kworker/0:1H-kb     7/7      [000] 12.345678: ras:{}: ",
    "perf script without CPU": "kworker/u8:0   123   123.456789:            ras:{}: ",
}


@pytest.mark.parametrize("before", PREFIXES.values(), ids=PREFIXES)
def test_an_event_is_read_whatever_stands_before_its_name(before):
    whole = only(FTRACE.format("mc_event", MC))
    first, second = read(before.format("mc_event") + MC, "something else", before.format("mc_event") + MC)
    assert (first.event, second.event) == (whole.event, whole.event)
    assert (first.place.line, second.place.line) == (1, 3)
    (unread,) = read(before.format("mc_event") + "1 Corrected")
    assert unread.reason.startswith("invalid `mc_event`")


FAILURE = "pfn 0x56edd: recovery action for dirty LRU page: Recovered"


@pytest.mark.parametrize("before", ["{}: ", FTRACE.format("{}", "")], ids=["no time", "ftrace"])
def test_what_the_kernel_did_with_a_page_goes_with_the_error_of_the_page(before):
    (found,) = read(before.format("mc_event") + MC, before.format("memory_failure_event") + FAILURE)
    (failure,) = found.observed.memory_failures
    assert (failure.line, failure.pfn, failure.page_type, failure.result) == (2, 0x56EDD, "dirty LRU page", "recovered")


def test_another_page_a_later_time_and_an_earlier_one_are_not_about_the_error():
    other = FAILURE.replace("56edd", "99999")
    items = read(FTRACE.format("mc_event", MC), FTRACE.format("memory_failure_event", other))
    assert [type(item) for item in items] == [FoundError, UnmatchedRow]
    for stamp in ("126.000000", "119.000000"):
        late = FTRACE.format("memory_failure_event", FAILURE).replace("120.000129", stamp)
        assert [type(item) for item in read(FTRACE.format("mc_event", MC), late)] == [FoundError, UnmatchedRow]


def test_items_keep_their_order_and_few_are_held():
    lines = [FTRACE.format("mc_event", MC)] * 300
    places = [item.place.line for item in read(*lines, FTRACE.format("memory_failure_event", FAILURE))]
    assert places == list(range(1, 301))
    given = iter([line.encode() for line in lines])
    next(read_trace(given))
    assert len(list(given)) > 100


def test_lines_that_are_no_event_are_passed_over():
    assert (
        read("# tracer: nop", "", "   <idle>-0 [000] d.h. 1.5: sched_switch: prev_comm=mc_event", "rasdaemon: ras:mc_event event enabled")
        == []
    )


@pytest.mark.parametrize("name", ["cxl_general_media", "cxl_aer_uncorrectable_error", "mce_record"])
def test_an_error_whose_words_are_not_read_is_listed(name):
    (unread,) = read_trace([f" <idle>-0 [001] d.h1. 428.000001: {name}: memdev=mem0 host=0000:0d:00.0\n".encode()])
    assert isinstance(unread, UnreadableRecord)
    assert (unread.place.line, unread.reason) == (1, f"`{name}` is not supported in trace text")


def test_an_event_that_goes_on_for_ever_is_held_to_a_limit():
    lines = [daemon_arm()[0], *["x" * 1000] * (2 * MAX_TEXT // 1000)]
    reading = only(*lines)
    assert any(f"after the first {MAX_TEXT} characters" in phrase for phrase in reading.lost)


@given(infos=st.lists(st.binary(min_size=32, max_size=32), max_size=4), vendor=st.binary(max_size=40), form=st.booleans())
def test_whatever_is_printed_of_an_arm_event_comes_back(infos, vendor, form):
    data = b"".join(infos)
    whole = vendor[: len(vendor) & ~3]
    lines = [FTRACE.format("arm_event", kernel_arm(info=data, vendor=vendor))] if form else daemon_arm(info=data, vendor=whole)
    arm = section(*lines)
    assert [info.encode() for info in arm.error_infos] == infos
    assert (arm.vendor_info or b"") == (vendor if form else whole)


EVENTS = [
    FTRACE.format("mc_event", MC),
    FTRACE.format("arm_event", kernel_arm()),
    *daemon_arm(),
    FTRACE.format("memory_failure_event", "pfn 0x27caf: recovery action for dirty LRU page: Recovered"),
    "noise",
]


@given(
    lines=st.lists(st.sampled_from(EVENTS) | st.text(max_size=60), max_size=12),
    cuts=st.lists(st.integers(0, 400), min_size=12, max_size=12),
    junk=st.binary(max_size=20),
)
def test_any_lines_give_readings_and_no_more_than_there_are_events(lines, cuts, junk):
    data = [line.encode()[: cut or None] + junk for line, cut in zip(lines, cuts, strict=False)]
    items = list(read_trace(data))
    assert all(isinstance(item, (FoundError, UnreadableRecord, UnmatchedRow)) for item in items)
    assert len(items) <= len(data)
    assert [item.place.line for item in items] == sorted(item.place.line for item in items)
