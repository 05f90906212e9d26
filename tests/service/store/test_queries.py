"""Plans and cost of the store's queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ras_triage.service.store import queries
from ras_triage.service.store.files.database import connect
from ras_triage.service.store.port import MAX_VALUES, Cursor, Filter, HostFacts, HostFilter, NewDecision, PoisonFilter, Summary
from ras_triage.service.store.sqlite import MERGED_SOURCES, SqliteStore
from tests.service.support.stored_decisions import NOON, entry, page

FEW, MANY = 400, 8000
LIMIT = 10


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Stores with few and with many decisions of the same kinds; the newest of all are of one node that no filter names."""
    folder = tmp_path_factory.mktemp("queries")

    def filled(count: int) -> Path:
        store = SqliteStore(folder / f"{count}.db", exclusive=False, durable=False)
        store.append([mixed(number) for number in range(count)])
        store.append([entry(number, source="other", action="inject", policy="other", severity=None) for number in range(count, 2 * count)])
        store.close()
        return store.path

    return filled(FEW), filled(MANY)


def mixed(number: int) -> NewDecision:
    return entry(
        number,
        source=f"rack{number % 3}-{number % 7}",
        action=("panic", "signal", "handled")[number % 3],
        policy=("uniform", "linux-6.12.107")[number % 2],
        severity=("fatal", "recoverable")[number % 2],
        sections=("pcie", "processor"),
        physical_addresses=(0x1000, 0x2000 + number % 5),
        poisons=(page(0x1000 * (number % 50)),),
    )


ASKED = [
    Filter(action=("handled", "panic")),
    Filter(source=("rack0-0", "rack1-1", "rack2-2")),
    Filter(policy=("uniform", "linux-6.12.107"), notification=("sea", "gsiv")),
    Filter(section=("pcie", "processor")),
    Filter(physical_address=(0x1000, 0x2000, 0x2001)),
    Filter(severity=("fatal", "recoverable"), until_ms=NOON + 300),
]


def steps(path: Path, query: queries.Query) -> int:
    """Return how many virtual machine instructions SQLite runs, in tens."""
    connection, count = connect(path, "ro"), 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(step, 10)
    connection.execute(*query).fetchall()
    connection.close()
    return count


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("after", [None, Cursor(NOON + 200, 200)], ids=["first", "later"])
def test_a_page_over_several_values_costs_the_same_in_a_store_of_any_size(
    files: tuple[Path, Path], asked: Filter, after: Cursor | None
) -> None:
    query = queries.page_query(asked, after, LIMIT)
    few, many = (steps(path, query) for path in files)

    assert 0 < many < 1.5 * few + 20


@pytest.mark.parametrize("asked", ASKED)
def test_a_page_over_several_values_sorts_nothing(files: tuple[Path, Path], asked: Filter) -> None:
    sql, values = queries.page_query(asked, Cursor(NOON + 200, 200), LIMIT)
    connection = connect(files[0], "ro")
    plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    connection.close()

    assert plan[0] == "MERGE (UNION)"
    assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN d")]


def test_the_sources_with_a_prefix_are_found_in_a_step_each(files: tuple[Path, Path]) -> None:
    for prefix in ("rack1-", ""):
        query = queries.sources_with_prefix(prefix, MERGED_SOURCES)
        few, many = (steps(path, query) for path in files)
        assert 0 < many < 1.2 * few + 20


def test_a_filter_with_as_many_values_as_are_allowed_can_be_asked(files: tuple[Path, Path]) -> None:
    texts = tuple(f"rack{number}" for number in range(MAX_VALUES))
    addresses = tuple(range(MAX_VALUES))
    full = Filter(texts, texts, texts, texts, texts, texts, addresses, NOON, NOON + 10, texts)
    store = SqliteStore(files[0], exclusive=False)
    for asked in (full, replace(full, physical_address=()), replace(full, physical_address=(), section=())):
        assert store.page(asked, Cursor(NOON, 1), LIMIT).decisions == ()
        assert store.stats(asked, ("action",), 1000, 10) == []
        assert store.after_sequence(0, asked, 10)[0] == []
    assert store.poisoned_pages(PoisonFilter(texts, texts, tuple(one << 40 for one in addresses)), None, LIMIT).pages
    assert store.hosts(HostFilter(texts, texts), None, LIMIT).hosts == ()
    store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db", durable=False)
    yield opened
    opened.close()


def pages(store: SqliteStore, asked: Filter, limit: int) -> list[Summary]:
    found: list[Summary] = []
    after: Cursor | None = None
    while True:
        shown = store.page(asked, after, limit)
        found += shown.decisions
        if (after := shown.next) is None:
            return found


@pytest.mark.parametrize("asked", ASKED)
def test_pages_over_several_values_have_every_decision_once(store: SqliteStore, asked: Filter) -> None:
    store.append([at(mixed(number), number // 4) for number in range(60)])

    found = pages(store, asked, 7)
    assert found == list(store.page(asked, None, 1000).decisions)
    assert len({summary.id for summary in found}) == len(found) > 0


def at(kept: NewDecision, offset: int) -> NewDecision:
    return replace(kept, summary=replace(kept.summary, decided_at_ms=NOON + offset))


@pytest.mark.parametrize("count", [MERGED_SOURCES, MERGED_SOURCES + 1])
def test_a_prefix_finds_the_same_with_few_and_with_many_sources(store: SqliteStore, count: int) -> None:
    store.append([entry(number, source=f"rack-{number % count}") for number in range(3 * count)])
    store.append([entry(3 * count, source="sack"), entry(3 * count + 1, source="rac"), entry(3 * count + 2, source=None)])

    found = pages(store, Filter(source_prefixes=("rack",)), 100)
    assert [summary.decided_at_ms - NOON for summary in found] == list(range(3 * count - 1, -1, -1))


@pytest.mark.parametrize(
    ("prefix", "names"),
    [("a\ud7ff", ["a\ud7ff", "a\ud7ffb"]), ("a\U0010ffff", ["a\U0010ffff", "a\U0010ffff\U0010ffff"]), ("\U0010ffff", ["\U0010ffff"])],
)
def test_a_prefix_may_end_with_any_character(store: SqliteStore, prefix: str, names: list[str]) -> None:
    others = ["a", "a\ue000", "a\U0010fffe", "b"]
    store.append([entry(number, source=source) for number, source in enumerate([*names, *others])])

    assert [summary.source for summary in store.page(Filter(source_prefixes=(prefix,)), None, 9).decisions] == names[::-1]


# Hosts and poisoned pages.


def test_hosts_are_listed_with_their_newest_facts_in_pages(store: SqliteStore) -> None:
    for number in range(5):
        store.put_host(HostFacts(f"node-{number}", 1, NOON + number, b"{}"))
    store.put_host(HostFacts("node-3", 2, NOON + 50, None))
    store.put_host(HostFacts("node-1", 2, NOON + 60, b'{"kernel":"6.12"}'))

    first = store.hosts(HostFilter(), None, 2)
    rest = store.hosts(HostFilter(), first.next, 2)
    assert [(host.source, host.version, host.changed_at_ms - NOON, host.bytes) for host in first.hosts] == [
        ("node-0", 1, 0, 2),
        ("node-1", 2, 60, 17),
    ]
    assert ([host.source for host in rest.hosts], rest.next) == (["node-2", "node-4"], None)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (HostFilter(source=("b", "z")), ["b"]),
        (HostFilter(source_prefixes=("a",)), ["a1", "a2"]),
        (HostFilter(source=("b",), source_prefixes=("a2",)), ["a2", "b"]),
        (HostFilter(since_ms=NOON + 1), ["a2", "b"]),
        (HostFilter(until_ms=NOON + 2), ["a1", "a2"]),
    ],
)
def test_hosts_are_found_by_source_and_time_of_their_change(store: SqliteStore, asked: HostFilter, found: list[str]) -> None:
    for number, source in enumerate(["a1", "a2", "b"]):
        store.put_host(HostFacts(source, 1, NOON + number, b"{}"))
    assert [host.source for host in store.hosts(asked, None, 9).hosts] == found


def test_a_page_of_hosts_costs_the_same_however_many_versions_and_sources_there_are(tmp_path: Path) -> None:
    counts = []
    for versions, sources in ((2, 30), (20, 300)):
        store = SqliteStore(tmp_path / f"{versions}.db", exclusive=False, durable=False)
        for source in range(sources):
            for version in range(1, versions + 1):
                store._writer.execute("INSERT INTO host_facts VALUES (?, ?, 1, x'7b7d', NULL)", (f"node-{source:03}", version))
        query = queries.hosts(HostFilter(), "node-004", LIMIT)
        counts.append(steps(store.path, query))
        store.close()

    assert counts[1] < 1.2 * counts[0]


def test_poisoned_pages_of_all_sources_are_listed_in_pages(store: SqliteStore) -> None:
    store.append(
        [entry(1, source="b", poisons=(page(0x5000), page(0x3000))), entry(2, source="a", poisons=(page(0x9000), page(0x200000, 21)))]
    )

    first = store.poisoned_pages(PoisonFilter(), None, 3)
    rest = store.poisoned_pages(PoisonFilter(), first.next, 3)
    assert first.pages == (("a", page(0x9000)), ("a", page(0x200000, 21)), ("b", page(0x3000)))
    assert (rest.pages, rest.next) == ((("b", page(0x5000)),), None)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (PoisonFilter(source=("b",)), [0x5000]),
        (PoisonFilter(source_prefixes=("a",)), [0x9000, 0x200000]),
        (PoisonFilter(physical_address=(0x3FFFFF,)), [0x200000]),
        (PoisonFilter(physical_address=(0x5FFF, 0x9000), source=("ab", "b")), [0x9000, 0x5000]),
        (PoisonFilter(physical_address=(0x6000,)), []),
    ],
)
def test_poisoned_pages_are_found_by_source_and_by_an_address_in_them(store: SqliteStore, asked: PoisonFilter, found: list[int]) -> None:
    store.append([entry(1, source="b", poisons=(page(0x5000),)), entry(2, source="ab", poisons=(page(0x9000), page(0x200000, 21)))])
    assert [one.address for _, one in store.poisoned_pages(asked, None, 9).pages] == found
