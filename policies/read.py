"""Stage 2: is there a record, is it well formed, was it seen before, and when is it given back to firmware?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from models.decision import Acknowledge, Log, Reject, Step
from models.host import RecentRecord
from models.notification import Delivery, Notification
from models.status_block import ENTRY_LENGTH, HEADER_LENGTH, StatusBlock
from policies.admit import Admission
from policies.catalog import Policy
from policies.facts import Facts
from policies.finding import Finding, rule
from policies.severity import is_fatal

BUFFER_LENGTH = 65536
"""Bytes of the buffer that a source's records are copied into (GHES_ESTATUS_MAX_SIZE)."""

CACHE_SLOTS = 4
CACHE_MAX_AGE_MS = 10_000

ACKNOWLEDGE_EARLY = Acknowledge("before_processing")
ACKNOWLEDGE_LATE = Acknowledge("after_processing")

_NO_RECORD = "no record came with the notification"
_OVERRUN = "the kernel copies the block over the end of its 64 KiB buffer"
_CUT = "the status block is longer than the bytes given: the rest is read as zero"


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of the record."""

    block: StatusBlock | None
    """The record that is acted on; None where there is none."""
    claimed: bool
    """Whether the abort, if it was one, counts as claimed by APEI."""
    finding: Finding
    released_after: tuple[Step, ...] = ()
    """The acknowledgement, where it comes only after the record was processed."""


def read(notification: Notification, block: StatusBlock | None, admission: Admission, policy: Policy, facts: Facts) -> Reading:
    """Mirrors `ghes_read_estatus`, `ghes_estatus_cached` and `ghes_clear_estatus`."""
    if not admission.listens:
        return Reading(None, False, Finding())
    if block is None:
        return _nothing(policy, _NO_RECORD)
    if block.block_status == 0:
        return _nothing(policy, "the block status is zero: no record is pending")
    early = admission.delivery in (Delivery.SYNCHRONOUS, Delivery.NMI_LIKE)
    acknowledges = notification.ghes_version == 2
    reasons = _reasons(block, notification.error_block_length, policy)
    if problem := _malformed(block, notification.error_block_length, policy):
        return _reject_malformed(policy, problem, reasons, early, acknowledges)
    if facts.host.recent and not is_fatal(policy, block) and _is_cached(block, facts.host.recent):
        return _duplicate(policy, block, reasons, early, acknowledges)
    return _accept(policy, block, reasons, early, acknowledges)


def _malformed(block: StatusBlock, error_block_length: int, policy: Policy) -> str | None:
    """Why the kernel refuses the block (`__ghes_check_estatus`, `cper_estatus_check`), or None."""
    limit = min(error_block_length, BUFFER_LENGTH) if policy.behaviours.block_limited_to_buffer else error_block_length
    length = _record_length(block)
    if length < HEADER_LENGTH:
        return f"truncated: header and data come to {length} bytes"
    if length > limit:
        return f"longer than its source: {length} bytes, and {limit} are reserved"
    if 0 < block.data_length < ENTRY_LENGTH:
        return f"offset 12, `data_length`: {block.data_length} bytes hold no entry"
    if block.raw_data_length and block.raw_data_offset < block.end:
        return f"offset 4, `raw_data_offset`: raw data at {block.raw_data_offset} lies within the entries, which end at {block.end}"
    if block.fault is not None:
        return f"offset {block.fault.offset}, section {block.fault.section}, `{block.fault.field}`: {block.fault.detail}"
    return None


def _record_length(block: StatusBlock) -> int:
    """The length that the header claims, in the kernel's 32-bit arithmetic (`cper_estatus_len`)."""
    length = block.raw_data_offset + block.raw_data_length if block.raw_data_length else HEADER_LENGTH + block.data_length
    return length & 0xFFFFFFFF


def _reasons(block: StatusBlock, error_block_length: int, policy: Policy) -> tuple[str, ...]:
    bounded = policy.behaviours.block_limited_to_buffer or error_block_length <= BUFFER_LENGTH
    reasons = () if block.is_whole else (_CUT,)
    return reasons if bounded or _record_length(block) <= BUFFER_LENGTH else (*reasons, _OVERRUN)


def _is_cached(block: StatusBlock, recent: tuple[RecentRecord, ...]) -> bool:
    young = sorted((record for record in recent if record.printed and record.age_ms < CACHE_MAX_AGE_MS), key=lambda record: record.age_ms)
    length = _record_length(block)
    if length > len(block.data) + BUFFER_LENGTH:
        return False
    content = block.window(0, length)
    return any(record.status_block[:length].ljust(length, b"\0") == content for record in young[:CACHE_SLOTS])


def _release(early: bool, acknowledges: bool) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The acknowledgement, before or after processing."""
    if not acknowledges:
        return (), ()
    return ((ACKNOWLEDGE_EARLY,), ()) if early else ((), (ACKNOWLEDGE_LATE,))


@lru_cache(maxsize=1024)
def _nothing(policy: Policy, why: str) -> Reading:
    fired = rule(policy, "read.pending", why, "__ghes_peek_estatus", "sea_precheck", block_status=0)
    return Reading(None, False, Finding((Reject(why),), (fired,)))


@lru_cache(maxsize=1024)
def _reject_malformed(policy: Policy, problem: str, reasons: tuple[str, ...], early: bool, acknowledges: bool) -> Reading:
    before, after = _release(early, acknowledges)
    fired = rule(policy, "read.validate", "refused, cleared and lost", "__ghes_check_estatus", "block_limited_to_buffer", malformed=problem)
    return Reading(None, False, Finding((*before, Reject(f"malformed record: {problem}"), *after), (fired,), reasons))


def _duplicate(policy: Policy, block: StatusBlock, reasons: tuple[str, ...], early: bool, acknowledges: bool) -> Reading:
    if not early or policy.behaviours.duplicates_only_unprinted:
        accepted = _accept(policy, block, reasons, early, acknowledges)
        unprinted = Finding(
            (Log("a repeat within 10 s: handled again, not printed again"),),
            (rule(policy, "read.duplicate", "only printing is suppressed", "ghes_estatus_cached", "duplicates_only_unprinted"),),
        )
        joined = Finding(accepted.finding.steps + unprinted.steps, accepted.finding.rationale + unprinted.rationale, reasons)
        return Reading(block, True, joined, accepted.released_after)
    before, _ = _release(early, acknowledges)
    claimed = not policy.behaviours.duplicate_sea_unclaimed
    outcome = "dropped; an abort counts as claimed" if claimed else "dropped; an abort counts as not claimed"
    fired = rule(policy, "read.duplicate", outcome, "ghes_in_nmi_queue_one_entry", "duplicate_sea_unclaimed")
    return Reading(None, claimed, Finding((*before, Reject("a byte-identical record was handled less than 10 s ago")), (fired,), reasons))


def _accept(policy: Policy, block: StatusBlock, reasons: tuple[str, ...], early: bool, acknowledges: bool) -> Reading:
    finding, after = _accepted(policy, len(block.entries), reasons, early, acknowledges)
    return Reading(block, True, finding, after)


@lru_cache(maxsize=4096)
def _accepted(policy: Policy, sections: int, reasons: tuple[str, ...], early: bool, acknowledges: bool) -> tuple[Finding, tuple[Step, ...]]:
    before, after = _release(early, acknowledges)
    fired = rule(policy, "read.validate", "well formed", "cper_estatus_check", sections=sections)
    return Finding(before, (fired,), reasons), after
