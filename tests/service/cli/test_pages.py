"""Pages of decisions, steps and comparisons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from ras_triage.models.decision import (
    Decision,
    GuestRange,
    Hole,
    InjectAbort,
    MemoryFailure,
    Oops,
    Panic,
    RecordGuestError,
    RecoverPcie,
    Signal,
    Step,
    Translate,
    VmmExits,
)
from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.service.cli.pages import comparison, layout
from ras_triage.service.cli.pages import decision as pages
from ras_triage.service.cli.pages.steps import _DESCRIPTIONS, describe_step, size_text
from tests.service.support.application import EVENT, NOTHING_TO_QUEUE


def decision(policy: str = "linux-6.12.107", **changes: Any) -> Decision:
    return decide(Event.model_validate({**EVENT, **changes}), resolve_policy(policy))


def print_page(page: Any, width: int = 100) -> str:
    console = layout.console(width=width)
    with console.capture() as drawn:
        console.print(page)
    return drawn.get()


def test_every_step_has_words() -> None:
    assert set(get_args(get_args(Step)[0])) == set(_DESCRIPTIONS)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            Signal(103, 104, "SIGBUS", "BUS_MCEERR_AR", 0xFFFF897D5000, 21, True),
            "SIGBUS (BUS_MCEERR_AR) to thread 104 of process 103: address 0xffff897d5000, 2 MiB lost, forced",
        ),
        (
            Signal(None, None, "SIGBUS", "SI_KERNEL", None, None, True),
            "SIGBUS (SI_KERNEL) to the interrupted thread: no address, forced",
        ),
        (MemoryFailure(0x56EDD, "dirty LRU page", "recovered", 0), "memory failure on page frame 0x56edd: dirty LRU page: recovered"),
        (
            MemoryFailure(1, "reserved kernel page", "ignored", -16),
            "memory failure on page frame 0x1: reserved kernel page: ignored, returns -EBUSY",
        ),
        (RecoverPcie("0000:01:00.0", "fatal", True), "PCIe device 0000:01:00.0 (fatal) is handed to AER recovery"),
        (Oops(None, "no bridge", "kworker"), "kernel oops in the context of a kernel worker, which ends: no bridge"),
        (Oops(103, "synchronous external abort"), "kernel oops in the context of process 103: synchronous external abort"),
        (
            Translate("vm-1", 0xFFFF40FA6000, (GuestRange(0x40FA6000, 4096, 0, 0), GuestRange(0x80000000, 1 << 21, 2, 1)), (), 0x40FA6000),
            (
                "host address 0xffff40fa6000 is guest memory of vm-1: "
                "4 KiB at 0x40fa6000 (slot 0), 2 MiB at 0x80000000 (slot 2 of address space 1)"
            ),
        ),
        (
            Translate("vm-1", 0x1000, (GuestRange(0, 4096, 0, 0),), tuple(Hole(n << 13, 12288) for n in range(6)), 0),
            (
                "host address 0x1000 is guest memory of vm-1: 4 KiB at 0x0 (slot 0); in no slot: 12 KiB at host address 0x0, "
                "12 KiB at host address 0x2000, 12 KiB at host address 0x4000, 12 KiB at host address 0x6000 and 2 more"
            ),
        ),
        (Translate("vm-1", 0x1000, (), (Hole(0x1000, 4096),), None), "host address 0x1000 is not guest memory of vm-1"),
        (
            RecordGuestError("vm-1", "sea", bytes(172), 0x40FA6000),
            "a record for 0x40fa6000 is written to the sea source of vm-1 (172 bytes)",
        ),
        (InjectAbort("vm-1", None, 0x92000410), "the interrupted vCPU of vm-1 takes an abort: its guest sees ESR_EL1 0x92000410"),
        (VmmExits("vm-1", "it ends"), "vm-1 ends because its VMM exits: it ends"),
        (Panic("ghes", "Fatal hardware error!", 30), "kernel panic, the machine reboots after 30 s: “Fatal hardware error!”"),
    ],
)
def test_steps_in_words(step: Any, words: str) -> None:
    assert describe_step(step) == words


def test_sizes_are_powers_of_two() -> None:
    assert [size_text(shift) for shift in (0, 12, 16, 21, 30, 48)] == ["1 byte", "4 KiB", "64 KiB", "2 MiB", "1 GiB", "256 TiB"]


def test_the_page_tells_action_policy_plan_and_reasons_in_this_order() -> None:
    page = print_page(pages.decision_page(decision()))

    parts = ["SIGNAL", "linux-6.12.107", "Plan", "SIGBUS", "Next access to the page", "Why", "ghes_severity", "since 6.8"]
    positions = [page.index(part) for part in parts]
    assert positions == sorted(positions)


def test_two_policies_side_by_side_mark_what_differs() -> None:
    decisions = [decision(policy, status_block=NOTHING_TO_QUEUE["status_block"]) for policy in ("linux-6.1.163", "linux-6.1.164")]
    page = print_page(comparison.comparison_page(decisions), 140)

    marked = [line for line in page.splitlines() if comparison.DIFFERS in line]
    assert any("HANDLED" in line and "SIGNAL" in line for line in marked)
    assert not any("given back to firmware" in line for line in marked)
    assert "since 6.1.164" in page


def test_what_a_decision_depends_on_stands_in_its_column() -> None:
    page = print_page(comparison.comparison_page([decision("linux-6.1.x"), decision("linux-5.10.209")]), 140)

    assert "stable release of 6.1.x unknown" in " ".join(page.split())


def test_equal_decisions_have_nothing_marked() -> None:
    page = print_page(comparison.comparison_page([decision("linux-6.1.190"), decision("linux-6.1.191")]))

    assert comparison.DIFFERS not in page
    assert "with the same outcome" in page


def test_control_sequences_and_markup_of_a_sender_are_only_text() -> None:
    page = print_page(pages.decision_page(decision(source="[red]\x1b[31mnode\x07\u202e")))

    assert "\x1b" not in page
    assert r"[red]\x1b[31mnode\x07\u202e" in page


def test_many_records_in_a_row_are_counted() -> None:
    records = tuple(RecordGuestError("vm-1", "gpio", bytes(172), page << 12) for page in range(16))
    page = " ".join(print_page(pages.decision_page(replace(decision(), plan=records))).split())

    assert "3 a record for 0x2000" in page
    assert "4 13 more records for guest pages, the last: a record for 0xf000" in page
