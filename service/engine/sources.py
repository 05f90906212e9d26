"""What is kept for each source and goes into its next decisions: facts about its machine, and the pages that were poisoned.

The event loop holds what it uses, ahead of the writer by what is not durable yet. Writes are handed over in the order in which this
changes, so whatever a decision rested on is durable before it; when a write fails, everything held is forgotten and read anew.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from ras_triage.models.host import Host
from ras_triage.models.poison import PoisonedPage
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.engine.evaluation import EventKeys
from ras_triage.service.engine.used_facts import LOOP_BYTES, KeptFacts
from ras_triage.service.store.port import HostFacts, Store

T = TypeVar("T")

HELD_SOURCES: Final = 4096
HELD_BYTES: Final = 128 << 20
"""Memory of the facts of all sources that are held, roughly; where there are more, the store is asked."""
GROWTH: Final = 16
"""Bytes of memory that a byte of facts takes once it is read."""
HELD_PAGES: Final = 256
"""Pages of one source that are held; where there are more, the store is asked."""

Undo = Callable[[], object]
"""Takes a change back that was the last."""


def _count_down(counter: Counter[T], key: T) -> None:
    """Take one away, and forget what has come to nothing."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def facts_digest(facts: bytes) -> str:
    """The content hash of facts as they are kept."""
    return "sha256:" + hashlib.sha256(facts).hexdigest()


class SourceState:
    """One source's state."""

    __slots__ = ("digest", "facts", "host", "pages", "unsaved")

    def __init__(self, facts: HostFacts | None, pages: tuple[PoisonedPage, ...]) -> None:
        self.facts = facts
        """The newest version; None: there never was one."""
        self.host: Host | None = None
        """The same, read; None: they are too long to be read in the event loop."""
        self.digest: str | None = None
        """Their content hash."""
        self.set_facts(facts)
        self.pages: set[PoisonedPage] | None = set(pages) if len(pages) <= HELD_PAGES else None
        """All poisoned pages; None: they are too many to hold."""
        self.unsaved: Counter[PoisonedPage] = Counter()
        """Pages whose poisoning is not durable yet."""

    def set_facts(self, facts: HostFacts | None) -> None:
        self.facts = facts
        content = None if facts is None else facts.facts
        self.host = None if content is None or len(content) > LOOP_BYTES else Host.model_validate_json(content)
        self.digest = None if content is None else facts_digest(content)

    @property
    def size(self) -> int:
        """Bytes of memory that its facts take, roughly."""
        return 0 if self.facts is None or self.facts.facts is None else GROWTH * len(self.facts.facts)

    def poison(self, pages: Sequence[PoisonedPage]) -> Undo:
        """Add pages."""
        known = self.pages
        added = () if known is None else tuple(page for page in pages if page not in known)
        self.unsaved.update(pages)
        if known is not None:
            known.update(added)
            if len(known) > HELD_PAGES:
                self.pages = None
        return partial(self._unpoison, pages, added)

    def _unpoison(self, pages: Sequence[PoisonedPage], added: Sequence[PoisonedPage]) -> None:
        self.saved(pages)
        if self.pages is not None:
            self.pages.difference_update(added)

    def saved(self, pages: Sequence[PoisonedPage]) -> None:
        for page in pages:
            _count_down(self.unsaved, page)

    def forget_pages(self) -> Undo:
        """Forget all pages."""
        undo = partial(self._remember, self.pages, self.unsaved)
        self.pages, self.unsaved = set(), Counter()
        return undo

    def _remember(self, pages: set[PoisonedPage] | None, unsaved: Counter[PoisonedPage]) -> None:
        self.pages, self.unsaved = pages, unsaved


class Sources:
    """The state of all sources, as far as it is held."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: OrderedDict[str, SourceState] = OrderedDict()
        self._changing: Counter[str] = Counter()
        """Sources whose newest facts are not durable yet."""
        self._size = 0
        """Of all sources that are held."""

    def state(self, name: str) -> SourceState:
        """A source's state, read from the store where it is not held. Raises StoreError."""
        found = self._held.get(name)
        if found is not None:
            self._held.move_to_end(name)
            return found
        found = self._held[name] = SourceState(self._store.host(name), self._store.poisoned(name, HELD_PAGES + 1))
        self._size += found.size
        self._let_go(name)
        return found

    def apply(self, name: str, poisoned: Sequence[PoisonedPage], went_down: bool) -> Undo | None:
        """Do to a source what a decision does whose entry is handed over next; None: that is nothing. Raises StoreError."""
        if went_down:
            return self.state(name).forget_pages()
        return self.state(name).poison(poisoned) if poisoned else None

    def put_facts(self, facts: HostFacts) -> None:
        """Facts that are handed over next become the source's newest. Raises StoreError."""
        state = self.state(facts.source)
        self._size -= state.size
        state.set_facts(facts)
        self._size += state.size
        self._changing[facts.source] += 1
        self._let_go(facts.source)

    def facts_saved(self, name: str) -> None:
        """They are durable, or never will be."""
        _count_down(self._changing, name)

    def saved(self, name: str, poisoned: Sequence[PoisonedPage]) -> None:
        """What was poisoned is durable."""
        if (state := self._held.get(name)) is not None:
            state.saved(poisoned)

    def _let_go(self, used: str) -> None:
        """Let go of what was used longest ago while too much is held, but not of `used`, nor of what is not durable yet."""
        while len(self._held) > HELD_SOURCES or self._size > HELD_BYTES:
            name = next((name for name, state in self._held.items() if name != used and not self._is_ahead(name, state)), None)
            if name is None:
                return
            self._size -= self._held.pop(name).size

    def _is_ahead(self, name: str, state: SourceState) -> bool:
        """Whether something that is held of a source is not durable yet."""
        return bool(state.unsaved) or name in self._changing

    def forget_everything(self) -> None:
        """Read anew from now on: what is held may rest on what was not kept."""
        self._held.clear()
        self._size = 0

    def known(self, keys: EventKeys) -> KeptFacts | None:
        """What is kept for an event's source and bears on it; None: nothing does.

        Facts do where the event brings none; poisoned pages that hold one of its addresses, unless it says itself what its pages are.
        Raises StoreError.
        """
        if keys.source is None:
            return None
        state = self.state(keys.source)
        facts = None if keys.brings_host or state.facts is None else state.facts.facts
        poisoned = self._poisoned(keys.source, state, keys.physical_addresses) if facts is not None or not keys.brings_pages else ()
        if facts is None and not poisoned:
            return None
        addresses = tuple(hex(page.address) for page in poisoned)
        if facts is None or state.facts is None:
            return KeptFacts(None, poisoned, UsedFacts(None, None, addresses))
        return KeptFacts(state.host, poisoned, UsedFacts(state.facts.version, state.digest, addresses), facts)

    def _poisoned(self, name: str, state: SourceState, addresses: Sequence[int]) -> tuple[PoisonedPage, ...]:
        if state.pages is not None:
            candidates = state.pages
        elif addresses:
            candidates = {*self._store.poisoned_at(name, addresses), *state.unsaved}
        else:
            return ()
        if not candidates:
            return ()
        matching = (page for page in candidates if any(map(page.contains, addresses)))
        return tuple(sorted(matching, key=lambda page: (page.address, page.shift)))
