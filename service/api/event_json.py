"""Parser of events in JSON."""

from __future__ import annotations

from pydantic import ValidationError

from ras_triage.models.event import Event
from ras_triage.service.api.cloud_events import event_in
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import ProblemError, invalid


def read_event(document: bytes) -> Event:
    """Parse and validate an event, which may be in a CloudEvent in structured mode. Raises ProblemError.

    Of an event in a CloudEvent, the pointers in problems refer to the event.
    """
    require_value_limit(document)
    try:
        return Event.model_validate_json(document)
    except ValidationError as error:
        content = event_in(document)
        if content is None:
            raise ProblemError(invalid(error, document, "event")) from None
    require_value_limit(content)
    try:
        return Event.model_validate_json(content)
    except ValidationError as error:
        raise ProblemError(invalid(error, content, "event")) from None
