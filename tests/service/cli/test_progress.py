"""Tests of the progress bar."""

from __future__ import annotations

import io

from ras_triage.service.cli.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_many_errors_are_done_and_how_many_a_second() -> None:
    terminal = Terminal()
    with progress(1000, terminal) as shown:
        shown.bytes_read(500)
        for _ in range(7):
            shown.item_done()
    assert "7 done, " in terminal.getvalue()
    assert "/s" in terminal.getvalue()


def test_a_file_gets_no_progress() -> None:
    stream = io.StringIO()
    with progress(1000, stream) as shown:
        shown.bytes_read(500)
        shown.item_done()
    assert stream.getvalue() == ""
