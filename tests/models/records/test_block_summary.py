"""Tests of the status block summary: section names and addresses."""

from __future__ import annotations

from typing import Any

from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.records.block_summary import MAX_ADDRESSES, physical_addresses, section_names
from ras_triage.models.records.status_block import parse_block


def contents(*sections: dict[str, Any]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    block = parse_block(encode_structured({"severity": "recoverable", "sections": list(sections)}))
    return section_names(block), physical_addresses(block)


def test_sections_are_named_once_each_in_order_and_unknown_ones_by_guid() -> None:
    stranger = {"type": "01234567-89ab-cdef-0123-456789abcdef", "payload": ""}
    names, _ = contents({"type": "pcie"}, stranger, {"type": "memory"}, {"type": "pcie"})
    assert names == ("pcie", "01234567-89ab-cdef-0123-456789abcdef", "memory")


def test_an_address_counts_only_where_it_is_marked_valid() -> None:
    infos = [
        {"error_type": 2, "physical_fault_address": "0x3000"},
        {"error_type": 2},
        {"error_type": 2, "physical_fault_address": "0x3000"},
    ]
    _, addresses = contents(
        {"type": "memory", "physical_address": "0x1000"},
        {"type": "memory2", "physical_address": "0x2000"},
        {"type": "memory"},
        {"type": "arm_processor", "error_infos": infos},
    )
    assert addresses == (0x1000, 0x2000, 0x3000)


def test_of_very_many_addresses_the_first_are_told() -> None:
    _, addresses = contents(*({"type": "memory", "physical_address": page << 12} for page in range(MAX_ADDRESSES + 10)))
    assert addresses == tuple(page << 12 for page in range(MAX_ADDRESSES))


def test_an_arm_section_that_is_cut_tells_the_addresses_that_are_there() -> None:
    infos = [{"error_type": 2, "physical_fault_address": hex(0x1000 * number)} for number in range(1, 4)]
    whole = encode_structured({"severity": "recoverable", "sections": [{"type": "arm_processor", "error_infos": infos}]})
    assert physical_addresses(parse_block(whole[:-1])) == (0x1000, 0x2000)
    assert physical_addresses(parse_block(whole[:50])) == ()
