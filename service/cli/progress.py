"""Progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, Protocol, TextIO

_SHORTEST: Final = 0.1
"""Seconds before which a rate would be noise."""


class Progress(Protocol):
    """Receiver of the progress of a run."""

    def bytes_read(self, size: int) -> None:
        """Note that `size` more bytes were read."""

    def item_done(self) -> None:
        """Note that one more item is done."""


class _NoProgress:
    """Progress that is not shown."""

    def bytes_read(self, size: int) -> None:
        pass

    def item_done(self) -> None:
        pass


@contextmanager
def progress(size: int | None, stream: TextIO) -> Iterator[Progress]:
    """Show a progress bar over `size` bytes (None: unknown) if the stream is a terminal."""
    if not stream.isatty():
        yield _NoProgress()
        return
    from rich.console import Console  # noqa: PLC0415 - scripts have no terminal
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[done]} done, {task.fields[rate]}/s"), TimeRemainingColumn())
    with Bar(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", total=size, done=0, rate=0)
        done, began = 0, monotonic()

        class ShownProgress:
            """Progress that moves the bar."""

            def bytes_read(self, size: int) -> None:
                bar.advance(task, size)

            def item_done(self) -> None:
                nonlocal done
                done += 1
                bar.update(task, done=done, rate=round(done / max(monotonic() - began, _SHORTEST)))

        yield ShownProgress()
