"""What a client is told about how to authenticate (RFC 6750 3)."""

from __future__ import annotations

from typing import Final

_SCHEME: Final = 'Bearer realm="ras-triage"'

CHALLENGE: Final = {"WWW-Authenticate": _SCHEME}
"""Nothing was shown."""

REJECTED: Final = {"WWW-Authenticate": f'{_SCHEME}, error="invalid_token"'}
"""What was shown is not good."""


def insufficient(scope: str) -> dict[str, str]:
    """What was shown is good, but not for this."""
    return {"WWW-Authenticate": f'{_SCHEME}, error="insufficient_scope", scope="{scope}"'}
