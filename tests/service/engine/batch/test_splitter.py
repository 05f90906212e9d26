"""Splitting of a batch into items, for every division into pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.engine.batch.splitter import ArraySplitter, ItemSplitter, NdjsonSplitter, RawItem

LIMIT = 1 << 20

VALUES = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    ),
    max_size=8,
)

BLANKS = st.text(" \t\r\n", max_size=3)


def fed(splitter: ItemSplitter, data: bytes, cuts: list[int]) -> list[RawItem]:
    """The items of data that comes in pieces."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    items: list[RawItem] = []
    for start, end in pairwise(places):
        items += splitter.feed(data[start:end])
        if splitter.broken:
            return items
    return [*items, *splitter.finish()]


def read(items: list[RawItem]) -> list[Any]:
    return [json.loads(item) if isinstance(item, bytes) else item.problem.type for item in items]


@settings(deadline=None)
@given(VALUES, st.lists(st.integers(0), max_size=12), st.booleans(), BLANKS)
def test_an_array_is_cut_into_its_values_in_order(values: list[Any], cuts: list[int], readable: bool, blank: str) -> None:
    parts = (blank + json.dumps(value, ensure_ascii=readable, indent=1 if readable else None) + blank for value in values)
    data = f"{blank}[{','.join(parts)}{blank}]{blank}".encode("utf-8", "surrogatepass")

    assert read(fed(ArraySplitter(LIMIT), data, cuts)) == values


@settings(deadline=None)
@given(VALUES, st.lists(st.integers(0), max_size=12), st.sampled_from(["\n", "\r\n", "\n\n", " \n\t\r\n"]), st.booleans())
def test_lines_are_cut_into_their_values_in_order(values: list[Any], cuts: list[int], ending: str, ended: bool) -> None:
    data = (ending.join(map(json.dumps, values)) + (ending if ended else "")).encode()

    assert read(fed(NdjsonSplitter(LIMIT), data, cuts)) == values


@settings(deadline=None)
@given(VALUES)
def test_every_byte_may_come_alone(values: list[Any]) -> None:
    data = json.dumps(values).encode()

    assert read(fed(ArraySplitter(LIMIT), data, list(range(len(data))))) == values


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text('[]{},"\\ 1a', max_size=60).map(str.encode), st.lists(st.integers(0), max_size=8))
def test_any_bytes_are_cut_the_same_in_one_piece_as_in_many(data: bytes, cuts: list[int]) -> None:
    for splitter in (ArraySplitter, NdjsonSplitter):
        whole, pieces = splitter(LIMIT), splitter(LIMIT)
        shown = [item if isinstance(item, bytes) else item.problem for item in fed(whole, data, [])]
        assert [item if isinstance(item, bytes) else item.problem for item in fed(pieces, data, cuts)] == shown
        assert whole.broken == pieces.broken


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=8), st.lists(st.integers(0), max_size=12))
def test_an_item_that_is_too_long_is_refused_in_its_place(lengths: list[int], cuts: list[int]) -> None:
    items = [b"1" * length for length in lengths]
    expected = [item if len(item) <= 20 else "urn:ras-triage:problem:payload-too-large" for item in items]

    for splitter, data in ((ArraySplitter(20), b"[" + b",".join(items) + b"]"), (NdjsonSplitter(20), b"\n".join(items))):
        found = fed(splitter, data, cuts)
        assert [item if isinstance(item, bytes) else item.problem.type for item in found] == expected


@pytest.mark.parametrize(
    ("data", "offset"),
    [(b"", 0), (b"  ", 2), (b" {}", 1), (b"[1", 2), (b'["a', 3), (b"[[1]", 4), (b"[] 1", 3), (b"[1],", 3), (b'[{"a":1}', 8)],
)
def test_what_is_no_array_is_refused_at_its_byte(data: bytes, offset: int) -> None:
    for cuts in ([], list(range(len(data)))):
        last = fed(ArraySplitter(LIMIT), data, cuts)[-1]
        assert isinstance(last, ProblemError)
        assert last.problem.errors[0].offset == offset


def test_blanks_without_end_are_not_held() -> None:
    array, lines = ArraySplitter(LIMIT), NdjsonSplitter(LIMIT)
    for _ in range(100):
        assert array.feed(b" " * (1 << 16)) == []
    assert len(array._data) < 1 << 17
    assert [isinstance(item, bytes) for item in array.feed(b"[1]")] == [True]
    for _ in range(100):
        assert lines.feed(b"\n" * (1 << 16)) == []


def test_a_long_string_is_looked_through_once_however_small_its_pieces_are() -> None:
    array = ArraySplitter(LIMIT)
    array.feed(b'[{"a":"')
    for piece in (b"x", b"\\", b'"', b"y" * 50, b"\\", b"\\", b"[") * 100:
        assert array.feed(piece) == []
        assert len(array._data) - array._at <= 1, "an escape may have to wait for its second byte"
    assert [isinstance(item, bytes) for item in array.feed(b'"},1]')] == [True, True]


@settings(deadline=None)
@given(st.text(st.sampled_from('x"\\[]{},'), min_size=25, max_size=60), st.lists(st.integers(0), max_size=12))
def test_a_string_that_is_too_long_is_refused_alone_too(text: str, cuts: list[int]) -> None:
    first, second = fed(ArraySplitter(20), json.dumps([text, 1]).encode(), cuts)

    assert isinstance(first, ProblemError)
    assert first.problem.type == "urn:ras-triage:problem:payload-too-large"
    assert second == b" 1"
