"""Results of the format parsers: errors, actions and unreadable records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from ras_triage.models.event import MAX_ASSUMED, Event
from ras_triage.models.frozen import frozen
from ras_triage.models.observed import AssumedField, ObservedActions

T = TypeVar("T")

INTERNAL: Final = "internal error: a defect of this program, not of the input"


@frozen
class Position:
    """A position in the input."""

    line: int | None = None
    """Number of the first line, from 1; text only."""
    offset: int | None = None
    """Bytes from the start; binary data only."""
    item: str | None = None
    """A JSON pointer, or a table and row such as `arm_event/7`."""


@frozen
class FoundError:
    """One error found in the input, as an event."""

    event: Event
    format: str
    """The format's name, such as `kernel_log`."""
    place: Position
    assumed: tuple[AssumedField, ...] = ()
    lost: tuple[str, ...] = ()
    """A phrase for each fact that the source does not contain or that an event has no field for."""
    observed: ObservedActions | None = None
    """Actions of the kernel for this error; None if the source contains none."""


def stated_assumptions(event: Event) -> tuple[AssumedField, ...]:
    """Return the assumptions that an event lists itself."""
    return tuple(AssumedField(field, "the value in the event", "the event lists it in `assumed`") for field in event.assumed or ())


def event_of(found: FoundError) -> Event:
    """Return the event of an error, with the fields that its reader assumed."""
    if not found.assumed:
        return found.event
    fields = dict.fromkeys(one.field for one in found.assumed)
    return found.event.model_copy(update={"assumed": tuple(fields)[:MAX_ASSUMED]})


@frozen
class UnmatchedAction:
    """An action of the kernel that cannot be matched to an error."""

    observed: ObservedActions
    place: Position
    format: str
    source: str | None = None
    """The machine, if the source names it."""


@frozen
class UnreadableRecord:
    """An invalid or unsupported record; parsing continues after it."""

    place: Position
    reason: str
    format: str


@frozen
class ReaderDefect(UnreadableRecord):
    """A record that could not be parsed because of a defect of this program."""

    error: Exception | None = None
    """The exception, for the log."""


def read_guarded(read: Callable[[], T], place: Position, form: str) -> T | ReaderDefect:
    """Call `read`; return a ReaderDefect if it raises."""
    try:
        return read()
    except Exception as error:
        return ReaderDefect(place, INTERNAL, form, error)


def iterate_guarded(found: Iterable[T], place: Position, form: str) -> Iterator[T | ReaderDefect]:
    """Yield from `found`; if it raises, yield a ReaderDefect and stop."""
    try:
        yield from found
    except Exception as error:
        yield ReaderDefect(place, INTERNAL, form, error)
