"""Errors read from a file in a compact, picklable form for the decision."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import IO, Final

from ras_triage.models.event import event_json
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.results import INTERNAL, FoundError, Position, ReaderDefect, UnmatchedAction, UnreadableRecord, event_of
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
class PreparedError:
    """Error of a file as an encoded event. The other fields are those of `FoundError`."""

    event: bytes
    """JSON."""
    format: str
    place: Position
    assumed: tuple[AssumedField, ...]
    lost: tuple[str, ...]
    observed: ObservedActions | None

    def document(self, name: bytes | None) -> EventDocument:
        """Return the event to decide. `name`: see `EventDocument`."""
        return EventDocument(self.event, name, is_live=False)


@frozen
class DefectiveItem:
    """Item that could not be read because of a defect of this program."""

    record: UnreadableRecord
    defect: Defect


PreparedItem = PreparedError | DefectiveItem | UnreadableRecord | UnmatchedAction | UnmatchedRow
"""Item of a file, ready for the decision."""


def prepare(settings: Settings, found: Found, options: ImportOptions) -> PreparedItem:
    """Prepare an item for the decision. Errors are returned: this raises no Exception."""
    item = read_raw(found) if isinstance(found, RawEvent) else found
    if isinstance(item, ReaderDefect):
        return defective_item(item.error, item.place, item.format)
    if not isinstance(item, FoundError):
        return item
    try:
        reading = apply_options(options, item, settings.default_policy, settings.custom_policies)
        event = event_json(event_of(reading))
    except Exception as error:
        return defective_item(error, item.place, item.format)
    return PreparedError(event, reading.format, reading.place, reading.assumed, reading.lost, reading.observed)


def read_document(settings: Settings, form: InputFormat, options: ImportOptions, source: str, target: str) -> None:
    """Read the file `source`, and write its prepared items to the file `target`, for `read_prepared`."""
    with open(source, "rb") as stream, open(target, "wb") as out:
        for one in find_in(ImportSource(stream, text_field=options.text_field), form, options.notification):
            pickled = pickle.dumps(prepare(settings, one, options))
            out.write(_LENGTH.pack(len(pickled)) + pickled)


def read_prepared(stream: IO[bytes]) -> Iterator[PreparedItem]:
    """Read the items that `read_document` wrote."""
    while length := stream.read(_LENGTH.size):
        yield pickle.loads(stream.read(*_LENGTH.unpack(length)))


def defective_item(error: Exception | None, place: Position, form: str) -> DefectiveItem:
    """Return the placeholder for an item that could not be read because of a defect."""
    return DefectiveItem(UnreadableRecord(place, INTERNAL, form), Defect({} if error is None else logs.explain(error)))
