"""Contract of the store port."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ras_triage.service.store import sqlite
from ras_triage.service.store.port import (
    ApiKey,
    Cursor,
    Filter,
    HostFacts,
    NewDecision,
    Store,
    StoredDecision,
    StoredPolicy,
    StreamedDecision,
)
from tests.service.support.stored_decisions import NOON, entry, identity, name, page

ANY = Filter()
HOUR = 60 * 60 * 1000


def numbers(store: Store, asked: Filter = ANY) -> list[int]:
    """The decisions asked for, newest first."""
    return [int(found.id.replace("-", "")[-8:], 16) for found in store.page(asked, None, 1000).decisions]


def test_what_was_appended_is_there_byte_for_byte(store: Store) -> None:
    kept = entry(1, repeat_key=name("a"))
    store.append([kept])

    expected = StoredDecision(kept.summary.id, kept.summary.decided_at_ms, kept.summary.event_key, kept.decision)
    assert store.decision(kept.summary.id) == expected
    assert store.repeat(name("a")) == expected
    assert store.event(kept.summary.id) == kept.event
    assert store.page(ANY, None, 1).decisions == (kept.summary,)


def test_an_id_may_be_written_in_capitals(store: Store) -> None:
    store.append([entry(0xABC)])
    assert store.decision(identity(0xABC).upper()) is not None
    assert store.event(identity(0xABC).upper()) is not None


@pytest.mark.parametrize("unknown", [identity(2), "no uuid", "", "0x1", "\x00", "{" + identity(1) + "}", identity(1).replace("-", "")])
def test_an_id_that_was_never_given_finds_nothing(store: Store, unknown: str) -> None:
    store.append([entry(1)])
    assert store.decision(unknown) is None
    assert store.event(unknown) is None


def test_a_repeat_key_that_was_never_kept_finds_nothing(store: Store) -> None:
    store.append([entry(1, repeat_key=name("a")), entry(2)])
    assert store.repeat(name("a")) is not None
    assert store.repeat(name("b")) is None


def test_those_of_many_repeat_keys_that_are_stored_are_found_together(store: Store) -> None:
    store.append([entry(1, repeat_key=name("a")), entry(2), entry(3, repeat_key=name("c"))])
    assert store.repeat_keys([name("a"), name("b"), name("c"), name("a")]) == {name("a"), name("c")}
    assert store.repeat_keys([name(str(number)) for number in range(500)]) == set()


def test_nothing_can_be_appended(store: Store) -> None:
    store.append([])
    assert store.size().last_sequence == 0


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 63, 64, 65, 85, 257])
def test_any_number_is_appended_in_order(store: Store, count: int) -> None:
    store.append([entry(number) for number in range(1, count + 1)])
    streamed, up_to = store.after_sequence(0, ANY, 1000)
    assert [found.sequence for found in streamed] == list(range(1, count + 1))
    assert [found.summary.id for found in streamed] == [identity(number) for number in range(1, count + 1)]
    assert up_to == count


def test_a_summary_keeps_what_it_lacks_and_every_extreme(store: Store) -> None:
    bare = entry(1, source=None, event_id=None, severity=None, sections=(), physical_addresses=())
    full = entry(
        2,
        source='a "source", \u00e9\u4e2d\U0001f600',
        event_id="\n'",
        severity="7",
        sections=("memory", "00112233-4455-6677-8899-aabbccddeeff"),
        physical_addresses=(0, (1 << 64) - 1),
    )
    store.append([bare, full])
    assert store.page(ANY, None, 9).decisions == (full.summary, bare.summary)


# Lists.


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (ANY, [4, 3, 2, 1]),
        (Filter(source=("node-2",)), [2]),
        (Filter(source=("node",)), []),
        (Filter(action=("panic",)), [3]),
        (Filter(policy=("uniform",)), [4]),
        (Filter(notification=("polled",)), [2]),
        (Filter(severity=("fatal",)), [3]),
        (Filter(section=("processor",)), [3, 2]),
        (Filter(physical_address=(0x5000,)), [4, 3]),
        (Filter(section=("processor",), physical_address=(0x5000,)), [3]),
        (Filter(section=("memory",), physical_address=(0x5000,), source=("node-1",), severity=("recoverable",)), [4]),
        (Filter(source=("node-1", "node-2")), [4, 3, 2]),
        (Filter(source=("node-1",), source_prefixes=("node-2",)), [4, 3, 2]),
        (Filter(source_prefixes=("node",)), [4, 3, 2]),
        (Filter(source_prefixes=("node-1", "node-10")), [4, 3]),
        (Filter(source_prefixes=("",)), [4, 3, 2]),
        (Filter(source_prefixes=("node-3",)), []),
        (Filter(action=("panic", "signal"), policy=("uniform", "nonsense")), [4]),
        (Filter(notification=("polled", "sea"), severity=("fatal", "recoverable")), [4, 3, 2]),
        (Filter(section=("memory", "processor")), [4, 3, 2]),
        (Filter(section=("processor", "memory"), source=("node-2", "node-1")), [4, 3, 2]),
        (Filter(physical_address=(0x4000, 0x5000, 0x2000)), [4, 3, 2]),
        (Filter(physical_address=(0x4000, 0x5000), section=("processor", "pcie"), source_prefixes=("n",)), [3]),
        (Filter(since_ms=NOON + 2), [4, 3, 2]),
        (Filter(until_ms=NOON + 2), [1]),
        (Filter(since_ms=NOON + 2, until_ms=NOON + 4, section=("processor",)), [3, 2]),
        (Filter(since_ms=NOON + 4, until_ms=NOON + 2), []),
    ],
)
def test_decisions_are_found_by_every_field_and_all_of_them(store: Store, asked: Filter, found: list[int]) -> None:
    store.append(
        [
            entry(1, source=None, severity=None, sections=(), physical_addresses=()),
            entry(2, source="node-2", notification="polled", sections=("processor",)),
            entry(3, action="panic", severity="fatal", sections=("memory", "processor"), physical_addresses=(0x4000, 0x5000)),
            entry(4, policy="uniform", physical_addresses=(0x5000,)),
        ]
    )
    assert numbers(store, asked) == found


def test_pages_follow_one_another_without_gap_or_repeat_also_where_times_are_equal(store: Store) -> None:
    store.append([entry(number, decided_at_ms=NOON + number // 4) for number in range(1, 24)])
    seen: list[str] = []
    after: Cursor | None = None
    while True:
        found = store.page(Filter(section=("memory",)), after, 5)
        seen += [summary.id for summary in found.decisions]
        if (after := found.next) is None:
            break
    assert seen == [identity(number) for number in range(23, 0, -1)]


def test_the_last_page_says_that_it_is(store: Store) -> None:
    store.append([entry(1), entry(2)])
    assert store.page(ANY, None, 2).next is None
    assert store.page(ANY, None, 1).next == Cursor(NOON + 2, 2)
    assert store.page(ANY, Cursor(NOON + 1, 1), 5).decisions == ()


def test_a_clock_that_jumped_back_changes_the_place_in_a_list_but_not_the_order_of_keeping(store: Store) -> None:
    store.append([entry(1, decided_at_ms=NOON + 500)])
    store.append([entry(2, decided_at_ms=NOON - 500)])
    assert numbers(store) == [1, 2]
    assert [found.sequence for found in store.after_sequence(0, ANY, 9)[0]] == [1, 2]


# Statistics.


def test_counts_are_by_span_of_time_and_group_in_order(store: Store) -> None:
    store.append([entry(number, action=action) for number, action in enumerate(["signal", "panic", "signal"], 1)])
    store.append([entry(4, decided_at_ms=NOON + HOUR, action="handled")])
    counts = store.stats(ANY, ("action",), HOUR, 10)
    assert [(count.bucket_ms - NOON, count.group, count.count) for count in counts] == [
        (0, ("panic",), 1),
        (0, ("signal",), 2),
        (HOUR, ("handled",), 1),
    ]
    assert store.stats(ANY, ("action",), HOUR, 2) == counts[:2]


def test_a_decision_with_several_sections_counts_for_each_and_one_without_under_none(store: Store) -> None:
    store.append([entry(1, sections=("memory", "processor")), entry(2, sections=()), entry(3)])
    counts = store.stats(ANY, ("section",), HOUR, 10)
    assert [(count.group, count.count) for count in counts] == [((None,), 1), (("memory",), 2), (("processor",), 1)]


def test_addresses_are_counted_as_they_are_written(store: Store) -> None:
    store.append([entry(1, physical_addresses=(0x10, 0xFFFFFFFFFFFFFFFF))])
    counts = store.stats(ANY, ("physical_address", "source"), HOUR, 10)
    assert [count.group for count in counts] == [("0x10", "node-1"), ("0xffffffffffffffff", "node-1")]


def test_statistics_count_what_the_filter_finds(store: Store) -> None:
    store.append([entry(1, sections=("memory", "processor")), entry(2), entry(3, sections=("processor",), action="panic")])
    assert [(count.group, count.count) for count in store.stats(Filter(section=("processor",)), ("action",), HOUR, 10)] == [
        (("panic",), 1),
        (("signal",), 1),
    ]
    by_section = store.stats(Filter(section=("processor",)), ("section",), HOUR, 10)
    assert [(count.group, count.count) for count in by_section] == [(("memory",), 1), (("processor",), 2)]


# The stream.


def test_a_reader_of_the_stream_goes_on_where_it_was(store: Store) -> None:
    store.append([entry(number) for number in range(1, 6)])
    first, at = store.after_sequence(0, ANY, 2)
    rest, end = store.after_sequence(at, ANY, 10)
    assert ([found.sequence for found in first], at) == ([1, 2], 2)
    assert ([found.sequence for found in rest], end) == ([3, 4, 5], 5)
    assert store.after_sequence(end, ANY, 10) == ([], 5)


def test_a_reader_that_filters_comes_as_far_as_one_that_does_not(store: Store) -> None:
    store.append([entry(1, action="panic"), entry(2), entry(3)])
    found, up_to = store.after_sequence(0, Filter(action=("panic",)), 10)
    assert found == [StreamedDecision(1, entry(1, action="panic").summary)]
    assert up_to == 3
    assert store.after_sequence(3, Filter(action=("panic",)), 10) == ([], 3)


def test_a_reader_beyond_the_end_stays_there(store: Store) -> None:
    store.append([entry(1)])
    assert store.after_sequence(7, ANY, 10) == ([], 7)


# Hosts and poisoned pages.


def test_every_version_of_a_hosts_facts_can_be_read(store: Store) -> None:
    versions = [HostFacts("node-1", number, NOON + number, facts) for number, facts in enumerate([b"{}", None, b'{"kernel":"6.1"}'], 1)]
    for facts in versions:
        store.put_host(facts)
    assert store.host("node-1") == versions[2]
    assert [store.host("node-1", number) for number in (1, 2, 3, 4)] == [*versions, None]
    assert store.host("node-2") is None


def test_poisoned_pages_are_remembered_once_for_their_source(store: Store) -> None:
    store.append([entry(1, poisons=(page(0x5000), page(0x3000)))])
    store.append([entry(2, poisons=(page(0x5000), page(0x3000, 16))), entry(3, source="node-2", poisons=(page(0x9000),))])
    assert store.poisoned("node-1", 10) == (page(0x3000, 16), page(0x3000), page(0x5000))
    assert store.poisoned("node-1", 2) == (page(0x3000, 16), page(0x3000))
    assert store.poisoned("node-2", 10) == (page(0x9000),)
    assert store.poisoned("node-3", 10) == ()


def test_the_page_that_failed_first_stands_for_what_is_poisoned_with_it(store: Store) -> None:
    store.append([entry(1, poisons=(page(0x203000, 21),)), entry(2, poisons=(page(0x200000, 21),))])
    assert store.poisoned("node-1", 10) == (page(0x203000, 21),)


def test_pages_are_found_by_any_address_that_they_hold(store: Store) -> None:
    pages = (page(0x5000), page(0x203000, 21), page(0xFFFF_FFFF_FFFF_F000))
    store.append([entry(1, poisons=pages)])
    assert store.poisoned_at("node-1", (0x5FFF,)) == (page(0x5000),)
    assert store.poisoned_at("node-1", (0x3FFFFF, 0x6000)) == (page(0x203000, 21),)
    assert store.poisoned_at("node-1", (0xFFFF_FFFF_FFFF_FFFF,)) == (page(0xFFFF_FFFF_FFFF_F000),)
    assert store.poisoned_at("node-1", (0x6000,)) == ()
    assert store.poisoned_at("node-1", ()) == ()
    assert store.poisoned_at("node-2", (0x5000,)) == ()


def test_a_machine_that_went_down_has_no_poisoned_pages(store: Store) -> None:
    store.append([entry(1, poisons=(page(0x5000),)), entry(2, source="node-2", poisons=(page(0x6000),))])
    store.append([entry(3, forgets=True), entry(4, poisons=(page(0x7000),))])
    assert store.poisoned("node-1", 10) == (page(0x7000),)
    assert store.poisoned("node-2", 10) == (page(0x6000),)


def test_forgetting_poisoned_pages_says_how_many_there_were(store: Store) -> None:
    store.append([entry(1, poisons=(page(0x5000), page(0x6000))), entry(2, source="node-2", poisons=(page(0x6000),))])
    assert store.forget_poisoned("node-1") == 2
    assert store.forget_poisoned("node-1") == 0
    assert store.poisoned("node-2", 10) == (page(0x6000),)


def test_without_a_source_nothing_is_poisoned(store: Store) -> None:
    store.append([entry(1, poisons=(page(0x5000),)), entry(2, source=None, poisons=(page(0x6000),), forgets=True)])
    assert store.poisoned("node-1", 10) == (page(0x5000),)


# Retention.


def kept(count: int = 6) -> list[NewDecision]:
    return [entry(number, repeat_key=name(str(number)), poisons=(page(0x1000 * number),)) for number in range(1, count + 1)]


def test_what_is_older_goes_oldest_first_a_few_at_a_time_and_on_record(store: Store) -> None:
    store.append(kept())
    assert store.purge_older(NOON + 5, NOON + 90, 3) == 3
    assert numbers(store) == [6, 5, 4]
    assert store.purge_older(NOON + 5, NOON + 91, 3) == 1
    assert store.purge_older(NOON + 5, NOON + 92, 3) == 0
    latest, first = store.purges(10)
    assert (first.at_ms, first.reason, first.count, first.first_sequence, first.last_sequence) == (NOON + 90, "age", 3, 1, 3)
    assert (first.oldest_ms, first.newest_ms) == (NOON + 1, NOON + 3)
    assert (latest.at_ms, latest.count, latest.first_sequence) == (NOON + 91, 1, 4)
    assert store.purges(1) == [latest]


def test_the_record_of_purges_does_not_grow_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PURGES", 3)
    store.append(kept())
    for number in range(6):
        assert store.purge_older(NOON + 90, NOON + number, 1) == 1
    assert [purge.at_ms - NOON for purge in store.purges(9)] == [5, 4, 3]


def test_what_was_purged_is_nowhere_any_more(store: Store) -> None:
    store.append(kept(2))
    store.purge_older(NOON + 2, NOON + 90, 10)
    assert store.decision(identity(1)) is None
    assert store.event(identity(1)) is None
    assert store.repeat(name("1")) is None
    assert store.repeat(name("2")) is not None
    for asked in (ANY, Filter(section=("memory",)), Filter(physical_address=(0x1000,)), Filter(source=("node-1",))):
        assert 1 not in numbers(store, asked)
    assert [count.count for count in store.stats(ANY, ("section", "physical_address"), HOUR, 10)] == [1]
    assert [found.sequence for found in store.after_sequence(0, ANY, 10)[0]] == [2]


def test_a_purge_leaves_poisoned_pages_and_facts(store: Store) -> None:
    store.append(kept(2))
    store.put_host(HostFacts("node-1", 1, NOON, b"{}"))
    store.purge_older(NOON + 9, NOON + 90, 10)
    assert len(store.poisoned("node-1", 10)) == 2
    assert store.host("node-1") is not None


def test_a_purged_event_can_be_kept_again_and_sequences_go_on(store: Store) -> None:
    store.append(kept(2))
    assert store.purge_older(NOON + 9, NOON + 90, 10) == 2
    assert store.size().last_sequence == 2
    assert store.after_sequence(0, ANY, 10) == ([], 2)
    store.append([replace(entry(7), repeat_key=name("1"))])
    assert [found.sequence for found in store.after_sequence(0, ANY, 10)[0]] == [3]
    again = store.repeat(name("1"))
    assert again is not None
    assert again.id == identity(7)


def test_the_oldest_go_while_the_store_is_too_large(store: Store) -> None:
    store.append([entry(number, size=20_000) for number in range(1, 21)])
    full = store.size().bytes
    assert store.purge_larger(full, NOON + 90, 5) == 0
    assert store.purge_larger(full - 1, NOON + 90, 5) == 5
    assert numbers(store) == list(range(20, 5, -1))
    assert store.size().bytes < full - 90_000
    assert store.purges(9)[0].reason == "size"


def test_an_empty_store_that_is_too_large_has_nothing_to_take_away(store: Store) -> None:
    assert store.purge_larger(-1, NOON, 5) == 0
    assert store.purges(9) == []


def test_the_size_names_the_oldest_and_the_newest(store: Store) -> None:
    empty = store.size()
    assert (empty.decisions, empty.oldest_ms, empty.newest_ms, empty.last_sequence) == (0, None, None, 0)
    store.append([entry(1), entry(2, decided_at_ms=NOON - 5), entry(3)])
    full = store.size()
    assert (full.decisions, full.oldest_ms, full.newest_ms, full.last_sequence) == (3, NOON - 5, NOON + 3, 3)


# Policies.


def test_of_each_policy_the_newest_version_is_listed(store: Store) -> None:
    for policy, definition in (("b", b"1"), ("a", b"2"), ("b", b"3")):
        store.put_policy(policy, definition, NOON)
    assert store.policies() == ([StoredPolicy("a", 1, NOON, b"2"), StoredPolicy("b", 2, NOON, b"3")], 0)


# API keys.


def test_keys_are_listed_oldest_first_and_revoked_once(store: Store) -> None:
    older = ApiKey("k2", "collector", ("decide", "read"), "ab" * 32, NOON)
    newer = ApiKey("k1", "root", ("admin",), "cd" * 32, NOON + 1)
    store.add_api_key(newer)
    store.add_api_key(older)
    assert store.api_keys() == [older, newer]
    assert store.revoke_api_key("k1", NOON + 2) is True
    assert store.revoke_api_key("k1", NOON + 3) is False
    assert store.revoke_api_key("k3", NOON + 3) is False
    assert store.api_key("k1") == replace(newer, revoked_at_ms=NOON + 2)
    assert store.api_key("k3") is None


def test_a_probe_changes_nothing_that_can_be_read(store: Store) -> None:
    store.append([entry(1)])
    store.probe()
    assert store.size().decisions == 1
    assert store.after_sequence(0, ANY, 9)[1] == 1
