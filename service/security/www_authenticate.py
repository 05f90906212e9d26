"""Authentication challenges: `WWW-Authenticate` (RFC 6750 3)."""

from __future__ import annotations

from typing import Final

_SCHEME: Final = 'Bearer realm="ras-triage"'

CHALLENGE: Final = {"WWW-Authenticate": _SCHEME}
"""No credentials."""

REJECTED: Final = {"WWW-Authenticate": f'{_SCHEME}, error="invalid_token"'}
"""Invalid credentials."""


def insufficient_scope(scope: str) -> dict[str, str]:
    """Return the challenge for valid credentials without the scope."""
    return {"WWW-Authenticate": f'{_SCHEME}, error="insufficient_scope", scope="{scope}"'}
