"""Escaping of untrusted text for terminals, JSON and TOML."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.api.escaping import escape, escape_json, escape_toml, valid_text
from tests.service.support.visible_text import is_visible

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
VALID_TEXT = st.text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("a\r\nb\tc\0\x7f", r"a\r\nb\tc\x00\x7f"),
        ("\u202a\u202b\u202c\u202d\u202e", r"\u202a\u202b\u202c\u202d\u202e"),
        ("\u2066\u2067\u2068\u2069\u200e\u200f\u061c", r"\u2066\u2067\u2068\u2069\u200e\u200f\u061c"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u200b\u200c\u200d\u2060\ufeff\xad\u180e", r"\u200b\u200c\u200d\u2060\ufeff\xad\u180e"),
        ("\U000e0041\ue000\U0010ffff\u0378", r"\U000e0041\ue000\U0010ffff\u0378"),
        ("\ufe0f\U000e0100\u3164\u115f\u034f", r"\ufe0f\U000e0100\u3164\u115f\u034f"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("Gehäuse 3, 機架 [red] `x` \\ 'y' 😀", "Gehäuse 3, 機架 [red] `x` \\ 'y' 😀"),
    ],
)
def test_what_does_not_show_is_spelt_and_what_shows_stays(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(ANY_TEXT)
def test_any_text_becomes_one_line_that_shows(text: str) -> None:
    assert is_visible(escape(text))
    assert escape(escape(text)) == escape(text)
    escape(text).encode()


@given(st.recursive(VALID_TEXT | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(VALID_TEXT, inner)))
def test_json_becomes_one_line_that_shows_and_is_equal(content: object) -> None:
    for document in (json.dumps(content, ensure_ascii=False), json.dumps(content, ensure_ascii=False, indent="\t").replace("\n", "\r\n")):
        printed = escape_json(document.encode()).decode()
        assert is_visible(printed)
        assert json.loads(printed) == content


@given(st.binary())
def test_bytes_that_are_no_json_become_one_line_too(document: bytes) -> None:
    assert is_visible(escape_json(document).decode())


@given(VALID_TEXT)
def test_toml_is_equal(text: str) -> None:
    literal = escape_toml(json.dumps(text, ensure_ascii=False))
    assert is_visible(literal)
    assert tomllib.loads(f"name = {literal}") == {"name": text}


@given(ANY_TEXT)
def test_any_text_has_a_valid_form(text: str) -> None:
    valid_text(text).encode()
    assert valid_text(valid_text(text)) == valid_text(text)
