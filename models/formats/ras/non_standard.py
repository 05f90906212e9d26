"""Trace events of sections unknown to Linux (`non_standard_event`).

Source: include/ras/ras_event.h, Linux 5.10 to 7.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ras_triage.models.formats.ras.memory import fru
from ras_triage.models.formats.ras.traced_event import InvalidFieldError, TracedError, blob, quoted, text
from ras_triage.models.records.guid import NULL
from ras_triage.models.severity import Severity

_GUID_LENGTH = len(NULL)
_SEVERITIES = {
    "informational": Severity.INFORMATIONAL,
    "corrected": Severity.CORRECTED,
    "recoverable": Severity.RECOVERABLE,
    "fatal": Severity.FATAL,
}
"""rasdaemon's names of the GHES severities (ras-non-standard-handler.c)."""


def read_non_standard_event(fields: Mapping[str, object]) -> TracedError:
    """Parse a `non_standard_event` with the column names of rasdaemon: the section's bytes. Raises InvalidFieldError.

    rasdaemon stores `sec_type` without its length, so the blob ends at the first two zero bytes: within the GUID, or in the memory
    behind it.
    """
    kind = blob(fields, "sec_type")
    if len(kind) < _GUID_LENGTH:
        raise InvalidFieldError(f"`sec_type`: expected the 16 bytes of a GUID, got {len(kind)} (rasdaemon stores it up to two zero bytes)")
    severity_text = text(fields, "severity") or ""
    severity = _SEVERITIES.get(severity_text.strip().lower())
    lost = () if severity is not None else (f"the severity {quoted(severity_text)}",)
    section: dict[str, Any] = {"type": kind[:_GUID_LENGTH], "payload": blob(fields, "error"), **fru(fields)}
    return TracedError(section, severity, lost)
