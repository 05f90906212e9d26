"""Stage 2: is there a record, is it well formed, was it seen before, and when is it given back to firmware?"""

from __future__ import annotations

from typing import Final, NamedTuple

from ras_triage.models.decision import Acknowledge, Log, Reject, Step
from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.host import RecentRecord
from ras_triage.models.records.status_block import ENTRY_LENGTH, HEADER_LENGTH, StatusBlock
from ras_triage.models.severity import Severity
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.admission import Admission, NotificationContext
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.severity import CONTAINMENT_WARNING, is_fatal
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, rule

BUFFER_LENGTH = 65536
"""Bytes of the buffer that a source's records are copied into (GHES_ESTATUS_MAX_SIZE)."""

CACHE_SLOTS = 4
CACHE_MAX_AGE_MS = 10_000

_NOT_FATAL = frozenset(Severity) - {Severity.FATAL}

_OVERRUN = "the kernel copies the block over the end of its 64 KiB buffer"
_CUT = "the status block is longer than the bytes given: the rest is read as zero"


@frozen
class RecordReading:
    """What became of the record."""

    acted_on: bool
    """Whether there is a record to act on."""
    claimed: bool
    """Whether the abort, if it was one, counts as claimed by APEI."""
    stage_result: StageResult
    released_after: tuple[Step, ...] = ()
    """The acknowledgement, where it comes only after the record was processed."""


class BlockHeader(NamedTuple):
    """What reading and judging a record depend on."""

    pending: bool
    """Whether the block status is not zero."""
    raw_data_offset: int
    raw_data_length: int
    data_length: int
    severity: int
    """Of the block, as CPER numbers it."""
    sections: int
    is_whole: bool
    worst_section: bool
    """Whether a section is fatal, or its error not contained; not looked for where the policy would not care."""
    fault: str | None
    """Why the entries are ill-formed."""
    repeats: bool
    """Whether a byte-identical record is in the duplicate cache."""


_NOT_LOOKED_AT: Final = RecordReading(False, False, EMPTY_RESULT)


def block_header(block: StatusBlock, policy: Policy, facts: Facts) -> BlockHeader:
    """What a status block says before its sections are looked into."""
    return BlockHeader(
        block.block_status != 0,
        block.raw_data_offset,
        block.raw_data_length,
        block.data_length,
        block.error_severity,
        len(block.entries),
        block.is_complete,
        policy.behaviours.worst_section_panics and _has_worst_section(block),
        None if block.format_error is None else _words(block.format_error),
        facts.host.recent is not None and _is_cached(block, facts.host.recent),
    )


def _has_worst_section(block: StatusBlock) -> bool:
    return any(entry.flags & CONTAINMENT_WARNING or entry.error_severity not in _NOT_FATAL for entry in block.entries)


def _words(fault: MalformedBytes) -> str:
    return f"offset {fault.offset}, section {fault.section}, `{fault.field}`: {fault.detail}"


def _is_cached(block: StatusBlock, recent: tuple[RecentRecord, ...]) -> bool:
    young = sorted((record for record in recent if record.printed and record.age_ms < CACHE_MAX_AGE_MS), key=lambda record: record.age_ms)
    length = _claimed_length(block.raw_data_offset, block.raw_data_length, block.data_length)
    if length > len(block.data) + BUFFER_LENGTH:
        return False
    content = block.window(0, length)
    return any(record.status_block[:length].ljust(length, b"\0") == content for record in young[:CACHE_SLOTS])


def read_record(door: NotificationContext, header: BlockHeader | None, admission: Admission, policy: Policy) -> RecordReading:
    """Mirrors `ghes_read_estatus`, `ghes_estatus_cached` and `ghes_clear_estatus`."""
    if not admission.listens:
        return _NOT_LOOKED_AT
    if header is None:
        return _nothing(policy, "no record came with the notification")
    if not header.pending:
        return _nothing(policy, "the block status is zero: no record is pending")
    before, after = _release(admission.early, door.acknowledges)
    reasons = _reasons(policy, header, door.reserved)
    if problem := _malformed(policy, header, door.reserved):
        fired = rule(
            policy, "read.validate", "refused, cleared and lost", "__ghes_check_estatus", "block_limited_to_buffer", malformed=problem
        )
        return RecordReading(False, False, StageResult((*before, Reject(f"malformed record: {problem}"), *after), (fired,), reasons))
    fired = rule(policy, "read.validate", "well formed", "cper_estatus_check", sections=header.sections)
    if not header.repeats or is_fatal(policy, header.severity, header.worst_section):
        return RecordReading(True, True, StageResult(before, (fired,), reasons), after)
    return _duplicate(policy, admission.early, StageResult(before, (fired,), reasons), after)


def _nothing(policy: Policy, why: str) -> RecordReading:
    fired = rule(policy, "read.pending", why, "__ghes_peek_estatus", "sea_precheck", pending=False)
    return RecordReading(False, False, StageResult((Reject(why),), (fired,)))


def _malformed(policy: Policy, header: BlockHeader, reserved: int) -> str | None:
    """Why the kernel refuses the block (`__ghes_check_estatus`, `cper_estatus_check`), or None."""
    limit = min(reserved, BUFFER_LENGTH) if policy.behaviours.block_limited_to_buffer else reserved
    length = _claimed_length(header.raw_data_offset, header.raw_data_length, header.data_length)
    end = HEADER_LENGTH + header.data_length
    if length < HEADER_LENGTH:
        return f"truncated: header and data come to {length} bytes"
    if length > limit:
        return f"longer than its source: {length} bytes, and {limit} are reserved"
    if 0 < header.data_length < ENTRY_LENGTH:
        return f"offset 12, `data_length`: {header.data_length} bytes hold no entry"
    if header.raw_data_length and header.raw_data_offset < end:
        return f"offset 4, `raw_data_offset`: raw data at {header.raw_data_offset} lies within the entries, which end at {end}"
    return header.fault


def _claimed_length(raw_offset: int, raw_length: int, data_length: int) -> int:
    """The length that the header claims, in the kernel's 32-bit arithmetic (`cper_estatus_len`)."""
    return (raw_offset + raw_length if raw_length else HEADER_LENGTH + data_length) & 0xFFFFFFFF


def _reasons(policy: Policy, header: BlockHeader, reserved: int) -> tuple[str, ...]:
    length = _claimed_length(header.raw_data_offset, header.raw_data_length, header.data_length)
    overruns = reserved >= length > BUFFER_LENGTH and not policy.behaviours.block_limited_to_buffer
    return ((_CUT,) if not header.is_whole else ()) + ((_OVERRUN,) if overruns else ())


def _release(early: bool, acknowledges: bool) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The acknowledgement, before or after processing."""
    if not acknowledges:
        return (), ()
    return ((Acknowledge("before_processing"),), ()) if early else ((), (Acknowledge("after_processing"),))


def _duplicate(policy: Policy, early: bool, accepted: StageResult, after: tuple[Step, ...]) -> RecordReading:
    """A byte-identical record was printed less than 10 s ago. Mirrors `ghes_proc` and `ghes_in_nmi_queue_one_entry`."""
    if not early or policy.behaviours.duplicates_only_unprinted:
        fired = rule(policy, "read.duplicate", "only printing is suppressed", "ghes_estatus_cached", "duplicates_only_unprinted")
        steps = (*accepted.steps, Log("a repeat within 10 s: handled again, not printed again"))
        return RecordReading(True, True, accepted._replace(steps=steps, rationale=(*accepted.rationale, fired)), after)
    claimed = not policy.behaviours.duplicate_sea_unclaimed
    outcome = "dropped; an abort counts as claimed" if claimed else "dropped; an abort counts as not claimed"
    fired = rule(policy, "read.duplicate", outcome, "ghes_in_nmi_queue_one_entry", "duplicate_sea_unclaimed")
    steps = (*accepted.steps, Reject("a byte-identical record was handled less than 10 s ago"))
    return RecordReading(False, claimed, accepted._replace(steps=steps, rationale=(*accepted.rationale, fired)))
