"""Errors that were found in a file, ready to be decided, and without the objects that took part in reading them."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import IO, Final

from ras_triage.models.event import event_json
from ras_triage.models.formats.items import INTERNAL, FoundError, Position, ReaderDefect, UnmatchedAction, UnreadableRecord
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.frozen import frozen
from ras_triage.models.observed import AssumedField, ObservedActions
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import Defect, EventDocument
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, apply_options
from ras_triage.service.importing.readers import Found, RawEvent, find_in, read_raw
from ras_triage.service.importing.source import ImportSource
from ras_triage.service.telemetry import logs

_LENGTH: Final = struct.Struct("<Q")


@frozen
class Prepared:
    """An error that was found. The fields are those of `Reading`."""

    event: bytes
    """JSON, as it is decided."""
    format: str
    place: Position
    assumed: tuple[AssumedField, ...]
    lost: tuple[str, ...]
    observed: ObservedActions | None

    def document(self, name: bytes | None) -> EventDocument:
        """Return what is to be decided. `name`: as for `Document`."""
        return EventDocument(self.event, name, frozenset(one.field for one in self.assumed))


@frozen
class Spoilt:
    """What a defect of this program keeps from being read."""

    unread: UnreadableRecord
    defect: Defect


Ready = Prepared | Spoilt | UnreadableRecord | UnmatchedAction | UnmatchedRow
"""What was found in a file."""


def prepare(settings: Settings, found: Found, told: ImportOptions) -> Ready:
    """Prepare what was found. Raises nothing that is an Exception."""
    item = read_raw(found) if isinstance(found, RawEvent) else found
    if isinstance(item, ReaderDefect):
        return spoilt(item.error, item.place, item.format)
    if not isinstance(item, FoundError):
        return item
    try:
        reading = apply_options(told, item, settings.default_policy, settings.custom)
        event = event_json(reading.event)
    except Exception as error:
        return spoilt(error, item.place, item.format)
    return Prepared(event, reading.format, reading.place, reading.assumed, reading.lost, reading.observed)


def read_document(settings: Settings, form: InputFormat, told: ImportOptions, given: str, found: str) -> None:
    """Prepare what is in the file `given`, and write it to the file `found`, for `read_found`."""
    with open(given, "rb") as stream, open(found, "wb") as out:
        for one in find_in(ImportSource(stream), form, told.notification):
            pickled = pickle.dumps(prepare(settings, one, told))
            out.write(_LENGTH.pack(len(pickled)) + pickled)


def read_found(stream: IO[bytes]) -> Iterator[Ready]:
    """Read what `read_document` wrote."""
    while length := stream.read(_LENGTH.size):
        yield pickle.loads(stream.read(*_LENGTH.unpack(length)))


def spoilt(error: Exception | None, place: Position, form: str) -> Spoilt:
    """Return what stands in the place of something that could not be read because of a defect."""
    return Spoilt(UnreadableRecord(place, INTERNAL, form), Defect({} if error is None else logs.explain(error)))
