"""Options of an import: notification type, kernel, policy, HEST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, Final

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event
from ras_triage.models.formats.hest import notifications, read_hest
from ras_triage.models.formats.kernel_log import lines as kernel_log
from ras_triage.models.formats.results import FoundError
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField
from ras_triage.policies.catalog.change_points import newest_linux_policy
from ras_triage.policies.catalog.choice import choose_policy
from ras_triage.policies.catalog.policies import UNIFORM, Policy, UnknownPolicy, resolve_policy
from ras_triage.policies.error_sources import judge_sources
from ras_triage.service.api.problems import ProblemError, malformed

NOTIFICATION = "/notification/type"

_LINUX_FORMATS: Final = frozenset({"kernel_log", "ras_trace", "ras_mc_ctl", "rasdaemon"})
"""Formats that only Linux and its tools write."""


@frozen
class ImportOptions:
    """Options of an import. They override what a reader assumes; notification type, kernel and policy also override the file."""

    notification: NotificationType | None = None
    kernel: str | None = None
    """Kernel release, such as `6.12.107`."""
    policy: str | None = None
    text_field: str | None = None
    """JSON field with the lines of a collected log, may be a dotted path; None: known ones."""
    hest: Mapping[int, Notification] = field(default_factory=dict)
    """Notification of each error source, by source id, from the machine's HEST."""


def read_sources(table: bytes) -> dict[int, Notification]:
    """Return the notification of each error source of a HEST, without those that no driver is for. Raises ProblemError.

    A notification type that Linux does not support is up to the decision.
    """
    try:
        sources = read_hest(table)
    except MalformedBytes as error:
        raise ProblemError(malformed(error)) from None
    judged = judge_sources(sources, resolve_policy(UNIFORM)).sources
    return notifications(one.source for one in judged if one.verdict.status not in ("refused", "skipped"))


def apply_options(options: ImportOptions, reading: FoundError, default: Policy, custom: Mapping[str, Policy]) -> FoundError:
    """Return an error with the options applied. Nothing is validated here: the decision does that."""
    reading = apply_notification(options, reading)
    event, assumed = reading.event, reading.assumed
    changes: dict[str, Any] = {}
    if options.kernel is not None:
        changes |= {"host": event.host.model_copy(update={"kernel": options.kernel}), "policy": None}
    if options.policy is not None:
        changes["policy"] = options.policy
    event = event.model_copy(update=changes) if changes else event
    if reading.format != "event" and options.kernel is None and options.policy is None:
        fallback = _linux_fallback(event, default) if reading.format in _LINUX_FORMATS else default
        event, assumed = _with_known_policy(event, assumed, default, custom, fallback)
    return replace(reading, event=event, assumed=assumed)


def apply_notification(options: ImportOptions, reading: FoundError) -> FoundError:
    """Return an error with the notification of the options applied."""
    event, assumed = reading.event, reading.assumed
    if event.notification.type is NotificationType.BERT and reading.format == kernel_log.FORMAT:
        return reading  # the log says that it is of the previous boot; the options are about the errors of this one
    if event.status_block is None and reading.format != "event":
        return reading  # an exception without a record is its own notification
    if options.notification is not None:
        notification = event.notification.model_copy(update={"type": options.notification})
        left = tuple(one for one in assumed if one.field != NOTIFICATION)
        return replace(reading, event=event.model_copy(update={"notification": notification}), assumed=left)
    is_assumed = any(one.field == NOTIFICATION for one in assumed)
    source_id = event.notification.source_id
    found = options.hest.get(source_id) if is_assumed and source_id is not None else None
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


def _linux_fallback(event: Event, default: Policy) -> Policy:
    """Return the policy for what Linux wrote without naming its kernel: the newest that fits, unless the service has another default.

    `uniform`, the built-in default, is the behaviour of no kernel. A log's numbering of ARM error types is that of the kernel.
    """
    return newest_linux_policy(event.host.arm_error_types) if default.name == UNIFORM else default


def _with_known_policy(
    event: Event, assumed: tuple[AssumedField, ...], default: Policy, custom: Mapping[str, Policy], fallback: Policy
) -> tuple[Event, tuple[AssumedField, ...]]:
    """Select the fallback for an unknown kernel, as an assumption: kernel logs may name none, or one without a policy."""
    if event.policy is None and event.host.kernel is None:
        may_have_stored_facts = event.source is not None and "host" not in event.model_fields_set
        if fallback is default or may_have_stored_facts:
            return event, assumed
        why = "the source does not name its kernel; the newest release known"
        if event.host.arm_error_types is not None:
            why += f" that numbers ARM error types as the source does ({event.host.arm_error_types})"
    else:
        try:
            choose_policy(event, default, custom)
        except UnknownPolicy as error:
            why = str(error)
        else:
            return event, assumed
    return event.model_copy(update={"policy": fallback.name}), (*assumed, AssumedField("/policy", fallback.name, why))
