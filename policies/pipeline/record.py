"""Stage 2: validation, duplicate check and acknowledgement of the record."""

from __future__ import annotations

from typing import Final, NamedTuple

from ras_triage.models.decision import Acknowledge, DecisionWarning, Log, Reject, Step
from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.status_block import ENTRY_LENGTH, HEADER_LENGTH, StatusBlock
from ras_triage.models.severity import Severity
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.admission import Admission, NotificationContext
from ras_triage.policies.pipeline.duplicate_cache import claimed_length, is_duplicate
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.severity import CONTAINMENT_WARNING, is_fatal
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, rule

BUFFER_LENGTH = 65536
"""Bytes of the buffer that a source's records are copied into (GHES_ESTATUS_MAX_SIZE)."""

WELL_FORMED: Final = "well formed"
"""Outcome of the rule `read.validate` for a record that is handled."""

_NOT_FATAL = frozenset(Severity) - {Severity.FATAL}

PREVIOUS_BOOT: Final = "previous_boot"
"""Code of the warning for a record of the previous boot."""
_WENT_DOWN = DecisionWarning(
    PREVIOUS_BOOT, "record of the previous boot: the machine had gone down before this boot; this kernel only prints the record"
)

_OVERRUN = "the kernel copies the block past the end of its 64 KiB buffer"
_CUT = "the status block claims more bytes than the event has: the missing bytes are read as zero"


@frozen
class RecordOutcome:
    """The outcome of reading the record."""

    is_processed: bool
    """Whether the record is processed further."""
    claimed: bool
    """Whether an abort counts as claimed by APEI."""
    stage_result: StageResult
    is_handled: bool = False
    """Whether a well-formed record was read, also if it is dropped as a duplicate."""
    released_after: tuple[Step, ...] = ()
    """The acknowledgement, where it follows the processing of the record."""


class BlockHeader(NamedTuple):
    """Inputs of reading a record and judging its severity."""

    pending: bool
    """Whether the block status is not zero."""
    raw_data_offset: int
    raw_data_length: int
    data_length: int
    severity: int
    """Of the block, in CPER numbering."""
    sections: int
    is_whole: bool
    worst_section: bool
    """Whether a section is fatal, or its error not contained; False where the policy ignores that."""
    fault: str | None
    """Why the data entries are malformed; None where they are not."""
    repeats: bool
    """Whether a byte-identical record is in the duplicate cache."""


_NOT_READ: Final = RecordOutcome(is_processed=False, claimed=False, stage_result=EMPTY_RESULT)


def block_header(block: StatusBlock, policy: Policy, facts: Facts) -> BlockHeader:
    """Return the inputs of stages 2 and 3 from a status block."""
    # In the order of the fields: keywords here and in the two other hot tuples take 5% of the time of a decision.
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
        facts.host.recent is not None and is_duplicate(block, facts.host.recent),
    )


def _has_worst_section(block: StatusBlock) -> bool:
    return any(entry.flags & CONTAINMENT_WARNING or entry.error_severity not in _NOT_FATAL for entry in block.entries)


def _words(fault: MalformedBytes) -> str:
    return f"offset {fault.offset}, section {fault.section}, `{fault.field}`: {fault.detail}"


def read_record(context: NotificationContext, header: BlockHeader | None, admission: Admission, policy: Policy) -> RecordOutcome:
    """Read, validate and acknowledge the record.

    Mirrors `ghes_read_estatus`, `ghes_estatus_cached` and `ghes_clear_estatus`, and `bert_print_all` for the previous boot.
    """
    if not admission.reads_record:
        return _NOT_READ
    if context.kind is NotificationType.BERT:
        return _previous_boot(policy, header)
    if header is None:
        return _nothing(policy, "no record: the event has no status block")
    if not header.pending:
        return _nothing(policy, "no record pending: the block status is 0")
    before, after = _release(early=admission.released_early, acknowledges=context.acknowledges)
    reasons = _reasons(policy, header, context.reserved)
    if problem := _malformed(policy, header, context.reserved):
        fired = rule(
            policy,
            "read.validate",
            "rejected as malformed: the record is cleared and lost",
            "__ghes_check_estatus",
            "block_limited_to_buffer",
            malformed=problem,
        )
        rejected = StageResult((*before, Reject(f"malformed record: {problem}"), *after), (fired,), reasons)
        return RecordOutcome(is_processed=False, claimed=False, stage_result=rejected)
    fired = rule(policy, "read.validate", WELL_FORMED, "cper_estatus_check", sections=header.sections)
    if not header.repeats or is_fatal(policy, header.severity, header.worst_section):
        accepted = StageResult(before, (fired,), reasons)
        return RecordOutcome(is_processed=True, claimed=True, stage_result=accepted, is_handled=True, released_after=after)
    return _duplicate(policy, StageResult(before, (fired,), reasons), after, early=admission.released_early)


def _previous_boot(policy: Policy, header: BlockHeader | None) -> RecordOutcome:
    """Print a record of the previous boot, which is never processed. Mirrors `bert_print_all`."""
    step: Step
    if header is None or not header.pending:
        step, outcome = Reject("no record: the boot error region is empty"), "no record of the previous boot"
    elif header.fault is not None:
        step, outcome = Reject(f"malformed record: {header.fault}"), "malformed: not printed, and the records behind it neither"
    else:
        step, outcome = Log("record of the previous boot: printed, never processed"), "printed, never processed"
    fired = rule(policy, "read.previous_boot", outcome, "bert_print_all")
    return RecordOutcome(is_processed=False, claimed=False, stage_result=StageResult((step,), (fired,), warnings=(_WENT_DOWN,)))


def _nothing(policy: Policy, why: str) -> RecordOutcome:
    fired = rule(policy, "read.pending", why, "__ghes_peek_estatus", "sea_precheck", pending=False)
    return RecordOutcome(is_processed=False, claimed=False, stage_result=StageResult((Reject(why),), (fired,)))


def _malformed(policy: Policy, header: BlockHeader, reserved: int) -> str | None:
    """Return why the kernel rejects the block, or None. Mirrors `__ghes_check_estatus` and `cper_estatus_check`."""
    limit = min(reserved, BUFFER_LENGTH) if policy.behaviours.block_limited_to_buffer else reserved
    length = claimed_length(header.raw_data_offset, header.raw_data_length, header.data_length)
    end = HEADER_LENGTH + header.data_length
    if length < HEADER_LENGTH:
        return f"truncated: header and data have {length} bytes; at least {HEADER_LENGTH} expected"
    if length > limit:
        return f"longer than the buffer: {length} bytes; at most {limit} expected"
    if 0 < header.data_length < ENTRY_LENGTH:
        return f"offset 12, `data_length`: {header.data_length} bytes; 0 or at least {ENTRY_LENGTH} expected for a data entry"
    if header.raw_data_length and header.raw_data_offset < end:
        return f"offset 4, `raw_data_offset`: {header.raw_data_offset} lies within the data entries; at least {end} expected"
    return header.fault


def _reasons(policy: Policy, header: BlockHeader, reserved: int) -> tuple[str, ...]:
    length = claimed_length(header.raw_data_offset, header.raw_data_length, header.data_length)
    overruns = reserved >= length > BUFFER_LENGTH and not policy.behaviours.block_limited_to_buffer
    return ((_CUT,) if not header.is_whole else ()) + ((_OVERRUN,) if overruns else ())


def _release(*, early: bool, acknowledges: bool) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return the steps before and after processing, one of which may be the acknowledgement."""
    if not acknowledges:
        return (), ()
    return ((Acknowledge("before_processing"),), ()) if early else ((), (Acknowledge("after_processing"),))


def _duplicate(policy: Policy, accepted: StageResult, after: tuple[Step, ...], *, early: bool) -> RecordOutcome:
    """Handle a byte-identical record within 10 s. Mirrors `ghes_proc` and `ghes_in_nmi_queue_one_entry`."""
    if not early or policy.behaviours.duplicates_only_unprinted:
        fired = rule(
            policy, "read.duplicate", "duplicate within 10 s: handled, not printed", "ghes_estatus_cached", "duplicates_only_unprinted"
        )
        steps = (*accepted.steps, Log("duplicate record within 10 s: handled again, not printed again"))
        handled = accepted._replace(steps=steps, rationale=(*accepted.rationale, fired))
        return RecordOutcome(is_processed=True, claimed=True, stage_result=handled, is_handled=True, released_after=after)
    claimed = not policy.behaviours.duplicate_sea_unclaimed
    outcome = (
        "duplicate within 10 s: dropped, an abort counts as claimed"
        if claimed
        else "duplicate within 10 s: dropped, an abort counts as unclaimed"
    )
    fired = rule(policy, "read.duplicate", outcome, "ghes_in_nmi_queue_one_entry", "duplicate_sea_unclaimed")
    steps = (*accepted.steps, Reject("duplicate record: a byte-identical one was handled less than 10 s ago"))
    dropped = accepted._replace(steps=steps, rationale=(*accepted.rationale, fired))
    return RecordOutcome(is_processed=False, claimed=claimed, stage_result=dropped, is_handled=True)
