"""How far a long run is, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO


class Progress(Protocol):
    """Hears how it goes on."""

    def taken(self, size: int) -> None:
        """So many more bytes were read."""

    def answered(self) -> None:
        """One more event was answered."""


class _Unseen:
    """Nobody looks."""

    def taken(self, size: int) -> None:
        pass

    def answered(self) -> None:
        pass


@contextmanager
def progress(size: int | None, stream: TextIO) -> Iterator[Progress]:
    """A bar over so many bytes; nothing where the stream is no terminal. None: nobody knows how many there are."""
    if not stream.isatty():
        yield _Unseen()
        return
    from rich.console import Console  # noqa: PLC0415 - nothing is drawn in scripts
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[answers]} answers"), TimeRemainingColumn())
    with Bar(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", total=size, answers=0)
        answers = 0

        class Seen:
            """Moves the bar."""

            def taken(self, size: int) -> None:
                bar.advance(task, size)

            def answered(self) -> None:
                nonlocal answers
                answers += 1
                bar.update(task, answers=answers)

        yield Seen()
