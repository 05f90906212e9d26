"""Tests of the HEST parser."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.hest import notifications, read_hest
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.error_source import ErrorSource, SourceType


def generic(source_id: int, notify: int, *, version: int = 2, block_length: int = 4096, poll: int = 0, enabled: int = 1) -> bytes:
    register = struct.pack("<BBBBQ", 0, 64, 0, 4, 0x1000 + source_id)
    body = struct.pack("<HHHBBIII", 8 + version, source_id, 0xFFFF, 0, enabled, 1, 1, block_length) + register
    body += struct.pack("<BBHIIIIII", notify, 28, 0, poll, 0, 0, 0, 0, 0) + struct.pack("<I", block_length)
    return body + (struct.pack("<BBBBQQQ", 0, 64, 0, 4, 0x2000, 2**64 - 2, 1) if version == 2 else b"")


def machine_check(kind: int, source_id: int, banks: int) -> bytes:
    size, count_at = {0: (40, 32), 1: (48, 44), 11: (48, 44)}[kind]
    body = bytearray(struct.pack("<HHHBB", kind, source_id, 0, 1, 1).ljust(size, b"\0"))
    body[count_at] = banks
    return bytes(body) + b"\xee" * 28 * banks


def plain(kind: int, size: int, source_id: int = 9) -> bytes:
    return struct.pack("<HH", kind, source_id).ljust(size, b"\x01")


def table(*sources: bytes, count: int | None = None) -> bytes:
    body = b"".join(sources)
    return struct.pack("<4sI28sI", b"HEST", 40 + len(body), bytes(28), len(sources) if count is None else count) + body


TABLE = table(generic(0, 8), generic(3, 0, version=1, poll=500), generic(4, 7))


def test_each_generic_source_says_how_it_notifies():
    sources = read_hest(TABLE)
    assert [(source.type, source.source_id, source.ghes_version) for source in sources] == [(10, 0, 2), (9, 3, 1), (10, 4, 2)]
    assert [source.notification.type for source in sources] == [NotificationType.SEA, NotificationType.POLLED, NotificationType.GPIO]
    assert sources[0].read_ack.address == 0x2000
    assert (sources[0].read_ack_preserve, sources[0].read_ack_write) == (2**64 - 2, 1)
    assert sources[1].read_ack is None
    assert sources[1].error_status_address.address == 0x1003


def test_a_source_id_leads_to_a_notification_for_an_event():
    notification = notifications(read_hest(TABLE)).get(3)
    assert notification.model_dump(exclude_none=True) == {
        "type": "polled",
        "source_id": 3,
        "ghes_version": 1,
        "error_block_length": 4096,
        "poll_interval_ms": 500,
        "taken_from": "user",
    }
    assert notifications(read_hest(TABLE)).get(4).type is NotificationType.GPIO
    assert notifications(read_hest(TABLE)).get(4).poll_interval_ms is None


def test_there_is_no_notification_for_an_id_that_is_not_there():
    assert notifications(read_hest(TABLE)).get(7) is None


def test_a_notification_type_without_a_name_is_kept_as_a_number_and_taken_for_nothing():
    sources = read_hest(table(generic(1, 12)))
    assert (sources[0].notification.number, sources[0].notification.type) == (12, None)
    assert notifications(sources).get(1) is None


def test_of_two_sources_with_one_id_the_first_counts():
    assert notifications(read_hest(table(generic(1, 8), generic(1, 7)))).get(1).type is NotificationType.SEA


def test_structures_of_every_type_keep_the_walk_in_step():
    sources = read_hest(
        table(
            machine_check(0, 1, 5),
            machine_check(1, 2, 0),
            plain(2, 20),
            plain(6, 48),
            plain(7, 44),
            plain(8, 56),
            machine_check(11, 3, 255),
            struct.pack("<HH", 12, 30).ljust(30, b"\x07"),
            generic(5, 10),
        )
    )
    assert [source.type for source in sources] == [0, 1, 2, 6, 7, 8, 11, 12, 10]
    assert [source.length for source in sources] == [180, 48, 20, 48, 44, 56, 48 + 255 * 28, 30, 92]
    assert sources[-2].source_id is None
    assert sources[-1].notification.type is NotificationType.GSIV
    assert sources[0].notification is None


def test_a_machine_check_source_is_no_answer_to_how_a_record_came():
    sources = read_hest(table(machine_check(1, 2, 0)))
    assert sources[0].notification is not None
    assert notifications(sources).get(2) is None


def test_bytes_behind_the_table_do_not_matter():
    assert read_hest(TABLE + b"xyz") == read_hest(TABLE)


@pytest.mark.parametrize(
    ("data", "field", "offset", "section"),
    [
        (b"", "header", 0, None),
        (b"HES", "header", 3, None),
        (TABLE[:39], "header", 39, None),
        (b"FACP" + TABLE[4:], "signature", 0, None),
        (TABLE[:-1], "length", 4, None),
        (TABLE[:4] + struct.pack("<I", 39) + TABLE[8:], "length", 4, None),
        (table(generic(0, 8), count=2), "error_source_count", 36, 1),
        (table(generic(0, 8), plain(3, 20)), "type", 132, 1),
        (table(generic(0, 8)[:-1]), "type", 40, 0),
        (table(machine_check(0, 1, 2)[:-1]), "type", 40, 0),
        (table(struct.pack("<HH", 12, 3)), "length", 42, 0),
    ],
)
def test_a_bad_table_names_the_field_and_its_offset(data, field, offset, section):
    with pytest.raises(MalformedBytes) as caught:
        read_hest(data)
    assert (caught.value.field, caught.value.offset, caught.value.section) == (field, offset, section)


def test_a_claim_of_four_billion_sources_costs_no_more_than_those_that_are_there():
    with pytest.raises(MalformedBytes, match="the table ends at byte 132"):
        read_hest(table(generic(0, 8), count=2**32 - 1))


@given(data=st.binary(max_size=300), count=st.integers(0, 5))
def test_any_table_is_read_or_malformed_and_nothing_else(data, count):
    with suppress(MalformedBytes):
        sources = read_hest(table(data, count=count))
        assert len(sources) == count
        assert all(isinstance(source, ErrorSource) and source.length >= 4 for source in sources)


@given(
    sources=st.lists(
        st.builds(generic, st.integers(0, 5), st.integers(0, 11), version=st.sampled_from([1, 2]))
        | st.builds(machine_check, st.sampled_from([0, 1, 11]), st.integers(0, 5), st.integers(0, 20)),
        max_size=6,
    )
)
def test_every_source_of_a_table_is_found_where_it_lies(sources):
    found = read_hest(table(*sources))
    assert [source.length for source in found] == [len(source) for source in sources]
    assert [source.type in (SourceType.GENERIC, SourceType.GENERIC_V2) for source in found] == [
        source.ghes_version is not None for source in found
    ]
