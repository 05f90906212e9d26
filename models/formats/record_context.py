"""What lies around a record's bytes, and what is taken for an event where neither the bytes nor their surroundings say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ras_triage.models.formats.items import Position
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.cper_record import NOTIFICATION_TYPES
from ras_triage.models.records.guid import NULL, Guid
from ras_triage.models.severity import Severity

DEFAULT_NOTIFICATION = NotificationType.GSIV
"""Taken where nobody says how an error was notified: an ordinary interrupt."""

DEFAULT_SEVERITY = Severity.RECOVERABLE
"""Taken where nobody says how severe an error is."""

HEST_TYPES = {NOTIFICATION_TYPES[kind.value]: kind for kind in NotificationType if kind.value in NOTIFICATION_TYPES}
"""The CPER notification types (UEFI 2.10 N.2.1.1) that HEST has under the same name: sea, sei, nmi and mce."""

CPER_TYPES = {kind: value for value, kind in HEST_TYPES.items()}
"""The same the other way round."""


@frozen
class RecordContext:
    """What is known of a record's bytes from elsewhere."""

    format: str
    place: Position
    notification: Notification | None = None
    """The caller's word, which outranks what the bytes say."""
    notification_type: Guid | None = None
    """CPER notification type that the context names; a record's own outranks it."""
    section_type: Guid | None = None
    """Type of the section, where the bytes are the body of one."""
    severity: int | None = None
    """CPER severity, where the bytes are the body of a section."""
    times: tuple[datetime, ...] = ()
    """When the context says the error was, in UTC, the likeliest first."""

    def at(self, offset: int) -> RecordContext:
        """The same for bytes that begin `offset` further on in the input. A place that is no offset stays as it is."""
        start = self.place.offset
        return self if start is None else replace(self, place=Position(offset=start + offset))


def to_notification(given: Notification | NotificationType | None) -> Notification | None:
    """A caller's notification, which may be only its type."""
    return Notification(type=given) if isinstance(given, NotificationType) else given


def choose_notification(context: RecordContext, own: Guid | None) -> tuple[Notification, tuple[AssumedField, ...]]:
    """The notification of an error, and what had to be assumed for it.

    The caller's word comes first, then the record's own CPER notification type, then the context's; a CPER type counts where HEST has it
    too. Where none is left an ordinary interrupt is taken.
    """
    if context.notification is not None:
        return context.notification, ()
    kinds = (HEST_TYPES.get(guid) for guid in (own, context.notification_type) if guid is not None)
    if kind := next((kind for kind in kinds if kind is not None), None):
        return Notification(type=kind), ()
    stated = own not in (None, NULL) or context.notification_type not in (None, NULL)
    because = "the CPER notification type is none that HEST has" if stated else "nothing says how the error was notified"
    return Notification(type=DEFAULT_NOTIFICATION), (AssumedField("/notification/type", DEFAULT_NOTIFICATION.value, because),)
