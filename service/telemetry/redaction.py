"""Redaction of API keys."""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "rt_"


_SHOWN: Final = re.compile(r"(rt_[0-9A-Za-z]{1,64}_)[0-9A-Za-z_-]{43,}")


def redact(text: str) -> str:
    """Replace the secrets of API keys in a text."""
    return _SHOWN.sub(r"\1********", text)
