"""Who asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ras_triage.service.security.allowance import Allowance

Scope = Literal["decide", "read", "admin"]

ANONYMOUS: Final = "anonymous"
"""Who asks where nobody needs a key."""

SCOPES: Final[tuple[Scope, ...]] = ("decide", "read", "admin")


def granted(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes among names, and what they imply: who may administer may do everything."""
    found = frozenset(scope for scope in SCOPES if scope in names)
    return frozenset(SCOPES) if "admin" in found else found


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks, and what they may do."""

    name: str
    """For logs: `anonymous`, `key <id>`, `token <subject>`."""
    scopes: frozenset[Scope]
    allowance: Allowance | None = None
    """How much they may ask for; None: as much as they like."""

    def charge(self, events: int = 1) -> None:
        """Count events against the limit of this key. Raises Refused."""
        if self.allowance is not None:
            self.allowance.take(self.name, events)

    async def pace(self, events: int) -> None:
        """Wait until so many events are within the limit of this key: what streams in is slowed, and not refused."""
        if self.allowance is not None:
            await self.allowance.wait(self.name, events)
