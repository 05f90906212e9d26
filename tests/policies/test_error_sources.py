"""Error sources of a HEST that a kernel reads, against recorded boots."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.hest import read_hest
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.error_sources import JudgedTable, judge_malformed_table, judge_sources
from tests.policies.events import ALL, L61, L73, L612
from tests.policies.vectors import cases, recordings

BOOTS = [boot for path in recordings("hest") for boot in cases(path)]
REGISTERS = 0x8000_0000
"""Where the recorded machine has its registers, 64 bytes for each source."""
RAM = ((0x4000_0000, 0x6000_0000),)


def gas(address: int, space: int = 0, width: int = 64, offset: int = 0, access: int = 4) -> bytes:
    return struct.pack("<BBBBQ", space, width, offset, access, address)


def source(index: int = 0, **case: Any) -> bytes:
    """A GHESv2 source as the recordings describe it, named by the fields that are not usual."""
    at = case.get("register", REGISTERS + 0x40 * index)
    length = case.get("block_length", 4096)
    status = gas(at, case.get("space", 0), case.get("bit_width", 64), case.get("bit_offset", 0), case.get("access", 4))
    notify = struct.pack("<BBHIIIIII", case.get("notify", 7), 28, 0, case.get("poll_ms", 0), case.get("vector", 0), 0, 0, 0, 0)
    head = struct.pack(
        "<HHHBBIII",
        case.get("entry_type", 10),
        case.get("source_id", 2),
        case.get("related", 0xFFFF),
        case.get("flags", 0),
        case.get("enabled", 1),
        1,
        1,
        length,
    )
    ack = gas(case.get("ack", REGISTERS + 0x40 * index + 8), case.get("ack_space", 0), access=case.get("ack_access", 4))
    return head + status + notify + struct.pack("<I", length) + ack + struct.pack("<QQ", 0, 1)


def machine_check(source_id: int, flags: int) -> bytes:
    return struct.pack("<HHHBB", 0, source_id, 0, flags, 1).ljust(40, b"\0")


def table(*sources: bytes, count: int | None = None, truncate: int = 0) -> bytes:
    body = b"".join(sources)
    body = body[: len(body) - truncate]
    return struct.pack("<4sI28sI", b"HEST", 40 + len(body), bytes(28), len(sources) if count is None else count) + body


def judge(data: bytes, policy: str) -> JudgedTable:
    try:
        return judge_sources(read_hest(data), resolve_policy(policy), RAM)
    except MalformedBytes as error:
        return judge_malformed_table(error)


def judged(*sources: bytes, policy: str = L73) -> JudgedTable:
    return judge(table(*sources), policy)


def verdict(policy: str = L73, **case: Any) -> tuple[str, str]:
    """Status and reason of one source alone."""
    (one,) = judged(source(**case), policy=policy).sources
    return one.verdict.status, one.verdict.why


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: f"{boot['id']}-{boot['kernel']}")
def test_the_sources_are_read_that_the_booted_kernel_read(boot: dict[str, Any]) -> None:
    case, outcome = boot["case"], boot["outcome"]
    options = {name: value for name, value in case.get("table", {}).items() if name in ("count", "truncate")}
    given = table(*(source(index, **one) for index, one in enumerate(case["hest_sources"])), **options)
    result = judge(given, f"linux-{boot['kernel']}")

    panics = result.fault is not None and result.fault.status == "panics"
    assert panics == outcome["panic"]
    assert (result.fault is not None and not panics) == any("HEST is not enabled" in line for line in outcome["lines"])
    if "consumed" in outcome.get("probe", {}):
        (probed,) = [one["source_id"] for one in case["hest_sources"] if one["name"] == case["probe"]]
        read = [one.source.source_id for one in result.sources if one.verdict.status == "read"]
        assert (probed in read) == outcome["probe"]["consumed"]
    for one in result.sources if result.fault is None else ():
        refusal = [line for line in outcome["lines"] if f"GHES.{one.source.source_id}: probe with driver GHES failed" in line]
        assert refusal == [] or one.verdict.status == "refused"


def test_both_recorded_kernels_booted_with_every_kind_of_table() -> None:
    assert len(BOOTS) >= 50
    assert {boot["kernel"] for boot in BOOTS} == {"6.12.118", "7.3.4"}


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize(
    ("case", "status", "why"),
    [
        ({}, "read", "the driver reads the source"),
        ({"enabled": 0}, "skipped", "it is disabled"),
        ({"register": 0}, "refused", "error status address register: its address is 0"),
        ({"register": 0x4800_0000}, "refused", "error status address register: it lies in RAM, at 0x48000000"),
        ({"ack": 0x4800_0000}, "refused", "read-acknowledge register: it lies in RAM, at 0x48000000"),
        ({"access": 0}, "refused", "error status address register: access size code 0 is not 1 to 4"),
        ({"access": 9}, "refused", "error status address register: access size code 9 is not 1 to 4"),
        ({"ack_access": 0}, "refused", "read-acknowledge register: access size code 0 is not 1 to 4"),
        ({"bit_width": 0}, "refused", "error status address register: its width is 0 bits"),
        ({"bit_width": 16, "access": 1}, "refused", "error status address register: 16 bits from bit 0 exceed the access size of 8 bits"),
        (
            {"bit_width": 32, "bit_offset": 40},
            "refused",
            "error status address register: 32 bits from bit 40 exceed the access size of 64 bits",
        ),
        ({"bit_width": 64, "access": 1}, "read", "the driver reads the source"),
        ({"space": 2}, "refused", "error status address register: address space 2 is neither memory (0) nor I/O (1)"),
        ({"space": 0x7F}, "refused", "error status address register: address space 127 is neither memory (0) nor I/O (1)"),
        ({"space": 1}, "never_read", "error status address register: an I/O port is read instead of memory"),
        ({"ack_space": 1}, "read", "the driver reads the source"),
        ({"block_length": 19}, "refused", "the driver rejects the source at probe: `error_block_length` is below 20 bytes"),
        ({"block_length": 19, "notify": 0}, "refused", "the driver rejects the source at probe: `error_block_length` is below 20 bytes"),
        ({"notify": 12}, "refused", "unknown notification type 12"),
        ({"notify": 2}, "refused", "the driver rejects sources of this notification type at probe: local interrupt"),
        ({"notify": 0, "poll_ms": 0}, "never_read", "the source is never polled: its poll interval is 0"),
        ({"notify": 0, "poll_ms": 200}, "read", "the driver reads the source"),
        ({"entry_type": 9}, "read", "the driver reads the source"),
    ],
)
def test_a_source_is_judged_as_the_driver_probes_it(policy: str, case: dict[str, Any], status: str, why: str) -> None:
    assert verdict(policy, **case)[0] == status
    assert verdict(policy, **case)[1].startswith(why)


def test_an_unaligned_register_panics_the_boot_and_no_source_is_read() -> None:
    result = judged(source(register=REGISTERS + 4), source(1, source_id=1))
    assert [one.verdict.status for one in result.sources] == ["panics", "read"]
    assert result.fault is not None
    assert (result.fault.status, result.fault.mirrors) == ("panics", "acpi_os_read_iomem")
    assert "not aligned to 8 bytes" in result.fault.why
    assert verdict(register=REGISTERS + 4, bit_width=32, access=3)[0] == "read"
    assert verdict(register=REGISTERS + 4, enabled=0)[0] == "skipped"


def test_two_enabled_sources_with_one_id_leave_none() -> None:
    result = judged(source(), source(1), source(2, source_id=3))
    assert [one.verdict.status for one in result.sources] == ["refused"] * 3
    assert result.fault is not None
    assert result.fault.why == "two enabled generic sources have the id 2: HEST is disabled, no source is read"
    assert judged(source(), source(1, enabled=0)).fault is None


@pytest.mark.parametrize("kind", [12, 99])
def test_a_source_of_an_unknown_type_leaves_none(kind: int) -> None:
    result = judged(source(), struct.pack("<HH", kind, 8) + bytes(4))
    assert result.fault is not None
    assert result.fault.why == f"unknown error source type {kind}: HEST is disabled, no source is read"
    assert {one.verdict.status for one in result.sources} == {"refused"}


def test_a_malformed_table_has_no_sources() -> None:
    result = judge(table(source(), truncate=8), L73)
    assert result.sources == ()
    assert result.fault is not None
    assert result.fault.why.startswith("the table is malformed: ")


@pytest.mark.parametrize(
    ("policy", "status"), [(L61, "read"), ("linux-6.8.0", "read"), ("linux-6.9.0", "skipped"), (L612, "skipped"), (L73, "skipped")]
)
def test_a_source_that_assists_a_machine_check_source_is_skipped_from_6_9_on(policy: str, status: str) -> None:
    assisting = judged(machine_check(5, flags=4), source(related=5), policy=policy).sources[1]
    assert assisting.verdict.status == status
    assert judged(machine_check(5, flags=0), source(related=5), policy=policy).sources[1].verdict.status == "read"
    assert judged(machine_check(6, flags=4), source(related=5), policy=policy).sources[1].verdict.status == "read"


def test_a_source_without_a_status_block_is_no_business_of_the_driver() -> None:
    assert judged(machine_check(5, flags=0)).sources[0].verdict.status == "skipped"
