"""Admission, validation, duplicates and acknowledgement of records."""

from __future__ import annotations

from typing import Any

import pytest

from ras_triage.models.decision import Acknowledge, Action, Panic, ReportCxl
from ras_triage.policies.catalog.policies import derive_policy
from tests.policies.events import (
    ALL,
    ASYNCHRONOUS,
    BUSKERN,
    CORRECTED,
    FAR,
    FATAL,
    INFORMATIONAL,
    IRQ_LIKE,
    L61,
    L73,
    L510,
    L612,
    OBJERR,
    PFN,
    RECOVERABLE,
    TID,
    arm,
    block,
    cxl_protocol,
    decided,
    error_info,
    failures,
    host,
    logged,
    memory,
    other,
    outcomes,
    page,
    queued,
    rejected,
    repeat,
    sea,
    section,
    signals,
    steps,
)

PLAIN = block(memory())
UNIFORM = "uniform"
EBL = 65536


def gpio(**fields: Any) -> dict[str, Any]:
    return {"type": "gpio", **fields}


# Which sources are listened to

ACCEPTED = ("polled", "external", "sci", "gpio", "gsiv", "sdei", "sea")
REFUSED = ("local", "nmi", "cmci", "mce", "sei")


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("kind", [*ACCEPTED, *REFUSED])
def test_arm64_probes_seven_of_the_twelve_notification_types(policy: str, kind: str) -> None:
    decision = decided(policy, kind, PLAIN)
    assert bool(failures(decision)) == (kind in ACCEPTED)
    assert rejected(decision, "at probe") == (kind in REFUSED)
    assert outcomes(decision, "admit.notification") == [
        "the driver reads the source's record" if kind in ACCEPTED else next(step.why for step in decision.plan if step.kind == "reject")
    ]


@pytest.mark.parametrize("kind", [*ACCEPTED, *REFUSED])
def test_the_uniform_policy_reads_every_notification_the_same_way(kind: str) -> None:
    decision = decided(UNIFORM, kind, PLAIN)
    assert [entry[0] for entry in failures(decision)] == [PFN]


@pytest.mark.parametrize("policy", ALL)
def test_a_source_with_no_room_for_a_header_is_refused(policy: str) -> None:
    assert rejected(decided(policy, gpio(error_block_length=19), PLAIN), "below 20 bytes")
    assert not rejected(decided(policy, gpio(error_block_length=20), block(severity=CORRECTED)))


@pytest.mark.parametrize("policy", ALL)
def test_a_source_that_is_not_built_in_is_not_read(policy: str) -> None:
    without_sea = decided(policy, sea(), PLAIN, host(config={"apei_sea": False}))
    assert signals(without_sea) == [(TID, OBJERR, FAR, None)]
    assert rejected(without_sea, "CONFIG_ACPI_APEI_SEA")
    without_sdei = decided(policy, "sdei", block(severity=FATAL), host(config={"sdei": False}))
    assert without_sdei.action is Action.HANDLED
    assert rejected(without_sdei, "SDEI")


@pytest.mark.parametrize("policy", ALL)
def test_a_source_is_polled_unless_its_interval_is_zero(policy: str) -> None:
    assert rejected(decided(policy, {"type": "polled", "poll_interval_ms": 0}, PLAIN), "never polled")
    for interval in (1, None):
        assert failures(decided(policy, {"type": "polled", "poll_interval_ms": interval}, PLAIN))


# Whether a record is pending


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("data", [None, block(memory(), status=0), b"", bytes(20)])
def test_without_a_pending_record_nothing_is_cleared_or_acknowledged(policy: str, data: bytes | None) -> None:
    decision = decided(policy, "gpio", data)
    assert [step.kind for step in decision.plan] == ["reject"]
    assert decision.action is Action.HANDLED


@pytest.mark.parametrize("status", [1, 2, 4, 0x10, 0x3FF0, 0x8000_0000, 0xFFFF_FFFF])
def test_any_block_status_but_zero_is_a_pending_record(status: int) -> None:
    for policy in ALL:
        assert failures(decided(policy, "gpio", block(memory(), status=status)))


# Whether it is well formed

MALFORMED = {
    "a length that wraps below the header": block(memory(), raw=(0xFFFF_FFF0, 0x20)),
    "longer than its source": block(memory(), data_length=EBL - 19),
    "raw data longer than its source": block(memory(), raw=(20 + 152, EBL)),
    "too little data for an entry": block(data_length=63),
    "a single byte of data": block(memory(), data_length=1),
    "raw data inside the sections": block(memory(), raw=(20 + 151, 8)),
    "raw data inside the header": block(raw=(19, 8)),
    "bytes left over": block(memory(), bytes(7)),
    "no room for the longer header": block(section(bytes(16), b"", revision=0x300)[:64] + bytes(0), data_length=64),
    "a section longer than the block": block(section(bytes(16), bytes(8), length=9)),
    "a section of four gigabytes": block(section(bytes(16), bytes(8), length=0xFFFF_FFFF)),
}


@pytest.mark.parametrize("policy", [*ALL, UNIFORM])
@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("kind", ["gpio", "sdei", "sea"])
def test_a_malformed_record_is_refused_cleared_and_lost(policy: str, name: str, kind: str) -> None:
    decision = decided(policy, sea() if kind == "sea" else kind, MALFORMED[name])
    assert rejected(decision, "malformed record")
    assert queued(decision) == []
    assert len(steps(decision, Acknowledge)) == 1
    assert outcomes(decision, "read.validate") == ["rejected as malformed: the record is cleared and lost"]
    assert signals(decision) == ([(TID, OBJERR, FAR, None)] if kind == "sea" else [])


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("name", [name for name in MALFORMED if "wraps" not in name])
def test_a_malformed_fatal_record_does_not_panic(policy: str, name: str) -> None:
    fatal = MALFORMED[name][:16] + FATAL.to_bytes(4, "little") + MALFORMED[name][20:]
    assert not steps(decided(policy, "gpio", fatal), Panic)


ACCEPTED_BLOCKS = {
    "no sections": block(severity=CORRECTED),
    "a whole block of raw data": block(raw=(20, 100), tail=bytes(100), severity=CORRECTED),
    "raw data behind the sections": block(memory(), raw=(20 + 152, 8), tail=bytes(8)),
    "raw data with a gap": block(memory(), raw=(200, 8), tail=bytes(36)),
    "raw data whose length wraps": block(memory(), raw=(20 + 152, 0xFFFF_FFFF)),
    "an offset without raw data": block(memory(), raw=(3, 0)),
    "an unknown section type": block(other()),
    "an entry of the old form": block(section(bytes(16), bytes(8), revision=0x201)),
    "an entry of a form to come": block(section(bytes(16), bytes(8), revision=0x400)),
    "an empty section": block(section(bytes(16), b"")),
    "a memory section that ends behind its address": block(memory(size=24)),
}


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("name", ACCEPTED_BLOCKS)
def test_what_no_kernel_checks_is_accepted(policy: str, name: str) -> None:
    decision = decided(policy, "gpio", ACCEPTED_BLOCKS[name])
    assert not rejected(decision)
    assert outcomes(decision, "read.validate") == ["well formed"]
    assert decision.certainty == "certain"


@pytest.mark.parametrize("length", [20 + 151, 20 + 152])
def test_a_block_may_fill_its_source_to_the_last_byte(length: int) -> None:
    for policy in ALL:
        decision = decided(policy, gpio(error_block_length=length), PLAIN)
        assert rejected(decision, "longer than the buffer") == (length < len(PLAIN))


LONG = block(other(), raw=(20 + 88, 70_000), tail=bytes(70_000))


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        ("linux-5.10.223", False),
        ("linux-6.1.164", False),
        ("linux-6.1.165", True),
        ("linux-6.12.74", False),
        ("linux-6.12.75", True),
        (L73, True),
    ],
)
def test_a_block_longer_than_the_kernels_buffer_is_refused_since_the_bound_was_added(policy: str, refused: bool) -> None:
    decision = decided(policy, gpio(error_block_length=1 << 17), LONG)
    assert rejected(decision, "longer than the buffer") == refused
    assert decision.certainty == ("certain" if refused else "depends")


def test_a_block_that_was_not_given_whole_is_read_as_zero_and_said_to_depend() -> None:
    decision = decided(L612, "gpio", block(memory(), data_length=152 + 128))
    assert decision.certainty == "depends"
    assert failures(decision)
    assert logged(decision, "2 zero data entries")


def test_a_malformed_record_is_reported_with_offset_section_and_field() -> None:
    decision = decided(L612, "gpio", block(memory(), section(bytes(16), bytes(8), length=9)))
    assert rejected(decision, "offset 196, section 1, `error_data_length`")


def test_a_section_too_short_for_what_is_read_of_it_depends_on_the_bytes_behind() -> None:
    for policy in ALL:
        short = decided(policy, "gpio", block(memory(size=8)))
        assert short.certainty == "depends"
        assert any("section 0" in reason for reason in short.reasons)


@pytest.mark.parametrize(("policy", "certainty"), [(L510, "depends"), (L61, "depends"), (L612, "depends"), (L73, "certain")])
def test_error_infos_that_an_arm_section_claims_and_does_not_have_are_read_from_behind_it(policy: str, certainty: str) -> None:
    assert decided(policy, "gpio", block(arm(count=1))).certainty == certainty


@pytest.mark.parametrize(("policy", "certainty"), [(L510, "depends"), (L61, "depends"), (L612, "depends"), (L73, "certain")])
def test_one_more_error_info_than_there_is_reads_on(policy: str, certainty: str) -> None:
    assert decided(policy, "gpio", block(arm(error_info(4), count=2))).certainty == certainty


def test_an_error_info_without_a_length_is_looked_at_again_and_again() -> None:
    for policy in ALL:
        kind = 0 if policy == L510 else 2
        decision = decided(policy, "gpio", block(arm(error_info(kind, length=0), count=3)))
        assert len(queued(decision)) == 3


# When firmware gets it back


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("kind", [*ASYNCHRONOUS, "sea"])
def test_a_record_is_acknowledged_early_in_an_nmi_like_context_and_late_in_any_other(policy: str, kind: str) -> None:
    notification = sea() if kind == "sea" else kind
    kinds = [step.kind for step in decided(policy, notification, PLAIN).plan]
    before = kinds.index("acknowledge") < kinds.index("log")
    assert before == (kind in ("sea", "sdei"))
    (step,) = steps(decided(policy, notification, PLAIN), Acknowledge)
    assert step.when == ("before_processing" if before else "after_processing")


@pytest.mark.parametrize("policy", ALL)
def test_a_source_of_the_first_version_has_nothing_to_acknowledge(policy: str) -> None:
    assert steps(decided(policy, gpio(ghes_version=1), PLAIN), Acknowledge) == []
    assert steps(decided(policy, sea(ghes_version=1), block(memory(), bytes(3))), Acknowledge) == []


# The block's severity


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("severity", [RECOVERABLE, FATAL, CORRECTED, INFORMATIONAL, 4, 0x8000_0000, 0xFFFF_FFFF])
def test_only_the_blocks_severity_can_panic(policy: str, severity: int) -> None:
    fatal = severity not in (RECOVERABLE, CORRECTED, INFORMATIONAL)
    for sections in ((), (memory(),), (other(severity=CORRECTED),)):
        assert (decided(policy, "gpio", block(*sections, severity=severity)).action is Action.PANIC) == fatal
    assert decided(policy, "gpio", block(memory(severity))).action is not Action.PANIC


@pytest.mark.parametrize("timeout", [-1, 0, 1, 30, 300])
def test_a_panic_reboots_when_the_kernel_was_told_to(timeout: int) -> None:
    for policy in ALL:
        (step,) = steps(decided(policy, "gpio", block(severity=FATAL), host(sysctl={"kernel.panic": timeout})), Panic)
        never = 30 if policy == L510 else None
        assert step.reboots_after_s == (max(timeout, 0) if timeout else never)


@pytest.mark.parametrize(("policy", "taints"), [(L510, False), (L61, True), (L612, True), (L73, True)])
def test_a_panic_taints_newer_kernels(policy: str, taints: bool) -> None:
    assert logged(decided(policy, "gpio", block(severity=FATAL)), "tainted") == taints


# Records seen before


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("kind", IRQ_LIKE)
def test_an_interrupts_repeat_is_handled_again_and_not_printed(policy: str, kind: str) -> None:
    decision = decided(policy, kind, PLAIN, host(recent=[repeat(PLAIN)]))
    assert len(failures(decision)) == 1
    assert logged(decision, "not printed again")


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("kind", ["sea", "sdei"])
def test_an_nmi_like_repeat_is_dropped_cleared_and_acknowledged(policy: str, kind: str) -> None:
    decision = decided(policy, sea() if kind == "sea" else kind, PLAIN, host(recent=[repeat(PLAIN)]))
    assert failures(decision) == []
    assert rejected(decision, "byte-identical")
    assert [step.when for step in steps(decision, Acknowledge)] == ["before_processing"]
    assert signals(decision) == ([(TID, OBJERR, FAR, None)] if (kind, policy) == ("sea", L73) else [])


@pytest.mark.parametrize(
    ("record", "dropped"),
    [
        (repeat(PLAIN, 0), True),
        (repeat(PLAIN, 9_999), True),
        (repeat(PLAIN, 10_000), False),
        (repeat(PLAIN, printed=False), False),
        (repeat(PLAIN + b"behind the record"), True),
        (repeat(PLAIN[:-1] + b"\1"), False),
        (repeat(block(memory(), memory())), False),
    ],
)
def test_a_repeat_is_the_same_bytes_printed_less_than_ten_seconds_ago(record: dict[str, Any], dropped: bool) -> None:
    for policy in ALL:
        assert rejected(decided(policy, "sdei", PLAIN, host(recent=[record])), "byte-identical") == dropped


OTHERS = [block(other(bytes([index]) * 16)) for index in range(1, 6)]


def recent(*records: tuple[bytes, int], repeated: tuple[int, ...] = (), data: bytes = PLAIN) -> bool:
    """Whether `data` is a duplicate after records of these ages and, unprinted, of `PLAIN` at the ages `repeated`."""
    known = [repeat(record, age) for record, age in records] + [repeat(PLAIN, age, printed=False) for age in repeated]
    dropped = [rejected(decided(policy, "sdei", data, host(recent=known)), "byte-identical") for policy in ALL]
    assert len(set(dropped)) == 1
    return dropped[0]


def test_the_cache_has_four_slots_and_the_oldest_record_leaves_it() -> None:
    others = [(record, 100 * age) for age, record in enumerate(OTHERS[:4], 1)]
    assert recent(*others[:3], (PLAIN, 5_000))
    assert not recent(*others, (PLAIN, 5_000))


def test_a_record_with_duplicates_stays_longer_in_the_cache() -> None:
    # recorded: the third of four records leaves the cache for the fifth, although the first is older
    records = [(PLAIN, 7_000), (OTHERS[0], 5_500), (OTHERS[1], 5_000), (OTHERS[2], 4_500), (OTHERS[3], 500)]
    assert not recent(*records)
    assert recent(*records, repeated=(6_500, 6_000))
    assert not recent(*records, repeated=(6_500, 6_000), data=OTHERS[0])
    assert recent(*records, data=OTHERS[0])


def test_a_duplicate_does_not_renew_the_age_of_a_record() -> None:
    assert not recent((PLAIN, 10_500), repeated=(9_000,))


def test_an_expired_record_leaves_the_cache_before_any_other() -> None:
    others = [(OTHERS[0], 8_000), (OTHERS[1], 7_000), (OTHERS[2], 0)]
    assert recent((OTHERS[3], 30_000), (PLAIN, 9_000), *others)
    assert not recent((OTHERS[3], 8_500), (PLAIN, 9_000), *others)


def test_a_record_is_not_added_to_a_cache_that_was_filled_at_that_very_moment() -> None:
    assert not recent(*((record, 100) for record in OTHERS[:4]), (PLAIN, 100))
    assert recent(*((record, 100) for record in OTHERS[:4]), (PLAIN, 99))


def test_a_record_counts_as_printed_again_once_it_has_expired() -> None:
    assert recent((PLAIN, 15_000), (PLAIN, 4_000))


def test_bytes_behind_the_record_do_not_tell_records_apart() -> None:
    assert rejected(decided(L612, "sdei", PLAIN + bytes(9), host(recent=[repeat(PLAIN + b"other")])), "byte-identical")


@pytest.mark.parametrize("policy", ALL)
def test_a_fatal_record_is_never_taken_for_a_repeat(policy: str) -> None:
    fatal = block(memory(), severity=FATAL)
    for kind in (*ASYNCHRONOUS, "sea"):
        assert decided(policy, kind, fatal, host(recent=[repeat(fatal)])).action is Action.PANIC


def test_a_repeat_under_a_policy_that_only_spares_printing_is_handled() -> None:
    policy = derive_policy('name = "mine"\nbase = "linux-6.12.107"\n[flags]\nduplicates_only_unprinted = true\n')
    assert failures(decided(policy, "sdei", PLAIN, host(recent=[repeat(PLAIN)])))


# What an abort's record comes to, section by section


@pytest.mark.parametrize(
    ("policy", "memory_last", "memory_first"),
    [(L61, [], [BUSKERN]), (L612, [], [BUSKERN]), ("linux-7.3.3", [], [BUSKERN]), (L73, [], []), (L510, [], [])],
)
def test_before_7_3_4_the_last_memory_or_arm_section_says_whether_anything_was_queued(
    policy: str, memory_last: list[Any], memory_first: list[Any]
) -> None:
    tlb = arm(error_info(4))
    for sections, expected in (((tlb, memory()), memory_last), ((memory(), tlb), memory_first), ((memory(), other()), [])):
        decision = decided(policy, sea(), block(*sections))
        assert [signal for signal in signals(decision) if signal == BUSKERN] == expected


@pytest.mark.parametrize("agent", range(10))
def test_a_cxl_protocol_error_of_any_agent_but_a_restricted_hosts_port_is_traced(agent: int) -> None:
    decision = decided(L73, "gpio", block(cxl_protocol(agent=agent)))
    assert bool(steps(decision, ReportCxl)) == (agent in (0, 2, 3, 4, 5, 6, 7))


@pytest.mark.parametrize(("valid", "length"), [(0x41, 88), (0x03, 88), (0x43, 87), (0x43, 89)])
def test_a_cxl_protocol_error_without_address_or_whole_log_is_refused(valid: int, length: int) -> None:
    decision = decided(L73, "gpio", block(cxl_protocol(valid=valid, error_length=length)))
    assert not steps(decision, ReportCxl)
    assert logged(decision, "firmware bug")


# What was taken for granted


@pytest.mark.parametrize("kind", [*ACCEPTED])
def test_build_options_are_assumed_only_where_they_decide(kind: str) -> None:
    decision = decided(L73, kind, PLAIN, host(config=None))
    assert any(assumption.fact == "host.config" for assumption in decision.assumptions) == (kind in ("sea", "sdei"))


def test_nothing_is_assumed_of_processes_that_do_not_map_the_page() -> None:
    for facts, assumed in ((page(dirty=True), True), (page(dirty=True, unmapped=True), False)):
        decision = decided(L73, "gpio", PLAIN, host(facts, tasks=None))
        assert any(assumption.fact == "host.tasks" for assumption in decision.assumptions) == assumed


def test_a_host_that_tells_everything_leaves_nothing_to_assume() -> None:
    for kind in ("gpio", sea()):
        assert decided(L73, kind, PLAIN).assumptions == ()


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 40])
def test_the_fact_about_a_page_is_found_among_any_number_of_facts(count: int) -> None:
    others = [{"physical_address": (PFN + 1 + index) << 12, "state": "free"} for index in range(count)]
    for pages in ([*others, page("slab", unmapped=True)], [page("slab", unmapped=True), *others]):
        assert failures(decided(L61, "gpio", PLAIN, host(*pages)))[0][1] == "unknown page"


def test_work_is_linear_in_the_bytes_whatever_the_counts_claim() -> None:
    def work(sections: int) -> int:
        crowded = arm(b"\xff" * (2 * 255 - 72 - 40), count=65535)
        decision = decided("linux-5.10.223", gpio(), block(*[crowded] * sections), host())
        return len(decision.plan) + len(decision.rationale)

    few, many = work(20), work(120)
    assert few > 20
    assert many <= 6 * few
