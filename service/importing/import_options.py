"""What whoever imports a file knows of it and the file does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event
from ras_triage.models.formats.hest import notifications, read_hest
from ras_triage.models.formats.items import FoundError
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField
from ras_triage.policies.catalog.choice import choose_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy
from ras_triage.service.api.problems import ProblemError, malformed

NOTIFICATION = "/notification/type"


@frozen
class ImportOptions:
    """It outranks what a reader assumes, and a notification or policy also what the file says."""

    notification: NotificationType | None = None
    kernel: str | None = None
    """Release, such as `6.12.107`."""
    policy: str | None = None
    hest: Mapping[int, Notification] = field(default_factory=dict)
    """How each of the machine's error sources notifies, by its id."""


def read_sources(table: bytes) -> dict[int, Notification]:
    """How each error source of a HEST table notifies. Raises Refused."""
    try:
        return notifications(read_hest(table))
    except MalformedBytes as error:
        raise ProblemError(malformed(error)) from None


def apply_options(told: ImportOptions, reading: FoundError, default: Policy, custom: Mapping[str, Policy]) -> FoundError:
    """A reading with what was told. Raises Refused nowhere: what cannot be decided is found when it is."""
    reading = notified(told, reading)
    event, assumed = reading.event, reading.assumed
    changes: dict[str, Any] = {}
    if told.kernel is not None:
        changes |= {"host": event.host.model_copy(update={"kernel": told.kernel}), "policy": None}
    if told.policy is not None:
        changes["policy"] = told.policy
    event = event.model_copy(update=changes) if changes else event
    if reading.format != "event" and told.kernel is None and told.policy is None:
        event, assumed = _known(event, assumed, default, custom)
    return replace(reading, event=event, assumed=assumed)


def notified(told: ImportOptions, reading: FoundError) -> FoundError:
    """A reading with what was told of how it was notified."""
    event, assumed = reading.event, reading.assumed
    if told.notification is not None:
        notification = event.notification.model_copy(update={"type": told.notification})
        left = tuple(one for one in assumed if one.field != NOTIFICATION)
        return replace(reading, event=event.model_copy(update={"notification": notification}), assumed=left)
    is_assumed = any(one.field == NOTIFICATION for one in assumed)
    source_id = event.notification.source_id
    found = told.hest.get(source_id) if is_assumed and source_id is not None else None
    if found is None:
        return reading
    known = {
        "type": found.type,
        "ghes_version": found.ghes_version,
        "error_block_length": found.error_block_length,
        "poll_interval_ms": found.poll_interval_ms,
    }
    notification = event.notification.model_copy(update=known)
    left = tuple(one for one in assumed if one.field.removeprefix("/notification/") not in known)
    return replace(reading, event=event.model_copy(update={"notification": notification}), assumed=left)


def _known(
    event: Event, assumed: tuple[AssumedField, ...], default: Policy, custom: Mapping[str, Policy]
) -> tuple[Event, tuple[AssumedField, ...]]:
    """A log names kernels of which nothing is known: they are decided as the default has it, and that is said."""
    try:
        choose_policy(event, default, custom)
    except UnknownPolicy as error:
        return event.model_copy(update={"policy": default.name}), (*assumed, AssumedField("/policy", default.name, str(error)))
    return event, assumed
