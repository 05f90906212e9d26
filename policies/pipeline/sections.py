"""Stage 4: handlers for each section type, and the page frames that they queue.

One function per section type, as in `ghes_do_proc`; sections of any other type are traced and nothing else. A handler returns whether
its section counts as queued, or None for a section type that does not change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal

from ras_triage.models.decision import Assumption, Log, Oops, Panic, QueueMemoryFailure, Rationale, RecoverPcie, ReportCxl, Step
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Page
from ras_triage.models.records import guid
from ras_triage.models.records.status_block import DataEntry, StatusBlock
from ras_triage.models.sections import arm_processor, cxl, memory, pcie
from ras_triage.models.severity import GhesSeverity, Severity, ghes_severity, severity_name
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.arm_error_types import assumed_numbering, is_cache_error, policy_numbering, stated_numbering
from ras_triage.policies.pipeline.facts import (
    ASSUMED_AER,
    ASSUMED_CONFIG,
    ASSUMED_DEVICES,
    ASSUMED_PAGE_SIZE,
    ASSUMED_SYSCTL,
    ASSUMED_VALID,
    Facts,
)
from ras_triage.policies.pipeline.severity import reboot_delay
from ras_triage.policies.pipeline.stage_result import StageResult, rule

QUEUE_LENGTH: Final = 16
"""Entries of the per-CPU memory failure queue (MEMORY_FAILURE_FIFO_SIZE)."""

THRESHOLD_EXCEEDED: Final = 1 << 3
RESET: Final = 1 << 2

ARM_WALK_SLACK: Final = 32
"""Bytes past the end of an ARM section that the loosely bounded walk may still read."""

CXL_EVENT_WINDOW: Final = 12
CXL_PROTOCOL_WINDOW: Final = 112

_BEYOND: Final = "section {} is shorter than what the kernel reads of it: the outcome depends on the bytes after it"
_OVERFLOW: Final = Log("memory failure queue overflow: the page frame is not handled")


class MemoryFailureRequest(StrEnum):
    """Request to memory failure handling for one page frame."""

    ACTION_REQUIRED = "action_required"
    ACTION_OPTIONAL = "action_optional"
    SOFT_OFFLINE = "soft_offline"


_FLAGS: dict[MemoryFailureRequest, tuple[Literal["action_required", "soft_offline"], ...]] = {
    MemoryFailureRequest.ACTION_REQUIRED: ("action_required",),
    MemoryFailureRequest.ACTION_OPTIONAL: (),
    MemoryFailureRequest.SOFT_OFFLINE: ("soft_offline",),
}


@frozen
class QueuedFrame:
    """A page frame queued for memory failure handling."""

    address: int
    """Physical address, bytes."""
    request: MemoryFailureRequest
    page: Page | None
    """The fact that covers it, if any."""


class SectionWalk:
    """State of the walk over one record's sections."""

    __slots__ = (
        "arm_error_types",
        "block",
        "facts",
        "has_consumer",
        "policy",
        "queue_room",
        "queued",
        "queued_frames",
        "rank",
        "stage_results",
    )

    def __init__(self, block: StatusBlock, rank: GhesSeverity, policy: Policy, facts: Facts, *, has_consumer: bool) -> None:
        self.block = block
        self.rank = rank
        self.policy = policy
        self.facts = facts
        self.has_consumer = has_consumer
        self.stage_results: list[StageResult] = []
        self.queued_frames: list[QueuedFrame] = []
        """Page frames that reached a queue, in order."""
        self.arm_error_types: list[int] = []
        """Types of the ARM error infos that were read and have a physical address, in order."""
        self.queued = False
        """Whether the record counts as queued, so that the synchronous fallback does not run."""
        self.queue_room = QUEUE_LENGTH
        """Free entries of the kernel worker's queue; the interrupted thread's task work takes none."""


def walk_sections(block: StatusBlock, rank: GhesSeverity, policy: Policy, facts: Facts, *, has_consumer: bool) -> SectionWalk:
    """Handle each section in order. Mirrors `ghes_do_proc`.

    `consumes`: a user thread, or a guest, was interrupted by an abort, and can take an action-required signal.
    """
    walk = SectionWalk(block, rank, policy, facts, has_consumer=has_consumer)
    for index, entry in enumerate(block.entries):
        asked = _HANDLERS.get(entry.section_type, _other)(walk, entry, index)
        if asked is not None:
            walk.queued = asked or (walk.queued and policy.behaviours.queued_accumulates)
    if block.empty_entries:
        walk.stage_results.append(_empty(block.empty_entries))
    return walk


def _empty(count: int) -> StageResult:
    return StageResult((Log(f"{count} zero data entries read past the end of the status block in the event"),))


def _queue(walk: SectionWalk, address: int, request: MemoryFailureRequest, repeats: int = 1) -> bool:
    """Queue a page frame for memory failure handling; return whether it counts as queued. Mirrors `ghes_do_memory_failure`."""
    facts, does = walk.facts, walk.policy.behaviours
    if not facts.config.memory_failure:
        walk.stage_results.append(_memory_failure_off(walk.policy))
        return False
    page = facts.page_at(address)
    assumed = (ASSUMED_VALID,) if facts.host.valid_ranges is None else ()
    if not does.pfn_left_to_memory_failure and not facts.has_struct_page(address, page):
        walk.stage_results.append(_invalid_address(walk.policy, address)._replace(assumptions=assumed))
        return False
    if facts.host.page_size is None:
        assumed = (*assumed, ASSUMED_PAGE_SIZE)
    pfn, item = address >> facts.page_shift, QueuedFrame(address, request, page)
    if request is MemoryFailureRequest.ACTION_REQUIRED and does.action_required_in_task_work:
        steps: tuple[Step, ...] = (QueueMemoryFailure(pfn, _FLAGS[request], "task_work"),) * repeats
    else:
        steps = (QueueMemoryFailure(pfn, _FLAGS[request], "kworker"),) * min(repeats, walk.queue_room)
        walk.queue_room -= len(steps)
    walk.queued_frames += (item,) * len(steps)
    walk.stage_results.append(StageResult(steps if len(steps) == repeats else (*steps, _OVERFLOW), (), (), assumed, ()))
    return True


@lru_cache(maxsize=64)
def _memory_failure_off(policy: Policy) -> StageResult:
    return StageResult((), (rule(policy, "sections.page_frame", "not queued: CONFIG_MEMORY_FAILURE is off", "ghes_do_memory_failure"),))


def _invalid_address(policy: Policy, address: int) -> StageResult:
    fired = rule(policy, "sections.page_frame", "not queued: no struct page", "ghes_do_memory_failure", "pfn_left_to_memory_failure")
    return StageResult((Log(f"Invalid address in generic error data: {address:#x}"),), (fired,))


def _beyond(stage_result: StageResult, index: int) -> StageResult:
    """Add the reason for a section that is shorter than what the kernel reads of it."""
    return stage_result._replace(reasons=(_BEYOND.format(index),))


# Platform memory (UEFI 2.10 N.2.5)


def _memory(walk: SectionWalk, entry: DataEntry, index: int) -> bool:
    """Handle a Platform Memory section. Mirrors `ghes_handle_memory_failure`."""
    valid, address = memory.read_address(walk.block.data, entry.payload_offset)
    threshold = entry.flags & THRESHOLD_EXCEEDED
    has_address = valid & memory.PHYSICAL_ADDRESS_VALID
    request, stage_result = _memory_request(walk.policy, walk.rank, entry.error_severity, threshold, has_address, walk.has_consumer)
    if entry.error_data_length < memory.ADDRESS_WINDOW:
        stage_result = _beyond(stage_result, index)
    walk.stage_results.append(stage_result)
    return request is not None and _queue(walk, address, request)


@lru_cache(maxsize=2048)
def _memory_request(
    policy: Policy, rank: GhesSeverity, section_severity: int, threshold: int, has_address: int, has_consumer: bool
) -> tuple[MemoryFailureRequest | None, StageResult]:
    section_rank = ghes_severity(section_severity)
    request: MemoryFailureRequest | None = None
    if not has_address:
        outcome = "logged: the physical address is not valid"
    elif section_rank is GhesSeverity.CORRECTED and threshold:
        request, outcome = MemoryFailureRequest.SOFT_OFFLINE, "soft offline: the corrected error threshold is exceeded"
    elif rank is GhesSeverity.RECOVERABLE and section_rank is GhesSeverity.RECOVERABLE:
        required = has_consumer and policy.behaviours.sea_action_required
        request = MemoryFailureRequest.ACTION_REQUIRED if required else MemoryFailureRequest.ACTION_OPTIONAL
        outcome = f"memory failure, {request.value.replace('_', ' ')}"
    else:
        outcome = "logged: block and section are not both recoverable"
    fired = rule(
        policy,
        "sections.memory",
        outcome,
        "ghes_handle_memory_failure",
        "sea_action_required" if has_consumer else "",
        block_severity=rank.name.lower(),
        section_severity=severity_name(section_severity),
        threshold_exceeded=bool(threshold),
        physical_address_valid=bool(has_address),
        synchronous=has_consumer,
    )
    return request, StageResult((Log("memory error: reported to EDAC and traced"),), (fired,))


# ARM processor (UEFI 2.10 N.2.4.4)


def _arm_processor(walk: SectionWalk, entry: DataEntry, index: int) -> bool:
    """Handle an ARM Processor Error section. Mirrors `log_arm_hw_error` and `ghes_handle_arm_hw_error`."""
    policy = walk.policy
    too_short = entry.error_data_length < arm_processor.HEADER_LENGTH
    if too_short and policy.behaviours.arm_section_bounded:
        walk.stage_results.append(_arm_too_short(policy, entry.error_data_length))
        return False
    recoverable, stage_result = _arm_recoverable(policy, walk.rank, entry.error_severity)
    walk.stage_results.append(_beyond(stage_result, index) if too_short else stage_result)
    return recoverable and _arm_error_infos(walk, entry, index)


def _arm_error_infos(walk: SectionWalk, entry: DataEntry, index: int) -> bool:
    """Handle the section's error infos; return whether one counts as queued. Mirrors the loop of `ghes_handle_arm_hw_error`."""
    does = walk.policy.behaviours
    count = arm_processor.read_counts(walk.block.window(entry.payload_offset, arm_processor.HEADER_LENGTH))[1]
    required = walk.has_consumer and does.sea_action_required
    request = MemoryFailureRequest.ACTION_REQUIRED if required else MemoryFailureRequest.ACTION_OPTIONAL
    end = entry.payload_offset + entry.error_data_length
    numbering = stated_numbering(walk.policy, walk.facts)
    queued = False
    for offset, repeats, kind, has_address, address in _error_infos(walk, entry, count):
        if not repeats:
            walk.stage_results.append(StageResult(reasons=(_BEYOND.format(index),)))
            break
        usable, stage_result = _error_info(walk.policy, numbering, kind, has_address)
        if has_address:
            walk.arm_error_types.append(kind)
        if offset + arm_processor.ERROR_INFO_LENGTH > end:
            stage_result = _beyond(stage_result, index)
        walk.stage_results.append(stage_result)
        if usable:
            asked = _queue(walk, address, request, repeats)
            queued = (queued and does.queued_accumulates) or asked
    return queued


def _error_infos(walk: SectionWalk, entry: DataEntry, count: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield the error infos that this kernel reads: offset in the block, times read, error type, address valid bit, address.

    Older kernels read past the end of the section for as long as the count lasts. Those bytes are not the section's, so only the first
    info there is yielded, and none past the end of the block, where every byte counts as zero: there the walk ends with an info that is
    read 0 times.
    """
    does, data = walk.policy.behaviours, walk.block.data
    end = min(entry.payload_offset + entry.error_data_length, len(data))
    budget = None
    if does.arm_section_bounded_exactly:
        budget = entry.error_data_length - arm_processor.HEADER_LENGTH
    elif does.arm_section_bounded:
        budget = entry.error_data_length - arm_processor.HEADER_LENGTH + ARM_WALK_SLACK
    offset, past_end = entry.payload_offset + arm_processor.HEADER_LENGTH, False
    for index in range(count):
        if budget is not None and budget < arm_processor.ERROR_INFO_LENGTH:
            return
        if offset >= len(data) or (offset >= end and past_end):
            yield offset, 0, 0, 0, 0
            return
        past_end = offset >= end
        _, length, valid, kind, _, _, _, _, address = arm_processor.read_error_info(data, offset)
        if budget is not None and budget < length:
            return
        has_address = valid & arm_processor.PHYSICAL_FAULT_ADDRESS_VALID
        if length == 0:
            yield offset, min(count - index, QUEUE_LENGTH + 1), kind, has_address, address
            return
        yield offset, 1, kind, has_address, address
        budget = None if budget is None else budget - length
        offset += length


@lru_cache(maxsize=1024)
def _arm_too_short(policy: Policy, length: int) -> StageResult:
    fired = rule(
        policy,
        "sections.arm_processor",
        "rejected: the section is shorter than its header",
        "log_arm_hw_error",
        "arm_section_bounded",
        length=length,
    )
    return StageResult((Log(f"firmware bug: ARM processor section too short ({length} bytes)"),), (fired,))


@lru_cache(maxsize=1024)
def _arm_recoverable(policy: Policy, rank: GhesSeverity, section_severity: int) -> tuple[bool, StageResult]:
    handled = policy.behaviours.arm_errors_handled
    recoverable = handled and rank is GhesSeverity.RECOVERABLE and ghes_severity(section_severity) is GhesSeverity.RECOVERABLE
    if recoverable:
        outcome = "its error infos are handled"
    else:
        outcome = (
            "logged: block and section are not both recoverable" if handled else "logged: this kernel does not handle ARM processor errors"
        )
    fired = rule(
        policy,
        "sections.arm_processor",
        outcome,
        "ghes_handle_arm_hw_error",
        "arm_errors_handled",
        block_severity=rank.name.lower(),
        section_severity=severity_name(section_severity),
    )
    return recoverable, StageResult((Log("ARM processor error: traced"),), (fired,))


@lru_cache(maxsize=1024)
def _error_info(policy: Policy, stated: str | None, kind: int, has_address: int) -> tuple[bool, StageResult]:
    usable = is_cache_error(kind, stated or policy_numbering(policy)) and has_address != 0
    fired = rule(
        policy,
        "sections.arm_error_info",
        "memory failure for its physical address" if usable else "unhandled: not a cache error with a physical address",
        "ghes_handle_arm_hw_error",
        "" if stated else "arm_error_type_bitmask",
        error_type=hex(kind),
        read_as=stated or ("bit mask" if policy.behaviours.arm_error_type_bitmask else "enumeration"),
        physical_address_valid=has_address != 0,
    )
    steps = () if usable else (Log(f"Unhandled processor error type: {kind:#04x}"),)
    return usable, StageResult(steps, (fired,), (), () if stated or not has_address else assumed_numbering(policy))


# PCI Express (UEFI 2.10 N.2.7)

_AER_SEVERITY: dict[int, Literal["correctable", "nonfatal", "fatal"]] = {Severity.RECOVERABLE: "nonfatal", Severity.FATAL: "fatal"}
_NO_UPSTREAM_BRIDGE: Final = "pcie_do_recovery: NULL pointer dereference, a device on a root bus that is no port has no upstream bridge"
_NO_AER_STATE: Final = "pci_print_aer: NULL pointer dereference, the device has no AER capability and so no rate limits"
_ASSUMED_ROOT_BUS: Final = Assumption("host.pci_root_buses", "bus 0 of each segment; port types as in the record")


def _pcie(walk: SectionWalk, entry: DataEntry, _index: int) -> None:
    """Handle a PCI Express section. Mirrors `ghes_handle_aer` and `aer_recover_work_func`."""
    record = pcie.read_device(walk.block.window(entry.payload_offset, pcie.DEVICE_WINDOW))
    usable = bool(record.validation_bits & pcie.DEVICE_ID_VALID and record.validation_bits & pcie.AER_INFO_VALID)
    facts = walk.facts
    if not usable or not facts.config.apei_pcie_aer:
        walk.stage_results.append(_pcie_logged(walk.policy, usable=usable))
        return
    severity, reset = _AER_SEVERITY.get(entry.error_severity, "correctable"), bool(entry.flags & RESET)
    if reset:
        severity = "fatal"
    present = facts.has_device(record.device)
    unmasked = bool(record.uncorrectable_status & ~record.uncorrectable_mask)
    does = walk.policy.behaviours
    limited = does.aer_without_state_oopses and present and severity != "fatal"
    oopses = limited and not facts.has_aer(record.device, is_port=record.is_port)
    recovers, fired = _aer(walk.policy, severity, reset=reset, present=present, unmasked=unmasked, oopses=oopses)
    steps: list[Step] = [RecoverPcie(record.device, severity, recovers)]
    assumptions = [ASSUMED_DEVICES] if facts.host.pci_devices is None else []
    if facts.host.config is None:
        assumptions.append(ASSUMED_CONFIG)
    if limited and facts.host.aer_devices is None:
        assumptions.append(ASSUMED_AER)
    if oopses:
        steps += _worker_oops(_NO_AER_STATE, facts)
        assumptions += _assumed_of_oops(facts)
    elif recovers and record.lacks_upstream_bridge and not (record.is_integrated and does.aer_integrated_endpoint_recovered):
        steps += _worker_oops(_NO_UPSTREAM_BRIDGE, facts)
        assumptions += _assumed_of_oops(facts, _ASSUMED_ROOT_BUS)
    walk.stage_results.append(StageResult(tuple(steps), (fired,), (), tuple(assumptions)))


def _worker_oops(cause: str, facts: Facts) -> tuple[Step, ...]:
    """Return the steps of a kernel worker that dies of its own fault. Mirrors `die_kernel_fault` and `oops_end`."""
    oops = Oops(None, cause, "kworker")
    return (oops, Panic("oops", "Oops: Fatal exception", reboot_delay(facts))) if facts.sysctl.panic_on_oops else (oops,)


def _assumed_of_oops(facts: Facts, *assumptions: Assumption) -> tuple[Assumption, ...]:
    return assumptions if facts.host.sysctl else (*assumptions, ASSUMED_SYSCTL)


@lru_cache(maxsize=1024)
def _aer(policy: Policy, severity: str, *, reset: bool, present: bool, unmasked: bool, oopses: bool) -> tuple[bool, Rationale]:
    """Return whether recovery runs. `oopses`: the kernel looks for the device's rate limits, and there are none."""
    needs_status = policy.behaviours.aer_needs_unmasked_status
    if oopses:
        recovers, outcome = False, "oops of the kernel worker: the device has no AER state"
    elif severity == "correctable":
        recovers, outcome = False, "printed only: severity is correctable"
    elif not present:
        recovers, outcome = False, "no recovery: the device is not present"
    elif needs_status and not unmasked:
        recovers, outcome = False, "printed only: no unmasked uncorrectable status in the record"
    else:
        recovers, outcome = True, "AER recovery runs"
    fired = rule(
        policy,
        "sections.pcie",
        outcome,
        "pci_print_aer" if oopses else "aer_recover_work_func",
        "aer_without_state_oopses" if oopses else "aer_needs_unmasked_status",
        aer_severity=severity,
        reset=reset,
        device_present=present,
        unmasked_status=unmasked,
    )
    return recovers, fired


@lru_cache(maxsize=64)
def _pcie_logged(policy: Policy, *, usable: bool) -> StageResult:
    why = "CONFIG_ACPI_APEI_PCIEAER is off" if usable else "device id and AER registers are not both valid"
    return StageResult((Log("PCIe error: logged"),), (rule(policy, "sections.pcie", f"logged: {why}", "ghes_handle_aer"),))


# CXL (UEFI 2.10 N.2.13 and N.2.14)

_COMPONENT_EVENT_LENGTHS: Final = range(33, 145)
"""A record header of 32 bytes, and up to 112 bytes of event."""
_RAS_CAPABILITY_LENGTH: Final = 88
_AGENT_TYPES: Final = frozenset({0, 2, 3, 4, 5, 6, 7})
"""Every agent type except 1, the downstream port of a restricted CXL host."""


def _cxl_component(walk: SectionWalk, entry: DataEntry, index: int) -> None:
    """Handle a CXL component event section. Mirrors `cxl_cper_post_event`."""
    if not walk.policy.behaviours.cxl_events_dispatched:
        return _other(walk, entry, index)
    length, valid = cxl.read_component_event(walk.block.window(entry.payload_offset, CXL_EVENT_WINDOW))
    sound = length in _COMPONENT_EVENT_LENGTHS and bool(valid & cxl.COMPONENT_EVENT_LOG_VALID)
    walk.stage_results.append(_cxl(walk.policy, entry.section_type, "cxl_cper_post_event", "cxl_events_dispatched", sound=sound))
    return None


def _cxl_protocol(walk: SectionWalk, entry: DataEntry, index: int) -> None:
    """Handle a CXL protocol error section. Mirrors `cxl_cper_post_prot_err`."""
    if not walk.policy.behaviours.cxl_protocol_errors_dispatched or not walk.facts.config.apei_pcie_aer:
        return _other(walk, entry, index)
    valid, agent, _, error_length = cxl.read_protocol_error(walk.block.window(entry.payload_offset, CXL_PROTOCOL_WINDOW))
    needed = cxl.AGENT_ADDRESS_VALID | cxl.ERROR_LOG_VALID
    sound = valid & needed == needed and error_length == _RAS_CAPABILITY_LENGTH and agent in _AGENT_TYPES
    walk.stage_results.append(
        _cxl(walk.policy, entry.section_type, "cxl_cper_post_prot_err", "cxl_protocol_errors_dispatched", sound=sound)
    )
    return None


@lru_cache(maxsize=1024)
def _cxl(policy: Policy, section_type: guid.Guid, mirrors: str, flag: str, *, sound: bool) -> StageResult:
    name = guid.section_name(section_type)
    step: Step = ReportCxl(name) if sound else Log(f"firmware bug: {name} section rejected by the CXL driver")
    outcome = "handed to the CXL driver, which traces it" if sound else "rejected: validation bits, length or agent type"
    return StageResult((step,), (rule(policy, "sections.cxl", outcome, mirrors, flag, section_type=name),))


# Any other section


def _other(walk: SectionWalk, entry: DataEntry, _index: int) -> None:
    """Handle a section of any other type. Mirrors `ghes_defer_non_standard_event`."""
    walk.stage_results.append(_reported(walk.policy, entry.section_type))


@lru_cache(maxsize=1024)
def _reported(policy: Policy, section_type: guid.Guid) -> StageResult:
    name = guid.section_name(section_type)
    fired = rule(policy, "sections.other", "traced, no other action", "ghes_defer_non_standard_event", section_type=name)
    return StageResult((Log(f"{name} section: traced as a non-standard event and passed to vendor drivers"),), (fired,))


_HANDLERS: Final[dict[guid.Guid, Callable[[SectionWalk, DataEntry, int], bool | None]]] = {
    guid.MEMORY: _memory,
    guid.ARM_PROCESSOR: _arm_processor,
    guid.PCIE: _pcie,
    guid.CXL_GENERAL_MEDIA: _cxl_component,
    guid.CXL_DRAM: _cxl_component,
    guid.CXL_MEMORY_MODULE: _cxl_component,
    guid.CXL_PROTOCOL: _cxl_protocol,
}
