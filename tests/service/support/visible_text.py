"""Characters that a terminal shows as themselves."""

from __future__ import annotations

import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Control, format, surrogate, private use, unassigned; line and paragraph separators (Unicode 16.0, table 4-4)."""


def is_visible(text: str) -> bool:
    """Return whether no character is hidden or does something else than being shown."""
    return not any(unicodedata.category(char) in HIDDEN for char in text)
