"""Poisoned pages that outlast an event: PG_hwpoison holds until a reboot."""

from __future__ import annotations

from ras_triage.models.host import Host, Mapping, Page, PageState
from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.memory import HandledFrame


def poisoned_pages(handled: list[HandledFrame], facts: Facts) -> tuple[PoisonedPage, ...]:
    """Return the pages that memory failure handling poisoned: a whole hugetlb page, or one base page.

    Soft offline poisons one base page, also of a hugetlb page, and so does a later error in a dissolved hugetlb page.

    Each has the address of the base page that failed.
    """
    return tuple(dict.fromkeys(_page(done, facts) for done in handled if done.becomes_poisoned))


def _page(done: HandledFrame, facts: Facts) -> PoisonedPage:
    frame = done.frame
    is_whole = frame.page.state is PageState.HUGETLB and not done.poisons_base_page
    shift = frame.shift if is_whole else facts.page_shift
    return PoisonedPage(frame.pfn << facts.page_shift, shift)


def add_poisoned_pages(host: Host, poisoned: tuple[PoisonedPage, ...]) -> Host:
    """Return host facts in which earlier poisoned pages are poisoned; the rest of each page's fact is unchanged."""
    if not poisoned:
        return host
    facts = Facts(host)
    known = host.pages or ()
    return host.model_copy(update={"pages": (*(_poisoned(page, facts) for page in poisoned), *known)})


def _poisoned(poisoned: PoisonedPage, facts: Facts) -> Page:
    """Return a fact for the poisoned page alone, derived from the fact that covers it; that of a hugetlb page still covers all of it."""
    found = facts.page_at(poisoned.address)
    shift = None if poisoned.shift == facts.page_shift else poisoned.shift
    if found is None:
        return Page(physical_address=poisoned.address, shift=shift, poisoned=True)
    if found.state is PageState.HUGETLB:
        shift = found.shift
    distance = poisoned.address - (found.physical_address & -facts.page_size)
    mappings = tuple(Mapping(pid=mapping.pid, address=(mapping.address & -facts.page_size) + distance) for mapping in found.mappings)
    return found.model_copy(update={"physical_address": poisoned.address, "shift": shift, "poisoned": True, "mappings": mappings})
