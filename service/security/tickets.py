"""Tickets for event streams, where `Authorization` cannot be sent (EventSource)."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from math import ceil
from time import monotonic
from typing import Final

from ras_triage.service.api.problems import ProblemError, busy
from ras_triage.service.telemetry.redaction import TICKET_PREFIX

STREAM_PATH: Final = "/v1/decisions/stream"
"""The only path that a ticket is valid for."""

TICKETS_PATH: Final = "/v1/decisions/stream-tickets"

PARAMETER: Final = "ticket"
"""Query parameter with the ticket."""

LIFETIME_S: Final = 60
"""Seconds for which a ticket opens streams. A stream that it opened stays open."""

MAX_TICKETS: Final = 4096
MAX_TICKETS_PER_PRINCIPAL: Final = 256
"""Tickets that are valid at a time."""

_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What a ticket stands for."""

    principal: str
    credentials: str | None
    """Bearer credentials, checked again at each use: they may be revoked or expire; None: no authentication was required."""
    expires_at: float


class Tickets:
    """Valid tickets, by the hash of each, oldest first."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._tickets: dict[bytes, _Ticket] = {}
        self._of_principal: Counter[str] = Counter()

    def issue(self, principal: str, credentials: str | None) -> str:
        """Return a new ticket. Raises ProblemError if too many are valid."""
        self._drop_expired()
        for count, limit in ((len(self._tickets), MAX_TICKETS), (self._of_principal[principal], MAX_TICKETS_PER_PRINCIPAL)):
            if count >= limit:
                raise ProblemError(busy(f"{count} tickets for event streams are valid; retry later"), {"Retry-After": str(self._wait_s())})
        ticket = f"{TICKET_PREFIX}{secrets.token_urlsafe(_SECRET_BYTES)}"
        self._tickets[_hash(ticket)] = _Ticket(principal, credentials, self._clock() + LIFETIME_S)
        self._of_principal[principal] += 1
        return ticket

    def credentials(self, ticket: str) -> str | None:
        """Return the credentials that a ticket stands for; None: unknown or expired, or issued without authentication."""
        found = self._tickets.get(_hash(ticket))
        return None if found is None or found.expires_at <= self._clock() else found.credentials

    def _drop_expired(self) -> None:
        now = self._clock()
        expired = list(takewhile(lambda item: item[1].expires_at <= now, self._tickets.items()))
        for digest, ticket in expired:
            del self._tickets[digest]
            self._of_principal[ticket.principal] -= 1
        self._of_principal = +self._of_principal  # without zeros

    def _wait_s(self) -> int:
        """Return the seconds until the oldest ticket expires."""
        return max(1, ceil(next(iter(self._tickets.values())).expires_at - self._clock()))


def _hash(ticket: str) -> bytes:
    return sha256(ticket.encode(errors="surrogateescape")).digest()
