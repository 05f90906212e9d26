"""docs/tutorial.md against what its commands print."""

from __future__ import annotations

from tests.tutorial import PAGE, comparable, played


def test_the_tutorial_shows_what_its_commands_print() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("\n$ ras-triage ") >= 7
    assert comparable(played(page)) == comparable(page), "run `make reference`"
