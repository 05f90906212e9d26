"""Tests of bounded JSON parsing and access by path."""

from __future__ import annotations

import pytest

from ras_triage.models.formats.json_text import find, find_bytes, find_number, find_objects, find_text, read_json, shorten

HOSTILE = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "digits": b"9" * 100_000,
    "bytes": b'"\xff"',
    "not a number": b"[NaN]",
    "infinite": b"[-Infinity]",
    "cut": b'{"a": [1, 2',
    "empty": b"",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_an_error_that_says_where(data):
    with pytest.raises(ValueError, match="line 1 column"):
        read_json(data)


def test_numbers_keep_every_bit_and_a_byte_order_mark_is_left_out():
    assert read_json(b"\xef\xbb\xbf" + b"[18446744073709551615]") == [2**64 - 1]


DOCUMENT = {"a": {"b": 7, "t": "x", "n": None, "big": 2**64, "raw": "AQI\n=", "bad": "?", "list": [{}], "odd": [1], "yes": True}}


def test_a_path_leads_to_what_is_there_and_to_nothing_else():
    assert find(DOCUMENT, "a.b") == 7
    assert [find(DOCUMENT, path) for path in ("a.c", "a.b.c", "a.n", "c")] == [None] * 4
    assert find([], "a") is None


def test_what_is_found_is_of_the_kind_that_was_asked_for():
    assert find_number(DOCUMENT, "a.b", 3) == 7
    assert find_bytes(DOCUMENT, "a.raw") == b"\1\2"
    assert find_objects(DOCUMENT, "a.list") == [{}]
    assert (find_text(DOCUMENT, "a.t"), find_text(DOCUMENT, "a.b")) == ("x", None)
    assert (find_number(DOCUMENT, "x", 8), find_bytes(DOCUMENT, "x"), find_objects(DOCUMENT, "x")) == (None, None, [])


@pytest.mark.parametrize(("path", "bits"), [("a.b", 2), ("a.big", 64), ("a.t", 8), ("a.yes", 8)])
def test_a_number_that_does_not_fit_is_an_error(path, bits):
    with pytest.raises(ValueError, match=f"`{path}`: expected an unsigned number of {bits} bits"):
        find_number(DOCUMENT, path, bits)


def test_bytes_and_lists_of_the_wrong_kind_are_errors():
    with pytest.raises(ValueError, match=r"`a\.bad`: not valid base64"):
        find_bytes(DOCUMENT, "a.bad")
    with pytest.raises(ValueError, match=r"`a\.b`: expected a string"):
        find_bytes(DOCUMENT, "a.b")
    for path in ("a.odd", "a.t"):
        with pytest.raises(ValueError, match="expected an array of objects"):
            find_objects(DOCUMENT, path)


def test_a_quoted_text_is_short():
    assert shorten("x" * 200) == "x" * 200
    assert shorten("x" * 10_000) == "x" * 200 + "…"
