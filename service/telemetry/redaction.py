"""Redaction of API keys."""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "rt_"


_SHOWN: Final = re.compile(r"(rt_[0-9A-Za-z]{1,64}_)[0-9A-Za-z_-]{43,}")


def hidden(text: str) -> str:
    """A text without the secrets of keys that somebody put where they do not belong."""
    return _SHOWN.sub(r"\1********", text)
