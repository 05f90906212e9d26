"""Status blocks behind each other: the boot error region, and what Linux leaves of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.cper import read_cper
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.formats.status_blocks import find_blocks
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.records.status_block import decode_block

FATAL = encode_structured(
    {"severity": "fatal", "sections": [{"type": "memory", "severity": "fatal", "physical_address": "0x400a1000"}]}
)  # fmt: skip
RECOVERABLE = encode_structured({"severity": "recoverable", "sections": [{"type": "pcie", "severity": "recoverable"}] * 2})
BLOCKS = st.lists(st.sampled_from([FATAL, RECOVERABLE]), min_size=1, max_size=6)


def cleared(block: bytes) -> bytes:
    return bytes(4) + block[4:]


def errors(data: bytes, notification: NotificationType | None = None) -> list[FoundError]:
    found = list(read_cper(data, notification=notification))
    assert all(isinstance(one, FoundError) for one in found), found
    return [one for one in found if isinstance(one, FoundError)]


@given(BLOCKS, st.integers(0, 64), st.booleans())
def test_every_block_of_a_region_is_read_with_its_place(blocks, padding, is_cleared):
    region, places = b"", []
    for block in blocks:
        places.append(Position(offset=len(region)))
        region += (cleared(block) if is_cleared else block) + bytes(padding)
    found = errors(region + bytes(200), NotificationType.BERT)
    assert [one.place for one in found] == places
    assert [one.event.status_block for one in found[:-1]] == blocks[:-1]
    assert found[-1].event.status_block == blocks[-1] + bytes(padding + 200)
    assert {one.event.notification.type for one in found} == {"bert"}


def test_a_block_whose_status_linux_cleared_gets_the_status_that_fits_it():
    (found,) = errors(cleared(FATAL), NotificationType.BERT)
    assert found.event.status_block is not None
    assert decode_block(found.event.status_block).block_status == decode_block(FATAL).block_status
    assert [one.field for one in found.assumed] == ["/status_block/block_status"]


def test_several_blocks_with_a_cleared_one_are_those_of_the_previous_boot():
    assert [one.event.notification.type for one in errors(cleared(FATAL) + RECOVERABLE)] == ["bert", "bert"]
    assert [one.event.notification.type for one in errors(FATAL + RECOVERABLE)] == ["gsiv", "gsiv"]


def test_a_single_cleared_block_is_not_pending_and_names_the_way_to_read_it():
    (unread,) = read_cper(cleared(FATAL))
    assert isinstance(unread, UnreadableRecord)
    assert "`block_status` is 0" in unread.reason
    assert "`bert`" in unread.reason


def test_a_cleared_block_is_not_read_with_another_notification_type():
    found = list(read_cper(cleared(FATAL) + FATAL, notification=NotificationType.SEA))
    assert [type(one) for one in found] == [UnreadableRecord, FoundError]


def test_bytes_behind_the_blocks_that_are_no_block_are_listed():
    *found, rest = read_cper(FATAL + RECOVERABLE + bytes(8) + b"something else" * 9)
    assert [type(one) for one in found] == [FoundError, FoundError]
    assert isinstance(rest, UnreadableRecord)
    assert rest.place == Position(offset=len(FATAL + RECOVERABLE) + 8)
    assert "neither padding nor a status block" in rest.reason


def test_raw_data_belongs_to_its_block():
    raw = FATAL[:4] + len(FATAL).to_bytes(4, "little") + (16).to_bytes(4, "little") + FATAL[12:] + b"\xa5" * 16
    first, second = errors(raw + RECOVERABLE)
    assert (first.event.status_block, second.event.status_block) == (raw, RECOVERABLE)


@pytest.mark.parametrize("cut", range(0, len(FATAL), 7))
def test_a_region_that_ends_within_a_block_reads_the_blocks_before_it(cut):
    found = list(read_cper(RECOVERABLE + FATAL[:cut]))
    assert isinstance(found[0], FoundError)
    assert (len(found) == 1) == (not any(FATAL[:cut]))


@given(st.binary(max_size=300))
def test_any_bytes_split_into_blocks_in_order_or_none(data):
    spans, rest = find_blocks(data)
    assert all(span.start < span.end <= len(data) for span in spans)
    assert all(before.end <= after.start for before, after in pairwise(spans))
    assert rest is None or not spans or rest >= spans[-1].end
