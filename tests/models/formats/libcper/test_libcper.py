"""Tests of the libcper parser: same events as from the original records."""

from __future__ import annotations

import base64
import json
import time as clock
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.libcper.reader import read_libcper
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.block_fields import decode_structured
from ras_triage.models.records.cper_record import NOTIFICATION_TYPES
from ras_triage.models.records.guid import ARM_PROCESSOR, MEMORY, guid, guid_text
from tests.models.formats.records import VENDOR, only, refused, section_dicts

DROPPED = "reserved bytes, and fields whose validation bit is clear: omitted by libcper"
FLAGS = "primary containmentWarning reset errorThresholdExceeded resourceNotAccessible latentError propagated overflow".split()  # noqa: SIM905
SEA = guid_text(NOTIFICATION_TYPES["sea"])


def header(**more: Any) -> dict[str, Any]:
    return {
        "revision": {"major": 1, "minor": 1},
        "sectionCount": 1,
        "severity": {"code": 2, "name": "Corrected"},
        "recordLength": 280,
        "creatorID": "00000000-0000-0000-0000-000000000000",
        "notificationType": {"guid": SEA, "type": "SEA"},
        "recordID": 0,
        "flags": {"value": 0, "name": "Unknown"},
        "persistenceInfo": 0,
        **more,
    }


def descriptor(kind: bytes = MEMORY, length: int | None = 80, **more: Any) -> dict[str, Any]:
    return {
        "sectionOffset": 200,
        "sectionLength": length,
        "revision": {"major": 1, "minor": 0},
        "flags": dict.fromkeys(FLAGS, False) | {"errorThresholdExceeded": True},
        "sectionType": {"data": guid_text(kind), "type": "Platform Memory"},
        "severity": {"code": 2, "name": "Corrected"},
        **more,
    }


MEMORY_SECTION = {"message": "A Memory Error occurred", "Memory": {"physicalAddress": 0x56EDD040, "node": 1}}


def document(*pairs: tuple[Any, Any], head: dict[str, Any] | None = None) -> dict[str, Any]:
    pairs = pairs or ((descriptor(), MEMORY_SECTION),)
    return {"header": head or header(), "sectionDescriptors": [one for one, _ in pairs], "sections": [one for _, one in pairs]}


def read(value: Any, **told: Any) -> list[FoundError | UnreadableRecord]:
    return list(read_libcper(json.dumps(value).encode(), **told))


def test_a_record_is_read_with_its_header_descriptors_and_sections():
    reading = only(read(document()))
    (section,) = section_dicts(reading.event)
    assert (reading.event.notification.type, reading.format, reading.place) == ("sea", "libcper", Position(item=""))
    assert (section["severity"], section["flags"], section["physical_address"]) == ("corrected", ["threshold_exceeded"], "0x56edd040")
    assert decode_structured(reading.event.status_block).severity == 2
    assert (reading.assumed, reading.lost) == ((), (DROPPED,))


def test_a_fru_is_there_where_it_is_named():
    section = section_dicts(only(read(document((descriptor(fruID=VENDOR, fruText="DIMM 4"), MEMORY_SECTION)))).event)[0]
    assert (section["fru_id"], section["fru_text"], section["entry_validation_bits"]) == (VENDOR, "DIMM 4", "0x3")
    bare = section_dicts(only(read(document())).event)[0]
    assert ("fru_id" in bare, "fru_text" in bare, bare["entry_validation_bits"]) == (False, False, "0x0")


def test_the_records_time_is_taken_for_utc_and_said_to_be():
    reading = only(read(document(head=header(timestamp="2026-11-22T10:00:07+00:00", timestampIsPrecise=True))))
    assert reading.event.time == datetime(2026, 11, 22, 10, 0, 7, tzinfo=UTC)
    assert [assumed.field for assumed in reading.assumed] == ["/time"]
    assert section_dicts(reading.event)[0]["timestamp_precise"] is True


@pytest.mark.parametrize("text", ["0000-00-00T19:44:12+00:00", "2026-13-22T10:00:07+00:00"])
def test_a_time_that_is_no_date_is_named_and_lost(text):
    reading = only(read(document(head=header(timestamp=text))))
    assert reading.event.time is None
    assert reading.lost[0].startswith("the record's timestamp: not a date")


def test_what_an_event_has_no_place_for_is_named():
    full = header(
        platformID=VENDOR,
        recordID=2**64 - 1,
        flags={"value": 4, "name": "HW_ERROR_FLAGS_SIMULATED"},
        notificationType={"guid": guid_text(NOTIFICATION_TYPES["pei"]), "type": "PEI"},
    )
    assert only(read(document(head=full))).lost == (
        "the notification type `pei`",
        f"the platform id `{VENDOR}`",
        "the record id `0xffffffffffffffff`",
        "the record's flags `0x4` (simulated)",
        DROPPED,
    )


def test_the_callers_notification_outranks_the_records():
    told = Notification(type=NotificationType.SEI, source_id=1)
    assert only(read(document(), notification=told)).event.notification == told


def test_a_single_section_has_no_header_and_takes_the_sections_severity():
    reading = only(read({"sectionDescriptor": descriptor(), "section": MEMORY_SECTION}))
    assert decode_structured(reading.event.status_block).severity == 2
    assert [(assumed.field, assumed.assumed) for assumed in reading.assumed] == [
        ("/notification/type", "gsiv"),
        ("/status_block/severity", "corrected"),
    ]


def test_a_single_section_may_bring_a_header_along():
    one = {"header": header(severity={"code": 1, "name": "Fatal"}), "sectionDescriptor": descriptor(), "section": MEMORY_SECTION}
    reading = only(read(one))
    assert (decode_structured(reading.event.status_block).severity, reading.assumed) == (1, ())


@pytest.mark.parametrize(("severity", "expected"), [({"name": "Fatal"}, "fatal"), ({"code": 7, "name": "Unknown"}, 7)])
def test_a_severity_is_its_number_or_where_there_is_none_its_name(severity, expected):
    section = section_dicts(only(read(document((descriptor(severity=severity), MEMORY_SECTION)))).event)[0]
    assert section["severity"] == expected


def test_a_section_without_a_severity_is_assumed_to_be_recoverable():
    reading = only(read(document((descriptor(severity=None), MEMORY_SECTION))))
    assert [(assumed.field, assumed.assumed) for assumed in reading.assumed] == [("/status_block/sections/0/severity", "recoverable")]


ARM = {
    "errorInfoNum": 1,
    "contextInfoNum": 0,
    "sectionLength": 72,
    "midrEl1": 0,
    "errorInfo": [{"version": 0, "length": 32, "errorType": {"value": 1, "name": "Cache Error"}, "physicalFaultAddress": 2**42}],
}


@pytest.mark.parametrize(("numbering", "number"), [("uefi-2.10", "0x2"), ("uefi-2.11", "0x1"), ("legacy", "0x0")])
def test_an_arm_error_type_is_numbered_as_asked_and_the_host_facts_say_how(numbering, number):
    reading = only(read(document((descriptor(ARM_PROCESSOR, 72), {"ArmProcessor": ARM})), arm_error_types=numbering))
    assert section_dicts(reading.event)[0]["error_infos"][0]["error_type"] == number
    assert reading.event.host.arm_error_types == numbering
    assert [assumed.field for assumed in reading.assumed] == ["/status_block/sections/0/error_infos/0/error_type"]


def test_host_facts_about_arm_stay_out_of_other_events():
    assert only(read(document())).event.host.arm_error_types is None


def test_a_body_without_its_name_is_read_as_older_versions_wrote_it():
    old = {"physicalAddress": 64, "validationBits": {"physicalAddressValid": True}}
    assert section_dicts(only(read(document((descriptor(), old)))).event)[0]["physical_address"] == "0x40"


def test_the_name_of_a_body_tells_its_type_where_the_descriptor_does_not():
    assert section_dicts(only(read({"section": MEMORY_SECTION})).event)[0]["type"] == "memory"


def test_bytes_that_libcper_could_not_read_are_passed_on():
    raw = {"Unknown": {"data": base64.b64encode(b"xyz").decode()}}
    for kind in (guid(VENDOR), MEMORY):
        (section,) = decode_structured(only(read(document((descriptor(kind, 3), raw)))).event.status_block).sections
        assert section.encode_payload() == b"xyz"


def test_a_section_told_in_words_keeps_its_type_severity_and_flags_and_has_no_bytes():
    reading = only(read(document((descriptor(guid(VENDOR), 128), {"Nvidia": {"signature": "X"}}))))
    (section,) = section_dicts(reading.event)
    assert (section["type"], section["severity"], section["flags"], section["payload"]) == (VENDOR, "corrected", ["threshold_exceeded"], "")
    assert [(assumed.field, assumed.assumed) for assumed in reading.assumed] == [("/status_block/sections/0/payload", "empty")]
    assert reading.lost[0] == "the section's 128 bytes: omitted by libcper"


def test_a_section_that_cannot_be_read_is_reported_and_the_rest_goes_on():
    bad = {"Memory": {"node": 70_000}}
    unread, reading = read(document((descriptor(), bad), (descriptor(), MEMORY_SECTION)))
    assert (unread.place, unread.reason) == (Position(item="/sections/0"), "`node`: input should be less than 65536")
    assert [section["node"] for section in section_dicts(reading.event)] == [1]
    assert reading.lost[0] == "the section at `/sections/0` (Platform Memory)"


@pytest.mark.parametrize(
    ("length", "payload", "lost"),
    [
        (73, 73, ()),
        (100, 80, ("the section's last 20 bytes: omitted by libcper",)),
        (20, 80, ("the stated section length of 20 bytes: the fields need more",)),
        (None, 80, ()),
    ],
)
def test_a_sections_stated_length_is_kept_where_nothing_is_lost_by_it(length, payload, lost):
    reading = only(read(document((descriptor(length=length), MEMORY_SECTION))))
    (section,) = decode_structured(reading.event.status_block).sections
    assert len(section.encode_payload()) == payload
    assert reading.lost == (*lost, DROPPED)


def test_a_list_of_documents_is_read_one_by_one():
    found = read([document(), {}, document()])
    assert [type(one) for one in found] == [FoundError, UnreadableRecord, FoundError]
    assert [one.place.item for one in found] == ["/0", "/1", "/2"]


def test_documents_may_stand_one_to_a_line():
    bad = document((descriptor(), {"Memory": {"node": 70_000}}))
    lines = [json.dumps(one) for one in (document(), bad)]
    first, second = read_libcper("\n".join([*lines, ""]).encode())
    assert (first.place, second.place) == (Position(line=1, item=""), Position(line=2, item="/sections/0"))
    assert isinstance(first, FoundError)
    assert isinstance(second, UnreadableRecord)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "not a libcper document"),
        (7, "not a libcper document"),
        ({"sections": 5, "sectionDescriptors": []}, "not a libcper document"),
        (document() | {"sections": []}, "`sections` has 0 elements and `sectionDescriptors` has 1"),
        ({"sections": [], "sectionDescriptors": []}, "the record has no sections"),
        ({"sections": [{}] * 400_000, "sectionDescriptors": []}, "400000 sections do not fit into the 1048576 bytes"),
        (document((descriptor(), 7)), "expected a section to be an object"),
        (document((7, {})), "the section has no type"),
        (document((descriptor() | {"sectionType": {"data": "x"}}, {})), "`sectionType.data`: expected a GUID"),
        (document((descriptor(), {"Memory": 7})), "`Memory`: expected an object"),
        (document((descriptor(severity={"code": 2**32}), MEMORY_SECTION)), "`severity.code`: expected an unsigned number of 32 bits"),
        (document((descriptor(fruText="x" * 21), MEMORY_SECTION)), "`fru_text`: value should have at most 20"),
        (document((descriptor(fruID="x" * 10_000), MEMORY_SECTION)), "`fru_id`: `xxx"),
        (document(head=header(recordID=2**64)), "`recordID`: expected an unsigned number of 64 bits"),
        (document(head=header(creatorID="x")), "`creator_id`: `x` is not a GUID"),
    ],
)
def test_a_document_that_cannot_be_read_says_why(value, reason):
    unread = refused(read(value))
    assert unread.reason.startswith(reason)
    assert len(unread.reason) < 300


MANY = {"ArmProcessor": {"errorInfo": [{}] * 20_000}}


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ([{"ArmProcessor": {"errorInfo": [{}] * 300_000}}], "`errorInfo`: 300000 structures do not fit into the 1048576 bytes"),
        ([{"ArmProcessor": {"contextInfo": [{}] * 300_000}}], "`contextInfo`: 300000 structures do not fit into the 1048576 bytes"),
        ([MANY] * 20, "the sections are longer than the 1048576 bytes of a status block"),
    ],
)
def test_more_than_an_event_can_hold_is_refused_before_it_is_made(sections, reason):
    began = clock.process_time()
    unread = refused(read(document(*((descriptor(ARM_PROCESSOR, None), section) for section in sections))))
    assert unread.reason.startswith(reason)
    assert clock.process_time() - began < 10


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"header": ' + b"9" * 100_000 + b"}", b'{"\xff": 1}', b"", b"\0"])
def test_hostile_json_says_why(data):
    assert refused(read_libcper(data)).reason.startswith("not JSON: ")


def test_a_document_cut_anywhere_is_not_json():
    text = json.dumps(document()).encode()
    assert all(isinstance(refused(read_libcper(text[:cut])), UnreadableRecord) for cut in range(len(text)))


WHOLE = document((descriptor(ARM_PROCESSOR, 72), {"ArmProcessor": ARM}), (descriptor(), MEMORY_SECTION), head=header(platformID=VENDOR))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def spoil(value: Any, draw: st.DrawFn, left: list[int]) -> Any:
    """Generate the document with some of its values replaced."""
    left[0] -= 1
    if left[0] == 0:
        return draw(json_values)
    if isinstance(value, dict):
        return {key: spoil(part, draw, left) for key, part in value.items()}
    return [spoil(part, draw, left) for part in value] if isinstance(value, list) else value


@given(data=st.data(), places=st.lists(st.integers(1, 110), min_size=1, max_size=3))
def test_a_document_with_anything_in_it_ends_in_readings_or_reasons(data, places):
    document = WHOLE
    for place in places:
        document = spoil(document, data.draw, [place])
    assert all(isinstance(one, (FoundError, UnreadableRecord)) for one in read(document))
