"""Memory failure, signals and soft offline for each page state and kernel."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import pytest

from ras_triage.models.decision import Action, Decision, Panic
from ras_triage.models.host import PageState
from tests.policies.events import (
    ALL,
    AO,
    AR,
    BUSKERN,
    CORRECTED,
    FAR,
    L61,
    L73,
    L510,
    L612,
    OTHER,
    PA,
    PAGE,
    PFN,
    PID,
    SIGKILL,
    THRESHOLD,
    TID,
    VA,
    Signalled,
    block,
    decided,
    failures,
    host,
    later,
    logged,
    memory,
    offlined,
    outcomes,
    page,
    queued,
    sea,
    signals,
    steps,
)

PLAIN = block(memory())
EBUSY, EHWPOISON, ENXIO, EIO, EOPNOTSUPP, ENOTRECOVERABLE, EFAULT = -16, -133, -6, -5, -95, -131, -14
HUGE, GIGANTIC = 21, 30
UNKNOWN_BEFORE_7_3 = (("unknown page", "ignored"), ("get hwpoison page", "ignored"))
GOT: Signalled = (PID, AO, VA, 12)
MEETS: Signalled = (PID, AR, VA, 12)
NOBODY: tuple[Signalled, ...] = ()


class Came(NamedTuple):
    """What one kernel makes of a page that an early-kill process maps, if any does."""

    kind: str | None
    result: str | None
    returns: int = 0
    told: tuple[Signalled, ...] = ()
    later: tuple[Signalled, ...] = ()
    log: str = ""


def refused(kind: str, result: str = "ignored") -> Came:
    return Came(kind, result, EBUSY)


def recovered(kind: str = "dirty LRU page", log: str = "") -> Came:
    return Came(kind, "recovered", told=(GOT,), later=(MEETS,), log=log)


BUDDY = Came("free buddy page", "recovered")
BUDDY_LATER = Came("free buddy page", "delayed")
HIGH_ORDER = refused("high-order kernel page")
UNKNOWN, NOT_GOT, OWNED = refused("unknown page"), refused("get hwpoison page"), refused("reserved kernel page")
CLEAN = Came("clean LRU page", "recovered")
CUT, KEPT = "removed from the page cache", "stays in the page cache"
SPLIT = Came("dirty LRU page", "recovered", later=(MEETS,), log=KEPT)
BASE, START = (VA, HUGE), (VA & -(1 << HUGE), HUGE)


def huge(named: tuple[int, int], *, file: str = "", met: int | None = None) -> Came:
    address, shift = named
    return Came("huge page", "recovered", told=((PID, AO, address, shift),), later=((PID, AR, met or VA, shift),), log=file)


def gigantic(address: int) -> Came:
    return huge((address, GIGANTIC))


UNSPLIT = Came("unsplit thp", "failed", EHWPOISON, told=((PID, AO, VA, HUGE),))
OFFLINE = Came(None, None, ENXIO)

TABLE: dict[str, tuple[dict[str, Any], tuple[Came, Came, Came, Came]]] = {
    "a free page": (page("free", unmapped=True), (BUDDY_LATER, BUDDY, BUDDY, BUDDY)),
    "a free page on a per-cpu list": (page("free_pcp", unmapped=True), (HIGH_ORDER, BUDDY, BUDDY, BUDDY)),
    "a reserved page": (page("reserved", unmapped=True), (refused("reserved kernel page", "failed"), UNKNOWN, NOT_GOT, OWNED)),
    "the zero page": (page("zero", unmapped=True), (refused("reserved kernel page", "failed"), UNKNOWN, NOT_GOT, OWNED)),
    "a slab page": (page("slab", unmapped=True), (refused("kernel slab page", "failed"), UNKNOWN, NOT_GOT, OWNED)),
    "a slab of several pages": (page("slab", unmapped=True, shift=14), (HIGH_ORDER, UNKNOWN, NOT_GOT, OWNED)),
    "a page-table page": (page("page_table", unmapped=True), (refused("unknown page", "failed"), UNKNOWN, NOT_GOT, OWNED)),
    "another kernel page": (page("kernel", unmapped=True), (refused("unknown page", "failed"), UNKNOWN, NOT_GOT, NOT_GOT)),
    "a kernel compound": (page("kernel", unmapped=True, shift=14), (HIGH_ORDER, UNKNOWN, NOT_GOT, NOT_GOT)),
    "the huge zero page": (page("huge_zero", unmapped=True, shift=HUGE), (HIGH_ORDER, UNKNOWN, NOT_GOT, NOT_GOT)),
    "an anonymous page": (page(dirty=True), (recovered(),) * 4),
    "an anonymous page with further references": (
        page(dirty=True, pinned=True),
        (recovered()._replace(result="failed", returns=EBUSY), recovered(), recovered(), recovered()),
    ),
    # recorded: unmapping clears the flag before the page is classified
    "a page locked in memory": (page(dirty=True, mlocked=True), (recovered(),) * 4),
    "a dirty swap-cache page": (
        page("swap_cache", dirty=True),
        (Came("dirty swapcache page", "delayed", told=(GOT,), later=(MEETS,)),) * 4,
    ),
    "a clean swap-cache page": (page("swap_cache", dirty=False), (Came("clean swapcache page", "recovered"),) * 4),
    "an unmapped dirty swap-cache page": (page("swap_cache", dirty=True, unmapped=True), (Came("dirty swapcache page", "delayed"),) * 4),
    "a clean page of a file": (page("page_cache", dirty=False), (CLEAN,) * 4),
    "a dirty page of a file": (page("page_cache", dirty=True), (recovered(log="EIO"),) * 4),
    "an unmapped clean page of a file": (page("page_cache", dirty=False, unmapped=True), (CLEAN,) * 4),
    "an unmapped dirty page of a file": (
        page("page_cache", dirty=True, unmapped=True),
        (Came("dirty LRU page", "recovered", log="EIO"),) * 4,
    ),
    "a shmem page": (page("shmem", dirty=True), (recovered(log=CUT), recovered(log=KEPT), recovered(log=KEPT), recovered(log=KEPT))),
    "a ksm page": (page("ksm", dirty=True), (refused("unmapping failed page"), refused("unmapping failed page"), recovered(), recovered())),
    "an anonymous huge page": (page("thp", dirty=True, shift=HUGE), (recovered(),) * 4),
    "an anonymous huge page that cannot be split": (
        page("thp", dirty=True, shift=HUGE, split_fails=True),
        (refused("unsplit thp"), refused("unsplit thp"), UNSPLIT, UNSPLIT),
    ),
    "a pinned anonymous huge page": (
        page("thp", dirty=True, shift=HUGE, pinned=True),
        (refused("unsplit thp"), refused("unsplit thp"), UNSPLIT, UNSPLIT),
    ),
    # recorded: splitting the huge page of a file unmaps it before anybody is collected, and the page of a tmpfs file stays in its file
    "a huge page of a tmpfs file": (page("file_thp", dirty=True, shift=HUGE), (HIGH_ORDER, *(SPLIT,) * 3)),
    "a clean huge page of a tmpfs file": (
        page("file_thp", dirty=False, shift=HUGE, backing="tmpfs"),
        (HIGH_ORDER, *(SPLIT._replace(kind="clean LRU page"),) * 3),
    ),
    "a huge page of a file on disk": (
        page("file_thp", dirty=True, shift=HUGE, backing="disk"),
        (HIGH_ORDER, *(Came("dirty LRU page", "recovered", log="EIO"),) * 3),
    ),
    "a clean huge page of a file on disk": (page("file_thp", dirty=False, shift=HUGE, backing="disk"), (HIGH_ORDER, CLEAN, CLEAN, CLEAN)),
    "a huge page of a file that cannot be split": (
        page("file_thp", dirty=True, shift=HUGE, split_fails=True),
        (HIGH_ORDER, refused("unsplit thp"), UNSPLIT, UNSPLIT),
    ),
    "a free hugetlb page": (
        page("hugetlb_free", unmapped=True, shift=HUGE),
        (Came("free huge page", "delayed"), *(Came("free huge page", "recovered"),) * 3),
    ),
    "an anonymous hugetlb page": (
        page("hugetlb", dirty=True, shift=HUGE),
        (huge(START), huge(START), huge(BASE), huge(BASE)),
    ),
    "a hugetlb page of a file": (
        page("hugetlb", dirty=True, shift=HUGE, file_backed=True),
        (huge(START, file=CUT), huge(START, file=KEPT), huge(BASE, file=KEPT), huge(BASE, file=KEPT)),
    ),
    "a hugetlb page of 1 GiB": (
        page("hugetlb", dirty=True, shift=GIGANTIC),
        (refused("non-pmd-sized huge page"), gigantic(VA & -(1 << GIGANTIC)), gigantic(VA), gigantic(VA)),
    ),
    "a page that cannot be unmapped": (
        page(dirty=True, unmap_fails=True),
        (
            *(Came("unmapping failed page", "ignored", EBUSY, told=((PID, SIGKILL, None, None),)),) * 2,
            *(Came("unmapping failed page", "failed", EBUSY, told=(GOT,)),) * 2,
        ),
    ),
    "a clean page that cannot be unmapped": (
        page("page_cache", dirty=False, unmap_fails=True),
        (
            refused("unmapping failed page"),
            Came("unmapping failed page", "ignored", EBUSY, told=((PID, SIGKILL, None, None),)),
            *(Came("unmapping failed page", "failed", EBUSY, told=(GOT,)),) * 2,
        ),
    ),
    "memory that is offline": (page("offline", unmapped=True), (OFFLINE,) * 4),
}


@pytest.mark.parametrize(
    ("name", "index"), list(product(TABLE, range(4))), ids=[f"{name}-{policy}" for name, policy in product(TABLE, ALL)]
)
def test_a_page_comes_to_what_its_state_says(name: str, index: int) -> None:
    facts, expected = TABLE[name]
    came = expected[index]
    decision = decided(ALL[index], "gpio", PLAIN, host(facts, early=1))

    assert queued(decision) == [(PFN, (), "kworker")]
    assert failures(decision) == [(PFN, came.kind, came.result, came.returns)]
    assert signals(decision) == list(came.told)
    assert later(decision) == list(came.later)
    assert came.log == "" or logged(decision, came.log)
    assert decision.action is (Action.SIGNAL if came.told else Action.HANDLED)
    assert decision.certainty == "certain"
    assert len(outcomes(decision, "memory.page_state")) == 1


def assumed(decision: Decision) -> dict[str, str]:
    return {assumption.fact: assumption.assumed for assumption in decision.assumptions}


@pytest.mark.parametrize("policy", [L61, L612, L73])
def test_the_consumer_of_a_huge_page_of_a_file_is_signalled_by_its_retry_and_nobody_else_is(policy: str) -> None:
    decision = decided(policy, sea(), PLAIN, host(page("file_thp", PID, OTHER, dirty=True, shift=HUGE, backing="tmpfs"), early=1))
    assert signals(decision) == [(TID, AR, VA, 12)]
    assert outcomes(decision, "signals.collect") == ["no signal: splitting the huge page of a file unmapped it"]
    assert outcomes(decision, "signals.retry") == ["the interrupted access is retried and faults on the poison entry"]


@pytest.mark.parametrize("facts", [{"poisoned": True}, {}], ids=["earlier event", "same record"])
def test_the_page_tables_do_not_lead_to_a_poisoned_huge_page_of_a_file(facts: dict[str, bool]) -> None:
    data = block(memory()) if facts else block(memory(), memory())
    decision = decided(L73, sea(), data, host(page("file_thp", dirty=True, shift=HUGE, backing="tmpfs", **facts)))
    assert failures(decision)[-1] == (PFN, "already poisoned page", "failed", 0)
    assert outcomes(decision, "memory.already_poisoned") == ["no signal: the thread that consumed the page no longer maps it"]
    assert later(decision) == [MEETS]


def test_a_poisoned_tmpfs_page_that_leaves_its_file_is_met_by_nobody() -> None:
    decision = decided("linux-5.16.20", sea(), PLAIN, host(page("file_thp", dirty=True, shift=HUGE)))
    assert (signals(decision), later(decision), logged(decision, CUT)) == ([], [], True)


def test_a_huge_page_of_a_file_is_taken_to_be_of_tmpfs_and_dirty() -> None:
    decision = decided(L73, "gpio", PLAIN, host(page("file_thp", shift=HUGE)))
    assert failures(decision) == [(PFN, "dirty LRU page", "recovered", 0)]
    assert assumed(decision)["host.pages.backing"] == "a file on tmpfs (shmem)"
    given = decided(L73, "gpio", PLAIN, host(page("file_thp", shift=HUGE, backing="disk")))
    assert failures(given) == [(PFN, "clean LRU page", "recovered", 0)]
    assert "host.pages.backing" not in assumed(given)


def test_an_unmapped_locked_page_still_shows_that_it_was_locked() -> None:
    for policy in ALL:
        decision = decided(policy, "gpio", PLAIN, host(page(dirty=True, mlocked=True, unmapped=True)))
        assert failures(decision) == [(PFN, "dirty mlocked LRU page", "recovered", 0)]


def test_a_page_of_guest_memory_without_a_mapping_is_said_to_depend() -> None:
    for policy in (L612, L73):
        decision = decided(policy, "gpio", PLAIN, host(page("guest_memfd", unmapped=True)))
        assert decision.certainty == "depends"
        assert [entry[2] for entry in failures(decision)] == ["failed"]


def test_every_page_state_has_an_outcome_under_every_kernel() -> None:
    for policy, state in product((*ALL, "uniform"), PageState):
        decision = decided(policy, "gpio", PLAIN, host(page(state.value)))
        assert len(failures(decision)) + logged(decision, "Invalid address") == 1


# Addresses and granularity


@pytest.mark.parametrize(("page_size", "shift"), [(4096, 12), (16384, 14), (65536, 16)])
def test_a_signal_gives_the_size_of_the_running_kernels_pages(page_size: int, shift: int) -> None:
    facts = host(
        {"physical_address": PA & -page_size, "state": "anonymous", "dirty": True, "mappings": [{"pid": PID, "address": FAR & -page_size}]}
    )
    decision = decided(L73, sea(), PLAIN, facts | {"page_size": page_size})
    assert signals(decision) == [(TID, AR, FAR & -page_size, shift)]
    assert failures(decision)[0][0] == PA // page_size


@pytest.mark.parametrize(("page_size", "gigantic_from"), [(4096, 30), (16384, 30), (65536, 34)])
def test_what_is_larger_than_a_page_middle_directory_depends_on_the_page_size(page_size: int, gigantic_from: int) -> None:
    pmd = {4096: 21, 16384: 25, 65536: 29}[page_size]
    for shift, kind in ((pmd, "huge page"), (gigantic_from, "non-pmd-sized huge page")):
        decision = decided(L510, "gpio", PLAIN, host(page("hugetlb", dirty=True, shift=shift)) | {"page_size": page_size})
        assert failures(decision)[0][1] == kind


ALIAS = VA - 0x10000
"""Another address of the page in the same process, behind `VA` in the order of the reverse mapping."""


def mapped_twice(state: str = "shmem", **facts: Any) -> dict[str, Any]:
    """A page that the consumer maps at `VA` and `ALIAS`, and another process once."""
    mappings = [{"pid": PID, "address": VA}, {"pid": PID, "address": ALIAS}, {"pid": OTHER, "address": VA}]
    return {"physical_address": PAGE, "state": state, "dirty": True, "mappings": mappings, **facts}


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("state", ["anonymous", "shmem", "page_cache"])
def test_a_process_is_signalled_once_for_each_mapping_of_the_page(policy: str, state: str) -> None:
    decision = decided(policy, "gpio", PLAIN, host(mapped_twice(state), early=1))
    assert signals(decision) == [GOT, (PID, AO, ALIAS, 12), (OTHER, AO, VA, 12)]
    assert outcomes(decision, "signals.collect") == ["2 threads signalled"]
    assert decision.certainty == "depends"
    assert [reason for reason in decision.reasons if "pending is lost" in reason] != []
    assert later(decision) == [MEETS, (PID, AR, ALIAS, 12), (OTHER, AR, VA, 12)]


def test_the_processes_of_a_ksm_page_are_signalled_once_each() -> None:
    decision = decided(L73, "gpio", PLAIN, host(mapped_twice("ksm"), early=1))
    assert signals(decision) == [GOT, (OTHER, AO, VA, 12)]
    assert decision.certainty == "certain"


def test_the_consumer_of_a_page_mapped_twice_gets_one_signal_for_the_first_mapping() -> None:
    decision = decided(L73, sea(), PLAIN, host(mapped_twice(), early=1))
    assert signals(decision) == [(TID, AR, VA, 12), (OTHER, AO, VA, 12)]
    assert decision.certainty == "certain"


def test_a_process_that_maps_a_page_twice_is_killed_once() -> None:
    decision = decided(L61, "gpio", PLAIN, host(mapped_twice("anonymous", unmap_fails=True), early=1))
    assert signals(decision) == [(PID, SIGKILL, None, None), (OTHER, SIGKILL, None, None)]


@pytest.mark.parametrize("state", ["anonymous", "ksm", "shmem"])
def test_the_consumer_of_a_page_poisoned_before_is_told_its_lowest_address(state: str) -> None:
    decision = decided(L73, sea(), PLAIN, host(mapped_twice(state, poisoned=True), early=1))
    assert signals(decision) == [(TID, AR, ALIAS, 12)]


# Who is signalled


def thread(tid: int, kill: str = "default") -> dict[str, Any]:
    return {"tid": tid, "mce_kill": kill}


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize(
    ("threads", "sysctl", "told"),
    [
        ([thread(PID), thread(TID)], 0, None),
        ([thread(PID), thread(TID)], 1, PID),
        ([thread(PID, "late"), thread(TID)], 1, TID),
        ([thread(PID, "late"), thread(TID, "late")], 1, None),
        ([thread(PID), thread(TID, "early")], 0, TID),
        ([thread(PID), thread(TID, "early"), thread(105, "early")], 0, TID),
        ([thread(PID, "late"), thread(TID, "late"), thread(105, "early")], 1, 105),
        ([thread(PID, "early"), thread(TID, "early")], 0, PID),
        ([thread(TID, "early")], 0, TID),
        ([thread(TID, "early")], 1, PID),
    ],
)
def test_the_first_thread_that_asked_for_it_gets_the_optional_signal(
    policy: str, threads: list[dict[str, Any]], sysctl: int, told: int | None
) -> None:
    facts = host(early=sysctl, tasks=[{"pid": PID, "threads": threads}])
    expected = [] if told is None else [(told, AO, VA, 12)]
    assert signals(decided(policy, "gpio", PLAIN, facts)) == expected


@pytest.mark.parametrize("policy", ALL)
def test_a_process_that_is_not_listed_has_one_thread_and_follows_the_sysctl(policy: str) -> None:
    assert signals(decided(policy, "gpio", PLAIN, host(early=1, tasks=None))) == [GOT]
    decision = decided(policy, "gpio", PLAIN, host(early=0, tasks=None))
    assert signals(decision) == []
    assert any(assumption.fact == "host.tasks" for assumption in decision.assumptions)


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("kill", ["default", "early", "late"])
@pytest.mark.parametrize("sysctl", [0, 1])
def test_what_a_thread_asked_for_never_changes_the_signal_of_the_one_that_consumed_the_error(policy: str, kill: str, sysctl: int) -> None:
    facts = host(early=sysctl, tasks=[{"pid": PID, "mce_kill": kill, "threads": [thread(PID, kill), thread(TID, kill)]}])
    assert signals(decided(policy, sea(), PLAIN, facts)) == [(TID, AR, VA, 12)]


@pytest.mark.parametrize(
    ("policy", "told"), [(L510, []), (L61, [(OTHER, AO, VA, 12)]), (L612, [(OTHER, AO, VA, 12)]), (L73, [(OTHER, AO, VA, 12)])]
)
def test_others_learn_of_a_consumed_page_only_since_5_11(policy: str, told: list[Signalled]) -> None:
    facts = host(page("anonymous", OTHER, PID, dirty=True), tasks=[{"pid": OTHER, "mce_kill": "early"}])
    assert sorted(signals(decided(policy, sea(), PLAIN, facts)), key=str) == sorted([(TID, AR, VA, 12), *told], key=str)


@pytest.mark.parametrize("policy", ALL)
def test_reverse_map_order_is_the_order_of_signals(policy: str) -> None:
    for pids in ((PID, OTHER), (OTHER, PID)):
        told = signals(decided(policy, "gpio", PLAIN, host(page("anonymous", *pids, dirty=True), early=1)))
        assert [tid for tid, *_ in told] == list(pids)


def test_an_optional_signal_is_not_forced_and_a_required_one_is() -> None:
    decision = decided(L73, sea(), PLAIN, host(page("anonymous", PID, OTHER, dirty=True), tasks=[{"pid": OTHER, "mce_kill": "early"}]))
    assert [(step.code, step.forced) for step in decision.plan if step.kind == "signal"] == [(AR, True), (AO, False)]


@pytest.mark.parametrize("policy", [L61, L612])
def test_a_race_is_a_reason_to_depend_only_where_somebody_could_notice(policy: str) -> None:
    assert decided(policy, sea(), PLAIN).certainty == "depends"
    for facts in (page("anonymous", OTHER, dirty=True), page("page_cache", dirty=False), page("free", unmapped=True)):
        assert decided(policy, sea(), PLAIN, host(facts)).reasons == ()


@pytest.mark.parametrize("policy", [L61, L612])
def test_a_thread_that_is_killed_anyway_may_still_be_told_first_where_it_asked_for_it(policy: str) -> None:
    data = block(memory(), memory(address=None))
    assert decided(policy, sea(), data).certainty == "certain"
    assert decided(policy, sea(), data, host(early=1)).certainty == "depends"


# A kernel before the abort was action required


def test_an_old_kernel_treats_an_abort_as_any_report_and_the_retried_access_signals() -> None:
    decision = decided("linux-6.1.76", sea(), PLAIN)
    assert queued(decision) == [(PFN, (), "kworker")]
    assert signals(decision) == [(TID, AR, VA, 12)]
    eager = decided("linux-6.1.76", sea(), PLAIN, host(early=1))
    assert signals(eager) == [(PID, AO, VA, 12), (TID, AR, VA, 12)]


@pytest.mark.parametrize(
    ("release", "dirty"),
    [("6.10.14", False), ("6.11.0", True), ("6.12.43", True), ("6.12.57", False), ("6.16.12", True), ("6.17.8", False), ("7.3.4", False)],
)
def test_a_page_that_was_read_back_from_swap_counts_as_dirty_where_the_kernel_maps_it_writable(release: str, dirty: bool) -> None:
    told = [decided(f"linux-{release}", "gpio", PLAIN, host(page("swap_cache", **facts))) for facts in ({}, {"dirty": not dirty})]
    assert [failures(decision)[0][1] == "dirty swapcache page" for decision in told] == [dirty, not dirty]
    unmapped = decided(f"linux-{release}", "gpio", PLAIN, host(page("swap_cache", unmapped=True)))
    assert failures(unmapped)[0][1] == "clean swapcache page"


# Already poisoned pages


def poisoned(**facts: Any) -> dict[str, Any]:
    return page(**({"dirty": True, "poisoned": True} | facts))


@pytest.mark.parametrize(
    ("policy", "came"),
    [
        (L510, (PFN, None, None, 0)),
        (L61, (PFN, None, None, EHWPOISON)),
        ("linux-6.10.14", (PFN, None, None, EHWPOISON)),
        ("linux-6.12.47", (PFN, "already poisoned", "failed", EHWPOISON)),
        (L612, (PFN, "already poisoned page", "failed", EHWPOISON)),
        (L73, (PFN, "already poisoned page", "failed", EHWPOISON)),
    ],
)
def test_a_second_report_of_a_poisoned_page_signals_nobody(policy: str, came: tuple[int, str | None, str | None, int]) -> None:
    decision = decided(policy, "gpio", PLAIN, host(poisoned(), early=1))
    assert failures(decision) == [came]
    assert signals(decision) == []


@pytest.mark.parametrize(("policy", "certainty"), [(L510, "certain"), (L61, "depends"), (L612, "depends")])
def test_a_kernel_worker_cannot_find_who_consumed_a_poisoned_page(policy: str, certainty: str) -> None:
    decision = decided(policy, sea(), PLAIN, host(poisoned()))
    assert signals(decision) == []
    assert decision.certainty == certainty
    assert failures(decision)[0][3] == (0 if policy == L510 else EFAULT)


def test_the_thread_itself_finds_the_poison_that_it_consumed() -> None:
    assert signals(decided(L73, sea(), PLAIN, host(poisoned()))) == [(TID, AR, VA, 12)]
    assert signals(decided(L73, sea(), PLAIN, host(poisoned(state="hugetlb", shift=HUGE)))) == [(TID, AR, VA, HUGE)]
    assert signals(decided(L73, sea(), PLAIN, host(poisoned(unmapped=True)))) == []


def test_two_sections_about_one_page_poison_it_once() -> None:
    for policy, again in ((L510, (None, None, 0)), (L61, (None, None, EHWPOISON)), (L612, ("already poisoned page", "failed", EHWPOISON))):
        decision = decided(policy, "gpio", block(memory(), memory(address=PA + 8)))
        assert failures(decision) == [(PFN, "dirty LRU page", "recovered", 0), (PFN, *again)]


SHARED: dict[str, Any] = {"state": "hugetlb", "shift": HUGE, "file_backed": True}
PRIVATE: dict[str, Any] = {"state": "hugetlb", "shift": HUGE}
"""A hugetlb page of a file, and one of nobody else."""
NEXT = PA + 0x1000
"""In the next base page."""


def test_poisoning_one_page_of_a_shared_hugetlb_page_poisons_all_of_it() -> None:
    decision = decided(L61, "gpio", block(memory(), memory(address=NEXT)), host(page(dirty=True, **SHARED)))
    assert [entry[3] for entry in failures(decision)] == [0, EHWPOISON]


@pytest.mark.parametrize(("policy", "result"), [(L510, "delayed"), (L61, "recovered"), (L612, "recovered"), (L73, "recovered")])
def test_the_first_error_in_a_private_hugetlb_page_frees_its_other_base_pages(policy: str, result: str) -> None:
    data = block(memory(), memory(address=NEXT), memory(address=NEXT))
    decision = decided(policy, "gpio", data, host(page(dirty=True, **PRIVATE)))
    first, second, again = failures(decision)
    assert (first, second) == ((PFN, "huge page", "recovered", 0), (PFN + 1, "free buddy page", result, 0))
    assert again[1:3] == (("already poisoned page", "failed") if policy in (L612, L73) else (None, None))
    assert later(decision) == [(PID, AR, VA, HUGE), (PID, AR, VA + 0x1000, HUGE)]


def test_an_access_to_a_freed_base_page_of_a_hugetlb_page_meets_the_poison_of_the_first() -> None:
    decision = decided(L73, sea(), block(memory(address=NEXT)), host(at_failing_page(PRIVATE)))
    assert failures(decision) == [(PFN + 1, "free buddy page", "recovered", 0)]
    assert signals(decision) == [(TID, AR, VA + 0x1000, HUGE)]
    assert outcomes(decision, "signals.retry") == ["the interrupted access is retried and faults on the poison entry"]


def at_failing_page(facts: dict[str, Any], address: int = PAGE) -> dict[str, Any]:
    """The fact of a hugetlb page whose base page at `address` was poisoned before."""
    mapping = {"pid": PID, "address": VA + address - PAGE}
    return {"physical_address": address, "dirty": True, "poisoned": True, "mappings": [mapping], **facts}


def test_each_poisoned_base_page_of_a_dissolved_hugetlb_page_is_known() -> None:
    facts = host(at_failing_page(PRIVATE), at_failing_page(PRIVATE, PAGE + 0x1000))
    for address, came in ((PA, "already poisoned page"), (NEXT, "already poisoned page"), (NEXT + 0x1000, "free buddy page")):
        assert failures(decided(L73, "gpio", block(memory(address=address)), facts))[0][1] == came


@pytest.mark.parametrize(
    ("policy", "returns", "told"),
    [
        ("linux-6.17.8", 0, []),
        ("linux-6.18.8", 0, []),
        ("linux-6.18.9", EHWPOISON, [(TID, AR, VA, HUGE)]),
        (L73, EHWPOISON, [(TID, AR, VA, HUGE)]),
    ],
)
def test_the_poison_of_a_dissolved_hugetlb_page_was_found_only_at_its_first_base_page(
    policy: str, returns: int, told: list[Signalled]
) -> None:
    decision = decided(policy, sea(), PLAIN, host(at_failing_page(PRIVATE)))
    assert failures(decision) == [(PFN, "already poisoned page", "failed", returns)]
    assert signals(decision) == told
    assert later(decision) == [(PID, AR, VA, HUGE)]


@pytest.mark.parametrize("facts", [at_failing_page(PRIVATE, PAGE & -(1 << HUGE)), at_failing_page(SHARED)], ids=["first", "shared"])
def test_the_poison_of_a_hugetlb_page_was_found_at_its_first_base_page_and_in_a_file(facts: dict[str, Any]) -> None:
    data = block(memory(address=facts["physical_address"]))
    assert signals(decided("linux-6.17.8", sea(), data, host(facts))) == [(TID, AR, VA & -(1 << HUGE), HUGE)]


# Settings


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("state", ["anonymous", "page_cache", "free", "slab"])
@pytest.mark.parametrize("notification", ["gpio", "sea"])
def test_without_recovery_every_memory_failure_panics(policy: str, state: str, notification: str) -> None:
    facts = host(page(state), sysctl={"vm.memory_failure_recovery": 0, "kernel.panic": 5})
    decision = decided(policy, sea() if notification == "sea" else notification, PLAIN, facts)
    assert [(step.cause, step.reboots_after_s) for step in steps(decision, Panic)] == [("memory_failure", 5)]
    assert decision.action is Action.PANIC
    assert later(decision) == []


@pytest.mark.parametrize("state", list(PageState))
def test_panic_on_unrecoverable_covers_the_kernels_own_pages_and_no_others(state: PageState) -> None:
    asked = {"vm.panic_on_unrecoverable_memory_failure": 1}
    owned = state in (PageState.RESERVED, PageState.ZERO, PageState.SLAB, PageState.PAGE_TABLE)
    decision = decided(L73, "gpio", PLAIN, host(page(state.value, unmapped=True), sysctl=asked))
    assert (decision.action is Action.PANIC) == owned
    for policy in ALL:
        soft = block(memory(CORRECTED, THRESHOLD), severity=CORRECTED)
        assert decided(policy, "gpio", soft, host(page(state.value, unmapped=True), sysctl=asked)).action is not Action.PANIC
        if policy != L73:
            assert decided(policy, "gpio", PLAIN, host(page(state.value, unmapped=True), sysctl=asked)).action is not Action.PANIC


@pytest.mark.parametrize("policy", ALL)
def test_without_memory_failure_handling_a_recoverable_error_is_only_logged(policy: str) -> None:
    facts = host(config={"memory_failure": False})
    assert queued(decided(policy, "gpio", PLAIN, facts)) == []
    assert signals(decided(policy, sea(), PLAIN, facts)) == ([] if policy == L510 else [BUSKERN])


# Soft offline


SOFT = block(memory(CORRECTED, THRESHOLD), severity=CORRECTED)
MOVED, GONE, DISABLED, BUSY = ("recovered", 0), ("failed", EIO), ("ignored", EOPNOTSUPP), ("failed", EBUSY)
OWNED_NOW = ("failed", ENOTRECOVERABLE)
SOFT_TABLE: dict[str, tuple[dict[str, Any], tuple[tuple[str, int], ...]]] = {
    "a free page": (page("free", unmapped=True), (MOVED,) * 4),
    "a free hugetlb page": (page("hugetlb_free", unmapped=True, shift=HUGE), (MOVED,) * 4),
    "a clean page of a file": (page("page_cache", dirty=False, unmapped=True), (MOVED,) * 4),
    "a mapped page": (page(dirty=True), (MOVED,) * 4),
    "a hugetlb page": (page("hugetlb", dirty=True, shift=HUGE), (MOVED,) * 4),
    "a huge page": (page("thp", dirty=True, shift=HUGE), (MOVED,) * 4),
    "a huge page that cannot be split": (page("thp", dirty=True, shift=HUGE, split_fails=True), (BUSY,) * 4),
    "a page poisoned before": (page(dirty=True, poisoned=True, unmapped=True), (MOVED,) * 4),
    "a slab page": (page("slab", unmapped=True), (GONE, GONE, GONE, OWNED_NOW)),
    "a reserved page": (page("reserved", unmapped=True), (GONE, GONE, GONE, OWNED_NOW)),
    "a page-table page": (page("page_table", unmapped=True), (GONE, GONE, GONE, OWNED_NOW)),
    "another kernel page": (page("kernel", unmapped=True), (GONE,) * 4),
}


@pytest.mark.parametrize(
    ("name", "index"), list(product(SOFT_TABLE, range(4))), ids=[f"{name}-{policy}" for name, policy in product(SOFT_TABLE, ALL)]
)
def test_soft_offline_takes_a_page_away_quietly_or_leaves_it(name: str, index: int) -> None:
    facts, expected = SOFT_TABLE[name]
    decision = decided(ALL[index], "gpio", SOFT, host(facts, early=1))
    assert [(result, returns) for _, result, returns in offlined(decision)] == [expected[index]]
    assert (signals(decision), later(decision), failures(decision)) == ([], [], [])
    assert decision.action is Action.HANDLED


@pytest.mark.parametrize(("policy", "result"), [("linux-6.1.192", MOVED), ("linux-6.2.0", GONE), (L612, GONE), (L73, GONE)])
def test_soft_offline_of_a_poisoned_shared_hugetlb_page_fails_but_at_its_first_base_page(policy: str, result: tuple[str, int]) -> None:
    decision = decided(policy, "gpio", SOFT, host(at_failing_page(SHARED)))
    assert [entry[1:] for entry in offlined(decision)] == [result]
    first = block(memory(CORRECTED, THRESHOLD, address=PAGE & -(1 << HUGE)), severity=CORRECTED)
    assert [entry[1:] for entry in offlined(decided(policy, "gpio", first, host(at_failing_page(SHARED))))] == [MOVED]


@pytest.mark.parametrize("address", [PA, NEXT])
def test_soft_offline_of_a_dissolved_hugetlb_page_works_at_every_base_page(address: int) -> None:
    soft = block(memory(CORRECTED, THRESHOLD, address=address), severity=CORRECTED)
    assert [entry[1:] for entry in offlined(decided(L73, "gpio", soft, host(at_failing_page(PRIVATE))))] == [MOVED]


@pytest.mark.parametrize("policy", ALL)
def test_soft_offline_can_be_switched_off_only_where_the_setting_exists(policy: str) -> None:
    decision = decided(policy, "gpio", SOFT, host(sysctl={"vm.enable_soft_offline": 0}))
    assert [(result, returns) for _, result, returns in offlined(decision)] == [DISABLED if policy in (L612, L73) else MOVED]


@pytest.mark.parametrize("policy", ALL)
def test_soft_offline_of_memory_without_a_struct_page_fails(policy: str) -> None:
    data = block(memory(CORRECTED, THRESHOLD, address=0x10_0000_0000), severity=CORRECTED)
    decision = decided(policy, "gpio", data)
    assert [returns for _, _, returns in offlined(decision)] == ([ENXIO] if policy == L73 else [])
    assert logged(decision, "Invalid address") == (policy != L73)


def test_a_page_that_was_soft_offlined_counts_as_poisoned() -> None:
    decision = decided(L612, "gpio", block(memory(CORRECTED, THRESHOLD), memory()))
    assert [returns for _, _, returns in offlined(decision)] == [0]
    assert failures(decision) == [(PFN, "already poisoned page", "failed", EHWPOISON)]


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("notification", ["gpio", "sei"])
def test_a_page_poisoned_before_is_met_again_whatever_becomes_of_the_record(policy: str, notification: str) -> None:
    for state, dirty, meets in (("anonymous", True, True), ("shmem", True, True), ("page_cache", False, False), ("free", False, False)):
        decision = decided(policy, notification, block(memory()), host(page(state, dirty=dirty, poisoned=True)))
        assert [(code, lsb) for _, code, _, lsb in later(decision)] == ([("BUS_MCEERR_AR", 12)] if meets else [])


@pytest.mark.parametrize(("policy", "page_type"), [("linux-6.12.68", "already poisoned page"), ("linux-6.12.69", "huge page")])
def test_another_base_page_of_a_poisoned_hugetlb_page_is_reported_as_the_kernel_does(policy: str, page_type: str) -> None:
    huge = page(dirty=True, **SHARED)
    decision = decided(policy, "gpio", block(memory(address=PA), memory(address=NEXT)), host(huge))
    assert [(words, result) for _, words, result, _ in failures(decision)] == [("huge page", "recovered"), (page_type, "failed")]
