"""Status block that a VMM writes for its guest."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.decision import GuestRange, Translate
from ras_triage.models.records.block_fields import decode_structured
from ras_triage.models.records.status_block import decode_block
from ras_triage.policies.guest.guest_record import count_guest_pages, encode_guest_record, guest_pages

LAYOUT = (
    # Generic Error Status Block, 20 bytes
    ("block status: uncorrectable, no entry counted", "01000000"),
    ("raw data offset", "00000000"),
    ("raw data length", "00000000"),
    ("data length: 152", "98000000"),
    ("error severity: recoverable", "00000000"),
    # Generic Error Data Entry, 72 bytes
    ("section type: Platform Memory", "1411bca5646fde4eb8633e83ed7c83b1"),
    ("error severity: recoverable", "00000000"),
    ("revision 3.0", "0003"),
    ("validation bits", "00"),
    ("flags", "00"),
    ("error data length: 80", "50000000"),
    ("FRU id", "00" * 16),
    ("FRU text", "00" * 20),
    ("timestamp", "00" * 8),
    # Platform Memory section, 80 bytes
    ("validation bits: physical address, error type", "0240000000000000"),
    ("error status", "00" * 8),
    ("physical address", "0060fa4000000000"),
    ("physical address mask", "00" * 8),
    ("node, card, module, bank, device, row, column, bit position", "00" * 16),
    ("requestor, responder, target", "00" * 24),
    ("error type: unknown", "00"),
    ("extended, rank, card handle, module handle", "00" * 7),
)


def test_the_record_for_one_page_is_what_qemu_writes_byte_for_byte() -> None:
    expected = bytes.fromhex("".join(octets for _, octets in LAYOUT))
    assert len(expected) == 172
    record = encode_guest_record(0x40FA6000)
    offset = 0
    for name, octets in LAYOUT:
        part = bytes.fromhex(octets)
        assert record[offset : offset + len(part)] == part, name
        offset += len(part)
    assert record == expected


def test_the_address_keeps_its_offset_within_the_page() -> None:
    assert struct.unpack_from("<Q", encode_guest_record(0x40FA6123), 20 + 72 + 16) == (0x40FA6123,)


@given(st.integers(0, 2**64 - 1))
def test_every_record_is_well_formed_and_says_its_address(ipa: int) -> None:
    record = encode_guest_record(ipa)
    assert decode_block(record).format_error is None
    (section,) = decode_structured(record).sections
    assert section.model_dump(exclude_none=True)["physical_address"] == ipa
    assert section.model_dump()["physical_address_mask"] is None


def found(*ranges: tuple[int, int], primary: int | None = None) -> Translate:
    return Translate("vm-1", 0, tuple(GuestRange(ipa, length, number, 0) for number, (ipa, length) in enumerate(ranges)), (), primary)


def test_every_guest_page_is_told_once_and_the_one_that_was_touched_first() -> None:
    hit = found((0x40000000, 0x4000), primary=0x40002010)
    assert list(guest_pages(hit, 4096)) == [0x40002010, 0x40000000, 0x40001000, 0x40003000]
    assert count_guest_pages(hit, 4096) == 4


def test_a_guest_page_that_is_larger_than_the_hosts_is_told_once() -> None:
    hit = found((0x40003000, 0x1000), (0x40005000, 0x1000), primary=0x40003000)
    assert list(guest_pages(hit, 65536)) == [0x40003000]
    assert count_guest_pages(hit, 65536) == 1


def test_without_a_primary_address_the_pages_come_in_the_order_of_the_ranges() -> None:
    assert list(guest_pages(found((0x40003000, 0x2000)), 16384)) == [0x40003000, 0x40004000]


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(1, 20)), max_size=5),
    st.sampled_from([4096, 16384, 65536]),
)
def test_pages_are_counted_as_they_are_told(ranges: list[tuple[int, int]], page_size: int) -> None:
    hit = found(*((start * 4096, pages * 4096) for start, pages in sorted(ranges)))
    told = list(guest_pages(hit, page_size))
    assert count_guest_pages(hit, page_size) == len(told) == len({address // page_size for address in told})
