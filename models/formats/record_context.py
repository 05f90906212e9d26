"""Context of a record's bytes, and defaults for missing facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ras_triage.models.formats.results import Position
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.cper_record import NOTIFICATION_TYPES
from ras_triage.models.records.guid import NULL, Guid
from ras_triage.models.severity import Severity

DEFAULT_NOTIFICATION = NotificationType.GSIV
"""Default notification type: an ordinary interrupt."""

DEFAULT_SEVERITY = Severity.RECOVERABLE
"""Default severity."""

EVENT_TYPES = {NOTIFICATION_TYPES[kind]: kind for kind in NotificationType if kind in NOTIFICATION_TYPES}
EVENT_TYPES[NOTIFICATION_TYPES["boot"]] = NotificationType.BERT
"""CPER notification types (UEFI 2.10 N.2.1.1) that an event has, too: sea, sei, nmi, mce, and boot as `bert`."""

CPER_TYPES = {kind: value for value, kind in EVENT_TYPES.items()}
"""CPER notification types by notification type of an event."""


@frozen
class RecordContext:
    """Facts about a record from outside its bytes."""

    format: str
    place: Position
    notification: Notification | None = None
    """The caller's notification; takes precedence over that of the record."""
    notification_type: Guid | None = None
    """CPER notification type of the surrounding document; that of the record takes precedence."""
    section_type: Guid | None = None
    """Section type, if the bytes are the body of a section."""
    severity: int | None = None
    """CPER severity, if the bytes are the body of a section."""
    times: tuple[datetime, ...] = ()
    """Times of the error in the surrounding document, in UTC, likeliest first."""

    def at(self, offset: int) -> RecordContext:
        """Return the context with its offset moved by `offset` bytes; a position without an offset is unchanged."""
        start = self.place.offset
        return self if start is None else replace(self, place=Position(offset=start + offset))


def to_notification(notification: Notification | NotificationType | None) -> Notification | None:
    """Return a caller's notification, which may be only its type."""
    return Notification(type=notification) if isinstance(notification, NotificationType) else notification


def choose_notification(context: RecordContext, own: Guid | None) -> tuple[Notification, tuple[AssumedField, ...]]:
    """Return the notification of an error, and the assumptions made for it.

    Precedence: the caller's notification, the record's CPER notification type, that of the surrounding document. A CPER type is used only
    if an event has it too. The default is an ordinary interrupt.
    """
    if context.notification is not None:
        return context.notification, ()
    kinds = (EVENT_TYPES.get(guid) for guid in (own, context.notification_type) if guid is not None)
    if kind := next((kind for kind in kinds if kind is not None), None):
        return Notification(type=kind), ()
    stated = own not in (None, NULL) or context.notification_type not in (None, NULL)
    because = "HEST does not have this CPER notification type" if stated else "the source has no notification type"
    return Notification(type=DEFAULT_NOTIFICATION), (AssumedField("/notification/type", DEFAULT_NOTIFICATION.value, because),)
