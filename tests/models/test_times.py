"""Tests of times at the limits of `datetime`: preserved or rejected everywhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ras_triage.models.event import Event, event_json, event_key
from ras_triage.models.formats.cper import write_record
from ras_triage.models.formats.ras.traced_event import read_time
from ras_triage.models.formats.redfish import write_redfish
from ras_triage.models.formats.results import FoundError
from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.sections.fields import encode_timestamp
from ras_triage.models.times import to_utc, utc_text
from ras_triage.service.importing.readers import read_items
from ras_triage.service.importing.source import ImportSource

LAST, FIRST = "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"
OUTSIDE = pytest.mark.parametrize("text", [LAST, FIRST])
BLOCK = encode_structured({"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x56edd040"}]})
SENT = Event.model_validate({"notification": "sea", "status_block": BLOCK})

minutes = st.integers(min_value=-1439, max_value=1439)
moments = st.datetimes(timezones=minutes.map(lambda offset: timezone(timedelta(minutes=offset)))) | st.builds(
    lambda moment, offset: moment.replace(tzinfo=timezone(timedelta(minutes=offset))),
    st.sampled_from([datetime.max, datetime.min, datetime.max - timedelta(hours=12), datetime.min + timedelta(hours=12)]),
    minutes,
)


@given(moments)
def test_a_time_is_the_same_moment_in_utc_or_is_refused(moment: datetime) -> None:
    try:
        in_utc = to_utc(moment)
    except ValueError:
        assert moment - datetime.min.replace(tzinfo=UTC) < timedelta(0) or moment - datetime.max.replace(tzinfo=UTC) > timedelta(0)
        return
    assert in_utc == moment
    assert datetime.fromisoformat(utc_text(moment)) == moment


@given(moments)
def test_an_event_with_any_time_is_refused_or_has_a_key_and_reads_back(moment: datetime) -> None:
    document = {"notification": "sea", "time": moment.isoformat()}
    try:
        event = Event.model_validate(document)
    except ValidationError:
        return
    assert Event.model_validate_json(event_json(event)).time == moment
    assert event_key(event) == event_key(Event.model_validate_json(event_json(event)))


@OUTSIDE
def test_an_event_names_its_time_that_utc_does_not_have(text: str) -> None:
    with pytest.raises(ValidationError, match="outside the years 1 to 9999 in UTC") as refused:
        Event.model_validate({"notification": "sea", "time": text})
    assert refused.value.errors()[0]["loc"] == ("time",)


@OUTSIDE
def test_a_section_names_its_timestamp_that_utc_does_not_have(text: str) -> None:
    with pytest.raises(ValidationError, match="outside the years 1 to 9999 in UTC"):
        encode_structured({"sections": [{"type": "memory", "timestamp": text}]})


def test_a_timestamp_whose_offset_leaves_a_fraction_of_a_second_is_refused() -> None:
    with pytest.raises(ValueError, match="whole seconds"):
        encode_timestamp(datetime.fromisoformat("2026-01-01T00:00:00+00:00:01.500000"))


def redfish(time: str) -> bytes:
    return json.dumps({**write_redfish(SENT), "EventTimestamp": time}).encode()


def libcper(time: str) -> bytes:
    section = {"sectionType": {"data": "a5bc1114-6f64-4ede-b863-3e83ed7c83b1"}, "severity": {"code": 0}}
    body = {"Memory": {"physicalAddress": 1, "validationBits": {"physicalAddressValid": True}}}
    return json.dumps({"header": {"timestamp": time}, "sectionDescriptors": [section], "sections": [body]}).encode()


def kernel_log(time: str) -> bytes:
    lines = (
        "{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 0",
        "{1}[Hardware Error]: event severity: recoverable",
        "{1}[Hardware Error]:  Error 0, type: recoverable",
        "{1}[Hardware Error]:   section_type: memory error",
        "{1}[Hardware Error]:   physical_address: 0x0000000056edd040",
    )
    return "".join(f"{time} node-17 kernel: {line}\n" for line in lines).encode()


def journal(_: str) -> bytes:
    """Return microseconds of the year 5138, with as many digits as are parsed."""
    entry = {"__REALTIME_TIMESTAMP": "9" * 17, "_HOSTNAME": "node-17", "_TRANSPORT": "kernel"}
    lines = (line.partition("kernel: ")[2] for line in kernel_log("").decode().splitlines())
    return b"".join(json.dumps({**entry, "MESSAGE": line}).encode() + b"\n" for line in lines)


def trace(time: str) -> bytes:
    date = time.replace("T", " ").replace("-23:59", " -2359").replace("+23:59", " +2359")
    return (
        f"<...>-211 [002] 0.000129: mc_event: {date} 1 Corrected error: Single-bit ECC on DIMM_A1 "
        "(mc: 0 location: 0:1:-1 address: 0x56edd040 grain: 6 syndrome: 0x0 APEI location: node:1)\n"
    ).encode()


def record(_: str) -> bytes:
    """Return a record with a year that BCD can represent and `datetime` cannot."""
    return write_record(SENT.model_copy(update={"time": datetime(9999, 12, 31, tzinfo=UTC)})).replace(b"\x99\x99", b"\x00\x00")


@OUTSIDE
@pytest.mark.parametrize("form", [redfish, libcper, kernel_log, journal, trace, record])
def test_every_format_goes_without_a_time_that_utc_does_not_have(form: Any, text: str) -> None:
    items = list(read_items(ImportSource(BytesIO(form(text))), None, None))

    readings = [item for item in items if isinstance(item, FoundError)]
    assert len(readings) == 1, items
    assert Event.model_validate_json(event_json(readings[0].event)).status_block is not None


@pytest.mark.parametrize("text", ["9999-12-31 23:59:59 -2359", "0001-01-01 00:00:00 +2359"])
def test_rasdaemon_goes_without_a_time_that_utc_does_not_have(text: str) -> None:
    assert read_time(text) is None
