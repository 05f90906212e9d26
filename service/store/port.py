"""Interface of a store, with its types and errors.

A store is written by one thread and read by any number. Decisions are durable when `append` returns, all or none.

StoreError
 ├ StoreUnusable      cannot be opened: not a store, newer than this program, locked by another process
 │ └ StoreIncomplete  committed transactions are missing
 ├ StoreUnavailable   temporary failure: disk full, read-only, an I/O error
 ├ StoreDamaged       stored data is corrupt
 │ └ RowDamaged       one row is corrupt, others can be read
 └ QueryTooSlow       time limit of a query exceeded
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.handled_record import ReportedRecord
from ras_triage.service.api.errors import LoggableError


class StoreError(LoggableError):
    """An operation of the store failed."""


class StoreUnusable(StoreError):
    """The store cannot be opened."""


class StoreIncomplete(StoreUnusable):
    """Committed transactions are missing from the store."""


class StoreUnavailable(StoreError):
    """The store is temporarily unavailable."""


class StoreDamaged(StoreError):
    """Stored data is corrupt."""


class RowDamaged(StoreDamaged):
    """One row is corrupt, others can be read."""


class QueryTooSlow(StoreError):
    """The time limit of a query was exceeded."""


@frozen
class Summary:
    """Columns of a decision for lists and filters."""

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
    """A decision to be stored."""

    summary: Summary
    repeat_key: bytes | None
    """32 bytes that are equal for repeats of the event; None: repeats cannot be recognised."""
    event: bytes
    """As it was sent."""
    decision: bytes
    """The response's JSON without `id`, `decided_at` and `repeat`."""
    poisons: tuple[PoisonedPage, ...] = ()
    """Pages of the source that the decision poisons."""
    forgets: bool = False
    """Whether the source's poisoned pages are deleted: its machine reboots."""
    record: ReportedRecord | None = None
    """Record that the machine handled; not stored, because the event has it."""


@frozen
class StoredDecision:
    """A stored decision."""

    id: str
    decided_at_ms: int
    event_key: str
    decision: bytes


@frozen
class StreamedDecision:
    """A decision with its sequence number, in the order of commits."""

    sequence: int
    summary: Summary


@frozen
class HostFacts:
    """A version of the stored facts of a source."""

    source: str
    version: int
    """From 1, incremented with every change of this source."""
    changed_at_ms: int
    facts: bytes | None
    """JSON; None: deleted in this version."""


Field = Literal["source", "action", "policy", "notification", "severity", "section", "physical_address"]

FIELDS: Final[tuple[Field, ...]] = ("source", "action", "policy", "notification", "severity", "section", "physical_address")
"""Fields for filters and groups."""


MAX_VALUES: Final = 50
"""Values of one field of a filter."""


@frozen
class Filter:
    """Filter of decisions: of each field, one of the values; no values: any."""

    source: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    notification: tuple[str, ...] = ()
    severity: tuple[str, ...] = ()
    section: tuple[str, ...] = ()
    physical_address: tuple[int, ...] = ()
    since_ms: int | None = None
    """Inclusive lower bound of the decision time."""
    until_ms: int | None = None
    """Exclusive upper bound of the decision time."""
    source_prefixes: tuple[str, ...] = ()
    """Beginnings of sources, beside the values of `source`."""


@frozen
class HostFilter:
    """Filter of stored host facts; None and no values: any."""

    source: tuple[str, ...] = ()
    source_prefixes: tuple[str, ...] = ()
    since_ms: int | None = None
    """Inclusive lower bound of the time of the last change."""
    until_ms: int | None = None
    """Exclusive upper bound of the same."""


@frozen
class HostSummary:
    """Stored host facts in a list, without the facts."""

    source: str
    version: int
    changed_at_ms: int
    bytes: int
    """Length of the facts as JSON."""


@frozen
class HostListing:
    """Sources with host facts, in their order."""

    hosts: tuple[HostSummary, ...]
    next: str | None
    """Source after which the next page starts; None: last page."""
    damaged: int = 0
    """Number of rows missing from the page because they are corrupt."""


@frozen
class PoisonFilter:
    """Filter of poisoned pages; no values: any."""

    source: tuple[str, ...] = ()
    source_prefixes: tuple[str, ...] = ()
    physical_address: tuple[int, ...] = ()
    """Addresses of which a page has to contain one."""


@frozen
class PoisonedPosition:
    """Position of the last poisoned page of a list."""

    source: str
    start: str
    """First byte of the poisoned area, as the store writes it."""
    shift: int


@frozen
class PoisonListing:
    """Poisoned pages with their sources, in the order of source and address."""

    pages: tuple[tuple[str, PoisonedPage], ...]
    next: PoisonedPosition | None
    """None: last page."""
    damaged: int = 0
    """Number of rows missing from the page because they are corrupt."""


@frozen
class Cursor:
    """Position of the last decision of a page."""

    decided_at_ms: int
    sequence: int


@frozen
class Page:
    """Decisions, newest first."""

    decisions: tuple[Summary, ...]
    next: Cursor | None
    """None: last page."""
    damaged: int = 0
    """Number of decisions missing from the page because their rows are corrupt."""


@frozen
class BucketCount:
    """Number of decisions of a group in a bucket of time."""

    bucket_ms: int
    """Start of the bucket."""
    group: tuple[str | None, ...]
    """Values of the fields it is grouped by."""
    count: int


PURGES: Final = 10_000
"""Records of purges that are kept."""


@frozen
class Purge:
    """Record of a purge."""

    at_ms: int
    reason: Literal["age", "size"]
    count: int
    first_sequence: int
    last_sequence: int
    oldest_ms: int
    newest_ms: int
    """Time of the newest purged decision."""


@frozen
class StoreSize:
    """Size of the store."""

    decisions: int
    bytes: int
    """On disk, without free pages."""
    oldest_ms: int | None
    newest_ms: int | None
    last_sequence: int
    """Sequence of the newest decision ever stored; 0: none."""
    log_bytes: int = 0
    """Of the write-ahead log."""
    lost: int = 0
    """Lost decisions, as accepted by an operator."""


@frozen
class Usage:
    """Disk usage of the store, as far as it is cheap to determine."""

    live_bytes: int
    """Of the database, without free pages."""
    reserve_bytes: int
    """Reserved for a purge on a full disk."""
    decisions: int
    """Upper bound."""


@frozen
class Loss:
    """Record of a loss of committed data that an operator accepted."""

    at_ms: int
    reason: Literal["incomplete", "replaced", "damaged"]
    """Missing commits; another store at the same path; corrupt rows."""
    decisions: int
    first_sequence: int | None
    last_sequence: int | None
    """Range that contains the lost decisions; None: none is lost."""
    changes: int
    """Number of other commits that are lost."""


@frozen
class ApiKey:
    """Stored API key, with the hash of its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    secret_hash: str
    """SHA-256 of the secret, hexadecimal."""
    created_at_ms: int
    revoked_at_ms: int | None = None


@frozen
class StoredPolicy:
    """A version of a stored policy."""

    name: str
    version: int
    """From 1, incremented with every change of this policy."""
    stored_at_ms: int
    definition: bytes
    """JSON."""


MAX_REPLAYS: Final = 100
"""Replays that are kept, the newest."""


@frozen
class StoredReplay:
    """A replay of stored events: order, progress and results."""

    id: str
    """UUID version 7."""
    created_at_ms: int
    state: str
    """`waiting`, `running`, `done`, `cancelled` or `failed`."""
    request: bytes
    """JSON."""
    total: int | None
    """Decisions to replay; None: not counted yet."""
    position: Cursor | None
    """Of the last decision that was replayed; None: at the start, or ended."""
    changes: bytes
    """Counts of the decisions up to the position, JSON."""
    error: str | None


class Store(Protocol):
    """A store. All methods raise StoreError."""

    def append(self, entries: Sequence[NewDecision]) -> None:
        """Store decisions in this order, all or none."""

    def probe(self) -> None:
        """Test whether the store can be written."""

    def maintain(self, log_bytes: int) -> None:
        """Check the files, and truncate the write-ahead log if it exceeds `log_bytes`. Called by the writer thread between writes."""

    def newest_ms(self) -> int | None:
        """Return the time of the newest decision, in milliseconds since 1970; None: there is none."""

    def recent(self, source: str, since_ms: int, limit: int) -> list[Summary]:
        """Return the newest decisions of a source since a time, newest first; for the event loop."""

    def repeat(self, key: bytes) -> StoredDecision | None:
        """Return the decision with a repeat key."""

    def repeat_keys(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return those of some repeat keys that a decision has."""

    def decision(self, identity: str) -> StoredDecision | None:
        """Return a decision by its id."""

    def event(self, identity: str) -> bytes | None:
        """Return the event of a decision, as it was sent."""

    def bodies(self, identities: Sequence[str]) -> dict[str, tuple[StoredDecision, bytes]]:
        """Return decisions with their events by id, without those that are corrupt or not stored."""

    def page(self, filter_: Filter, after: Cursor | None, limit: int) -> Page:
        """Return decisions after the cursor, newest first."""

    def stats(self, filter_: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int) -> list[BucketCount]:
        """Return counts by bucket and group, in order; at most `limit`."""

    def after_sequence(self, sequence: int, filter_: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        """Return decisions after `sequence` in the order of commits, and the sequence up to which the result is complete."""

    def host(self, source: str, version: int | None = None) -> HostFacts | None:
        """Return the facts of a source: the newest or the given version."""

    def put_host(self, facts: HostFacts) -> None:
        """Store the next version of a source's facts."""

    def poisoned(self, source: str, limit: int) -> tuple[PoisonedPage, ...]:
        """Return the poisoned pages of a source, at most `limit`."""

    def hosts(self, filter_: HostFilter, after: str | None, limit: int) -> HostListing:
        """Return the newest facts of each source that has some, after a source, in the order of sources."""

    def poisoned_pages(self, filter_: PoisonFilter, after: PoisonedPosition | None, limit: int) -> PoisonListing:
        """Return the poisoned pages of all sources after the cursor."""

    def poisoned_at(self, source: str, addresses: Sequence[int]) -> tuple[PoisonedPage, ...]:
        """Return the poisoned pages that contain one of these physical addresses."""

    def forget_poisoned(self, source: str) -> int:
        """Delete the poisoned pages of a source. Return their number."""

    def purge_older(self, than_ms: int, at_ms: int, limit: int) -> int:
        """Purge at most `limit` decisions made before `than_ms`, on record. Return their number."""

    def purge_larger(self, than_bytes: int, at_ms: int, limit: int) -> int:
        """Purge at most `limit` of the oldest decisions if the live bytes exceed `than_bytes`, on record. Return their number."""

    def disk_bytes(self) -> int:
        """Return the size of all files in bytes."""

    def usage(self) -> Usage:
        """Return the disk usage, with what `purge_larger` compares. Called by the writer thread."""

    def purges(self, limit: int) -> list[Purge]:
        """Return records of purges, newest first."""

    def losses(self) -> list[Loss]:
        """Return records of losses, newest first."""

    def last_sequence(self) -> int:
        """Return the sequence of the newest decision ever stored; 0: none."""

    def size(self) -> StoreSize:
        """Return the size of the store."""

    def api_key(self, identity: str) -> ApiKey | None:
        """Return an API key by its id, also a revoked one."""

    def api_keys(self) -> list[ApiKey]:
        """Return all API keys, oldest first."""

    def add_api_key(self, key: ApiKey) -> None:
        """Store an API key."""

    def revoke_api_key(self, identity: str, at_ms: int) -> bool:
        """Revoke an API key. Return whether there was an unrevoked one."""

    def policies(self) -> tuple[list[StoredPolicy], int]:
        """Return the newest version of each policy, by name, and the number of those that are corrupt."""

    def put_policy(self, name: str, definition: bytes, at_ms: int) -> None:
        """Store the next version of a policy."""

    def put_replay(self, replay: StoredReplay) -> None:
        """Store a replay, or its new state, and delete the oldest above MAX_REPLAYS."""

    def replay(self, identity: str) -> StoredReplay | None:
        """Return a replay by its id."""

    def replays(self) -> list[StoredReplay]:
        """Return all replays, newest first."""

    def delete_replay(self, identity: str) -> bool:
        """Delete a replay. Return whether there was one."""

    def release_memory(self) -> None:
        """Free caches; from any thread."""

    def close(self) -> None:
        """Close the store."""
