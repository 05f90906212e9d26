"""Tests of the record context: precedence of notification types, and defaults."""

from __future__ import annotations

import pytest

from ras_triage.models.formats.record_context import RecordContext, choose_notification, to_notification
from ras_triage.models.formats.results import Position
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.cper_record import NOTIFICATION_TYPES
from ras_triage.models.records.guid import MEMORY, NULL

SEA, SEI, PEI = (NOTIFICATION_TYPES[name] for name in ("sea", "sei", "pei"))


def envelope(**known) -> RecordContext:
    return RecordContext("cper", Position(offset=0), **known)


@pytest.mark.parametrize(
    ("told", "own", "around", "expected"),
    [
        (NotificationType.GPIO, SEA, SEI, "gpio"),
        (None, SEA, SEI, "sea"),
        (None, PEI, SEI, "sei"),
        (None, None, SEA, "sea"),
        (None, NULL, SEA, "sea"),
    ],
)
def test_the_caller_comes_first_then_the_record_then_the_envelope(told, own, around, expected):
    chosen, assumed = choose_notification(envelope(notification=to_notification(told), notification_type=around), own)
    assert (chosen.type, assumed) == (expected, ())


@pytest.mark.parametrize(
    ("own", "because"),
    [
        (PEI, "HEST does not have this CPER notification type"),
        (MEMORY, "HEST does not have this CPER notification type"),
        (NULL, "the source has no notification type"),
        (None, "the source has no notification type"),
    ],
)
def test_where_nobody_says_an_interrupt_is_assumed_and_said_to_be(own, because):
    chosen, (assumed,) = choose_notification(envelope(), own)
    assert chosen == Notification(type=NotificationType.GSIV)
    assert (assumed.field, assumed.assumed, assumed.because) == ("/notification/type", "gsiv", because)


def test_only_a_place_that_is_an_offset_moves():
    assert envelope().at(7).place == Position(offset=7)
    assert RecordContext("redfish", Position(item="/Members/1")).at(7).place == Position(item="/Members/1")
