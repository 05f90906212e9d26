"""Tests of the parser of pstore records in ERST."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.erst import MAX_LOG_BYTES, PSTORE_CREATOR, decompress_log, is_pstore, log_lines, read_pstore_record
from ras_triage.models.records.cper_record import CperRecord, SectionDescriptor, decode_record, encode_record
from ras_triage.models.records.guid import guid

DMESG = guid("c197e04e-d545-4a70-9c17-a5549419eb12")
COMPRESSED = guid("4f118707-04dd-4055-b5dd-956d34ddfac6")
MCE = guid("fe08ffbe-95e4-4be7-bc73-4096044a38fc")
LOG = b"Panic#2 Part1\n<0>[   12.000001] Kernel panic - not syncing: Fatal hardware error!\n<4>[   12.000002] CPU: 1 PID: 9\n"


def stored(payload: bytes, kind: bytes = DMESG, *, seconds: int = 1_700_000_000, validation: int = 2, creator: bytes = PSTORE_CREATOR):
    stamp = struct.pack("<Q", seconds)
    precise = bool(stamp[3] & 1)
    return encode_record(
        CperRecord(
            severity=1,
            validation_bits=validation,
            record_length=200 + len(payload),
            timestamp=stamp[:3] + bytes([stamp[3] & ~1]) + stamp[4:],
            timestamp_precise=precise,
            creator_id=creator,
            record_id=0x1122,
            sections=(SectionDescriptor(section_offset=200, section_length=len(payload), section_type=kind, severity=1),),
            body=payload,
        )
    )


def raw_deflate(data: bytes, level: int = 9) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -11)
    return stream.compress(data) + stream.flush()


def test_a_kernel_log_comes_back_as_its_lines():
    record = read_pstore_record(stored(LOG))
    assert (record.kind, record.record_id, record.reason, record.dump, record.part) == ("kernel_log", 0x1122, "Panic", 2, 1)
    assert record.lines == tuple(LOG.splitlines()[1:])
    assert record.payload == LOG
    assert record.lost == ()


@pytest.mark.parametrize("seconds", [1_700_000_000, 0x6500_0000, 0x6600_0000, 0x6701_0203])
def test_the_time_is_unix_seconds_whatever_bcd_would_make_of_it(seconds):
    assert read_pstore_record(stored(LOG, seconds=seconds)).time == datetime.fromtimestamp(seconds, UTC)


def test_a_time_that_is_not_valid_is_no_time():
    record = read_pstore_record(stored(LOG, validation=0))
    assert record.time is None
    assert "the time" in record.lost[0]
    assert read_pstore_record(stored(LOG, seconds=2**64 - 1)).time is None


@pytest.mark.parametrize("compress", [zlib.compress, raw_deflate])
def test_a_compressed_log_is_inflated(compress):
    assert read_pstore_record(stored(compress(LOG), COMPRESSED)).lines == tuple(LOG.splitlines()[1:])


def test_a_log_without_pstores_first_line_is_kept_whole():
    record = read_pstore_record(stored(b"just\na log"))
    assert record.lines == (b"just", b"a log")
    assert (record.reason, record.dump, record.part) == (None, None, None)


def test_a_machine_check_is_kept_raw():
    record = read_pstore_record(stored(bytes(range(120)), MCE))
    assert (record.kind, record.payload, record.lines) == ("machine_check", bytes(range(120)), ())


def test_a_section_of_another_type_is_kept_raw():
    assert read_pstore_record(stored(b"abc", bytes(16))).kind == "unknown"


def test_a_record_of_somebody_elses_is_not_pstores():
    data = stored(LOG, creator=bytes(16))
    assert not is_pstore(decode_record(data))
    with pytest.raises(MalformedBytes) as caught:
        read_pstore_record(data)
    assert (caught.value.field, caught.value.offset) == ("creator_id", 64)


def test_a_log_that_no_inflater_reads_says_so():
    with pytest.raises(MalformedBytes, match="expected zlib or deflate") as caught:
        read_pstore_record(stored(b"\x28\xb5\x2f\xfd" + bytes(40), COMPRESSED))
    assert (caught.value.field, caught.value.offset, caught.value.section) == ("dmesg", 200, 0)


@pytest.mark.parametrize("compress", [zlib.compress, raw_deflate])
def test_a_bomb_ends_at_the_limit(compress):
    record = read_pstore_record(stored(compress(b"x" * 80 * MAX_LOG_BYTES), COMPRESSED))
    assert sum(map(len, record.lines)) == MAX_LOG_BYTES
    assert "the end of the log" in record.lost[0]


def test_a_compressed_log_that_is_cut_keeps_what_is_there():
    text, is_whole = decompress_log(zlib.compress(LOG * 50)[:-9])
    assert text != LOG * 50
    assert (LOG * 50).startswith(text)
    assert not is_whole


def test_parts_come_together_oldest_first():
    parts = [
        read_pstore_record(stored(b"Panic#1 Part%d\n%s\n" % (part, line))) for part, line in ((1, b"new"), (3, b"old"), (2, b"middle"))
    ]
    other = read_pstore_record(stored(bytes(8), MCE))
    assert list(log_lines([parts[0], other, *parts[1:]])) == [b"old", b"middle", b"new"]


@given(payload=st.binary(max_size=200), kind=st.sampled_from([DMESG, COMPRESSED, MCE, bytes(16)]), cut=st.integers(0, 400))
def test_any_record_is_read_or_malformed_and_nothing_else(payload, kind, cut):
    with suppress(MalformedBytes):
        record = read_pstore_record(stored(payload, kind)[:cut])
        assert record.payload == payload


@given(lines=st.lists(st.binary(min_size=1, max_size=30).map(lambda line: line.translate(None, b"\r\n\0") or b"x"), max_size=20))
def test_every_line_of_any_log_survives_compression(lines):
    text = b"Oops#7 Part4\n" + b"\n".join(lines)
    record = read_pstore_record(stored(raw_deflate(text), COMPRESSED))
    assert record.lines == tuple(lines)
    assert record.part == 4
