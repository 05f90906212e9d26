"""One event, from its bytes to its decision, as far as that takes nothing but the event, the policies and what is known of its source.

Nothing is kept or looked up here, so any process can do it.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from pydantic_core import to_json

from models.contents import physical_addresses, section_names
from models.decision import Action
from models.event import Event, event_key
from models.poison import PoisonedPage
from models.severity import severity_name
from models.status_block import StatusBlock, parse
from models.value import value
from policies.decide import TOLD, settle
from service.answers import choose_policy, decision_json, read_event, require_affordable
from service.problems import Problem, Refused
from service.settings import Settings
from service.used_facts import Known


@value
class Document:
    """An event as it was sent."""

    data: bytes
    """JSON."""
    name: bytes | None = None
    """Tells a repeat of an event that says nothing by which it could be told: from the request's Idempotency-Key and the position in it."""
    assumed: frozenset[str] = TOLD
    """JSON pointers into the event at which its sender took something for granted, as for `decide`."""


class Gist(NamedTuple):
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


class Conclusion(NamedTuple):
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


@value
class Understood:
    """An event that was read."""

    gist: Gist
    event: Event
    block: StatusBlock | None
    assumed: frozenset[str]

    def conclude(self, settings: Settings, known: Known | None) -> Conclusion:
        """Its decision. Raises Refused where the policy that it asks for does not exist, or where deciding would take too much work."""
        event = self.event if known is None else known.place(self.event)
        kept = known is not None and known.host is not None
        policy = choose_policy(event, settings, kept=kept)
        remembered = 0 if known is None else len(known.poisoned)
        require_affordable(event, self.block, settings, policy, assumed=self.assumed, remembered=remembered, kept=kept)
        event = event if known is None else known.poison(event)
        settled = settle(event, self.block, policy, self.gist.event_key, self.assumed)
        decision = settled.decision
        went_down = decision.action is Action.PANIC
        return Conclusion(
            decision_json(decision, None if known is None else known.used),
            decision.policy.name,
            decision.policy.digest,
            decision.action.value,
            decision.certainty,
            () if went_down or event.source is None else settled.poisoned,
            went_down,
        )


class Foreseen(NamedTuple):
    """An event that was decided beforehand, as if nothing were kept for its source."""

    document: Document
    gist: Gist
    conclusion: Conclusion | Problem

    def conclude(self, settings: Settings, known: Known | None) -> Conclusion:
        """Its decision, made anew where something is kept after all. Raises Refused."""
        if known is not None:
            return understand(self.document).conclude(settings, known)
        if isinstance(self.conclusion, Problem):
            raise Refused(self.conclusion)
        return self.conclusion


def understand(document: Document) -> Understood:
    """Read an event. Raises Refused."""
    event = read_event(document.data)
    key = event_key(event)
    block = None if event.status_block is None else parse(event.status_block)
    gist = Gist(
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
    return Understood(gist, event, block, document.assumed)


def foresee(document: Document, settings: Settings) -> tuple[Gist, Conclusion | Problem] | Problem:
    """What makes an event a foreseen one; what is wrong with it, where it is none."""
    try:
        understood = understand(document)
    except Refused as refused:
        return refused.problem
    try:
        return understood.gist, understood.conclude(settings, None)
    except Refused as refused:
        return understood.gist, refused.problem


def _repeat_key(event: Event, key: str, name: bytes | None) -> bytes | None:
    """Source and id, else content with a time in it, else the request's own name."""
    if event.id is not None:
        return hashlib.sha256(to_json(["id", event.source, event.id])).digest()
    if event.time is not None:
        return bytes.fromhex(key.removeprefix("sha256:"))
    return name
