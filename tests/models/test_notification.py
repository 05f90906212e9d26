"""Notification types as they are written in events."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from ras_triage.models.event import Event, event_key
from ras_triage.models.host import Guest
from ras_triage.models.notification import ALIASES, Notification, NotificationName, NotificationType


@pytest.mark.parametrize("kind", NotificationType)
def test_a_notification_type_may_be_written_in_any_letter_case(kind: NotificationType) -> None:
    for text in (kind.value, kind.value.upper(), kind.value.title()):
        assert Notification.model_validate({"type": text}).type is kind


def test_aliases_may_be_written_in_any_letter_case() -> None:
    assert [Notification.model_validate({"type": text}).type.value for text in ("IRQ", "Irq", "BOOT")] == ["external", "external", "bert"]


@pytest.mark.parametrize("form", ["{}", '{{"type": {}}}'])
def test_the_letter_case_changes_neither_the_event_nor_its_key(form: str) -> None:
    texts = (form.format(json.dumps(text)) for text in ("external", "irq", "IRQ", "External"))
    events = [Event.model_validate_json(f'{{"notification": {text}}}') for text in texts]

    assert len({event_key(event) for event in events}) == 1
    assert len({event.model_dump_json() for event in events}) == 1


def test_the_types_of_a_guests_sources_may_be_written_in_any_letter_case() -> None:
    assert Guest.model_validate({"ghes": ["SEA", "Gpio"], "ack_pending": ["SEA"]}) == Guest(ghes=("sea", "gpio"), ack_pending=("sea",))


@pytest.mark.parametrize("text", ["seax", "SEAX", "\u017fea", "", "sea "])
def test_an_unknown_type_is_refused_as_it_was_written(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Notification.model_validate({"type": text})

    assert caught.value.errors()[0]["input"] == text


def test_the_schema_has_every_type_and_every_alias() -> None:
    document = TypeAdapter(NotificationName).json_schema(mode="validation")
    types, aliases = document["$defs"]["NotificationType"]["enum"], document["anyOf"][1]["enum"]

    assert {*types, *aliases} == {*NotificationType, *ALIASES}
