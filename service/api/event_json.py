"""Parser of events in JSON."""

from __future__ import annotations

from pydantic import ValidationError

from ras_triage.models.event import Event
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.problems import ProblemError, invalid


def read_event(document: bytes) -> Event:
    """Parse and validate an event. Raises ProblemError."""
    require_value_limit(document)
    try:
        return Event.model_validate_json(document)
    except ValidationError as error:
        raise ProblemError(invalid(error, document, "event", Event)) from None
