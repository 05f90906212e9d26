"""Sections that Linux does not decode, as it traces them: `non_standard_event` (include/ras/ras_event.h, Linux 5.10 to 7.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ras_triage.models.formats.ras.memory import fru
from ras_triage.models.formats.ras.traced_event import BadField, TracedError, blob, quoted, text
from ras_triage.models.records.guid import NULL
from ras_triage.models.severity import Severity

_GUID_LENGTH = len(NULL)
_SEVERITIES = {
    "informational": Severity.INFORMATIONAL,
    "corrected": Severity.CORRECTED,
    "recoverable": Severity.RECOVERABLE,
    "fatal": Severity.FATAL,
}
"""rasdaemon's words for Linux's ranks (ras-non-standard-handler.c)."""


def read_non_standard_event(fields: Mapping[str, object]) -> TracedError:
    """What a non-standard event says, by the names of rasdaemon's columns: the section as it stands. Raises BadField.

    rasdaemon stores `sec_type` without a length, so that the blob ends at two zero bytes: it goes on into what lies behind the GUID in
    memory, or ends within it.
    """
    kind = blob(fields, "sec_type")
    if len(kind) < _GUID_LENGTH:
        raise BadField(f"`sec_type` has {len(kind)} bytes of the 16 of a GUID: rasdaemon stores it up to two zero bytes")
    told = text(fields, "severity") or ""
    severity = _SEVERITIES.get(told.strip().lower())
    lost = () if severity is not None else (f"the severity {quoted(told)}",)
    section: dict[str, Any] = {"type": kind[:_GUID_LENGTH], "payload": blob(fields, "error"), **fru(fields)}
    return TracedError(section, severity, lost)
