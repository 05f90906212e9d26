"""Errors that were found in a file, ready to be decided, and without the objects that took part in reading them."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import IO, Final

from models.event import event_json
from models.formats.observed import Observed
from models.formats.ras.event import Row
from models.formats.reading import INTERNAL, Assumed, Broken, Loose, Place, Reading, Unread
from models.value import value
from service import logs
from service.deciding import Defect, Document
from service.importing.formats import Format
from service.importing.readers import Found, RawEvent, find_in, read_raw
from service.importing.source import Source
from service.importing.told import Told, apply
from service.settings import Settings

_LENGTH: Final = struct.Struct("<Q")


@value
class Prepared:
    """An error that was found. The fields are those of `Reading`."""

    event: bytes
    """JSON, as it is decided."""
    format: str
    place: Place
    assumed: tuple[Assumed, ...]
    lost: tuple[str, ...]
    observed: Observed | None

    def document(self, name: bytes | None) -> Document:
        """Return what is to be decided. `name`: as for `Document`."""
        return Document(self.event, name, frozenset(one.field for one in self.assumed))


@value
class Spoilt:
    """What a defect of this program keeps from being read."""

    unread: Unread
    defect: Defect


Ready = Prepared | Spoilt | Unread | Loose | Row
"""What was found in a file."""


def prepare(settings: Settings, found: Found, told: Told) -> Ready:
    """Prepare what was found. Raises nothing that is an Exception."""
    item = read_raw(found) if isinstance(found, RawEvent) else found
    if isinstance(item, Broken):
        return spoilt(item.error, item.place, item.format)
    if not isinstance(item, Reading):
        return item
    try:
        reading = apply(told, item, settings.default_policy, settings.custom)
        event = event_json(reading.event)
    except Exception as error:
        return spoilt(error, item.place, item.format)
    return Prepared(event, reading.format, reading.place, reading.assumed, reading.lost, reading.observed)


def read_document(settings: Settings, form: Format, told: Told, given: str, found: str) -> None:
    """Prepare what is in the file `given`, and write it to the file `found`, for `read_found`."""
    with open(given, "rb") as stream, open(found, "wb") as out:
        for one in find_in(Source(stream), form, told.notification):
            pickled = pickle.dumps(prepare(settings, one, told))
            out.write(_LENGTH.pack(len(pickled)) + pickled)


def read_found(stream: IO[bytes]) -> Iterator[Ready]:
    """Read what `read_document` wrote."""
    while length := stream.read(_LENGTH.size):
        yield pickle.loads(stream.read(*_LENGTH.unpack(length)))


def spoilt(error: Exception | None, place: Place, form: str) -> Spoilt:
    """Return what stands in the place of something that could not be read because of a defect."""
    return Spoilt(Unread(place, INTERNAL, form), Defect({} if error is None else logs.explain(error)))
