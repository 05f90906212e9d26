"""Tests of the rasdaemon row parser: sections of each table, and listed losses."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.ras.page_failures import FailureRows
from ras_triage.models.formats.ras.rasdaemon import OBSERVATION_TABLES, READERS, read_rows
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.results import FoundError, UnreadableRecord
from ras_triage.models.notification import Notification
from ras_triage.models.records.block_fields import StructuredBlock, decode_structured
from ras_triage.models.records.guid import ARM_PROCESSOR, MEMORY2, guid
from ras_triage.models.sections.arm_processor import ArmErrorInfo

TIME = {"id": 7, "timestamp": "2024-07-11 09:50:45 +0200"}
VENDOR = guid("e8ed898d-df16-43cc-8ecc-54f060ef157f")
APEI = (
    "APEI location: node:1 card:2 module:3 rank:0 bank:257 bank_group:1 bank_address:1 device:4 row:70000 col:6 bit_pos:7 "
    "DIMM DMI handle: 0x0012 status(0x0000000000000400): Storage error in DRAM memory"
)
MC = {
    **TIME, "err_count": 1, "err_type": "Corrected", "err_msg": "Single-bit ECC", "label": "DIMM_A1", "mc": 0, "top_layer": 0,
    "middle_layer": -1, "lower_layer": -1, "address": 0x56EDD040, "grain": 6, "syndrome": 0, "driver_detail": APEI,
}  # fmt: skip


def only(table: str, row: dict, **given):
    (item,) = read_rows(table, [row], **given)
    return item


def block(reading: FoundError) -> StructuredBlock:
    return decode_structured(reading.event.status_block)


def section(table: str, row: dict):
    return block(only(table, row)).sections[0]


def test_a_memory_controller_event_of_firmware_gives_back_the_firmwares_fields():
    reading = only("mc_event", MC)
    memory = block(reading).sections[0]
    assert (block(reading).severity, memory.severity) == (2, 2)
    assert memory.physical_address == 0x56EDD040
    assert (memory.node, memory.card, memory.module, memory.rank, memory.device) == (1, 2, 3, 0, 4)
    assert (memory.bank_group, memory.bank_address, memory.column, memory.bit_position) == (1, 1, 6, 7)
    assert (memory.row, memory.extended_row_bits, memory.full_row) == (70000 - 65536, 1, 70000)
    assert (memory.error_status, memory.memory_error_type, memory.module_handle) == (0x400, 2, 0x12)
    assert memory.physical_address_mask is None
    assert reading.place.item == "mc_event/7"
    assert reading.event.time == datetime(2024, 7, 11, 7, 50, 45, tzinfo=UTC)
    assert any("2^6 bytes" in phrase for phrase in reading.lost)
    assert any("`DIMM_A1`" in phrase for phrase in reading.lost)


def test_newer_kernels_print_the_location_with_other_names_and_it_reads_the_same():
    detail = (
        "APEI location: node: 1 requestor_id: 0x0000000000000005 chip_id: 3 error_status: Storage error in DRAM memory (0x0000000000000400)"
    )
    memory = section("mc_event", {**MC, "driver_detail": detail, "err_msg": "multi-bit ECC"})
    assert (memory.node, memory.requestor_id, memory.chip_identification, memory.error_status, memory.memory_error_type) == (
        1,
        5,
        3,
        0x400,
        3,
    )


def test_the_target_that_old_kernels_print_is_the_responders_and_is_left_out():
    memory = section("mc_event", {**MC, "driver_detail": "APEI location: responderID: 0x2 targetID: 0x2"})
    assert (memory.responder_id, memory.target_id) == (2, None)


def test_a_drivers_own_detail_gives_no_location():
    reading = only("mc_event", {**MC, "driver_detail": "area:DRAM node:1 err_code:0001:0090"})
    memory = block(reading).sections[0]
    assert (memory.node, memory.memory_error_type) == (None, None)
    assert any("no firmware record" in phrase for phrase in reading.lost)


def test_an_address_that_sqlite_stored_signed_is_unsigned_again():
    assert section("mc_event", {**MC, "address": -(2**63) + 0x1000}).physical_address == 2**63 + 0x1000


def test_an_address_of_0_is_no_address():
    reading = only("mc_event", {**MC, "address": 0})
    assert block(reading).sections[0].physical_address is None
    assert any("both are traced as 0" in phrase for phrase in reading.lost)


@pytest.mark.parametrize(
    ("told", "section_severity", "block_severity", "assumed"),
    [
        ("Corrected", 2, 2, {"/status_block/severity"}),
        ("Info", 3, 3, {"/status_block/severity"}),
        ("Uncorrected", 0, 0, {"/status_block/severity", "/status_block/sections/0/severity"}),
        ("Deferred", 0, 0, {"/status_block/severity", "/status_block/sections/0/severity"}),
        ("Fatal", 1, 0, {"/status_block/severity"}),
        ("", 0, 0, {"/status_block/severity", "/status_block/sections/0/severity"}),
        (None, 0, 0, {"/status_block/severity", "/status_block/sections/0/severity"}),
    ],
)
def test_a_severity_is_the_sections_and_the_blocks_is_assumed(told, section_severity, block_severity, assumed):
    reading = only("mc_event", {**MC, "err_type": told})
    assert (block(reading).sections[0].severity, block(reading).severity) == (section_severity, block_severity)
    assert {one.field for one in reading.assumed} == assumed | {"/notification/type"}


def test_a_fatal_section_that_was_traced_was_not_in_a_fatal_block():
    reading = only("mc_event", {**MC, "err_type": "Fatal"})
    assert any("panics on a fatal block before it traces" in one.because for one in reading.assumed)


def test_the_callers_notification_outranks_the_assumed_one():
    assert only("mc_event", MC).event.notification == Notification(type="gsiv")
    reading = only("mc_event", MC, notification=Notification(type="sea", source_id=3))
    assert reading.event.notification == Notification(type="sea", source_id=3)
    assert "/notification/type" not in {one.field for one in reading.assumed}


INFO = ArmErrorInfo(error_type=4, error_information=0x54007F, physical_fault_address=0x1000, flags=1).encode()
CONTEXT = struct.pack("<HHI", 0, 5, 16) + bytes(16)
ARM = {
    **TIME, "error_count": 1, "affinity": -1, "mpidr": 0x80000000, "running_state": 0, "psci_state": 0,
    "err_info": INFO * 2, "context_info": CONTEXT, "vendor_info": b"\x01\x02", "error_type": " TLB error", "error_flags": "",
    "error_info": 0x54007F, "virt_fault_addr": 0, "phy_fault_addr": 0x1000,
}  # fmt: skip


def test_an_arm_event_gives_back_every_structure_of_its_blobs():
    reading = only("arm_event", ARM)
    arm = block(reading).sections[0]
    assert arm.type == "arm_processor"
    assert (arm.err_info_num, arm.context_info_num, arm.section_length) == (2, 1, 40 + 64 + 24 + 2)
    assert [info.physical_fault_address for info in arm.error_infos] == [0x1000, 0x1000]
    assert (arm.mpidr_el1, arm.running_state, arm.error_affinity_level) == (0x80000000, 0, None)
    assert (arm.contexts[0].type, arm.vendor_info) == (5, b"\x01\x02")
    assert arm.validation_bits == 0b1101
    assert any("MIDR" in phrase for phrase in reading.lost)


def test_an_arm_event_has_no_severity_and_says_so():
    reading = only("arm_event", ARM)
    assert (block(reading).severity, block(reading).sections[0].severity) == (0, 0)
    assert any("has no severity" in one.because for one in reading.assumed)


@pytest.mark.parametrize(("affinity", "level"), [(-1, None), (255, None), (None, None), (0, 0), (3, 3)])
def test_an_affinity_level_of_minus_1_or_255_is_none(affinity, level):
    assert section("arm_event", {**ARM, "affinity": affinity}).error_affinity_level == level


def test_a_running_state_of_all_ones_is_none():
    arm = section("arm_event", {**ARM, "running_state": -1, "psci_state": -1, "mpidr": 0})
    assert (arm.running_state, arm.psci_state, arm.mpidr_el1) == (None, None, None)


def test_without_a_blob_the_columns_give_the_last_structure():
    old = {**ARM, "err_info": None, "context_info": None, "vendor_info": None, "error_flags": " first error  overflow", "error_count": 3}
    reading = only("arm_event", old)
    (info,) = block(reading).sections[0].error_infos
    assert (info.error_type, info.flags, info.multiple_error, info.error_information) == (4, 9, 2, 0x54007F)
    assert (info.virtual_fault_address, info.physical_fault_address) == (None, 0x1000)
    assert any("all error information structures except the last" in phrase for phrase in reading.lost)


def test_a_table_of_the_first_release_has_the_sections_header_only():
    row = {name: ARM[name] for name in ("id", "timestamp", "error_count", "affinity", "mpidr", "running_state", "psci_state")}
    reading = only("arm_event", row)
    assert block(reading).sections[0].error_infos == ()
    assert any("not recorded by" in phrase for phrase in reading.lost)


def test_a_blob_that_ends_within_a_structure_gives_the_whole_ones():
    reading = only("arm_event", {**ARM, "err_info": INFO + b"\0" * 5, "context_info": CONTEXT + CONTEXT[:-1]})
    arm = block(reading).sections[0]
    assert (len(arm.error_infos), len(arm.contexts)) == (1, 1)
    assert {"5 bytes after the last complete error information structure", "23 bytes after the last complete context"} <= set(reading.lost)


def test_an_aer_event_names_its_device_and_its_bits():
    row = {
        **TIME,
        "dev_name": "0005:01:1f.7",
        "err_type": "Uncorrected (Fatal)",
        "err_msg": "Data Link Protocol, BIT31, Nonsense TLP Header: 40000001 0000000f 00000000 deadbeef",
    }
    reading = only("aer_event", row)
    pcie = block(reading).sections[0]
    assert (pcie.segment, pcie.bus, pcie.device, pcie.function) == (5, 1, 0x1F, 7)
    assert pcie.aer_uncorrectable_status == 1 << 4 | 1 << 31
    assert pcie.aer_correctable_status in (None, 0)
    assert pcie.aer_header_log == struct.pack("<4I", 0x40000001, 0xF, 0, 0xDEADBEEF)
    assert (pcie.severity, block(reading).severity) == (1, 0)
    assert any("`Nonsense`" in phrase for phrase in reading.lost)


def test_a_corrected_aer_event_fills_the_correctable_status():
    pcie = section("aer_event", {**TIME, "dev_name": "01:00.0", "err_type": "Corrected", "err_msg": "Receiver Error, Advisory Non-Fatal"})
    assert (pcie.aer_correctable_status, pcie.segment, pcie.severity) == (1 | 1 << 13, 0, 2)


def test_a_device_that_is_no_pci_function_is_lost():
    reading = only("aer_event", {**TIME, "dev_name": "mem0", "err_type": "Corrected", "err_msg": "Bad TLP"})
    assert block(reading).sections[0].bus is None
    assert any("`mem0` is not a PCI function" in phrase for phrase in reading.lost)


NON_STANDARD = {**TIME, "sec_type": VENDOR, "fru_id": bytes(16), "fru_text": "", "severity": "Recoverable", "error": b"\x01\x02\x03"}


def test_a_section_that_linux_does_not_decode_is_kept_as_it_stands():
    vendor = section("non_standard_event", NON_STANDARD)
    assert (vendor.type, vendor.payload, vendor.severity) == (VENDOR, b"\x01\x02\x03", 0)
    assert (vendor.fru_id, vendor.fru_text) == (None, None)
    assert vendor.entry_validation_bits == 0


def test_a_section_that_this_project_decodes_is_decoded():
    payload = struct.pack("<QQQ", 2, 0, 0x1000).ljust(96, b"\0")
    found = section("non_standard_event", {**NON_STANDARD, "sec_type": MEMORY2, "error": payload, "fru_id": VENDOR, "fru_text": "slot 3"})
    assert (found.type, found.physical_address, found.fru_id, found.fru_text) == ("memory2", 0x1000, VENDOR, "slot 3")


def test_a_section_type_that_runs_on_into_the_bytes_behind_it_is_its_first_16():
    assert section("non_standard_event", {**NON_STANDARD, "sec_type": VENDOR + VENDOR + b"\x05"}).type == VENDOR


def test_a_section_type_that_was_cut_at_zero_bytes_is_not_guessed():
    unread = only("non_standard_event", {**NON_STANDARD, "sec_type": VENDOR[:6]})
    assert isinstance(unread, UnreadableRecord)
    assert unread.place.item == "non_standard_event/7"
    assert "`sec_type`: expected the 16 bytes of a GUID, got 6" in unread.reason


COMPACT = struct.pack("<Q8HQQQ3H", 1 << 3 | 1 << 8 | 1 << 17 | 1 << 18 | 1 << 21, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)


@pytest.mark.parametrize(("data", "extended", "chip"), [(COMPACT, None, None), (COMPACT + b"\x62", 2, 3)])
def test_an_extended_error_log_event_gives_its_valid_fields(data, extended, chip):
    row = {**TIME, "etype": 3, "error_count": 1, "severity": 2, "address": -1, "fru_id": bytes(16), "fru_text": "", "cper_data": data}
    memory = section("extlog_event", row)
    assert (memory.node, memory.row, memory.module_handle, memory.card) == (1, 6, 14, None)
    assert (memory.extended_row_bits, memory.chip_identification) == (extended, chip)
    assert (memory.memory_error_type, memory.physical_address, memory.severity) == (3, None, 2)


def test_an_error_type_of_all_ones_is_none():
    assert section("extlog_event", {**TIME, "etype": 255, "severity": 0, "address": 0x1000}).memory_error_type is None


HEADER = {
    **TIME, "memdev": "mem0", "host": "0000:0d:00.0", "serial": 5, "log_type": "Failure", "hdr_uuid": "", "hdr_flags": 2, "hdr_handle": 1,
    "hdr_related_handle": 0, "hdr_ts": "2024-07-11 09:50:44 +0000", "hdr_length": 128, "hdr_maint_op_class": 1,
}  # fmt: skip


def test_a_cxl_media_event_has_its_device_address_and_no_host_address():
    row = {**HEADER, "dpa": 0x1000, "dpa_flags": 1, "descriptor": 1, "type": 2, "transaction_type": 3, "channel": 4, "rank": 5, "device": 6,
           "comp_id": bytes(range(16)), "hpa": 0x8000001000}  # fmt: skip
    reading = only("cxl_general_media_event", row)
    media = block(reading).sections[0]
    assert (media.type, media.device_physical_address, media.memory_device) == ("cxl_general_media", 0x1001, 6)
    assert (media.bus, media.serial_number, media.component_id) == (0xD, 5, bytes(range(16)))
    assert media.event_timestamp == 1720691444 * 10**9
    assert any("0x8000001000" in phrase for phrase in reading.lost)
    assert any("CXL and CPER severities differ" in one.because for one in reading.assumed)


def test_a_cxl_dram_event_has_its_bank_and_row():
    row = {
        **HEADER,
        "dpa": 0x2000,
        "nibble_mask": 7,
        "bank_group": 1,
        "bank": 2,
        "row": 3,
        "column": 4,
        "cor_mask": b"\x09" * 32,
        "log_type": "Fatal",
    }
    dram = section("cxl_dram_event", row)
    assert (dram.type, dram.nibble_mask, dram.bank_group, dram.bank, dram.row, dram.column, dram.severity) == ("cxl_dram", 7, 1, 2, 3, 4, 1)


def test_a_cxl_module_event_has_its_health():
    module = section("cxl_memory_module_event", {**HEADER, "event_type": 1, "health_status": 2, "device_temp": -5, "dirty_shutdown_cnt": 9})
    assert (module.type, module.health_status, module.device_temperature, module.dirty_shutdown_count) == (
        "cxl_memory_module",
        2,
        0xFFFB,
        9,
    )


def test_cxl_aer_events_become_protocol_errors_of_the_device():
    row = {**HEADER, "error_status": 0x410, "first_error": 0x10, "header_log": struct.pack(">128I", *range(128))}
    reading = only("cxl_aer_ue_event", row)
    protocol = block(reading).sections[0]
    assert (protocol.agent_type, protocol.agent_address, protocol.serial_number, protocol.severity) == (2, 0x0D0000, 5, 0)
    assert protocol.error_log == struct.pack("<6I16I", 0x410, 0, 0, 0, 0, 4, *range(16))
    corrected = section("cxl_aer_ce_event", {**HEADER, "error_status": 3})
    assert (corrected.severity, corrected.error_log[12]) == (2, 3)


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ("memory_failure_event", "observation"),
        ("signal_event", "observation"),
        ("mce_record", "raw"),
        ("devlink_event", "raw"),
        ("disk_errors", "raw"),
        ("cxl_poison_event", "raw"),
        ("cxl_overflow_event", "raw"),
        ("cxl_generic_event", "raw"),
        ("reri_event", "raw"),
        ("amp_payload0_event", "raw"),
    ],
)
def test_what_is_no_error_to_decide_on_is_kept_as_a_row(table, kind):
    row = only(table, {**TIME, "pfn": "0x27caf", "count": 1})
    assert isinstance(row, UnmatchedRow)
    assert (row.table, row.id, row.kind, row.format, row.place.item) == (table, 7, kind, "rasdaemon", f"{table}/7")
    assert dict(row.fields) == {**TIME, "pfn": "0x27caf", "count": 1}


FAILURE = {"id": 3, "timestamp": "2024-07-11 09:50:46 +0000", "pfn": "0x56edd", "page_type": "dirty LRU page", "action_result": "Recovered"}
ERROR = {"id": 1, "timestamp": "2024-07-11 09:50:45 +0000", "err_type": "Uncorrected", "address": 0x56EDD040}


def with_failures(*failures: dict) -> tuple[list, list]:
    """Return the items of one error and those of the table of failures."""
    known = FailureRows()
    for number, failure in enumerate(failures, 1):
        known.add(number, failure)
    errors = list(read_rows("mc_event", [ERROR], failures=known))
    return errors, list(read_rows("memory_failure_event", failures, failures=known))


def test_what_the_kernel_did_with_a_page_goes_with_the_error_of_the_page():
    (error,), rows = with_failures(FAILURE)
    (failure,) = error.observed.memory_failures
    assert (failure.pfn, failure.page_type, failure.result, failure.line) == (0x56EDD, "dirty LRU page", "recovered", 0)
    assert rows == []


@pytest.mark.parametrize(
    "change",
    [
        {"pfn": "0x99999"},
        {"pfn": "x"},
        {"timestamp": "2024-07-11 09:50:51 +0000"},
        {"timestamp": "2024-07-11 09:50:44 +0000"},
        {"timestamp": None},
        {"action_result": "Unknown"},
        {"page_type": "x" * 100},
    ],
    ids=repr,
)
def test_a_row_that_may_be_about_another_error_stays_a_row(change):
    (error,), rows = with_failures({**FAILURE, **change}, {**FAILURE, **change})
    assert error.observed is None
    assert [row.kind for row in rows] == ["observation", "observation"]


def test_an_observation_is_text_and_a_raw_row_is_what_sqlite_handed_out():
    assert dict(only("memory_failure_event", {"page_type": b"dirty LRU page"}).fields) == {"page_type": "dirty LRU page"}
    assert dict(only("amp_payload0_event", {"regs_dump": b"\xff"}).fields) == {"regs_dump": b"\xff"}


def test_a_row_without_an_id_is_known_by_its_number():
    rows = list(read_rows("mc_event", [{"err_type": "Corrected"}, {"err_type": "Corrected"}]))
    assert [row.place.item for row in rows] == ["mc_event/1", "mc_event/2"]
    assert all("the time" in row.lost for row in rows)


def test_text_may_come_as_bytes():
    assert block(only("mc_event", {**MC, "err_type": b"Corrected", "timestamp": b"2024-07-11 09:50:45 +0000"})).severity == 2
    zone = timezone(timedelta(hours=2))
    assert only("mc_event", MC).event.time == datetime(2024, 7, 11, 9, 50, 45, tzinfo=zone)


CONTRADICTION = "the section cannot be encoded: fields contradict each other or are too long"


@pytest.mark.parametrize(
    ("table", "row", "why"),
    [
        ("mc_event", {**MC, "address": "here"}, "`address` is not a number of 64 bits"),
        ("mc_event", {**MC, "address": 2**64}, "`address` is not a number of 64 bits"),
        ("mc_event", {**MC, "address": 1.5}, "`address` is not a number of 64 bits"),
        ("mc_event", {**MC, "err_type": 5}, "`err_type` is not text"),
        ("mc_event", {**MC, "driver_detail": "APEI location: node:99999"}, "`node`: 99999 does not fit into 16 bits"),
        ("mc_event", {**MC, "timestamp": 5}, "`timestamp` is not text"),
        ("arm_event", {**ARM, "err_info": 5}, "`err_info` is not a blob"),
        ("arm_event", {**ARM, "err_info": bytes(32 * 40000)}, CONTRADICTION),
        ("mc_event", {**MC, "driver_detail": "APEI location: bank:257 bank_group:2"}, CONTRADICTION),
        ("extlog_event", {**TIME, "cper_data": b"123"}, "the location has 3 bytes; expected 54 or more"),
        ("extlog_event", {**TIME, "severity": 4}, "`severity`: 4 is not a CPER severity; expected 0 to 3"),
        ("extlog_event", {**TIME, "fru_id": b"123"}, "`fru_id`: expected 16 bytes, got 3"),
        ("aer_event", {**TIME, "dev_name": "0000:00:20.0"}, "`dev_name`: device number 0x20 is above 0x1f"),
        ("cxl_dram_event", {**HEADER, "bank": 256}, "`bank`: 256 does not fit into 8 bits"),
        ("cxl_dram_event", {**HEADER, "cor_mask": b"1"}, "`cor_mask`: expected 32 bytes, got 1"),
    ],
)  # fmt: skip
def test_a_column_that_does_not_hold_what_it_should_makes_the_row_unread(table, row, why):
    unread = only(table, row)
    assert isinstance(unread, UnreadableRecord)
    assert (unread.reason, unread.format) == (why, "rasdaemon")


COLUMNS = sorted({*MC, *ARM, *NON_STANDARD, *HEADER, "dev_name", "err_msg", "cper_data", "dpa", "bank", "row", "header_log", "first_error"})
values = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-2, 300)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=70)
    | st.booleans()
)


@pytest.mark.parametrize("table", sorted(READERS))
@given(row=st.dictionaries(st.sampled_from(COLUMNS), values, max_size=12))
def test_any_row_is_read_or_refused_and_nothing_else(table, row):
    item = only(table, row)
    assert isinstance(item, (FoundError, UnreadableRecord))
    if isinstance(item, FoundError):
        assert decode_structured(item.event.status_block).sections


@given(infos=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=5), midr=st.integers(0, 2**64 - 1), rank=st.integers(0, 3))
def test_every_error_information_structure_survives(infos, midr, rank):
    row = {"err_info": b"".join(infos), "mpidr": 1, "midr": midr, "severity": rank}
    arm = section("arm_event", row)
    assert [info.encode() for info in arm.error_infos] == infos
    assert (arm.midr_el1, arm.severity) == (midr, (3, 2, 0, 1)[rank])


def test_tables_are_errors_or_observations_and_not_both():
    assert not OBSERVATION_TABLES & set(READERS)
    assert ARM_PROCESSOR in only("arm_event", ARM).event.status_block
