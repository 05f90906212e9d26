"""The twin in memory answers as SQLite does, whatever was done to both."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from keeping import NOON, entry, identity, name, page

from ras_triage.service.store.memory import MemoryStore
from ras_triage.service.store.port import FIELDS, ApiKey, Cursor, Filter, HostFacts, NewDecision
from ras_triage.service.store.sqlite import SqliteStore

SOURCES = ("node-1", "node-2", "\u00e9", "")
ACTIONS = ("signal", "panic", "handled")
SECTIONS = ("memory", "processor", "pcie")
ADDRESSES = (0, 0x1000, 0x20_0FFF, 0x1_0000_0000, (1 << 64) - 1)
TIMES = st.integers(0, 40).map(lambda step: NOON + step * 30_000)

some_pages = st.lists(st.builds(page, st.sampled_from(ADDRESSES), st.sampled_from((12, 14, 21, 30))), max_size=4)

summaries = st.fixed_dictionaries(
    {
        "decided_at_ms": TIMES,
        "source": st.none() | st.sampled_from(SOURCES),
        "action": st.sampled_from(ACTIONS),
        "policy": st.sampled_from(("uniform", "linux-6.12.107")),
        "notification": st.sampled_from(("sea", "polled")),
        "severity": st.none() | st.sampled_from(("fatal", "recoverable")),
        "sections": st.lists(st.sampled_from(SECTIONS), max_size=3, unique=True).map(tuple),
        "physical_addresses": st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True).map(tuple),
    }
)

new_entries = st.lists(st.tuples(summaries, some_pages, st.booleans(), st.booleans()), max_size=20)


def maybe(values: Any) -> st.SearchStrategy[Any]:
    return st.none() | st.none() | values


filters = st.builds(
    Filter,
    maybe(st.sampled_from(SOURCES)),
    maybe(st.sampled_from(ACTIONS)),
    maybe(st.sampled_from(("uniform", "none"))),
    maybe(st.sampled_from(("sea", "polled"))),
    maybe(st.sampled_from(("fatal", "recoverable"))),
    maybe(st.sampled_from(SECTIONS)),
    maybe(st.sampled_from(ADDRESSES)),
    maybe(TIMES),
    maybe(TIMES),
)


groupings = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=2, unique=True)


class Twins(RuleBasedStateMachine):
    """Everything is done to both, and whatever is asked must be answered alike."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.sqlite = SqliteStore(self.path)
        self.memory = MemoryStore()
        self.made = 0
        self.versions: dict[str, int] = {}

    def teardown(self) -> None:
        self.sqlite.close()
        self.folder.cleanup()

    def both(self, method: str, *arguments: Any) -> Any:
        answer = getattr(self.sqlite, method)(*arguments)
        assert answer == getattr(self.memory, method)(*arguments), method
        return answer

    def make(self, fields: dict[str, Any], poisons: list[Any], named: bool, forgets: bool) -> NewDecision:
        self.made += 1
        key = name(str(self.made)) if named else None
        return entry(self.made, repeat_key=key, poisons=tuple(poisons), forgets=forgets, **fields)

    @rule(new=new_entries)
    def append(self, new: list[Any]) -> None:
        self.both("append", [self.make(*parts) for parts in new])

    @rule(limit=st.integers(1, 9), than=TIMES, at=TIMES)
    def purge_older(self, than: int, at: int, limit: int) -> None:
        self.both("purge_older", than, at, limit)

    @rule(limit=st.integers(1, 9), than=st.sampled_from((-1, 1 << 40)), at=TIMES)
    def purge_larger(self, than: int, at: int, limit: int) -> None:
        self.both("purge_larger", than, at, limit)

    @rule(source=st.sampled_from(SOURCES))
    def forget(self, source: str) -> None:
        self.both("forget_poisoned", source)

    @rule(source=st.sampled_from(SOURCES), facts=st.none() | st.just(b'{"kernel":"6.1"}'), at=TIMES)
    def put_host(self, source: str, facts: bytes | None, at: int) -> None:
        self.versions[source] = self.versions.get(source, 0) + 1
        self.both("put_host", HostFacts(source, self.versions[source], at, facts))

    @rule(revoked=st.integers(0, 9), at=TIMES)
    def keys(self, revoked: int, at: int) -> None:
        if self.both("api_key", f"k{revoked}") is None:
            self.both("add_api_key", ApiKey(f"k{revoked}", "a key", ("read", "admin"), "ab" * 32, at))
        else:
            self.both("revoke_api_key", f"k{revoked}", at)

    @rule()
    def reopen(self) -> None:
        self.sqlite.close()
        self.sqlite = SqliteStore(self.path)

    @rule(asked=filters, limit=st.integers(1, 5))
    def pages(self, asked: Filter, limit: int) -> None:
        after: Cursor | None = None
        for _ in range(6):
            after = self.both("page", asked, after, limit).next
            if after is None:
                break

    @rule(
        asked=filters,
        group_by=st.lists(st.sampled_from(FIELDS), min_size=1, max_size=2, unique=True),
        bucket=st.sampled_from((1, 60, 3600)),
    )
    def stats(self, asked: Filter, group_by: list[Any], bucket: int) -> None:
        self.both("stats", asked, group_by, bucket * 1000, 1000)
        self.both("stats", asked, group_by, bucket * 1000, 2)

    @rule(asked=filters, at=st.integers(0, 60), limit=st.integers(1, 9))
    def following(self, asked: Filter, at: int, limit: int) -> None:
        self.both("following", at, asked, limit)

    @rule(number=st.integers(0, 60))
    def look_up(self, number: int) -> None:
        self.both("decision", identity(number))
        self.both("event", identity(number))
        self.both("repeat", name(str(number)))

    @rule(source=st.sampled_from(SOURCES), addresses=st.lists(st.sampled_from(ADDRESSES) | st.integers(0, (1 << 64) - 1), max_size=4))
    def poisoned(self, source: str, addresses: list[int]) -> None:
        self.both("poisoned", source, 3)
        self.both("poisoned_at", source, addresses)

    @rule(source=st.sampled_from(SOURCES), version=st.none() | st.integers(1, 5))
    def host(self, source: str, version: int | None) -> None:
        self.both("host", source, version)

    @invariant()
    def all_in_all_they_hold_the_same(self) -> None:
        mine, other = self.sqlite.size(), self.memory.size()
        assert (mine.decisions, mine.oldest_ms, mine.newest_ms, mine.last_sequence) == (
            other.decisions,
            other.oldest_ms,
            other.newest_ms,
            other.last_sequence,
        )
        self.both("purges", 5)
        self.both("api_keys")


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
