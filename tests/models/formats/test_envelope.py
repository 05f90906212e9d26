"""How an error was notified: the caller's word, the record's, the envelope's, and else an assumption that says it is one."""

from __future__ import annotations

import pytest

from models.cper_record import NOTIFICATION_TYPES
from models.formats.envelope import Envelope, choose_notification, to_notification
from models.formats.reading import Place
from models.guid import MEMORY, NULL
from models.notification import Notification, NotificationType

SEA, SEI, PEI = (NOTIFICATION_TYPES[name] for name in ("sea", "sei", "pei"))


def envelope(**known) -> Envelope:
    return Envelope("cper", Place(offset=0), **known)


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
        (PEI, "the CPER notification type is none that HEST has"),
        (MEMORY, "the CPER notification type is none that HEST has"),
        (NULL, "nothing says how the error was notified"),
        (None, "nothing says how the error was notified"),
    ],
)
def test_where_nobody_says_an_interrupt_is_assumed_and_said_to_be(own, because):
    chosen, (assumed,) = choose_notification(envelope(), own)
    assert chosen == Notification(type=NotificationType.GSIV)
    assert (assumed.field, assumed.assumed, assumed.because) == ("/notification/type", "gsiv", because)


def test_only_a_place_that_is_an_offset_moves():
    assert envelope().at(7).place == Place(offset=7)
    assert Envelope("redfish", Place(item="/Members/1")).at(7).place == Place(item="/Members/1")
