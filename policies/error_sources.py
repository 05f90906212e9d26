"""Error sources of a HEST that a kernel reads, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Host
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.error_source import ErrorSource, GenericAddress, SourceStatus, SourceType
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.admission import admit, notification_context
from ras_triage.policies.pipeline.facts import Facts, Ranges

_MEMORY, _IO = 0, 1
_LARGEST_ACCESS: Final = 4
"""Access size code of a quad word."""
_REGISTER_BITS: Final = (32, 64)
"""Widths for which the kernel mends an access size that is too small."""
_GHES_ASSIST: Final = 1 << 2
_MACHINE_CHECKS: Final = (
    SourceType.IA32_MACHINE_CHECK,
    SourceType.IA32_CORRECTED_MACHINE_CHECK,
    SourceType.IA32_DEFERRED_MACHINE_CHECK,
)
_KNOWN_TYPES: Final = frozenset(SourceType)
_DEFAULT_FACTS: Final = Facts(Host())


class SourceVerdict(NamedTuple):
    """What a kernel does with an error source."""

    status: SourceStatus
    why: str
    mirrors: str
    """The kernel function that decides it."""


@frozen
class JudgedSource:
    """An error source and what a kernel does with it."""

    source: ErrorSource
    verdict: SourceVerdict


@frozen
class JudgedTable:
    """The error sources of a HEST under a kernel."""

    fault: SourceVerdict | None
    """Why the kernel reads no source at all; None: it reads those that its verdict says."""
    sources: tuple[JudgedSource, ...]
    """Up to the one that made the table unusable."""


_READ: Final = SourceVerdict("read", "the driver reads the source", "ghes_probe")


def judge_malformed_table(error: MalformedBytes) -> JudgedTable:
    """Return that a kernel reads no source of a malformed HEST. Mirrors `apei_hest_parse`."""
    return JudgedTable(SourceVerdict("refused", f"the table is malformed: {error}", "apei_hest_parse"), ())


def judge_sources(sources: Sequence[ErrorSource], policy: Policy, ram: Sequence[tuple[int, int]] = ()) -> JudgedTable:
    """Return which error sources of a HEST a kernel reads. Mirrors `acpi_hest_init` and `ghes_probe`.

    `ram`: first address and exclusive end of each range that the kernel maps as RAM. What a register holds, and whether anybody answers
    it, is not known: a memory register that nobody answers panics the boot like one that is not aligned.
    """
    assisted = _assisted_ids(sources, policy)
    if fault := _table_fault(sources, assisted):
        return JudgedTable(fault, tuple([JudgedSource(source, fault) for source in sources]))
    mapped = Ranges(ram)
    judged = tuple([JudgedSource(source, _judge(source, assisted, policy, mapped)) for source in sources])
    panics = next((one for one in judged if one.verdict.status == "panics"), None)
    return JudgedTable(None if panics is None else panics.verdict, judged)


def _table_fault(sources: Sequence[ErrorSource], assisted: frozenset[int | None]) -> SourceVerdict | None:
    """Return why the whole table is not used. Mirrors `apei_hest_parse` and `hest_parse_ghes`."""
    for source in sources:
        if source.type not in _KNOWN_TYPES:
            return SourceVerdict(
                "refused", f"unknown error source type {source.type}: HEST is disabled, no source is read", "apei_hest_parse"
            )
    seen: set[int | None] = set()
    for source in sources:
        if source.ghes_version is None or not source.enabled or _assists(source, assisted):
            continue
        if source.source_id in seen:
            why = f"two enabled generic sources have the id {source.source_id}: HEST is disabled, no source is read"
            return SourceVerdict("refused", why, "hest_parse_ghes")
        seen.add(source.source_id)
    return None


def _assisted_ids(sources: Sequence[ErrorSource], policy: Policy) -> frozenset[int | None]:
    """Return the ids of the machine check sources whose assisting generic sources are skipped. Mirrors `is_ghes_assist_struct`."""
    if not policy.behaviours.ghes_assist_sources_skipped:
        return frozenset()
    return frozenset(source.source_id for source in sources if source.type in _MACHINE_CHECKS and (source.flags or 0) & _GHES_ASSIST)


def _assists(source: ErrorSource, assisted: frozenset[int | None]) -> bool:
    return source.related_source_id is not None and source.related_source_id in assisted


def _judge(source: ErrorSource, assisted: frozenset[int | None], policy: Policy, ram: Ranges) -> SourceVerdict:
    """Return what the kernel does with one source of a usable table, in the order of its own checks."""
    if source.ghes_version is None:
        return SourceVerdict("skipped", "no generic error source", "hest_parse_ghes")
    if _assists(source, assisted):
        return SourceVerdict("skipped", "it assists a machine check source", "is_ghes_assist_struct")
    if not source.enabled:
        return SourceVerdict("skipped", "it is disabled", "hest_parse_ghes")
    if refused := _refused_by_notification(source, policy):
        return refused
    registers = [("read-acknowledge", source.read_ack)] if source.read_ack is not None else []
    if source.error_status_address is not None:
        registers.append(("error status address", source.error_status_address))
    for name, register in registers:
        if why := _register_fault(register, ram):
            return SourceVerdict("refused", f"{name} register: {why}", "ghes_new")
    return _never_read(source) or _READ


def _refused_by_notification(source: ErrorSource, policy: Policy) -> SourceVerdict | None:
    """Return why the driver rejects a source for its notification or block length. Mirrors `ghes_probe`."""
    notification = source.to_notification()
    if notification is None:
        number = None if source.notification is None else source.notification.number
        return SourceVerdict("refused", f"unknown notification type {number}", "ghes_probe")
    admission = admit(notification_context(notification, _DEFAULT_FACTS), policy)
    fired = admission.stage_result.rationale[0]
    if admission.reads_record or fired.mirrors == "ghes_add_timer":  # after probe: see `_never_read`
        return None
    return SourceVerdict("refused", fired.outcome, "ghes_probe")


def _register_fault(register: GenericAddress, ram: Ranges) -> str | None:
    """Return why a register cannot be used, or None. Mirrors `apei_check_gar` and `acpi_os_map_generic_address`."""
    bits = _access_bits(register)
    if register.address == 0:
        return "its address is 0"
    if bits is None:
        return f"access size code {register.access_size} is not 1 to {_LARGEST_ACCESS}"
    if register.bit_width + register.bit_offset > bits:
        return f"{register.bit_width} bits from bit {register.bit_offset} exceed the access size of {bits} bits"
    if register.space_id not in (_MEMORY, _IO):
        return f"address space {register.space_id} is neither memory (0) nor I/O (1)"
    if register.space_id == _IO:
        return None
    if register.bit_width == 0:
        return "its width is 0 bits"
    return f"it lies in RAM, at {register.address:#x}" if register.address in ram else None


def _access_bits(register: GenericAddress) -> int | None:
    """Return the width of an access in bits, with the kernel's repair of firmware that states too little; None: the code is invalid."""
    if not 1 <= register.access_size <= _LARGEST_ACCESS:
        return None
    bits = 8 << (register.access_size - 1)
    width = register.bit_width
    mends = width in _REGISTER_BITS and register.bit_offset == 0 and register.address % (width // 8) == 0
    return max(bits, width) if mends else bits


def _never_read(source: ErrorSource) -> SourceVerdict | None:
    """Return why an accepted source is never read, or that its first read panics. Mirrors `ghes_add_timer` and `acpi_os_read_iomem`."""
    register = source.error_status_address
    bits = None if register is None else _access_bits(register)
    if register is None or bits is None:
        return None
    if register.space_id == _IO:
        return SourceVerdict("never_read", "error status address register: an I/O port is read instead of memory", "apei_read")
    if register.address % (bits // 8) != 0:
        why = f"error status address register: {register.address:#x} is not aligned to {bits // 8} bytes: its first read, at boot, panics"
        return SourceVerdict("panics", why, "acpi_os_read_iomem")
    notification = source.notification
    if notification is not None and notification.type is NotificationType.POLLED and notification.poll_interval_ms == 0:
        return SourceVerdict("never_read", "the source is never polled: its poll interval is 0", "ghes_add_timer")
    return None
