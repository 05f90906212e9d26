"""Records that a machine handled recently: duplicates and the rate limit of printing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.host import RecentRecord
from ras_triage.models.records.handled_record import RecordKey, ReportedRecord
from ras_triage.models.records.status_block import parse_block
from ras_triage.policies.pipeline.duplicate_cache import is_duplicate
from ras_triage.policies.pipeline.recent_records import (
    HISTORY_LENGTH,
    HISTORY_MS,
    HandledRecord,
    add_record,
    duplicate_age,
    record_key,
)
from tests.policies.events import CORRECTED, FATAL, INFORMATIONAL, RECOVERABLE, block, memory, other

A, B, C, D = (RecordKey(bytes([name]), corrected=True) for name in range(4))
SERIOUS = RecordKey(b"serious", corrected=False)


def after(*reports: tuple[RecordKey, int]) -> tuple[HandledRecord, ...]:
    """The history after records at these times in ms."""
    history: tuple[HandledRecord, ...] = ()
    for key, at_ms in reports:
        history = add_record(history, ReportedRecord(key, at_ms), duplicate_age(history, key, at_ms))
    return history


def test_a_record_within_ten_seconds_of_an_equal_one_is_a_duplicate() -> None:
    history = after((A, 1_000))
    assert duplicate_age(history, A, 1_500) == 500
    assert duplicate_age(history, A, 10_999) == 9_999
    assert duplicate_age(history, A, 11_000) is None
    assert duplicate_age(history, B, 1_500) is None


def test_an_event_from_before_a_record_knows_nothing_of_it() -> None:
    history = after((A, 5_000), (B, 1_000))
    assert duplicate_age(history, A, 4_000) is None
    assert [record.at_ms for record in history] == [1_000, 5_000]


def test_a_record_that_the_rate_limit_keeps_from_being_printed_is_not_cached() -> None:
    history = after((A, 0), (B, 100), (C, 200), (SERIOUS, 300))
    assert [record.printed for record in history] == [True, True, False, True]
    assert duplicate_age(history, C, 400) is None
    assert duplicate_age(history, SERIOUS, 400) == 100


def test_the_rate_limit_begins_anew_after_five_seconds_and_duplicates_do_not_count() -> None:
    assert [record.printed for record in after((A, 0), (A, 100), (A, 200), (B, 300), (C, 5_000), (D, 5_001))] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_corrected_and_informational_records_share_a_rate_limit() -> None:
    corrected = [record_key(parse_block(block(memory(), severity=severity))).corrected for severity in range(4)]
    assert [severity for severity in range(4) if corrected[severity]] == [CORRECTED, INFORMATIONAL]
    assert not any(corrected[severity] for severity in (RECOVERABLE, FATAL))


def test_bytes_behind_a_record_are_not_remembered() -> None:
    data = block(memory())
    assert record_key(parse_block(data)) == record_key(parse_block(data + b"other")) == record_key(parse_block(data + bytes(9)))
    assert record_key(parse_block(data)) != record_key(parse_block(block(memory(), memory())))


REPORTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4_000)), max_size=60)
BLOCKS = [block(other(bytes([name]) * 16), severity=CORRECTED if name % 2 else RECOVERABLE) for name in range(6)]


@given(REPORTS)
def test_the_history_is_short_and_says_of_each_record_what_host_facts_would(reports: list[tuple[int, int]]) -> None:
    now, history = 0, after()
    for name, later in reports:
        now += later
        key = record_key(parse_block(BLOCKS[name]))
        recent = [
            RecentRecord(status_block=BLOCKS[number], age_ms=now - record.at_ms, printed=record.printed)
            for record in history
            for number in range(6)
            if record_key(parse_block(BLOCKS[number])).content == record.content
        ]
        assert (duplicate_age(history, key, now) is not None) == is_duplicate(parse_block(BLOCKS[name]), recent)
        history = add_record(history, ReportedRecord(key, now), duplicate_age(history, key, now))
        assert len(history) <= HISTORY_LENGTH
        assert all(now - record.at_ms < HISTORY_MS for record in history)
        assert [record.at_ms for record in history] == sorted(record.at_ms for record in history)
