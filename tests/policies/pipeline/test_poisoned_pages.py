"""Earlier poisoned pages in the facts of the next event."""

from __future__ import annotations

from ras_triage.models.host import Host
from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.poisoned_pages import add_poisoned_pages


def _host(**page: object) -> Host:
    return Host.model_validate({"pages": [{"physical_address": "0x40000000", **page}]})


def test_a_hugetlb_page_is_poisoned_as_a_whole_and_its_mappings_follow() -> None:
    host = _host(state="hugetlb", shift=21, mappings=[{"pid": 7, "address": "0x7f0000000000"}])
    first, known = add_poisoned_pages(host, (PoisonedPage(0x40003000, 21),)).pages or ()
    assert (first.physical_address, first.shift, first.poisoned, first.state) == (0x40003000, 21, True, "hugetlb")
    assert [mapping.address for mapping in first.mappings] == [0x7F0000003000], "as far into the mapping as into the page"
    assert not known.poisoned, "the fact that was given stays as it is"


def test_a_page_without_a_fact_is_poisoned_and_its_state_stays_assumed() -> None:
    (page,) = add_poisoned_pages(Host(), (PoisonedPage(0x5000, 12),)).pages or ()
    assert page.poisoned
    assert "state" not in page.model_fields_set, "nobody said what it is"
