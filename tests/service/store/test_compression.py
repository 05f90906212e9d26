"""Compression of stored events and decisions."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.service.api.event_json import read_event
from ras_triage.service.engine.responses import decision_json
from ras_triage.service.store.compression import DICTIONARY, MAX_BYTES, Compressor, decompress
from ras_triage.service.store.port import Filter, RowDamaged
from ras_triage.service.store.sqlite import SqliteStore
from tests.recorded_events import random_events
from tests.service.support.stored_decisions import entry

TEXTS = st.lists(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: json.dumps({"id": text}).encode()))


@given(TEXTS)
def test_a_text_is_the_same_after_compression(texts: list[bytes]) -> None:
    assert [decompress(frame) for frame in Compressor().compress(texts)] == texts


@given(st.binary(max_size=300).filter(lambda data: not data.startswith(zstandard.FRAME_HEADER)))
def test_a_text_of_schema_2_is_returned_unchanged(text: bytes) -> None:
    assert decompress(text) == text


def test_recorded_events_and_decisions_take_an_eighth() -> None:
    events = [json.dumps(event).encode() for event in random_events()[:200]]
    texts = [*events, *(decision_json(decide(read_event(event), resolve_policy("linux-6.6.30"))) for event in events)]
    assert sum(map(len, Compressor().compress(texts))) * 8 < sum(map(len, texts))


@given(st.data())
def test_a_corrupt_frame_is_an_error_or_another_text(data: st.DataObject) -> None:
    (frame,) = Compressor().compress([b'{"notification":"polled"}' * 4])
    place = data.draw(st.integers(4, len(frame) - 1))
    harmed = frame[:place] + bytes([frame[place] ^ data.draw(st.integers(1, 255))]) + frame[place + 1 :]
    try:
        decompress(harmed[: data.draw(st.integers(5, len(frame)))])
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either is right; only another exception would be wrong


def test_a_frame_that_claims_too_much_is_refused_before_memory_is_allocated() -> None:
    claim = zstandard.FRAME_HEADER + bytes([0b11100000]) + (MAX_BYTES + 1).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(ValueError, match=r"claims 1073741825 bytes"):
        decompress(claim)


def test_a_frame_of_an_unknown_dictionary_is_refused_by_its_id() -> None:
    (frame,) = Compressor().compress([b"{}"])
    assert DICTIONARY.to_bytes(2, "little") in frame[:8]
    other = frame[:5] + (DICTIONARY + 1).to_bytes(2, "little") + frame[7:]
    with pytest.raises(ValueError, match="unknown dictionary `0x8002`"):
        decompress(other)


def test_threads_decompress_at_the_same_time() -> None:
    texts = [json.dumps(event).encode() for event in random_events()[:100]]
    frames = Compressor().compress(texts)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(decompress, frames * 20)) == texts * 20


def test_a_store_returns_what_it_compressed(tmp_path: Path) -> None:
    path, stored = tmp_path / "store.db", [entry(number) for number in range(1, 4)]
    with closing(SqliteStore(path)) as store:
        store.append(stored)
        for one in stored:
            decision = store.decision(one.summary.id)
            assert decision is not None
            assert (decision.decision, store.event(one.summary.id)) == (one.decision, one.event)
    with closing(sqlite3.connect(path)) as connection:
        bodies = connection.execute("SELECT event, decision FROM bodies").fetchall()
    assert all(body.startswith(zstandard.FRAME_HEADER) for row in bodies for body in row)


def test_a_body_that_this_release_cannot_decompress_is_an_error_of_its_row(tmp_path: Path) -> None:
    path, other = tmp_path / "store.db", zstandard.FRAME_HEADER + b"\x00"
    with closing(SqliteStore(path)) as store:
        store.append([entry(1), entry(2)])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE bodies SET event = ?, event_check = ? WHERE seq = 1", (other, crc32(other)))
        with pytest.raises(RowDamaged, match="corrupt compression"):
            store.event(entry(1).summary.id)
        assert store.event(entry(2).summary.id) == entry(2).event
        assert len(store.page(Filter(), None, 10).decisions) == 2
