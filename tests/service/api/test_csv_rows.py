"""CSV for spreadsheets."""

from __future__ import annotations

import csv
import io

import pytest

from ras_triage.service.api.csv_rows import csv_rows


def cells(*values: object) -> list[str]:
    return list(csv.reader(io.StringIO(csv_rows(("a",), [values]).decode(), newline="")))[1]


def test_rows_follow_their_header_with_the_line_ends_of_the_rfc() -> None:
    assert csv_rows(("a", "b"), [(1, None), ("x", "y")]) == b"a,b\r\n1,\r\nx,y\r\n"


@pytest.mark.parametrize("text", ["plain", 'a "quote", a comma', "a\r\nline", "\u00e9\u4e2d\U0001f600", "a=1", "a-b"])
def test_text_reads_back_as_it_was(text: str) -> None:
    assert cells(text) == [text]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "\uff1d1", "\tx", "=cmd|' /C calc'!A0"])
def test_no_text_is_a_formula(text: str) -> None:
    assert cells(text) == [f"'{text}"]


def test_a_number_stays_one() -> None:
    assert cells(-1, 2) == ["-1", "2"]
