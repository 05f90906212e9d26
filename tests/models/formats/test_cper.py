"""Tests of the CPER parser and writer."""

from __future__ import annotations

import base64
import struct
import time as clock
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event
from ras_triage.models.formats.cper import read_cper, write_record
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.records.cper_record import (
    DESCRIPTOR_LENGTH,
    NOTIFICATION_TYPES,
    TIMESTAMP_VALID,
    SectionDescriptor,
    decode_record,
    encode_record,
)
from ras_triage.models.records.guid import MEMORY, guid
from ras_triage.models.records.status_block import decode_block
from ras_triage.models.sections.fields import encode_timestamp
from tests.models.formats.records import BLOCK, MEMORY_BODY, TIME, VENDOR, carried, entries, events, only, record, refused, section_dicts

RECORD = record()


def patched(data: bytes, at: int, part: bytes) -> bytes:
    return data[:at] + part + data[at + len(part) :]


def as_words(data: bytes) -> bytes:
    words = [f"0x{word:08x}" for (word,) in struct.iter_unpack("<I", data)]
    return "\n".join(f"{at * 4:016x}: {' '.join(words[at : at + 4])}" for at in range(0, len(words), 4)).encode()


ENCODINGS = {
    "bytes": bytes,
    "hexadecimal": lambda data: data.hex().encode(),
    "hexadecimal in lines": lambda data: data.hex("\n", -30).encode(),
    "hexadecimal in groups": lambda data: data.hex(" ", -4).encode(),
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
}


ENCODING_SAID = {encode: [("/status_block", "hexadecimal")] for name, encode in ENCODINGS.items() if name.startswith("hexadecimal")}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_a_record_is_read_however_its_bytes_are_written_down(encode):
    reading = only(read_cper(encode(RECORD)))
    assert (reading.event.notification.type, reading.format, reading.place) == ("sea", "cper", Position(offset=0))
    assert reading.lost == ()
    assert [(one.field, one.assumed) for one in reading.assumed] == ENCODING_SAID.get(encode, [])
    assert [section["type"] for section in section_dicts(reading.event)] == ["memory", "pcie"]
    assert section_dicts(reading.event)[0]["physical_address"] == "0x56edd040"


@pytest.mark.parametrize("encode", [*ENCODINGS.values(), as_words], ids=[*ENCODINGS, "words"])
def test_a_status_block_is_read_however_its_bytes_are_written_down(encode):
    reading = only(read_cper(encode(BLOCK)))
    assert reading.event.status_block == BLOCK
    assert [(one.field, one.assumed) for one in reading.assumed] == [("/notification/type", "gsiv"), *ENCODING_SAID.get(encode, [])]
    assert reading.lost == ()


def test_the_callers_notification_outranks_the_records():
    told = Notification(type=NotificationType.GPIO, source_id=3)
    assert only(read_cper(RECORD, notification=told)).event.notification == told
    reading = only(read_cper(BLOCK, notification=NotificationType.SEI))
    assert (reading.event.notification.type, reading.assumed) == ("sei", ())


def test_a_notification_type_that_hest_does_not_have_is_named_and_lost():
    reading = only(read_cper(record("pei")))
    assert [assumed.because for assumed in reading.assumed] == ["HEST does not have this CPER notification type"]
    assert reading.lost == ("the notification type `pei`",)


def test_a_records_time_is_taken_for_utc_and_said_to_be():
    header = decode_record(RECORD).model_copy(update={"timestamp": encode_timestamp(TIME), "validation_bits": TIMESTAMP_VALID})
    reading = only(read_cper(encode_record(header)))
    assert reading.event.time == TIME
    assert [(assumed.field, assumed.assumed) for assumed in reading.assumed] == [("/time", "2026-11-22T10:00:07Z")]


@pytest.mark.parametrize("valid", [TIMESTAMP_VALID, 0])
def test_a_timestamp_that_is_no_date_or_not_valid_is_no_time(valid):
    unix_seconds = decode_record(RECORD).model_copy(update={"timestamp": bytes.fromhex("c3b2a16800000000"), "validation_bits": valid})
    reading = only(read_cper(encode_record(unix_seconds)))
    assert (reading.event.time, reading.assumed) == (None, ())
    assert reading.lost == (("the record's timestamp: not a date (bytes `c3b2a16800000000`)",) if valid else ())


def test_what_an_event_has_no_place_for_is_named():
    update = {"creator_id": guid(VENDOR), "platform_id": guid(VENDOR), "record_id": 7, "flags": 6, "persistence_information": 9}
    whole = decode_record(RECORD)
    sections = tuple(section.model_copy(update={"revision": 0x0300}) for section in whole.sections)
    full = whole.model_copy(update={**update, "reserved": b"x" * 12, "revision": 0x0100, "sections": sections})
    assert only(read_cper(encode_record(full) + b"xyz")).lost == (
        f"the platform id `{VENDOR}`",
        f"the creator id `{VENDOR}`",
        "the record id `0x7`",
        "the persistence information `0x9`",
        "the record's flags `0x6` (previous error, simulated)",
        "the record's revision `0x0100`",
        "the section descriptors' revision `0x0300`",
        "reserved bytes of the record header",
        "3 bytes after the record",
    )


def test_records_behind_each_other_are_all_read():
    readings = list(read_cper(RECORD + record("sei") + record("nmi")))
    assert [reading.event.notification.type for reading in readings] == ["sea", "sei", "nmi"]
    assert [reading.place.offset for reading in readings] == [0, len(RECORD), len(RECORD) + len(record("sei"))]


def test_bytes_between_records_belong_to_the_one_before_them():
    first, second = read_cper(RECORD + bytes(5) + record("sei"))
    assert (first.lost, second.lost, second.place.offset) == (("5 bytes after the record",), (), len(RECORD) + 5)


@pytest.mark.parametrize("length", [0, 127, len(RECORD) - 1, len(RECORD) + 1, 2**32 - 1])
def test_a_wrong_length_costs_no_more_than_its_own_record(length):
    first, second, third = read_cper(RECORD + patched(RECORD, 20, struct.pack("<I", length)) + record("sei"))
    assert isinstance(first, FoundError)
    assert isinstance(second, UnreadableRecord) == (length < len(RECORD))
    assert (third.event.notification.type, third.place.offset) == ("sei", 2 * len(RECORD))


def test_a_record_within_a_section_is_not_read_twice():
    outer = encode_structured({"severity": 2, "sections": [{"type": VENDOR, "payload": base64.b64encode(RECORD).decode()}]})
    assert only(read_cper(record("sei", block=outer))).event.notification.type == "sei"


@pytest.mark.parametrize("cut", range(0, len(RECORD), 3))
def test_a_record_cut_anywhere_says_where_it_ends(cut):
    unread = refused(read_cper(RECORD[:cut]))
    assert unread.reason
    assert unread.place.offset is not None
    assert 0 <= unread.place.offset <= cut


@pytest.mark.parametrize("cut", range(0, len(BLOCK), 3))
def test_a_status_block_cut_within_its_last_section_reads_as_zero_behind_the_cut_and_any_other_is_unread(cut):
    (found,) = read_cper(BLOCK[:cut])
    last = decode_block(BLOCK).entries[-1]
    if last.payload_offset < cut:
        assert isinstance(found, FoundError)
        assert found.lost == (f"the block's last {len(BLOCK) - cut} bytes: missing, read as zero",)
    elif cut <= last.offset:
        assert isinstance(found, UnreadableRecord)
        assert found.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the input is empty"),
        (bytes(200), "all bytes are zero: no error is pending in such a status block"),
        (b"hello, world", "the bytes are neither a CPER record nor a status block; for the body of a section, specify the section type"),
        (patched(BLOCK, 0, bytes(4)), "no error is pending in the status block: its `block_status` is 0"),
        (
            patched(BLOCK, 20 + 24, b"\xff\xff\xff\xff"),
            "the bytes are neither a CPER record nor a status block (parsed as one: a header of 72 bytes and 4294967295 of data exceed",
        ),
        (patched(BLOCK, 12, b"\xff\xff\xff\xff"), "the bytes are neither a CPER record nor a status block"),
        (patched(RECORD, 6, b"\0"), "signature end 0xffffff00; expected 0xffffffff (`signature_end`)"),
        (patched(RECORD, 10, b"\xff\xff"), f"the stated length is {len(RECORD)} bytes; header and 65535 section descriptors need 4718648"),
        (patched(RECORD, 128 + 4, b"\xff\xff\xff\xff"), "section 0: the section's 4294967295 bytes from byte 272 do not fit"),
        (patched(RECORD, 128 + 72, b"\xff\xff\xff\xff"), "section 1: the section begins at byte 4294967295; expected 272 to 560"),
    ],
)
def test_bytes_that_hold_no_error_say_why(data, reason):
    assert refused(read_cper(data)).reason.startswith(reason)


def test_a_fault_in_the_second_record_is_placed_in_the_file():
    _, unread = read_cper(RECORD + patched(RECORD, 128, b"\0"))
    assert unread.place.offset == len(RECORD) + 128


def test_sections_that_share_bytes_are_not_read_twice():
    shared = decode_record(RECORD)
    first = shared.sections[0].model_copy(update={"section_length": len(shared.body)})
    second = first.model_copy(update={"section_type": guid(VENDOR)})
    unread = refused(read_cper(encode_record(shared.model_copy(update={"sections": (first, second)}))))
    assert unread.reason == "the sections together are longer than the record (`section_length`)"


def test_more_sections_than_an_event_can_hold_are_refused():
    data = bytes(65535 * 72)
    head = decode_record(RECORD).model_copy(update={"sections": (), "body": data, "record_length": 128 + len(data)})
    many = patched(encode_record(head), 10, b"\xff\xff")
    offsets = b"".join(struct.pack("<I", 128 + len(data)) + bytes(68) for _ in range(65535))
    unread = refused(read_cper(patched(many, 128, offsets)))
    assert unread.reason == "the sections give a status block of 4718540 bytes; expected at most 1048576"


def test_a_status_block_longer_than_an_events_is_refused():
    long = BLOCK + bytes(1 << 20)
    assert refused(read_cper(long)).reason == f"the status block has {len(long)} bytes; expected at most 1048576"


@pytest.mark.parametrize("kind", ["memory", "a5bc1114-6f64-4ede-b863-3e83ed7c83b1"])
def test_a_sections_body_needs_its_type_and_its_severity_is_assumed(kind):
    reading = only(read_cper(MEMORY_BODY, section_type=kind, notification=NotificationType.SEA))
    (section,) = section_dicts(reading.event)
    assert (section["type"], section["severity"], section["physical_address"]) == ("memory", "recoverable", "0x56edd040")
    assert [(assumed.field, assumed.assumed) for assumed in reading.assumed] == [("/status_block/severity", "recoverable")]
    assert reading.lost == ("the section's flags, FRU and timestamp",)


def test_a_severity_that_is_told_is_not_assumed():
    reading = only(read_cper(MEMORY_BODY, section_type="memory", severity=2, notification=NotificationType.SEA))
    assert (section_dicts(reading.event)[0]["severity"], reading.assumed) == ("corrected", ())


def test_a_sections_body_without_bytes_is_unread():
    assert refused(read_cper(b"", section_type="memory")).reason == "the `memory` section has no bytes"


def test_a_section_type_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="unknown section type `memroy`; expected a name"):
        list(read_cper(MEMORY_BODY, section_type="memroy"))


@pytest.mark.parametrize("whole", [RECORD, BLOCK], ids=["record", "status block"])
def test_bytes_that_are_more_than_a_section_are_not_taken_for_one(whole):
    assert [section["type"] for section in section_dicts(only(read_cper(whole, section_type="pcie")).event)] == ["memory", "pcie"]


def described(section_type: bytes) -> bytes:
    place = {"section_offset": DESCRIPTOR_LENGTH, "section_length": len(MEMORY_BODY)}
    fields = {"section_type": section_type, "severity": 2, "flags": 8, "validation_bits": 2, "fru_text": "DIMM 4"}
    return SectionDescriptor(**place, **fields).encode() + MEMORY_BODY


@pytest.mark.parametrize("told", [None, "memory"])
def test_a_section_with_its_descriptor_in_front_says_all_that_the_descriptor_says(told):
    reading = only(read_cper(described(MEMORY), section_type=told, notification=NotificationType.SEA))
    (section,) = section_dicts(reading.event)
    assert (section["severity"], section["flags"], section["fru_text"]) == ("corrected", ["threshold_exceeded"], "DIMM 4")
    assert (reading.assumed, reading.lost) == ((), ())


def test_a_descriptor_of_an_unknown_type_counts_where_the_type_is_told():
    assert section_dicts(only(read_cper(described(guid(VENDOR)), section_type=VENDOR)).event)[0]["severity"] == "corrected"
    assert refused(read_cper(described(guid(VENDOR)))).reason.startswith("the bytes are neither")


@pytest.mark.parametrize("event", [{"notification": "sea"}, {"notification": "sea", "status_block": BLOCK[:-1]}])
def test_an_event_without_a_whole_block_makes_no_record(event):
    with pytest.raises((ValueError, MalformedBytes)):
        write_record(Event.model_validate(event))


def test_a_records_time_is_the_events_to_the_second_and_in_utc():
    event = Event(notification=Notification(type=NotificationType.SEA), status_block=BLOCK, time=TIME + timedelta(microseconds=5))
    assert only(read_cper(write_record(event))).event.time == TIME
    east = event.model_copy(update={"time": datetime.fromisoformat("2026-11-22T12:00:07+02:00")})
    assert only(read_cper(write_record(east))).event.time == TIME


def test_a_time_that_firmware_called_precise_stays_precise():
    at = decode_record(RECORD).model_copy(
        update={"timestamp": encode_timestamp(TIME), "timestamp_precise": True, "validation_bits": TIMESTAMP_VALID}
    )
    reading = only(read_cper(encode_record(at)))
    assert reading.event.time == TIME
    assert decode_record(write_record(reading.event)).timestamp_precise
    later = reading.event.model_copy(update={"time": TIME + timedelta(seconds=1)})
    assert not decode_record(write_record(later)).timestamp_precise


def test_a_record_can_be_given_an_id_and_a_creator():
    event = Event(notification=Notification(type=NotificationType.SEA), status_block=BLOCK)
    written = decode_record(write_record(event, record_id=5, creator_id=guid(VENDOR)))
    assert (written.record_id, written.creator_id, written.notification_type) == (5, guid(VENDOR), NOTIFICATION_TYPES["sea"])


@given(event=events())
def test_an_event_written_as_a_record_loses_nothing_that_a_record_can_carry(event):
    again = only(read_cper(write_record(event), notification=event.notification)).event
    assert carried(again) == carried(event)
    if event.time is not None:
        assert again.time == event.time.replace(microsecond=0)


@given(event=events())
def test_a_notification_type_that_cper_has_too_comes_back_by_itself(event):
    reading = only(read_cper(write_record(event)))
    told = event.notification.type in ("sea", "sei", "nmi", "mce")
    assert (reading.event.notification.type == event.notification.type) == (told or event.notification.type == "gsiv")
    assert any(assumed.field == "/notification/type" for assumed in reading.assumed) == (not told)


@given(event=events())
def test_an_event_that_came_from_a_record_comes_back_exactly(event):
    first = only(read_cper(write_record(event))).event
    assert only(read_cper(write_record(first))).event == first


STARTS = [b"", b"CPER", RECORD, RECORD[:140], BLOCK[:24], b"0x", b"4350"]


@given(data=st.binary(max_size=400), start=st.sampled_from(STARTS), kind=st.none() | st.just("memory"))
def test_any_bytes_end_in_readings_or_reasons(data, start, kind):
    found = list(read_cper(start + data, section_type=kind))
    assert found
    assert all(one.event.status_block if isinstance(one, FoundError) else one.reason for one in found)


@given(parts=st.lists(entries(), max_size=3), edits=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6))
def test_a_mutated_record_ends_in_readings_or_reasons(parts, edits):
    block = encode_structured({"severity": 0, "sections": []})
    block = block[:12] + struct.pack("<I", sum(map(len, parts))) + block[16:] + b"".join(parts)
    data = bytearray(record(block=block) * 2)
    for at, byte in edits:
        data[at % len(data)] = byte
    assert all(isinstance(one, (FoundError, UnreadableRecord)) for one in read_cper(bytes(data)))


HOSTILE = {
    "headers that claim 4 GiB": patched(RECORD[:128], 20, b"\xff\xff\xff\xff") * 20_000,
    "headers that claim 65535 sections": patched(RECORD[:128], 10, b"\xff\xff") * 20_000,
    "headers that claim all that follows": b"".join(patched(RECORD[:128], 20, struct.pack("<I", 128 * n)) for n in range(20_000, 0, -1)),
    "signatures": b"CPER\0\0\xff\xff\xff\xff" * 100_000,
    "zeroes": bytes(3_000_000),
    "digits": b"4" * 3_000_001,
    "commas": b"# \n" * 1_000_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_take_time_linear_in_their_length(data):
    began = clock.process_time()
    assert sum(1 for _ in read_cper(data)) >= 1
    assert clock.process_time() - began < 10
