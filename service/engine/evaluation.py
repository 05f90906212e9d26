"""One event, from its bytes to its decision, as far as that takes nothing but the event, the policies and what is known of its source.

Nothing is kept or looked up here, so any process can do it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from ras_triage.models.decision import Action
from ras_triage.models.event import Event, event_key
from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.block_summary import physical_addresses, section_names
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.models.severity import severity_name
from ras_triage.policies.decide import NOTHING_ASSUMED, decide_with_poison
from ras_triage.policies.workload import TooMuchWork, require_workload
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import Problem, ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.responses import decision_json, policy_of, require_affordable
from ras_triage.service.engine.used_facts import KeptFacts
from ras_triage.service.telemetry import logs

LOOP_BYTES: Final = 32 << 10
"""Longest event that is read in the event loop: at most about 15 ms, for a status block of nothing but the smallest sections."""
LOOP_STEPS: Final = 30_000
"""Most steps (`ras_triage.policies.workload`) that deciding an event takes in the event loop, about a microsecond each."""


class HeavyEvent(Exception):
    """Deciding an event would keep the event loop for too long."""


@frozen
class EventDocument:
    """An event as it was sent."""

    data: bytes
    """JSON."""
    name: bytes | None = None
    """Tells a repeat of an event that says nothing by which it could be told: from the request's Idempotency-Key and the position in it."""
    assumed: frozenset[str] = NOTHING_ASSUMED
    """JSON pointers into the event at which its sender took something for granted, as for `decide`."""


class EventKeys(NamedTuple):
    """What an event says, as far as it is recognised, looked up and found by it."""

    source: str | None
    event_id: str | None
    event_key: str
    repeat_key: bytes | None
    """What a repeat of the event has in common with it; None: a repeat cannot be told from a question asked again."""
    notification: str
    severity: str | None
    """Of the status block."""
    sections: tuple[str, ...]
    physical_addresses: tuple[int, ...]
    """Bytes."""
    brings_host: bool
    brings_pages: bool


class EncodedDecision(NamedTuple):
    """A decision, and what of it is kept beside its bytes."""

    decision: bytes
    """JSON, without what tells one telling of it from another."""
    policy: str
    policy_digest: str
    action: str
    certainty: str
    poisoned: tuple[PoisonedPage, ...]
    went_down: bool
    """Whether the machine did, and forgot which pages are poisoned."""


@frozen
class ParsedEvent:
    """An event that was read."""

    keys: EventKeys
    event: Event
    block: StatusBlock | None
    assumed: frozenset[str]

    def conclude(self, settings: Settings, known: KeptFacts | None, at_most: int | None = None) -> EncodedDecision:
        """Return its decision. Raises Refused where the policy does not exist, or where deciding would take too much work.

        Raises HeavyEvent where it would take more than `at_most` steps.
        """
        if at_most is not None and known is not None and known.is_long:
            raise HeavyEvent
        event = self.event if known is None else known.place(self.event)
        kept = known is not None and known.facts is not None
        policy = policy_of(event, settings, kept=kept)
        remembered = 0 if known is None else len(known.poisoned)
        try:
            limit = settings.max_workload if at_most is None else min(at_most, settings.max_workload)
            require_workload(event, self.block, limit, policy, assumed=self.assumed, known_poisoned=remembered)
        except TooMuchWork:
            require_affordable(event, self.block, settings, policy, assumed=self.assumed, remembered=remembered, kept=kept)
            raise HeavyEvent from None
        event = event if known is None else known.poison(event)
        settled = decide_with_poison(event, self.block, policy, self.keys.event_key, self.assumed)
        decision = settled.decision
        went_down = decision.action is Action.PANIC
        return EncodedDecision(
            decision_json(decision, None if known is None else known.used),
            decision.policy.name,
            decision.policy.digest,
            decision.action.value,
            decision.certainty,
            () if went_down or event.source is None else settled.poisoned,
            went_down,
        )


class Defect(NamedTuple):
    """A defect of the service that an event ran into."""

    facts: Mapping[str, Any]
    """As `logs.explain` tells of it."""


class Predecided(NamedTuple):
    """An event that was decided elsewhere."""

    document: EventDocument
    keys: EventKeys
    conclusion: EncodedDecision | Problem | Defect
    known: KeptFacts | None = None
    """What was kept for its source as far as the decision knew of it."""


class Failed(NamedTuple):
    """An event that could not be read for a defect of the service."""

    document: EventDocument
    defect: Defect


Evaluation = tuple[EventKeys, EncodedDecision | Problem | Defect] | Problem | Defect
"""What a worker says of an event."""

BatchItem = EventDocument | Predecided | Failed | ProblemError
"""An event as it came, or decided elsewhere; or why it is not read."""


def parse_event(document: EventDocument) -> ParsedEvent:
    """Read an event. Raises Refused."""
    event = read_event(document.data)
    key = event_key(event)
    block = None if event.status_block is None else parse_block(event.status_block)
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
        event.host.pages is not None,
    )
    return ParsedEvent(keys, event, block, document.assumed)


def predecide(document: EventDocument, settings: Settings, known: KeptFacts | None = None) -> Evaluation:
    """Return what makes an event a foreseen one; what is wrong with it, where it is none. Raises nothing that is an Exception."""
    try:
        understood = parse_event(document)
    except ProblemError as refused:
        return refused.problem
    except Exception as error:
        return Defect(logs.explain(error))
    try:
        return understood.keys, understood.conclude(settings, known)
    except ProblemError as refused:
        return understood.keys, refused.problem
    except Exception as error:
        return understood.keys, Defect(logs.explain(error))


def is_long(document: EventDocument) -> bool:
    """Whether reading an event would keep the event loop for too long."""
    return len(document.data) > LOOP_BYTES


def _repeat_key(event: Event, key: str, name: bytes | None) -> bytes | None:
    """Source and id, else content with a time in it, else the request's own name."""
    if event.id is not None:
        return hashlib.sha256(to_json(["id", event.source, event.id])).digest()
    if event.time is not None:
        return bytes.fromhex(key.removeprefix("sha256:"))
    return name
