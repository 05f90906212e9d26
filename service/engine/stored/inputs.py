"""Inputs of a stored decision, from which its event can be decided again.

The decision names the version of the host facts, the poisoned pages and the duplicate that it used (`UsedFacts`). The store has the
facts of every version. Of a poisoned page the decision has the address; its size is looked up, and is that of a base page where the page
is no longer stored. The age of a duplicate is not stored, and decides nothing.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter
from pydantic_core import from_json

from ras_triage.models.decision import PolicyRef
from ras_triage.models.event import Event
from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.api.problems import ProblemError, unknown_source
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import EncodedDecision, EventDocument, ParsedEvent, parse_event
from ras_triage.service.engine.responses import policy_of
from ras_triage.service.engine.used_facts import StoredFacts
from ras_triage.service.store.port import Store, StoredDecision

_USED: TypeAdapter[UsedFacts | None] = TypeAdapter(UsedFacts | None)


@frozen
class DecisionInputs:
    """Event, stored facts and policy of a stored decision."""

    stored: StoredDecision
    parsed: ParsedEvent
    known: StoredFacts | None
    """Stored facts that the decision used; None: none."""
    policy: PolicyRef
    """The policy that decided."""

    @property
    def event(self) -> Event:
        """Return the event with all facts that it was decided with."""
        return self.parsed.event if self.known is None else self.known.add_remembered(self.known.with_host(self.parsed.event))

    def redecide(self, settings: Settings, policy: str | None = None) -> EncodedDecision:
        """Decide the event again with the same facts, under a named policy; by default under the one that decided.

        Under the same policy digest the result is the stored decision, byte for byte. Raises ProblemError as `ParsedEvent.decide`.
        """
        name = self.policy_name(settings) if policy is None else policy
        parsed = self.parsed if name is None else replace(self.parsed, event=self.parsed.event.model_copy(update={"policy": name}))
        return parsed.decide(settings, self.known)

    def policy_name(self, settings: Settings) -> str | None:
        """Return the name of the policy that decided; None where the event itself still selects it.

        The default policy may be another one since. A kernel that is older than the ledger has unknowns that the policy's name has not.
        """
        try:
            chosen = policy_of(self.event, settings)
        except ProblemError:
            return self.policy.name
        return None if chosen.reference == self.policy else self.policy.name


def read_inputs(store: Store, identity: str) -> DecisionInputs | None:
    """Return the inputs of a decision; None: there is no such decision. Reads the store: not for the event loop.

    Raises StoreError, and ProblemError where the facts that it used are no longer stored.
    """
    stored, event = store.decision(identity), store.event(identity)
    if stored is None or event is None:
        return None
    decision = from_json(stored.decision)
    parsed = parse_event(EventDocument(event))
    used = _USED.validate_python(decision["host_facts"])
    known = None if used is None else _stored_facts(store, parsed.event, used)
    return DecisionInputs(stored, parsed, known, PolicyRef(**decision["policy"]))


def _stored_facts(store: Store, event: Event, used: UsedFacts) -> StoredFacts:
    source = event.source or ""
    facts: bytes | None = None
    if used.version is not None:
        version = store.host(source, used.version)
        if version is None or version.facts is None:
            raise ProblemError(unknown_source(source, used.version))
        facts = version.facts
    known = StoredFacts(None, (), used, facts, duplicate_age_ms=0 if used.duplicate else None)
    if not used.poisoned:
        return known
    return replace(known, poisoned=_poisoned_pages(store, source, used, Facts(known.with_host(event).host).page_shift))


def _poisoned_pages(store: Store, source: str, used: UsedFacts, page_shift: int) -> tuple[PoisonedPage, ...]:
    """Return the poisoned pages at the addresses that a decision names, in its order."""
    addresses = [int(address, 16) for address in used.poisoned]
    shifts = {page.address: page.shift for page in store.poisoned_at(source, addresses)}
    return tuple(PoisonedPage(address, shifts.get(address, page_shift)) for address in addresses)
