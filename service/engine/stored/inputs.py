"""Inputs of a stored decision, from which its event can be decided again.

The decision names the version of the host facts, the poisoned pages and the duplicate that it used (`UsedFacts`). The store has the
facts of every version. Of a poisoned page the decision has the address; its size is looked up, and where the page is no longer stored it
is the smallest with an address of the event in it. The age of a duplicate is not stored, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

from pydantic_core import from_json

from ras_triage.models.decision import PolicyRef
from ras_triage.models.event import Event
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Host
from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import EncodedDecision, EventDocument, ParsedEvent, parse_event
from ras_triage.service.engine.responses import policy_of
from ras_triage.service.engine.stored.cases import StoredCase, read_case
from ras_triage.service.engine.used_facts import StoredFacts
from ras_triage.service.store.port import Store, StoredDecision

_CACHED_HOSTS: Final = 16


@frozen
class DecisionInputs:
    """Event, stored facts and policy of a stored decision."""

    stored: StoredDecision
    parsed: ParsedEvent
    known: StoredFacts | None
    """Stored facts that the decision used; None: none."""

    @property
    def policy(self) -> PolicyRef:
        """Return the policy that decided."""
        return PolicyRef(**from_json(self.stored.decision)["policy"])

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
        decided = self.policy
        try:
            chosen = policy_of(self.event, settings)
        except ProblemError:
            return decided.name
        return None if chosen.reference == decided else decided.name


def read_inputs(store: Store, identity: str) -> DecisionInputs | None:
    """Return the inputs of a decision; None: there is no such decision. Reads the store: not for the event loop.

    Raises StoreError, and ProblemError where the facts that it used are no longer stored.
    """
    stored, event = store.decision(identity), store.event(identity)
    return None if stored is None or event is None else inputs_of(read_case(store, stored, event))


def inputs_of(case: StoredCase) -> DecisionInputs:
    """Return the inputs of a decision that has been read from the store."""
    parsed = parse_event(EventDocument(case.event))
    known = None if case.used is None else _stored_facts(case, case.used, parsed)
    return DecisionInputs(case.stored, parsed, known)


def _stored_facts(case: StoredCase, used: UsedFacts, parsed: ParsedEvent) -> StoredFacts:
    host = None if case.facts is None else _read_host(case.facts)
    pages = tuple(_poisoned_pages(case, used, parsed, Facts(host or parsed.event.host)))
    return StoredFacts(host, pages, used, case.facts, duplicate_age_ms=0 if used.duplicate else None)


def _poisoned_pages(case: StoredCase, used: UsedFacts, parsed: ParsedEvent, facts: Facts) -> Iterator[PoisonedPage]:
    """Yield the poisoned pages at the addresses that a decision names, in its order."""
    known = {page.address: page for page in case.pages}
    addresses = (*parsed.keys.physical_addresses, *parsed.keys.page_addresses)
    for address in (int(text, 16) for text in used.poisoned):
        sizes = [PoisonedPage(address, shift) for shift in (facts.page_shift, facts.pmd_shift, facts.pud_shift)]
        yield known.get(address) or next((page for page in sizes if any(map(page.contains, addresses))), sizes[0])


@lru_cache(maxsize=_CACHED_HOSTS)
def _read_host(facts: bytes) -> Host:
    """Parse host facts. Cached: the decisions of a few sources follow each other."""
    return Host.model_validate_json(facts)
