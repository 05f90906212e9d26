"""What a reader of somebody else's format hands on: events, what had to be assumed for them, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from ras_triage.models.event import Event
from ras_triage.models.frozen import frozen
from ras_triage.models.observed import AssumedField, ObservedActions

T = TypeVar("T")

INTERNAL: Final = "internal error: the program failed to read this; the input was not at fault"


@frozen
class Position:
    """Where in the input something stands."""

    line: int | None = None
    """Of a text, from 1: the line on which it begins."""
    offset: int | None = None
    """Of binary data, bytes from the start."""
    item: str | None = None
    """A JSON pointer, or a table and row such as `arm_event/7`."""


@frozen
class FoundError:
    """One error that was found."""

    event: Event
    format: str
    """The format's name, such as `kernel_log`."""
    place: Position
    assumed: tuple[AssumedField, ...] = ()
    lost: tuple[str, ...] = ()
    """What the source could not carry, or carried in a way that the event cannot, a phrase each."""
    observed: ObservedActions | None = None
    """What the source says was done about the error; None where it says nothing."""


@frozen
class UnmatchedAction:
    """Something that was done about an error, and no telling about which."""

    observed: ObservedActions
    place: Position
    format: str
    source: str | None = None
    """The machine, where the source names it."""


@frozen
class UnreadableRecord:
    """Something that looks like a record and cannot be read as one; reading goes on behind it."""

    place: Position
    reason: str
    format: str


@frozen
class ReaderDefect(UnreadableRecord):
    """Something that could not be read because of a defect of this program."""

    error: Exception | None = None
    """What was raised, for whoever keeps the log."""


def read_guarded(read: Callable[[], T], place: Position, form: str) -> T | ReaderDefect:
    """Read one thing; a defect that it runs into is its own."""
    try:
        return read()
    except Exception as error:
        return ReaderDefect(place, INTERNAL, form, error)


def iterate_guarded(found: Iterable[T], place: Position, form: str) -> Iterator[T | ReaderDefect]:
    """Read the parts of one thing as far as possible; a defect that one of them runs into ends them."""
    try:
        yield from found
    except Exception as error:
        yield ReaderDefect(place, INTERNAL, form, error)
