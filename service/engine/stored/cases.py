"""Stored decisions with their events and the stored facts that they used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.api.problems import Problem, ProblemError, store_damaged, unknown_source
from ras_triage.service.store.port import HostFacts, Store, StoredDecision

_NO_FACTS: Final = b'{"host_facts":null,'
"""Beginning of a decision that used no stored facts."""

_USED: Final[TypeAdapter[UsedFacts | None]] = TypeAdapter(UsedFacts | None)


@frozen
class StoredCase:
    """A stored decision with its event and the stored facts that it used."""

    stored: StoredDecision
    event: bytes
    """As it was sent."""
    used: UsedFacts | None = None
    facts: bytes | None = None
    """Host facts in the version of `used`; None: the decision used none."""
    pages: tuple[PoisonedPage, ...] = ()
    """Poisoned pages of `used` that are still stored, with their sizes."""


def read_cases(store: Store, identities: Sequence[str]) -> Iterator[StoredCase | Problem]:
    """Yield the case of each decision, or the problem with it: corrupt, purged, or its facts are no longer stored. Raises StoreError."""
    bodies = store.bodies(identities)
    host = cache(store.host)
    for identity in identities:
        if identity not in bodies:
            yield store_damaged()
            continue
        try:
            yield read_case(store, *bodies[identity], host)
        except ProblemError as missing:
            yield missing.problem


def read_case(
    store: Store, stored: StoredDecision, event: bytes, host: Callable[[str, int], HostFacts | None] | None = None
) -> StoredCase:  # fmt: skip
    """Return the case of a decision. Raises StoreError, and ProblemError where the facts that it used are no longer stored.

    `host` returns a version of the facts of a source; by default the store's.
    """
    if stored.decision.startswith(_NO_FACTS):
        return StoredCase(stored, event)
    decision = from_json(stored.decision)
    used, source = _USED.validate_python(decision["host_facts"]), decision["source"] or ""
    assert used is not None
    facts: bytes | None = None
    if used.version is not None:
        version = (host or store.host)(source, used.version)
        if version is None or version.facts is None:
            raise ProblemError(unknown_source(source, used.version))
        facts = version.facts
    addresses = [int(address, 16) for address in used.poisoned]
    pages = [page for page in store.poisoned_at(source, addresses) if page.address in addresses] if addresses else ()
    return StoredCase(stored, event, used, facts, tuple(pages))
