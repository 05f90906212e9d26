"""Redaction of API keys and stream tickets."""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "rt_"

TICKET_PREFIX: Final = "rtt_"


_SHOWN: Final = re.compile(rf"({PREFIX}[0-9A-Za-z]{{1,64}}_|{TICKET_PREFIX})[0-9A-Za-z_-]{{43,}}")


def redact(text: str) -> str:
    """Replace the secrets of API keys and tickets in a text."""
    if PREFIX not in text and TICKET_PREFIX not in text:
        return text
    return _SHOWN.sub(r"\1********", text)
