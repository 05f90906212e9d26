"""Tests of the Redfish parser and writer."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.event import Event
from ras_triage.models.formats.cper import read_cper, write_record
from ras_triage.models.formats.redfish import read_redfish, write_redfish
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.cper_record import NOTIFICATION_TYPES, TIMESTAMP_VALID, decode_record, encode_record
from ras_triage.models.records.guid import guid_text
from ras_triage.models.sections.fields import encode_timestamp
from tests.models.formats.records import BLOCK, MEMORY_BODY, TIME, VENDOR, events, only, record, refused, section_dicts

MEMORY = "a5bc1114-6f64-4ede-b863-3e83ed7c83b1"
SEA, PEI = (guid_text(NOTIFICATION_TYPES[name]) for name in ("sea", "pei"))


def entry(payload: bytes | None = None, kind: str = "CPER", **more: Any) -> dict[str, Any]:
    """Return a log entry such as BMCs send."""
    data = {} if payload is None else {"DiagnosticData": base64.b64encode(payload).decode()}
    return {"@odata.id": "/redfish/v1/Systems/1/LogServices/EventLog/Entries/9", "DiagnosticDataType": kind, **data, **more}


def read(document: Any, **told: Any) -> list[FoundError | UnreadableRecord]:
    return list(read_redfish(json.dumps(document).encode(), **told))


def test_an_entrys_record_is_read_as_the_record_itself_would_be():
    reading = only(read(entry(record())))
    itself = only(read_cper(record()))
    assert (reading.event, reading.assumed) == (itself.event, itself.assumed)
    assert (reading.format, reading.place) == ("redfish", Position(item=""))
    assert reading.lost == ("the entry's identity `/redfish/v1/Systems/1/LogServices/EventLog/Entries/9`",)


def test_base64_may_be_broken_by_any_white_space():
    broken = entry()
    broken["DiagnosticData"] = "\n      \r\n\t ".join(base64.encodebytes(record()).decode().split())
    assert only(read(broken)).event == only(read_cper(record())).event


def test_documents_may_stand_one_to_a_line_and_one_that_is_none_is_listed():
    lines = [json.dumps(entry(record())), "", "{", json.dumps({"Events": [entry(record("sei"))]}), "7"]
    first, broken, second, other = read_redfish("\n".join(lines).encode())
    assert (first.place, first.event.notification.type) == (Position(line=1, item=""), "sea")
    assert (broken.place, broken.reason[:8]) == (Position(line=3), "not JSON")
    assert (second.place, second.event.notification.type) == (Position(line=4, item="/Events/0"), "sei")
    assert (other.place, other.reason) == (Position(line=5, item=""), "none of 0 entries has CPER data")


CONTAINERS = {
    "collection": (lambda one: {"Members": [{"Id": "1", "Message": "fan"}, one]}, "/Members/1"),
    "event": (lambda one: {"Id": "1", "Events": [one]}, "/Events/0"),
    "embedded": (lambda one: {"Events": [{"EventType": "Event", "LogEntry": one}]}, "/Events/0/LogEntry"),
    "list of events": (lambda one: [{"Events": [one]}], "/0/Events/0"),
    "link beside": (lambda one: {"Events": [{**one, "LogEntry": {"@odata.id": "/x"}}]}, "/Events/0"),
}


@pytest.mark.parametrize(("wrap", "pointer"), CONTAINERS.values(), ids=CONTAINERS)
def test_an_entry_is_found_in_every_container(wrap, pointer):
    reading = only(read(wrap(entry(record()))))
    assert (reading.place, reading.event.notification.type) == (Position(item=pointer), "sea")


def test_a_record_that_is_labelled_a_section_is_read_as_a_record():
    labelled = entry(record("pei"), "CPERSection", CPER={"NotificationType": PEI, "SectionType": MEMORY})
    reading = only(read(labelled))
    assert [section["type"] for section in section_dicts(reading.event)] == ["memory", "pcie"]
    assert "the label `CPERSection`: the payload is a complete record" in reading.lost


def test_a_section_without_a_record_takes_its_type_and_notification_from_the_entry():
    reading = only(read(entry(MEMORY_BODY, "CPERSection", CPER={"NotificationType": SEA, "SectionType": MEMORY})))
    assert reading.event.notification.type == "sea"
    assert section_dicts(reading.event)[0]["physical_address"] == "0x56edd040"
    assert [assumed.field for assumed in reading.assumed] == ["/status_block/severity"]


def test_a_section_labelled_a_record_is_still_read_as_a_section():
    assert section_dicts(only(read(entry(MEMORY_BODY, CPER={"SectionType": MEMORY}))).event)[0]["type"] == "memory"


def test_the_records_notification_type_outranks_the_entrys_and_the_callers_both():
    labelled = entry(record("sei"), CPER={"NotificationType": SEA})
    assert only(read(labelled)).event.notification.type == "sei"
    told = Notification(type=NotificationType.GPIO, source_id=4)
    assert only(read(labelled, notification=told)).event.notification == told


def test_a_payload_is_known_for_a_record_by_its_first_bytes_whatever_its_label():
    assert only(read(entry(record(), "OEM"))).event.notification.type == "sea"


@pytest.mark.parametrize(("key", "more"), [("EventTimestamp", {"Created": "2026-11-22T11:00:00Z"}), ("Created", {})])
def test_an_entrys_time_is_taken_where_the_record_has_none(key, more):
    stamped = entry(record(), **{**more, key: "2026-11-22T12:00:07.25+02:00"})
    reading = only(read(stamped))
    assert (reading.event.time, reading.assumed) == (TIME + timedelta(milliseconds=250), ())


def test_an_entrys_time_vouches_for_the_zone_of_a_record_of_the_same_second():
    at = decode_record(record()).model_copy(update={"timestamp": encode_timestamp(TIME), "validation_bits": TIMESTAMP_VALID})
    times = {"EventTimestamp": "2026-11-22T09:59:00Z", "Created": "2026-11-22T10:00:07Z"}
    reading = only(read(entry(encode_record(at), **times)))
    assert (reading.event.time, reading.assumed) == (TIME, ())
    other = only(read(entry(encode_record(at), EventTimestamp=times["EventTimestamp"])))
    assert (other.event.time, [assumed.field for assumed in other.assumed]) == (TIME, ["/time"])


@pytest.mark.parametrize("text", ["2026-11-22T10:00:07", "yesterday", 7, "0001-01-01T00:00:00+14:00", ""])
def test_a_time_without_a_zone_is_no_time(text):
    assert only(read(entry(record(), Created=text))).event.time is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "the entry has no `DiagnosticData`"),
        (
            {"CPER": {"NotificationType": SEA, "SectionType": VENDOR}, "Severity": "Critical"},
            f"the entry has no `DiagnosticData`; it only has notification type `sea`, section type `{VENDOR}`, log severity `Critical`",
        ),
        ({"CPER": {"SectionType": MEMORY}, "DiagnosticData": ""}, "the entry has no `DiagnosticData`; it only has section type `memory`"),
        ({"AdditionalDataURI": "/e/9/attachment"}, "the CPER record is not in the entry; fetch it from `/e/9/attachment`"),
        (
            {"AdditionalDataURI": "/e/9", "AdditionalDataSizeBytes": 408},
            "the CPER record (408 bytes) is not in the entry; fetch it from `/e/9`",
        ),
        ({"DiagnosticData": "Q1BF*"}, "`DiagnosticData`: not valid base64: only base64 data is allowed"),
        ({"DiagnosticData": ["Q1BF"]}, "`DiagnosticData`: expected a string"),
        ({"DiagnosticData": "Q1BF"}, "the bytes are neither a CPER record nor a status block"),
        ({"DiagnosticData": base64.b64encode(record()[:200]).decode()}, "2 section descriptors end at byte 272; the input has 200 bytes"),
    ],
)
def test_an_entry_without_a_readable_payload_says_what_it_knows(more, reason):
    unread = refused(read({"Members": [entry(**more)]}))
    assert (unread.place, unread.format) == (Position(item="/Members/0"), "redfish")
    assert unread.reason.startswith(reason)


@pytest.mark.parametrize(("document", "seen"), [({"Members": [{"Id": "1"}, {"Id": "2"}]}, 2), ({"Members": []}, 0), ({}, 1), (7, 0)])
def test_a_document_that_says_nothing_of_a_cper_says_so_once(document, seen):
    assert refused(read(document)).reason == f"none of {seen} entries has CPER data"


def test_one_bad_entry_does_not_spoil_the_others():
    found = read({"Members": [entry(record()), entry(), entry(record("sei"))]})
    assert [type(one) for one in found] == [FoundError, UnreadableRecord, FoundError]


def test_what_the_log_says_of_itself_is_lost():
    reading = only(read(entry(record(), Severity="OK", CPER={"Oem": {"Vendor": {}}})))
    assert reading.lost[1:] == ("the log severity `OK`", "the vendor data in `CPER/Oem`")


FULL = Event.model_validate(
    {
        "id": "e-1",
        "source": "node-17",
        "time": TIME + timedelta(microseconds=123456),
        "policy": "linux-6.12.107",
        "notification": {"type": "gpio", "source_id": 3, "ghes_version": 1},
        "status_block": BLOCK,
    }
)


def test_an_event_becomes_an_entry_that_any_reader_of_redfish_knows():
    written = write_redfish(FULL)
    assert base64.b64decode(written["DiagnosticData"]) == write_record(FULL)
    assert {key: written[key] for key in ("DiagnosticDataType", "EntryType", "Severity", "EventTimestamp", "Id")} == {
        "DiagnosticDataType": "CPER",
        "EntryType": "Event",
        "Severity": "Critical",
        "EventTimestamp": "2026-11-22T10:00:07.123456Z",
        "Id": "e-1",
    }
    assert written["CPER"] == {"SectionType": MEMORY}
    assert "status_block" not in json.dumps(written["Oem"])


def test_an_event_comes_back_from_its_entry_with_all_but_the_block_status():
    reading = only(read(write_redfish(FULL)))
    kept = {"id", "source", "time", "policy", "notification", "host"}
    assert reading.event.model_dump(include=kept) == FULL.model_dump(include=kept)
    assert (reading.assumed, reading.lost) == ((), ())


def test_what_an_entry_says_as_an_event_is_believed_only_where_the_record_agrees():
    written = write_redfish(FULL)
    written["DiagnosticData"] = base64.b64encode(record("sei")).decode()
    event = only(read(written)).event
    assert (event.notification, event.source) == (Notification(type=NotificationType.SEI), "node-17")


@pytest.mark.parametrize("own", [{}, {"notification": "bell"}, {"notification": "sea", "sauce": 1}])
def test_what_an_entry_says_as_an_event_and_is_none_is_named(own):
    reading = only(read(entry(record(), Oem={"RasTriage": {"Event": own}})))
    assert reading.event.notification.type == "sea"
    assert reading.lost == ("`Oem.RasTriage.Event`: not a valid event",)


def test_an_entry_brings_no_host_facts_along():
    own = {"notification": "sea", "host": {"kernel": "6.1.1"}, "status_block": "AAAA"}
    assert only(read(entry(record(), Oem={"RasTriage": {"Event": own}}))).event == only(read_cper(record())).event


def test_an_event_without_a_block_makes_no_entry():
    with pytest.raises(ValueError, match="without a `status_block`"):
        write_redfish(Event.model_validate({"notification": "sea"}))


@given(event=events())
def test_an_event_written_as_an_entry_loses_nothing_that_a_record_and_an_entry_can_carry(event):
    again = only(read(write_redfish(event))).event
    by_record = only(read_cper(write_record(event), notification=event.notification)).event
    assert again == by_record.model_copy(update={"id": event.id, "source": event.source, "policy": event.policy, "time": again.time})
    assert again.time == (by_record.time if event.time is None else event.time)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
KEYS = """DiagnosticData DiagnosticDataType CPER Members Events LogEntry Oem Created Severity AdditionalDataURI Id"""
keys = st.sampled_from(KEYS.split())


@given(spoilt=st.dictionaries(keys, json_values, max_size=4), wrap=st.sampled_from([lambda one: one, lambda one: {"Events": [one]}]))
def test_an_entry_with_anything_in_it_ends_in_readings_or_reasons(spoilt, wrap):
    assert all(isinstance(one, (FoundError, UnreadableRecord)) for one in read(wrap({**entry(record()), **spoilt})))


@given(data=st.binary(max_size=200), cut=st.integers(0, 4000))
def test_any_bytes_end_in_readings_or_reasons(data, cut):
    document = json.dumps({"Members": [entry(record())]}).encode()
    for text in (data, document[:cut] + data, document[:cut]):
        assert list(read_redfish(text))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[" * 100_000, "not JSON: recursion limit exceeded"),
        (b'{"Id": ' + b"9" * 100_000 + b"}", "not JSON: number out of range"),
        (b'{"Id": "\xff"}', "not JSON: invalid unicode"),
        (b"", "not JSON: "),
    ],
)
def test_hostile_json_says_why(data, reason):
    assert refused(read_redfish(data)).reason.startswith(reason)


def test_a_nested_collection_is_read_to_its_end():
    document: Any = entry(record())
    for _ in range(60):
        document = [{"Members": [document]}]
    assert only(read(document)).place.item.count("/Members/0") == 60


def test_an_assumed_notification_is_still_assumed_after_an_export():
    told = Event.model_validate({"notification": "gsiv", "status_block": {"severity": 0, "sections": [{"type": "memory"}]}})
    unsure = told.model_copy(update={"assumed": ("/notification/type",)})
    again = [only(read_redfish(json.dumps({"Members": [write_redfish(event)]}).encode())) for event in (told, unsure)]
    assert ["/notification/type" in [one.field for one in found.assumed] for found in again] == [False, True]
    assert [found.event.notification.type for found in again] == ["gsiv", "gsiv"]


def test_a_record_in_hexadecimal_is_read():
    plain, hexadecimal = (read({"Members": [entry(DiagnosticData=text)]}) for text in (base64.b64encode(record()).decode(), record().hex()))
    assert only(hexadecimal).event == only(plain).event
