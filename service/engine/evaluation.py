"""Evaluation of one event: parse, decide, encode; without a store.

Its inputs are the event, the policies and the stored facts of the source, so that a worker process can evaluate as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from ras_triage.models.decision import Action
from ras_triage.models.event import Event, event_key
from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.block_summary import physical_addresses, section_names
from ras_triage.models.records.handled_record import RecordKey, ReportedRecord
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.models.severity import severity_name
from ras_triage.models.times import unix_ms
from ras_triage.policies.decide import decide_with_poison
from ras_triage.policies.pipeline.recent_records import record_key
from ras_triage.policies.pipeline.record import WELL_FORMED
from ras_triage.policies.workload import TooMuchWork, require_workload
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import Problem, ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.responses import decision_json, policy_of, require_affordable, require_vmms
from ras_triage.service.engine.used_facts import FactsBasis, StoredFacts
from ras_triage.service.telemetry import logs

LOOP_BYTES: Final = 32 << 10
"""Longest event that is parsed in the event loop, in bytes. Worst case about 15 ms: a status block of the smallest sections."""
LOOP_STEPS: Final = 30_000
"""Largest workload of an event that is decided in the event loop, in steps of about one microsecond (`ras_triage.policies.workload`)."""


class HeavyEvent(Exception):
    """Deciding the event would block the event loop for too long."""


@frozen
class EventDocument:
    """An event as it was sent."""

    data: bytes
    """JSON."""
    name: bytes | None = None
    """Repeat key of an event that has neither id nor time: derived from the request's Idempotency-Key and the position in the request."""
    is_live: bool = True
    """Whether the error is reported when it happens, so that an equal record soon after is a duplicate; an imported one is not."""


class EventKeys(NamedTuple):
    """Keys of an event: by which a repeat is recognised, source facts are looked up and decisions are listed."""

    source: str | None
    event_id: str | None
    event_key: str
    repeat_key: bytes | None
    """Equal for repeats of one event; None: repeats cannot be recognised."""
    notification: str
    severity: str | None
    """Of the status block."""
    sections: tuple[str, ...]
    physical_addresses: tuple[int, ...]
    """Bytes."""
    has_host: bool
    """Whether the event has its own `host` facts."""
    states_poison: bool
    """Whether these say of pages whether they are poisoned."""
    page_addresses: tuple[int, ...] = ()
    """Physical addresses of the pages in these, bytes, sorted."""
    record: RecordKey | None = None
    """Of the record, by which a duplicate is recognised; None: the event has none, or host facts of its own say what was handled before."""
    time_ms: int | None = None
    """When the sender saw the error, in milliseconds since 1970, UTC."""

    def reported_record(self, now_ms: int) -> ReportedRecord | None:
        """Return the event's record as a handled one; `now_ms`: the time of an event without one."""
        return None if self.record is None else ReportedRecord(self.record, now_ms if self.time_ms is None else self.time_ms)


class EncodedDecision(NamedTuple):
    """Encoded decision with the columns that the store keeps beside it."""

    decision: bytes
    """JSON without `id`, `decided_at` and `repeat`."""
    policy: str
    policy_digest: str
    action: str
    certainty: str
    poisoned: tuple[PoisonedPage, ...]
    panics: bool
    """Whether the machine panics: what its decisions left behind is forgotten with the reboot."""
    handles_record: bool = False
    """Whether the machine read a well-formed record."""


@frozen
class ParsedEvent:
    """Parsed event with its keys and status block."""

    keys: EventKeys
    event: Event
    block: StatusBlock | None

    def decide(self, settings: Settings, known: StoredFacts | None, at_most: int | None = None) -> EncodedDecision:
        """Return the encoded decision. Raises ProblemError for an unknown policy or VMM, or an event over the workload limit.

        Raises HeavyEvent if deciding would take more than `at_most` steps.
        """
        if at_most is not None and known is not None and known.is_long:
            raise HeavyEvent
        event = self.event if known is None else known.with_host(self.event)
        uses_stored_facts = known is not None and known.facts is not None
        policy = policy_of(event, settings, uses_stored_facts=uses_stored_facts)
        if event.host.vms:
            require_vmms(event, settings, uses_stored_facts=uses_stored_facts)
        stored_pages = 0 if known is None else len(known.poisoned)
        try:
            limit = settings.max_workload if at_most is None else min(at_most, settings.max_workload)
            require_workload(event, self.block, limit, policy, known_poisoned=stored_pages)
        except TooMuchWork:
            require_affordable(event, self.block, settings, policy, stored_pages=stored_pages, uses_stored_facts=uses_stored_facts)
            raise HeavyEvent from None
        event = event if known is None else known.add_remembered(event)
        decided = decide_with_poison(event, self.block, policy, self.keys.event_key, custom_vmms=settings.custom_vmms)
        decision = decided.decision
        panics = decision.action is Action.PANIC
        return EncodedDecision(
            decision_json(decision, None if known is None else known.used),
            decision.policy.name,
            decision.policy.digest,
            decision.action.value,
            decision.certainty,
            () if panics or event.source is None else decided.poisoned,
            panics,
            decided.record_is_handled and not panics,
        )


class Defect(NamedTuple):
    """Unexpected exception while an event was evaluated, as facts for the log."""

    facts: Mapping[str, Any]
    """From `logs.explain`."""


class PredecidedEvent(NamedTuple):
    """Event that a worker process decided."""

    document: EventDocument
    keys: EventKeys
    result: EncodedDecision | Problem | Defect
    basis: FactsBasis | None = None
    """Stored facts of its source that the decision used."""

    def rests_on(self, known: StoredFacts | None) -> bool:
        """Return whether the decision is the same under these stored facts."""
        return self.basis == (None if known is None else known.basis)


class FailedEvent(NamedTuple):
    """Event that could not be parsed because of a defect of the service."""

    document: EventDocument
    defect: Defect


Evaluation = tuple[EventKeys, EncodedDecision | Problem | Defect, FactsBasis | None] | Problem | Defect
"""Result of a worker for one event."""

BatchItem = EventDocument | PredecidedEvent | FailedEvent | ProblemError
"""An event as received or as evaluated by a worker, or the problem with it."""


def parse_event(document: EventDocument) -> ParsedEvent:
    """Parse an event. Raises ProblemError."""
    event = read_event(document.data)
    key = event_key(event)
    block = None if event.status_block is None else parse_block(event.status_block)
    pages = () if event.source is None else event.host.pages or ()
    keys = EventKeys(
        event.source,
        event.id,
        key,
        _repeat_key(event, key, document.name),
        event.notification.type.value,
        None if block is None else severity_name(block.error_severity),
        () if block is None else section_names(block),
        () if block is None else physical_addresses(block),
        "host" in event.model_fields_set,
        any("poisoned" in page.model_fields_set for page in pages),
        tuple(sorted([page.physical_address for page in pages])),
        record_key(block) if block is not None and document.is_live and event.source is not None and event.host.recent is None else None,
        None if event.time is None else unix_ms(event.time),
    )
    return ParsedEvent(keys, event, block)


def predecide(
    document: EventDocument, settings: Settings, facts_for: Callable[[EventKeys], StoredFacts | None] = lambda _keys: None
) -> Evaluation:
    """Parse and decide an event with the stored facts that apply to it. Errors are returned: this raises no Exception."""
    try:
        parsed = parse_event(document)
    except ProblemError as refused:
        return refused.problem
    except Exception as error:
        return Defect(logs.explain(error))
    basis: FactsBasis | None = None
    try:
        known = facts_for(parsed.keys)
        basis = None if known is None else known.basis
        return parsed.keys, parsed.decide(settings, known), basis
    except ProblemError as refused:
        return parsed.keys, refused.problem, basis
    except Exception as error:
        return parsed.keys, Defect(logs.explain(error)), basis


def was_handled(decision: bytes) -> bool:
    """Return whether the machine read a well-formed record, by an encoded decision."""
    rationale = from_json(decision).get("rationale", ())
    return any(fired.get("rule") == "read.validate" and fired.get("outcome") == WELL_FORMED for fired in rationale)


def is_long(document: EventDocument) -> bool:
    """Return whether parsing the event would block the event loop for too long."""
    return len(document.data) > LOOP_BYTES


def _repeat_key(event: Event, key: str, name: bytes | None) -> bytes | None:
    """Return the hash of source and id, else the hash of an event that has a time, else the name from the request."""
    if event.id is not None:
        return hashlib.sha256(to_json(["id", event.source, event.id])).digest()
    if event.time is not None:
        return bytes.fromhex(key.removeprefix("sha256:"))
    return name
