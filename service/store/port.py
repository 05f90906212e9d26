"""What the service asks of a store, and what goes in and out.

A store is written by one thread and read by any. What `append` was given is durable when it returns, all of it or nothing.

StoreError
 ├ StoreUnusable      it cannot be opened: not a store, newer than this program, held by another process
 │ └ StoreIncomplete  what was committed is missing from it
 ├ StoreUnavailable   it cannot do this now, and may later: disk full, read-only, an I/O error
 ├ StoreDamaged       what it holds cannot be read
 │ └ RowDamaged       one row cannot be read, others can
 └ QueryTooSlow       a question took longer than it may
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.service.api.errors import LoggableError


class StoreError(LoggableError):
    """The store could not do what it was asked."""


class StoreUnusable(StoreError):
    """The store cannot be opened."""


class StoreIncomplete(StoreUnusable):
    """What was committed is missing from the store."""


class StoreUnavailable(StoreError):
    """The store cannot do this now."""


class StoreDamaged(StoreError):
    """The store's content cannot be read."""


class RowDamaged(StoreDamaged):
    """One row of the store cannot be read, others can."""


class QueryTooSlow(StoreError):
    """The question took longer than it may."""


@frozen
class Summary:
    """What a list of decisions shows of one, and what it can be found by."""

    id: str
    """UUID version 7."""
    decided_at_ms: int
    """Milliseconds since 1970, UTC."""
    source: str | None
    event_id: str | None
    """The sender's own."""
    event_key: str
    policy: str
    policy_digest: str
    action: str
    certainty: str
    notification: str
    severity: str | None
    """Of the status block; None where there is no record."""
    sections: tuple[str, ...]
    """Names or GUIDs, each once."""
    physical_addresses: tuple[int, ...]
    """Bytes, each once."""


@frozen
class NewDecision:
    """One decision, as it is to be kept."""

    summary: Summary
    repeat_key: bytes | None
    """32 bytes that a repeat of the event shares with it; None where there is no telling."""
    event: bytes
    """As it was sent."""
    decision: bytes
    """The answer's JSON without what tells one telling of it from another."""
    poisons: tuple[PoisonedPage, ...] = ()
    """Pages that are to be remembered as poisoned for the source."""
    forgets: bool = False
    """Whether the source's poisoned pages are forgotten: its machine went down."""


@frozen
class StoredDecision:
    """A decision that was kept."""

    id: str
    decided_at_ms: int
    event_key: str
    decision: bytes


@frozen
class StreamedDecision:
    """A decision with its place in the order in which decisions were kept."""

    sequence: int
    summary: Summary


@frozen
class HostFacts:
    """A version of the facts kept for a source."""

    source: str
    version: int
    """From 1, up with every change of this source."""
    changed_at_ms: int
    facts: bytes | None
    """JSON; None: they were deleted with this version."""


Field = Literal["source", "action", "policy", "notification", "severity", "section", "physical_address"]

FIELDS: Final[tuple[Field, ...]] = ("source", "action", "policy", "notification", "severity", "section", "physical_address")
"""What decisions are filtered and grouped by."""


@frozen
class Filter:
    """Which decisions are asked for; None: any."""

    source: str | None = None
    action: str | None = None
    policy: str | None = None
    notification: str | None = None
    severity: str | None = None
    section: str | None = None
    physical_address: int | None = None
    since_ms: int | None = None
    """Decided then or later."""
    until_ms: int | None = None
    """Decided before."""


@frozen
class Cursor:
    """Where a page ends: the next one begins behind it."""

    decided_at_ms: int
    sequence: int


@frozen
class Page:
    """Decisions, newest first."""

    decisions: tuple[Summary, ...]
    next: Cursor | None
    """None: there are no more."""
    damaged: int = 0
    """Decisions that belong here and are left out, because their rows are damaged."""


@frozen
class BucketCount:
    """How many decisions of a group fall into a span of time."""

    bucket_ms: int
    """Beginning of the span."""
    group: tuple[str | None, ...]
    """A value for each field grouped by."""
    count: int


PURGES: Final = 10_000
"""Purges that stay on record."""


@frozen
class Purge:
    """What retention took away."""

    at_ms: int
    reason: Literal["age", "size"]
    count: int
    first_sequence: int
    last_sequence: int
    oldest_ms: int
    newest_ms: int
    """Of what was taken away."""


@frozen
class StoreSize:
    """How much the store holds."""

    decisions: int
    bytes: int
    """On disk, without what was freed."""
    oldest_ms: int | None
    newest_ms: int | None
    last_sequence: int
    """Of the newest decision ever kept; 0: none was."""
    log_bytes: int = 0
    """Of the write-ahead log."""
    lost: int = 0
    """Decisions that were given up, on record."""


@frozen
class Usage:
    """Room that the store takes, as far as that can be told without reading much of it."""

    live_bytes: int
    """Of the database, without what was freed."""
    reserve_bytes: int
    """Kept free for a purge on a full disk."""
    decisions: int
    """At most."""


@frozen
class Loss:
    """Something committed that was missing, or could not be read any more, and was given up by an operator."""

    at_ms: int
    reason: Literal["incomplete", "replaced", "damaged"]
    """Commits were missing; another store was in this one's place; rows could not be read."""
    decisions: int
    first_sequence: int | None
    last_sequence: int | None
    """The decisions are among these; None: none is lost."""
    changes: int
    """Commits of anything else."""


@frozen
class ApiKey:
    """A key as it is kept: what it may do, and the hash of its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    secret_hash: str
    """SHA-256 of the secret, hexadecimal."""
    created_at_ms: int
    revoked_at_ms: int | None = None


class Store(Protocol):
    """A store. Everything raises StoreError."""

    def append(self, entries: Sequence[NewDecision]) -> None:
        """Keep decisions, in this order, all or none."""

    def probe(self) -> None:
        """Write something, to see whether it can be done."""

    def upkeep(self, log_bytes: int) -> None:
        """Check the files and shorten the write-ahead log where it is longer than that; between two writes, by the thread that writes."""

    def repeat(self, key: bytes) -> StoredDecision | None:
        """The decision that was kept under a repeat key."""

    def decision(self, identity: str) -> StoredDecision | None:
        """One decision by its id."""

    def event(self, identity: str) -> bytes | None:
        """The event that a decision was made for, as it was sent."""

    def page(self, asked: Filter, after: Cursor | None, limit: int) -> Page:
        """Decisions, newest first, from behind `after`."""

    def stats(self, asked: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int) -> list[BucketCount]:
        """Counts by span of time and group, in order; at most `limit`."""

    def following(self, sequence: int, asked: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        """Decisions kept after `sequence`, in the order of keeping, and the sequence up to which that is all there are."""

    def host(self, source: str, version: int | None = None) -> HostFacts | None:
        """The facts kept for a source: the newest version, or the one named."""

    def put_host(self, facts: HostFacts) -> None:
        """Keep a source's next version."""

    def poisoned(self, source: str, limit: int) -> tuple[PoisonedPage, ...]:
        """Pages that decisions poisoned, at most `limit`."""

    def poisoned_at(self, source: str, addresses: Sequence[int]) -> tuple[PoisonedPage, ...]:
        """Those of them that hold one of these physical addresses."""

    def forget_poisoned(self, source: str) -> int:
        """Forget them; how many there were."""

    def purge_older(self, than_ms: int, at_ms: int, limit: int) -> int:
        """Take away at most `limit` of the decisions made before `than_ms`, on record; how many."""

    def purge_larger(self, than_bytes: int, at_ms: int, limit: int) -> int:
        """Take away at most `limit` of the oldest decisions where the live bytes are more; how many."""

    def disk_bytes(self) -> int:
        """Bytes of all files."""

    def usage(self) -> Usage:
        """What `purge_larger` compares, and more. By the thread that writes."""

    def purges(self, limit: int) -> list[Purge]:
        """What was taken away, latest first."""

    def losses(self) -> list[Loss]:
        """What was given up, latest first."""

    def last_sequence(self) -> int:
        """Of the newest decision ever kept; 0: none was."""

    def size(self) -> StoreSize:
        """How much there is."""

    def api_key(self, identity: str) -> ApiKey | None:
        """A key by its id, revoked or not."""

    def api_keys(self) -> list[ApiKey]:
        """All keys, oldest first."""

    def add_api_key(self, key: ApiKey) -> None:
        """Keep a key."""

    def revoke_api_key(self, identity: str, at_ms: int) -> bool:
        """Revoke a key; whether there was one to revoke."""

    def release_memory(self) -> None:
        """Free what is only cached; from any thread."""

    def close(self) -> None:
        """Let go of it."""
