"""Matrix of representative cases: each event under each kernel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from ras_triage.models.decision import Acknowledge, Action, ExitToVmm, InjectSerror, Oops, Panic, RecoverPcie, ReportCxl, Signal
from ras_triage.models.records import guid
from tests.policies.events import (
    ALL,
    AO,
    AR,
    ASYNCHRONOUS,
    BUSKERN,
    CORRECTED,
    ESR_USER,
    FAR,
    FATAL,
    FNV,
    INFORMATIONAL,
    IRQ_LIKE,
    KERNEL,
    L61,
    L73,
    L510,
    L612,
    LATENT,
    OBJERR,
    OTHER,
    PFN,
    PID,
    RECOVERABLE,
    RESET,
    S1PTW,
    SIGKILL,
    THRESHOLD,
    TID,
    VA,
    Signalled,
    arm,
    block,
    cxl_event,
    cxl_protocol,
    decided,
    error_info,
    failures,
    host,
    later,
    logged,
    memory,
    offlined,
    other,
    outcomes,
    page,
    pcie,
    queued,
    rejected,
    repeat,
    sea,
    section,
    sei,
    signals,
    steps,
)

ABOUT_AN_IOCTL = {139, 140}
"""Rows about KVM_SET_VCPU_EVENTS, which no event notifies: test_kvm.py."""
NO_FACT_FOR_IT = {87, 147}
"""Rows that hang on something no event says: an exhausted record pool, two processors at once."""

SEA = ("sea",)
BEFORE_7_3 = (L510, L61, L612)
SINCE_6_1 = (L61, L612, L73)
SINCE_6_12 = (L612, L73)
UNTIL_6_1 = (L510, L61)
THE_6S = (L61, L612)

INVALID = 0x10_0000_0000
"""A physical address without a struct page."""
HUGE, GIGANTIC = 21, 30
KERNEL_PAGES = ("slab", "page_table", "reserved")
SEVERITIES_SHORT_OF_FATAL = (RECOVERABLE, CORRECTED, INFORMATIONAL)
EBUSY, EHWPOISON = -16, -133


class Expected(NamedTuple):
    """Everything a plan may hold but logs: what is not named must not be there."""

    action: str | None = "handled"
    certainty: str = "certain"
    signals: tuple[Signalled, ...] = ()
    later: tuple[Signalled, ...] | None = ()
    queued: tuple[tuple[int, tuple[str, ...], str], ...] = ()
    failures: tuple[tuple[int, str | None, str | None, int | None], ...] = ()
    offlined: tuple[tuple[int, str, int], ...] = ()
    panic: tuple[str, str, int | None] | None = None
    oopses: int = 0
    pcie: tuple[tuple[str, bool], ...] = ()
    cxl: tuple[str, ...] = ()
    injected: tuple[int, ...] = ()
    exits: int = 0
    log: str = ""
    reject: str | None = None
    why: tuple[str, str] | None = None
    """A rule and words of its outcome."""


class Row(NamedTuple):
    """One row, or one of several events that a row speaks of."""

    number: int
    policies: tuple[str, ...]
    notifications: tuple[str | dict[str, Any], ...]
    data: bytes | None
    facts: dict[str, Any]
    expected: Expected
    variant: str = ""

    def cases(self) -> Iterator[Any]:
        for policy, notification in product(self.policies, self.notifications):
            name = notification if isinstance(notification, str) else notification["type"]
            where = "" if len(self.notifications) == 1 else f"-{name}"
            given = sea() if notification == "sea" else notification
            yield pytest.param(policy, given, self, id=f"row-{self.number}-{policy}{where}{self.variant and f'-{self.variant}'}")


def ghes_panic(policy: str, timeout: int | None = None) -> Expected:
    text = "Fatal hardware error!" if policy == L510 else "GHES: Fatal hardware error"
    return Expected("panic", panic=("ghes", text, timeout or (30 if policy == L510 else None)), why=("severity.panic", text))


def handled_page(kind: str, result: str, returns: int, *, required: bool = False, policy: str = "") -> dict[str, Any]:
    """The queue entry and what memory failure handling came to."""
    return {
        "queued": ((PFN, ("action_required",) if required else (), "task_work" if required and policy == L73 else "kworker"),),
        "failures": ((PFN, kind, result, returns),),
    }


def racy(policy: str) -> str:
    return "certain" if policy == L73 else "depends"


SOFT = {"queued": ((PFN, ("soft_offline",), "kworker"),), "offlined": ((PFN, "recovered", 0),), "why": ("sections.memory", "soft offline")}
DIRTY = handled_page("dirty LRU page", "recovered", 0)
CLEAN = handled_page("clean LRU page", "recovered", 0)
AR_T: Signalled = (TID, AR, VA, 12)
AR_LATER: Signalled = (PID, AR, VA, 12)
LOGGED = ("sections.memory", "logged")
UNHANDLED = ("sections.arm_error_info", "unhandled")
NOTHING_QUEUED = ("exceptions.nothing_queued", "SIGBUS")
RETRIED = ("exceptions.nothing_queued", "retried")
KILLED = Expected("signal", signals=(BUSKERN,), why=NOTHING_QUEUED)
RESUMED = Expected(why=RETRIED)


def fatality() -> Iterator[Row]:
    for policy in ALL:
        panics = ghes_panic(policy)
        for severity, name in ((FATAL, "fatal"), (4, "off-the-list"), (0xFFFFFFFF, "all-ones")):
            number = 1 if severity == FATAL else 2
            for data, content in ((block(memory(), severity=severity), "memory"), (block(severity=severity), "empty")):
                yield Row(number, (policy,), (*ASYNCHRONOUS, "sea"), data, host(), panics, f"{name}-{content}")
        fatal = block(memory(), severity=FATAL)
        yield Row(3, (policy,), ("sea", "sdei"), fatal, host(recent=[repeat(fatal)]), panics)
        number = 4 if policy == L510 else 5
        yield Row(number, (policy,), (*ASYNCHRONOUS, "sea"), fatal, host(sysctl={"kernel.panic": 0}), panics)
        yield Row(number, (policy,), ("gpio",), fatal, host(sysctl={"kernel.panic": 7}), ghes_panic(policy, 7), "timeout-of-its-own")
    fatal_section = block(memory(FATAL))
    yield Row(6, ALL, ASYNCHRONOUS, fatal_section, host(), Expected(why=LOGGED))
    yield Row(7, (L510,), SEA, fatal_section, host(), RESUMED)
    yield Row(8, SINCE_6_1, SEA, fatal_section, host(), KILLED)
    refused = Expected(reject="at probe", why=("admit.notification", "at probe"))
    yield Row(9, ALL, ("sei",), block(memory(), severity=FATAL), host(), refused)
    corrected_serror = refused._replace(why=("exceptions.serror", "no action"))
    yield Row(9, ALL, (sei(0xBE001811),), block(memory(), severity=FATAL), host(), corrected_serror, "the-syndrome-decides")
    for severity in (*SEVERITIES_SHORT_OF_FATAL, FATAL):
        yield Row(10, ALL, ("nmi", "local", "cmci", "mce"), block(memory(), severity=severity), host(), refused, str(severity))


def asynchronous_memory() -> Iterator[Row]:
    plain = block(memory())
    both = page("anonymous", PID, OTHER, dirty=True)
    late_both = ((PID, AR, VA, 12), (OTHER, AR, VA, 12))
    quiet = Expected(later=late_both, why=("signals.collect", "0 threads"), **DIRTY)
    yield Row(11, ALL, ASYNCHRONOUS, plain, host(both), quiet)
    to_leaders = Expected(
        "signal", signals=((PID, AO, VA, 12), (OTHER, AO, VA, 12)), later=late_both, why=("signals.collect", "2"), **DIRTY
    )
    yield Row(12, ALL, ASYNCHRONOUS, plain, host(both, early=1), to_leaders)
    asked = [{"pid": PID, "threads": [{"tid": PID}, {"tid": TID, "mce_kill": "early"}, {"tid": 105, "mce_kill": "early"}]}, {"pid": OTHER}]
    to_one = to_leaders._replace(signals=((TID, AO, VA, 12),), why=("signals.collect", "1 thread"))
    yield Row(13, ALL, ASYNCHRONOUS, plain, host(both, tasks=asked), to_one)
    declined = [{"pid": PID, "mce_kill": "late", "threads": [{"tid": PID, "mce_kill": "late"}, {"tid": TID, "mce_kill": "late"}]}]
    yield Row(
        14, ALL, ASYNCHRONOUS, plain, host(page(dirty=True), early=1, tasks=declined), Expected(later=(AR_LATER,), why=quiet.why, **DIRTY)
    )
    spared = ("signals.collect", "no signal")
    yield Row(15, ALL, ASYNCHRONOUS, plain, host(page("page_cache", dirty=False), early=1), Expected(why=spared, **CLEAN))
    lost = Expected("signal", signals=((PID, AO, VA, 12),), later=(AR_LATER,), log="EIO", **DIRTY)
    yield Row(16, ALL, ASYNCHRONOUS, plain, host(page("page_cache", dirty=True), early=1), lost)
    yield from corrections_and_refusals(plain)
    yield from kernel_pages()
    yield from repeats_and_limits(plain)


def corrections_and_refusals(plain: bytes) -> Iterator[Row]:
    only_logged = Expected(why=LOGGED)
    yield Row(
        17, ALL, ASYNCHRONOUS, block(memory(address=None)), host(), Expected(why=("sections.memory", "physical address is not valid"))
    )
    yield Row(18, ALL, ASYNCHRONOUS, block(memory(CORRECTED), severity=CORRECTED), host(), only_logged)
    worn = memory(CORRECTED, THRESHOLD)
    offered = Expected(**SOFT)
    yield Row(19, UNTIL_6_1, ASYNCHRONOUS, block(worn, severity=CORRECTED), host(sysctl={"vm.enable_soft_offline": 0}), offered)
    yield Row(20, SINCE_6_12, ASYNCHRONOUS, block(worn, severity=CORRECTED), host(), offered)
    disabled = offered._replace(offlined=((PFN, "ignored", -95),), why=("memory.soft_offline", "vm.enable_soft_offline"))
    yield Row(21, SINCE_6_12, ASYNCHRONOUS, block(worn, severity=CORRECTED), host(sysctl={"vm.enable_soft_offline": 0}), disabled)
    yield Row(22, ALL, ASYNCHRONOUS, block(worn, severity=INFORMATIONAL), host(), offered)
    yield Row(23, ALL, ASYNCHRONOUS, block(worn, severity=RECOVERABLE), host(), offered)
    yield Row(24, ALL, ASYNCHRONOUS, block(memory(), severity=CORRECTED), host(), only_logged)
    yield Row(25, ALL, ASYNCHRONOUS, block(memory(INFORMATIONAL)), host(), only_logged)
    nowhere = block(memory(address=INVALID))
    off = {"vm.memory_failure_recovery": 0}
    invalid = Expected(log="Invalid address", why=("sections.page_frame", "no struct page"))
    yield Row(26, BEFORE_7_3, ASYNCHRONOUS, nowhere, host(), invalid)
    frame = INVALID >> 12
    ignored = Expected(queued=((frame, (), "kworker"),), failures=((frame, "non struct page pfn", "ignored", EBUSY),))
    yield Row(27, (L73,), ASYNCHRONOUS, nowhere, host(), ignored)
    dies = Expected("panic", queued=((frame, (), "kworker"),), panic=("memory_failure", f"Memory failure on page {frame:x}", None))
    yield Row(28, (L73,), ASYNCHRONOUS, nowhere, host(sysctl=off), dies)
    yield Row(29, BEFORE_7_3, ASYNCHRONOUS, nowhere, host(sysctl=off), invalid)
    dies = dies._replace(queued=((PFN, (), "kworker"),), panic=("memory_failure", f"Memory failure on page {PFN:x}", None))
    yield Row(30, ALL, ASYNCHRONOUS, plain, host(sysctl=off), dies._replace(why=("memory.recovery", "vm.memory_failure_recovery")))
    yield Row(31, ALL, ASYNCHRONOUS, block(worn, severity=CORRECTED), host(sysctl=off), offered)


def repeats_and_limits(plain: bytes) -> Iterator[Row]:
    poisoned = host(page(dirty=True, poisoned=True), early=1, recent=[repeat(plain, 3000)])
    for policy in ALL:
        named = "already poisoned page" if policy in SINCE_6_12 else None
        again = Expected(
            later=(AR_LATER,),
            queued=((PFN, (), "kworker"),),
            failures=((PFN, named, named and "failed", 0 if policy == L510 else EHWPOISON),),
            log="duplicate record",
            why=("read.duplicate", "not printed"),
        )
        yield Row(32, (policy,), IRQ_LIKE, plain, poisoned, again)
    dropped = Expected(reject="byte-identical", why=("read.duplicate", "dropped"))
    yield Row(33, ALL, ("sdei",), plain, host(recent=[repeat(plain, 3000)]), dropped)
    crowd = [memory(address=(PFN + index) << 12) for index in range(17)]
    sixteen = tuple((PFN + index, (), "kworker") for index in range(16))
    free = [
        {"physical_address": PFN << 12, "state": "free", "shift": 17},
        {"physical_address": (PFN + 16) << 12, "state": "free", "shift": 17},
    ]
    for policy in ALL:
        took = tuple((frame, "free buddy page", "delayed" if policy == L510 else "recovered", 0) for frame, _, _ in sixteen)
        full = Expected(queued=sixteen, failures=took, log="overflow")
        yield Row(38, (policy,), ASYNCHRONOUS, block(*crowd), host(*free), full)
    stuck = host(page(dirty=True, unmap_fails=True), early=1)
    killed = Expected("signal", signals=((PID, SIGKILL, None, None),), **handled_page("unmapping failed page", "ignored", EBUSY))
    yield Row(39, UNTIL_6_1, ASYNCHRONOUS, plain, stuck, killed)
    told = Expected("signal", signals=((PID, AO, VA, 12),), **handled_page("unmapping failed page", "failed", EBUSY))
    yield Row(40, SINCE_6_12, ASYNCHRONOUS, plain, stuck, told)


KERNEL_PAGE_TYPES = {
    (L510, "slab"): ("kernel slab page", "failed"),
    (L510, "page_table"): ("unknown page", "failed"),
    (L510, "reserved"): ("reserved kernel page", "failed"),
    (L510, "kernel"): ("unknown page", "failed"),
    **{(L61, state): ("unknown page", "ignored") for state in (*KERNEL_PAGES, "kernel")},
    **{(L612, state): ("get hwpoison page", "ignored") for state in (*KERNEL_PAGES, "kernel")},
    **{(L73, state): ("reserved kernel page", "ignored") for state in KERNEL_PAGES},
    (L73, "kernel"): ("get hwpoison page", "ignored"),
}
PANIC_ON_UNRECOVERABLE = {"vm.panic_on_unrecoverable_memory_failure": 1}


def kernel_pages() -> Iterator[Row]:
    plain = block(memory())
    for state in KERNEL_PAGES:
        facts = host(page(state, unmapped=True))
        for policy in BEFORE_7_3:
            kind, result = KERNEL_PAGE_TYPES[policy, state]
            expected = Expected(**handled_page(kind, result, EBUSY))
            yield Row(34, (policy,), ASYNCHRONOUS, plain, facts, expected, state)
            insisting = host(page(state, unmapped=True), sysctl=PANIC_ON_UNRECOVERABLE)
            yield Row(34, (policy,), ("gpio",), plain, insisting, expected, f"{state}-no-such-sysctl")
        yield Row(35, (L73,), ASYNCHRONOUS, plain, facts, Expected(**handled_page("reserved kernel page", "ignored", EBUSY)), state)
        dies = Expected(
            "panic",
            queued=((PFN, (), "kworker"),),
            failures=((PFN, "reserved kernel page", "ignored", None),),
            panic=("memory_failure", f"Memory failure: {PFN:#x}: unrecoverable page", None),
            why=("memory.panic", "panic"),
        )
        yield Row(36, (L73,), ASYNCHRONOUS, plain, host(page(state, unmapped=True), sysctl=PANIC_ON_UNRECOVERABLE), dies, state)
    expected = Expected(**handled_page("get hwpoison page", "ignored", EBUSY))
    yield Row(37, (L73,), ASYNCHRONOUS, plain, host(page("kernel", unmapped=True), sysctl=PANIC_ON_UNRECOVERABLE), expected)


def consumed(policy: str, kind: str = "dirty LRU page", result: str = "recovered", returns: int = 0) -> dict[str, Any]:
    return handled_page(kind, result, returns, required=True, policy=policy)


def synchronous_memory() -> Iterator[Row]:
    plain = block(memory())
    shared = page("anonymous", PID, OTHER, dirty=True)
    eager = [{"pid": PID, "threads": [{"tid": PID}, {"tid": TID}]}, {"pid": OTHER, "mce_kill": "early"}]
    both_later = (AR_LATER, (OTHER, AR, VA, 12))
    for policy in ALL:
        certainty = racy(policy)
        to_consumer = Expected("signal", certainty, (AR_T,), (AR_LATER,), why=("signals.collect", "1 thread"), **consumed(policy))
        with_bystander = to_consumer._replace(
            signals=(AR_T,) if policy == L510 else (AR_T, (OTHER, AO, VA, 12)),
            later=both_later,
            why=("signals.collect", "1 thread" if policy == L510 else "2 threads"),
        )
        number = {L510: 41, L73: 43}.get(policy, 42)
        yield Row(number, (policy,), SEA, plain, host(shared, tasks=eager), with_bystander)
        yield Row(44, (policy,), SEA, plain, host(shared), to_consumer._replace(later=both_later))
        untouched = Expected(why=("signals.collect", "no signal"), **consumed(policy, "clean LRU page"))
        yield Row(45, (policy,), SEA, plain, host(page("page_cache", dirty=False)), untouched)
        yield Row(46, (policy,), SEA, plain, host(page("page_cache", dirty=True)), to_consumer._replace(log="EIO"))
        shmem = to_consumer._replace(log="removed from the page cache" if policy == L510 else "stays in the page cache")
        yield Row(47 if policy == L510 else 48, (policy,), SEA, plain, host(page("shmem", dirty=True)), shmem)
        yield Row(53, (policy,), SEA, plain, host(page("thp", dirty=True, shift=HUGE)), to_consumer)
        yield Row(80, (policy,), SEA, block(memory(flags=LATENT)), host(), to_consumer)
    yield from huge_pages(plain)
    yield from shared_and_poisoned(plain, eager)
    yield from unrecoverable(plain)
    yield from nothing_to_queue()
    yield from several_sections()


def huge_pages(plain: bytes) -> Iterator[Row]:
    for policy, shift in product(ALL, (HUGE, GIGANTIC)):
        facts = host(page("hugetlb", dirty=True, shift=shift))
        number = (49 if policy in UNTIL_6_1 else 50) if shift == HUGE else 52
        if shift == GIGANTIC and policy == L510:
            refused = Expected(why=("memory.page_state", "non-pmd-sized"), **consumed(policy, "non-pmd-sized huge page", "ignored", EBUSY))
            yield Row(51, (policy,), SEA, plain, facts, refused)
            continue
        named = VA & -(1 << shift) if policy in UNTIL_6_1 else VA
        told = Expected("signal", racy(policy), ((TID, AR, named, shift),), ((PID, AR, VA, shift),), **consumed(policy, "huge page"))
        yield Row(number, (policy,), SEA, plain, facts, told)
    for policy in ALL:
        facts = host(page("thp", dirty=True, shift=HUGE, pinned=True))
        if policy in UNTIL_6_1:
            yield Row(54, (policy,), SEA, plain, facts, Expected(**consumed(policy, "unsplit thp", "ignored", EBUSY)))
        else:
            told = Expected("signal", racy(policy), ((TID, AR, VA, HUGE),), **consumed(policy, "unsplit thp", "failed", EHWPOISON))
            yield Row(55, (policy,), SEA, plain, facts, told)


def shared_and_poisoned(plain: bytes, eager: list[dict[str, Any]]) -> Iterator[Row]:
    ksm = page("ksm", PID, OTHER, dirty=True)
    for policy in UNTIL_6_1:
        yield Row(56, (policy,), SEA, plain, host(ksm), Expected(**consumed(policy, "unmapping failed page", "ignored", EBUSY)))
    for policy in SINCE_6_12:
        both = Expected("signal", racy(policy), (AR_T, (OTHER, AO, VA, 12)), (AR_LATER, (OTHER, AR, VA, 12)), **consumed(policy))
        yield Row(57, (policy,), SEA, plain, host(ksm, tasks=eager), both)
    mapped, gone = page(dirty=True, poisoned=True), page("anonymous", OTHER, dirty=True, poisoned=True)
    again = ("memory.already_poisoned", "no action")
    yield Row(58, (L510,), SEA, plain, host(mapped), Expected(later=(AR_LATER,), why=again, **consumed(L510, None, None, 0)))  # type: ignore[arg-type]
    # recorded: the kernel worker wins, finds no page tables to search, and nobody is signalled
    for policy, named in ((L61, None), (L612, "already poisoned page")):
        lost = Expected("handled", "depends", later=(AR_LATER,), why=again, **consumed(policy, named, named and "failed", -14))  # type: ignore[arg-type]
        yield Row(59, (policy,), SEA, plain, host(mapped), lost)
        elsewhere = lost._replace(certainty="certain", later=((OTHER, AR, VA, 12),))
        yield Row(60, (policy,), SEA, plain, host(gone), elsewhere)
    signalled = ("memory.already_poisoned", "SIGBUS for the thread")
    found = Expected(
        "signal", signals=(AR_T,), later=(AR_LATER,), why=signalled, **consumed(L73, "already poisoned page", "failed", EHWPOISON)
    )
    yield Row(59, (L73,), SEA, plain, host(mapped), found)
    absent = ("memory.already_poisoned", "no longer maps it")
    missed = Expected(later=((OTHER, AR, VA, 12),), why=absent, **consumed(L73, "already poisoned page", "failed", 0))
    yield Row(60, (L73,), SEA, plain, host(gone), missed)


def unrecoverable(plain: bytes) -> Iterator[Row]:
    for policy, state in product(ALL, (*KERNEL_PAGES, "kernel")):
        kind, result = KERNEL_PAGE_TYPES[policy, state]
        facts = host(page(state, unmapped=True))
        failed = Expected(**consumed(policy, kind, result, EBUSY))
        if policy != L73:
            yield Row(61 if policy == L510 else 62, (policy,), SEA, plain, facts, failed, state)
            continue
        killed = failed._replace(action="signal", signals=(BUSKERN,), why=("signals.unrecovered", "could not be recovered"))
        yield Row(63, (policy,), SEA, plain, facts, killed, state)
        insisting = host(page(state, unmapped=True), sysctl=PANIC_ON_UNRECOVERABLE)
        if state == "kernel":
            yield Row(63, (policy,), SEA, plain, insisting, killed, "kernel-not-covered-by-the-sysctl")
            continue
        panic = ("memory_failure", f"Memory failure: {PFN:#x}: unrecoverable page", None)
        dies = failed._replace(action="panic", failures=((PFN, kind, result, None),), panic=panic)
        yield Row(63, (policy,), SEA, plain, insisting, dies, f"{state}-panics")
    for policy in ALL:
        taken = Expected(**consumed(policy, "free buddy page", "delayed" if policy == L510 else "recovered", 0))
        yield Row(64, (policy,), SEA, plain, host(page("free", unmapped=True)), taken)


def nothing_to_queue() -> Iterator[Row]:
    no_address = block(memory(address=None))
    yield Row(65, (L510,), SEA, no_address, host(), RESUMED)
    yield Row(66, SINCE_6_1, SEA, no_address, host(), KILLED)
    nowhere, frame = block(memory(address=INVALID)), INVALID >> 12
    yield Row(67, (L510,), SEA, nowhere, host(), RESUMED._replace(log="Invalid address"))
    yield Row(68, THE_6S, SEA, nowhere, host(), KILLED._replace(log="Invalid address"))
    unregistered = Expected(
        "signal",
        signals=(BUSKERN,),
        queued=((frame, ("action_required",), "task_work"),),
        failures=((frame, "non struct page pfn", "ignored", EBUSY),),
        why=("signals.unrecovered", "could not be recovered"),
    )
    yield Row(69, (L73,), SEA, nowhere, host(), unregistered)
    registered = Expected("signal", signals=(AR_T,), later=(AR_LATER,), **consumed(L73, "non struct page pfn"))
    yield Row(70, (L73,), SEA, block(memory()), host(page("no_struct_page")), registered)
    corrected = block(memory(CORRECTED), severity=CORRECTED)
    yield Row(71, (L510,), SEA, corrected, host(), RESUMED)
    yield Row(72, SINCE_6_1, SEA, corrected, host(), KILLED)
    yield Row(73, ALL, SEA, block(memory(CORRECTED, THRESHOLD), severity=CORRECTED), host(), Expected(**SOFT))
    yield Row(74, SINCE_6_1, SEA, block(), host(), KILLED)
    yield Row(75, (L510,), SEA, block(), host(), RESUMED)
    yield Row(114, SINCE_6_1, SEA, block(pcie()), host(), KILLED._replace(pcie=(("nonfatal", True),)))
    for severity in SEVERITIES_SHORT_OF_FATAL:
        yield Row(121, SINCE_6_1, SEA, block(other(severity=severity), severity=severity), host(), KILLED, str(severity))


def several_sections() -> Iterator[Row]:
    tlb = arm(error_info(4))
    first_memory, first_arm = block(memory(), tlb), block(tlb, memory())
    for policy in (L61, L612, "linux-7.3.0", "linux-7.3.3"):
        work = consumed(L73 if policy.startswith("linux-7.3") else policy)
        yield Row(76, (policy,), SEA, first_memory, host(), KILLED._replace(later=(AR_LATER,), **work))
    told = Expected("signal", signals=(AR_T,), later=(AR_LATER,))
    yield Row(77, (L73,), SEA, first_memory, host(), told._replace(**consumed(L73)))
    for policy in SINCE_6_1:
        yield Row(78, (policy,), SEA, first_arm, host(), told._replace(certainty=racy(policy), **consumed(policy)))
    half_valid = block(memory(), memory(address=INVALID))
    for policy in THE_6S:
        yield Row(79, (policy,), SEA, half_valid, host(), KILLED._replace(later=(AR_LATER,), log="Invalid address", **consumed(policy)))


def unclaimed_aborts() -> Iterator[Row]:
    plain = block(memory())
    twice = host(recent=[repeat(plain)])
    dropped = Expected(reject="byte-identical", why=("read.duplicate", "counts as claimed"))
    yield Row(81, BEFORE_7_3, SEA, plain, twice, dropped)
    to_far = Expected("signal", signals=((TID, OBJERR, FAR, None),), why=("exceptions.unclaimed", "SIGBUS with the fault address"))
    to_zero = to_far._replace(signals=((TID, OBJERR, 0, None),))
    yield Row(82, (L73,), SEA, plain, twice, to_far._replace(reject="byte-identical"))
    yield Row(82, (L73,), (sea(ESR_USER | FNV),), plain, twice, to_zero._replace(reject="byte-identical"), "far-not-valid")
    idle = block(memory(), status=0)
    yield Row(83, ALL, SEA, idle, host(), to_far._replace(reject="no record pending"))
    yield Row(84, ALL, (sea(ESR_USER | FNV),), idle, host(), to_zero._replace(reject="no record pending"))
    killed = Expected("signal", signals=((TID, SIGKILL, None, None),), reject="no record", why=("exceptions.unclaimed", "table walk"))
    for code in (*range(0x14, 0x18), *range(0x1C, 0x20)):
        yield Row(85, ALL, (sea(ESR_USER & ~0x3F | code),), idle, host(), killed, hex(code))
    for data, name in (
        (block(memory(), raw=(20, 4)), "raw-data-inside"),
        (block(memory(), data_length=63), "no-room-for-an-entry"),
        (block(memory(), data_length=151), "entry-beyond-the-data"),
        (block(memory(), bytes(8)), "leftover"),
    ):
        yield Row(86, ALL, SEA, data, host(), to_far._replace(reject="malformed"), name)
    oops = Expected("signal", oopses=1, reject="does not call APEI", why=("exceptions.kernel_mode", "oops"))
    from_kernel = (sea(0x9600_0010, taken_from="kernel"),)
    for data, name in ((plain, "recoverable"), (block(severity=FATAL), "fatal"), (None, "no-record")):
        yield Row(88, ALL, from_kernel, data, host(), oops, name)
        dies = oops._replace(action="panic", panic=("oops", "synchronous external abort: Fatal exception", None))
        yield Row(89, ALL, from_kernel, data, host(sysctl={"kernel.panic_on_oops": 1}), dies, f"{name}-panic-on-oops")
        yield Row(89, ALL, from_kernel, data, host(current={"pid": 1, "tid": 1}), dies, f"{name}-init")
    unknown = oops._replace(certainty="depends")
    yield Row(89, ALL, from_kernel, plain, host(current=None), unknown, "idle-or-a-kernel-thread")
    for policy in ALL:
        yield Row(90, (policy,), SEA, block(memory(), severity=FATAL), host(), ghes_panic(policy))


def arm_sections() -> Iterator[Row]:
    unhandled = Expected(log="Unhandled processor error type", why=UNHANDLED)
    taken = Expected(later=(AR_LATER,), why=("sections.arm_error_info", "memory failure"), **DIRTY)

    def block_of(kind: int, **fields: Any) -> bytes:
        return block(arm(error_info(kind, **fields)))

    yield Row(92, (L510,), ASYNCHRONOUS, block_of(0), host(), taken)
    yield Row(93, SINCE_6_1, ASYNCHRONOUS, block_of(0), host(), unhandled)
    yield Row(94, (L510,), ASYNCHRONOUS, block_of(2), host(), unhandled)
    yield Row(95, SINCE_6_1, ASYNCHRONOUS, block_of(2), host(), taken)
    yield Row(96, SINCE_6_1, ASYNCHRONOUS, block_of(6), host(), taken)
    for policy in ALL:
        cache, *rest = (0, 1, 2, 3) if policy == L510 else (2, 4, 8, 16)
        yield Row(97, (policy,), ASYNCHRONOUS, block_of(cache, address=None), host(), unhandled)
        for kind in rest:
            yield Row(98, (policy,), ASYNCHRONOUS, block_of(kind), host(), unhandled, hex(kind))
        ending = RESUMED if policy == L510 else KILLED
        for kind, address in ((cache, None), *((kind, PFN << 12) for kind in rest)):
            number = 100 if policy == L510 else 99
            yield Row(number, (policy,), SEA, block_of(kind, address=address), host(), ending._replace(log="Unhandled"), hex(kind))
        worn = arm(error_info(cache), severity=CORRECTED, flags=THRESHOLD)
        yield Row(102, (policy,), ASYNCHRONOUS, block(worn, severity=CORRECTED), host(), Expected(why=("sections.arm_processor", "logged")))
        yield Row(103, (policy,), ASYNCHRONOUS, block_of(cache, information=1 << 10 | 1 << 26), host(), taken)
        for severity in (FATAL, RECOVERABLE):
            data = block(arm(error_info(cache), severity=severity), severity=FATAL)
            yield Row(107, (policy,), (*ASYNCHRONOUS, "sea"), data, host(), ghes_panic(policy), str(severity))
    told = Expected("signal", signals=(AR_T,), later=(AR_LATER,), **consumed(L73))
    yield Row(101, (L73,), SEA, block_of(2), host(), told)
    for size in (0, 8, 39):
        short = Expected(log="firmware bug", why=("sections.arm_processor", "shorter than its header"))
        yield Row(104, SINCE_6_12, ASYNCHRONOUS, block(arm(error_info(2), size=size)), host(), short, str(size))
    behind = block(arm(count=1), other(error_info(2)[:16]))
    slack = Expected(certainty="depends", log="Invalid address in generic error data: 0x10", why=("sections.page_frame", "no struct page"))
    yield Row(105, (L612,), ASYNCHRONOUS, behind, host(), slack)
    yield Row(
        106,
        (L73,),
        ASYNCHRONOUS,
        behind,
        host(),
        Expected(log="ARM processor error", why=("sections.arm_processor", "error infos are handled")),
    )


def devices() -> Iterator[Row]:
    def recovers(severity: str, yes: bool = True) -> Expected:
        return Expected(pcie=((severity, yes),), why=("sections.pcie", "recovery runs" if yes else "printed only"))

    yield Row(108, ALL, ASYNCHRONOUS, block(pcie()), host(), recovers("nonfatal"))
    yield Row(108, BEFORE_7_3, ASYNCHRONOUS, block(pcie(status=0)), host(), recovers("nonfatal"), "no-status")
    yield Row(109, (L73,), ASYNCHRONOUS, block(pcie(status=0)), host(), recovers("nonfatal", yes=False), "no-status")
    yield Row(109, (L73,), ASYNCHRONOUS, block(pcie(status=0x4000, mask=0x4000)), host(), recovers("nonfatal", yes=False), "all-masked")
    for block_severity in SEVERITIES_SHORT_OF_FATAL:
        reset = block(pcie(CORRECTED, RESET), severity=block_severity)
        yield Row(110, ALL, ASYNCHRONOUS, reset, host(), recovers("fatal"), str(block_severity))
    silent = block(pcie(CORRECTED, RESET, status=0), severity=CORRECTED)
    yield Row(110, BEFORE_7_3, ASYNCHRONOUS, silent, host(), recovers("fatal"), "no-status")
    yield Row(110, (L73,), ASYNCHRONOUS, silent, host(), recovers("fatal", yes=False), "no-status")
    yield Row(111, ALL, ASYNCHRONOUS, block(pcie(FATAL)), host(), recovers("fatal"))
    for severity in (CORRECTED, INFORMATIONAL, 4):
        data = block(pcie(severity), severity=CORRECTED)
        yield Row(112, ALL, ASYNCHRONOUS, data, host(), recovers("correctable", yes=False), str(severity))
    for valid in (0x08, 0x80, 0):
        yield Row(113, ALL, ASYNCHRONOUS, block(pcie(valid=valid)), host(), Expected(why=("sections.pcie", "not both valid")), hex(valid))
    reported = Expected(log="non-standard event", why=("sections.other", "traced, no other action"))
    kinds = {"cxl_general_media": guid.CXL_GENERAL_MEDIA, "cxl_dram": guid.CXL_DRAM, "cxl_memory_module": guid.CXL_MEMORY_MODULE}
    for name, kind in kinds.items():
        yield Row(115, UNTIL_6_1, ASYNCHRONOUS, block(cxl_event(kind)), host(), reported, name)
        traced = Expected(cxl=(name,), why=("sections.cxl", "traces it"))
        yield Row(116, SINCE_6_12, ASYNCHRONOUS, block(cxl_event(kind)), host(), traced, name)
        for length, valid in ((32, 4), (145, 4), (144, 3)):
            refused = Expected(log="firmware bug", why=("sections.cxl", "rejected"))
            data = block(cxl_event(kind, length=length, valid=valid))
            yield Row(117, SINCE_6_12, ASYNCHRONOUS, data, host(), refused, f"{name}-{length}-{valid}")
    protocol = Expected(cxl=("cxl_protocol",), why=("sections.cxl", "traces it"))
    yield Row(118, (L73,), ASYNCHRONOUS, block(cxl_protocol()), host(), protocol)
    yield Row(119, BEFORE_7_3, ASYNCHRONOUS, block(cxl_protocol()), host(), reported)
    for kind, severity in product((guid.GENERIC_PROCESSOR, guid.FIRMWARE_RECORD_REFERENCE, other()[:16]), SEVERITIES_SHORT_OF_FATAL):
        data = block(section(kind, bytes(192), severity), severity=severity)
        yield Row(120, ALL, ASYNCHRONOUS, data, host(), reported, f"{guid.section_name(kind)}-{severity}")


def serror_esr(aet: int, dfsc: int = 0x11, ids: int = 0) -> int:
    return 0xBE00_0000 | ids << 24 | aet << 10 | dfsc


def serrors() -> Iterator[Row]:
    unread = "at probe"
    nothing = Expected(reject=unread, why=("exceptions.serror", "no action"))
    panics = Expected("panic", panic=("serror", "Asynchronous SError Interrupt", None), reject=unread, why=("exceptions.serror", "panic"))
    forwarded = Expected("inject", injected=(1 << 24,), reject=unread, why=("exceptions.serror", "for the guest"))
    no_ras = host(ras_extension=False)
    for where in ("user", "kernel", "guest"):
        for aet in (2, 6):
            yield Row(127 if where == "guest" else 122, ALL, (sei(serror_esr(aet), where),), None, host(), nothing, f"{where}-{aet}")
        for aet in (1, 3):
            number, expected = (126, forwarded) if where == "guest" else (123, panics)
            yield Row(number, ALL, (sei(serror_esr(aet), where),), None, host(), expected, f"{where}-{aet}")
        hopeless = [(serror_esr(aet), f"aet-{aet}") for aet in (0, 4, 5, 7)] + [
            (serror_esr(6, 0x10), "dfsc"),
            (serror_esr(6, 0), "no-dfsc"),
        ]
        for esr, name in hopeless:
            yield Row(125 if where == "guest" else 124, ALL, (sei(esr, where),), None, host(), panics, f"{where}-{name}")
        number, expected = (126, forwarded) if where == "guest" else (124, panics)
        yield Row(number, ALL, (sei(serror_esr(6, ids=1), where),), None, host(), expected, f"{where}-ids")
        plain = expected._replace(injected=(0,)) if where == "guest" else expected
        yield Row(number, ALL, (sei(serror_esr(6), where),), None, no_ras, plain, f"{where}-no-ras")


VM = {"id": "vm-1", "pid": PID, "vcpus": [{"index": 1, "tid": TID}]}


def guests() -> Iterator[Row]:
    def with_vm(**facts: Any) -> dict[str, Any]:
        return host(**({"vms": [{**VM, "sea_to_user": True}]} | facts))

    walk = ESR_USER & ~0x3F | 0x15
    from_guest = sea(taken_from="guest")
    injected = Expected("inject", injected=(1 << 24,), reject="no record", why=("exceptions.guest", "KVM injects"))
    told = Expected("signal", exits=1, reject="no record", why=("exceptions.guest", "KVM exits to the VMM"))
    yield Row(131, BEFORE_7_3, (from_guest,), None, with_vm(), injected)
    yield Row(132, (L73,), (from_guest,), None, host(vms=[VM]), injected)
    yield Row(133, (L73,), (from_guest,), None, with_vm(), told)
    yield Row(134, (L73,), (sea(walk | S1PTW, taken_from="guest"),), None, with_vm(), injected)
    yield Row(135, (L73,), (sea(walk, taken_from="guest"),), None, with_vm(), told)
    for data, name in ((block(memory(CORRECTED), severity=CORRECTED), "corrected"), (block(memory(address=None)), "no-address")):
        yield Row(136, SINCE_6_1, (from_guest,), data, with_vm(), KILLED._replace(action="inject", injected=(0x411,)), name)
    stays = Expected(reject="takes the abort to the guest", log="not to KVM", why=("exceptions.guest", "not to KVM"))
    for data, name in ((None, "no-record"), (block(memory()), "recoverable"), (block(severity=FATAL), "fatal")):
        yield Row(138, ALL, (from_guest,), data, with_vm(ras_extension=False), stays, name)
    for code in (0x13, 0x1B):
        abort = sea(ESR_USER & ~0x3F | code, taken_from="guest")
        fails = Expected(reject="does not call APEI", log="KVM_RUN returns EFAULT", why=("exceptions.guest", "does not know"))
        for data, name in ((None, "no-record"), (block(memory()), "recoverable")):
            yield Row(141, UNTIL_6_1, (abort,), data, host(), fails, f"{code:#x}-{name}")


def guest_memory() -> Iterator[Row]:
    """Memory of a guest: now, and when the guest touches it again."""
    plain, from_guest = block(memory()), sea(taken_from="guest")
    for policy in SINCE_6_1:
        told = Expected("signal", racy(policy), signals=(AR_T,), later=(AR_LATER,), **consumed(policy))
        yield Row(128 if policy in THE_6S else 129, (policy,), (from_guest,), plain, host(), told)
    at_stage_2 = Expected("signal", "depends", signals=(AR_T,), later=(AR_LATER,), **(DIRTY | {"queued": consumed(L510)["queued"]}))
    yield Row(130, (L510,), (from_guest,), plain, host(), at_stage_2._replace(why=("signals.stage_2", "not forced")))
    poisoned = Expected(later=(AR_T,), **DIRTY)
    yield Row(137, ALL, ASYNCHRONOUS, plain, host(vms=[VM]), poisoned)


def dax_and_the_rest() -> Iterator[Row]:
    plain = block(memory())
    facts = {"shift": HUGE, "dirty": True}
    dax = page("dax", PID, OTHER, **facts)
    found = Expected(later=None, **handled_page("dax page", "recovered", 0))
    yield Row(142, (L510,), ASYNCHRONOUS, plain, host(dax, early=1), found)
    told = found._replace(action="signal", signals=((PID, AO, VA, HUGE), (OTHER, AO, VA, HUGE)))
    yield Row(143, SINCE_6_1, ASYNCHRONOUS, plain, host(dax, early=1), told, "early-kill")
    yield Row(143, SINCE_6_1, ASYNCHRONOUS, plain, host(dax), found, "no-early-kill")
    consumer = Expected("signal", signals=((TID, AR, VA, HUGE),), later=None, **consumed(L73, "dax page"))
    yield Row(144, (L73,), SEA, plain, host(page("dax", **facts)), consumer)
    init = host(current={"pid": 1, "tid": 1})
    kills_init = KILLED._replace(signals=((1, KERNEL, None, None),))
    yield Row(145, ("linux-6.1.164", "linux-6.12.43", L61, L612, L73), SEA, block(memory(CORRECTED), severity=CORRECTED), init, kills_init)
    never = {"type": "polled", "poll_interval_ms": 0}
    yield Row(146, ALL, (never,), plain, host(), Expected(reject="never polled", why=("admit.notification", "never polled")))


ROWS = [
    *fatality(),
    *asynchronous_memory(),
    *synchronous_memory(),
    *unclaimed_aborts(),
    *arm_sections(),
    *devices(),
    *serrors(),
    *guests(),
    *guest_memory(),
    *dax_and_the_rest(),
]
FORCED_ROW = 91


@pytest.mark.parametrize(("policy", "notification", "row"), [case for row in ROWS for case in row.cases()])
def test_a_kernel_does_what_its_row_of_the_matrix_says(policy: str, notification: str | dict[str, Any], row: Row) -> None:
    expected = row.expected
    decision = decided(policy, notification, row.data, row.facts)

    assert signals(decision) == list(expected.signals)
    assert queued(decision) == list(expected.queued)
    assert failures(decision) == list(expected.failures)
    assert offlined(decision) == list(expected.offlined)
    assert [(step.cause, step.message, step.reboots_after_s) for step in steps(decision, Panic)] == [expected.panic] * bool(expected.panic)
    assert len(steps(decision, Oops)) == expected.oopses
    assert [(step.severity, step.recovers) for step in steps(decision, RecoverPcie)] == list(expected.pcie)
    assert [step.event for step in steps(decision, ReportCxl)] == list(expected.cxl)
    assert [step.vsesr_el2 for step in steps(decision, InjectSerror)] == list(expected.injected)
    assert len(steps(decision, ExitToVmm)) == expected.exits
    assert decision.certainty == expected.certainty
    assert expected.log == "" or logged(decision, expected.log)
    assert expected.reject is None or rejected(decision, expected.reject)
    if expected.later is not None:
        assert later(decision) == list(expected.later)
    if expected.action is not None:
        assert decision.action == Action(expected.action)
    if expected.why is not None:
        rule, words = expected.why
        assert any(words in outcome for outcome in outcomes(decision, rule)), decision.rationale


@pytest.mark.parametrize("policy", ALL, ids=[f"row-{FORCED_ROW}-{policy}" for policy in ALL])
@pytest.mark.parametrize(
    ("notification", "data"),
    [(sea(), block(memory())), (sea(), None), (sea(ESR_USER | 4), None), (sea(), block(memory(), memory(address=None)))],
    ids=["memory-failure", "no-record", "table-walk", "nothing-queued"],
)
def test_every_signal_for_the_consumer_of_an_error_is_forced(policy: str, notification: dict[str, Any], data: bytes | None) -> None:
    sent = steps(decided(policy, notification, data), Signal)
    assert sent
    assert all(step.forced for step in sent)


def test_a_record_is_released_before_it_is_processed_only_in_an_nmi_like_context() -> None:
    for notification, when in (
        (sea(), "before_processing"),
        ("sdei", "before_processing"),
        *((kind, "after_processing") for kind in IRQ_LIKE),
    ):
        assert [step.when for step in steps(decided(L612, notification, block(memory())), Acknowledge)] == [when]


def test_every_row_of_the_matrix_is_tested_or_known_to_belong_elsewhere() -> None:
    tested = {row.number for row in ROWS} | {FORCED_ROW}
    assert tested | ABOUT_AN_IOCTL | NO_FACT_FOR_IT == set(range(1, 148))
    assert not tested & (ABOUT_AN_IOCTL | NO_FACT_FOR_IT)
