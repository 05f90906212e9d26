"""Principal of a request, with its scopes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ras_triage.service.security.rate_limit import RateLimiter

Scope = Literal["decide", "read", "admin"]

ANONYMOUS: Final = "anonymous"
"""Name of the principal if no authentication is required."""

SCOPES: Final[tuple[Scope, ...]] = ("decide", "read", "admin")


def granted(names: Iterable[str]) -> frozenset[Scope]:
    """Return the scopes among names; `admin` implies all others."""
    found = frozenset(scope for scope in SCOPES if scope in names)
    return frozenset(SCOPES) if "admin" in found else found


@dataclass(frozen=True, slots=True)
class Principal:
    """Authenticated principal with its scopes."""

    name: str
    """Name in logs: `anonymous`, `key <id>` or `token <subject>`."""
    scopes: frozenset[Scope]
    limiter: RateLimiter | None = None
    """Rate limit; None: unlimited."""

    def charge(self, events: int = 1) -> None:
        """Count events. Raises ProblemError over the rate limit."""
        if self.limiter is not None:
            self.limiter.take(self.name, events)

    async def pace(self, events: int) -> None:
        """Count events, waiting until the rate limit allows them: batches are slowed down, not refused."""
        if self.limiter is not None:
            await self.limiter.wait(self.name, events)
