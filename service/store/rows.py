"""Conversion between rows and the types of the store, with checksums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID
from zlib import crc32

from pydantic_core import from_json, to_json

from ras_triage.models.poison import PoisonedPage
from ras_triage.service.store.compression import decompress
from ras_triage.service.store.port import (
    ApiKey,
    Cursor,
    HostFacts,
    HostSummary,
    NewDecision,
    RowDamaged,
    StoredDecision,
    StoredPolicy,
    StoredReplay,
    Summary,
)

SUMMARY_COLUMNS: Final = (
    "d.id, d.at, d.source, d.event_id, d.event_key, d.policy, d.policy_digest, d.action, d.certainty, d.notification, d.severity,"
    " d.sections, d.addresses"
)
DECISION_COLUMNS: Final = (
    "seq, id, at, source, event_id, event_key, repeat_key, policy, policy_digest, action, certainty, notification, severity,"
    " sections, addresses, poisons, forgets"
)

_KEY_PREFIX: Final = "sha256:"


def key_bytes(event_key: str) -> bytes:
    """Return the 32 bytes of an event key."""
    return bytes.fromhex(event_key.removeprefix(_KEY_PREFIX))


def key_text(data: bytes) -> str:
    """Return an event key from its 32 bytes."""
    return _KEY_PREFIX + data.hex()


def id_bytes(identity: str) -> bytes | None:
    """Return the 16 bytes of a decision's id; None: not a canonical UUID."""
    try:
        found = UUID(identity)
    except ValueError:
        return None
    return found.bytes if str(found) == identity.lower() else None


def id_text(data: bytes) -> str:
    """Return a decision's id from its 16 bytes."""
    return str(UUID(bytes=data))


def start_text(start: int) -> str:
    """Return the start address of a poisoned page as text with fixed width, so that texts sort like numbers."""
    return f"{start:#018x}"


def decision_row(sequence: int, entry: NewDecision) -> tuple[Any, ...]:
    """Return a row of `decisions`, in the order of DECISION_COLUMNS."""
    found = entry.summary
    poisons = (
        to_json([(start_text(page.start), page.shift, hex(page.address)) for page in entry.poisons]).decode() if entry.poisons else None
    )
    return (
        sequence,
        bytes.fromhex(found.id.replace("-", "")),
        found.decided_at_ms,
        found.source,
        found.event_id,
        key_bytes(found.event_key),
        entry.repeat_key,
        found.policy,
        found.policy_digest,
        found.action,
        found.certainty,
        found.notification,
        found.severity,
        array(found.sections),
        array(map(hex, found.physical_addresses)),
        poisons,
        entry.forgets,
    )


BODY_COLUMNS: Final = "seq, event, event_check, decision, decision_check"
STORED_COLUMNS: Final = "d.id, d.at, d.event_key, b.decision, b.decision_check"
"""Columns for `stored_decision`."""


def body_row(sequence: int, found: Summary, event: bytes, decision: bytes) -> tuple[int, bytes, int, bytes, int]:
    """Return a row of `bodies` from a compressed event and decision.

    The checksums, of the compressed bytes, detect bytes that changed on the disk, which SQLite does not.
    """
    check = _decision_check(bytes.fromhex(found.id.replace("-", "")), found.decided_at_ms, key_bytes(found.event_key), decision)
    return sequence, event, crc32(event), decision, check


LOST_EVENT: Final = b""
"""Placeholder for a corrupt event whose decision is sound."""


def decision_is_sound(identity: Any, at: Any, event_key: Any, decision: Any, check: Any) -> bool:
    """Return whether the columns match their checksum."""
    try:
        return bool(_decision_check(identity, at, event_key, decision) == check)
    except (AttributeError, OverflowError, TypeError, ValueError):  # wrong column type
        return False


def _decision_check(identity: bytes, at: int, event_key: bytes, decision: bytes) -> int:
    return crc32(decision, crc32(event_key, crc32(identity + at.to_bytes(8, "big", signed=True))))


def event(row: tuple[Any, ...]) -> bytes:
    """Return the event of a row of event and checksum. Raises RowDamaged."""
    data, check = row
    if data == LOST_EVENT:
        raise RowDamaged("the event of this decision is lost; the decision is sound")
    if not event_is_sound(data, check):
        raise RowDamaged("checksum mismatch in an event")
    return body_text(data)


def body_text(data: bytes) -> bytes:
    """Return the text of a body with a matching checksum. Raises RowDamaged."""
    try:
        return decompress(data)
    except ValueError as error:
        raise RowDamaged(f"corrupt compression: {error}") from None


def event_is_sound(data: Any, check: Any) -> bool:
    """Return whether the columns match their checksum."""
    return isinstance(data, bytes) and crc32(data) == check


def array(texts: Iterable[str]) -> str:
    """Return a JSON array of names or numbers that need no escaping."""
    return "[" + ",".join(f'"{text}"' for text in texts) + "]"


def summary(row: tuple[Any, ...]) -> Summary:
    """Convert a row of SUMMARY_COLUMNS. Raises RowDamaged."""
    identity, at, source, event_id, event_key, policy, digest, action, certainty, notification, severity, sections, addresses = row
    try:
        if type(at) is not int or not all(map(_is_text, (policy, digest, action, certainty, notification, sections, addresses))):
            raise TypeError("wrong column type")
        if not all(text is None or _is_text(text) for text in (source, event_id, severity)):
            raise TypeError("wrong column type")
        return Summary(
            id_text(identity),
            at,
            source,
            event_id,
            key_text(event_key),
            policy,
            digest,
            action,
            certainty,
            notification,
            severity,
            tuple(from_json(sections)),
            tuple(int(address, 16) for address in from_json(addresses)),
        )
    except (TypeError, ValueError) as error:
        raise RowDamaged(f"corrupt summary of a decision: {error}") from None


def stored_decision(row: tuple[Any, ...]) -> StoredDecision:
    """Convert a row of STORED_COLUMNS. Raises RowDamaged."""
    identity, at, event_key, decision, check = row
    if not decision_is_sound(identity, at, event_key, decision, check):
        raise RowDamaged("checksum mismatch in a decision")
    return StoredDecision(id_text(identity), at, key_text(event_key), body_text(decision))


def body(row: tuple[Any, ...]) -> tuple[StoredDecision, bytes]:
    """Convert a row of STORED_COLUMNS, event and its checksum to the decision and its event. Raises RowDamaged."""
    return stored_decision(row[:-2]), event(row[-2:])


HOST_COLUMNS: Final = "source, version, changed_at, facts, facts_check"


def host_row(facts: HostFacts) -> tuple[Any, ...]:
    """Return a row of HOST_COLUMNS."""
    return facts.source, facts.version, facts.changed_at_ms, facts.facts, None if facts.facts is None else crc32(facts.facts)


def host(row: tuple[Any, ...]) -> HostFacts:
    """Convert a row of HOST_COLUMNS. Raises RowDamaged."""
    source, version, changed_at, facts, check = row
    if check is not None and (not isinstance(facts, bytes) or crc32(facts) != check):
        raise RowDamaged("checksum mismatch in host facts")
    return HostFacts(source, version, changed_at, facts)


def policy(row: tuple[Any, ...]) -> StoredPolicy:
    """Convert a row of `policies`. Raises RowDamaged."""
    name, version, stored_at, definition, check = row
    if not _is_text(name) or not isinstance(definition, bytes) or crc32(definition) != check:
        raise RowDamaged("corrupt row of a policy")
    return StoredPolicy(name, version, stored_at, definition)


def poisoned(row: tuple[Any, ...]) -> PoisonedPage:
    """Convert a row of start, address and shift. Raises RowDamaged."""
    start, address, shift = row
    try:
        page = PoisonedPage(int(address, 16), shift)
        sound = start_text(page.start) == start and hex(page.address) == address
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise RowDamaged("corrupt row of a poisoned page")
    return page


def poisoned_of_source(row: tuple[Any, ...]) -> tuple[str, PoisonedPage]:
    """Convert a row of source, start, shift and address. Raises RowDamaged."""
    source, start, shift, address = row
    if not _is_text(source):
        raise RowDamaged("corrupt source of a poisoned page")
    return source, poisoned((start, address, shift))


def host_entry(row: tuple[Any, ...]) -> HostSummary:
    """Convert a row of source, version, time of the change and length of the facts. Raises RowDamaged."""
    if not _is_text(row[0]):
        raise RowDamaged("corrupt source of host facts")
    return HostSummary(*row)


def _is_text(column: Any) -> bool:
    return type(column) is str


def api_key(row: tuple[Any, ...]) -> ApiKey:
    """Convert a row of `api_keys`. Raises RowDamaged."""
    identity, name, scopes, secret_hash, created, revoked = row
    if not all(map(_is_text, (identity, name, scopes, secret_hash))):
        raise RowDamaged("corrupt row of an API key")
    return ApiKey(identity, name, tuple(scopes.split()), secret_hash, created, revoked)


def replay_row(replay: StoredReplay) -> tuple[Any, ...]:
    """Return a row of `replays`."""
    position = (None, None) if replay.position is None else (replay.position.decided_at_ms, replay.position.sequence)
    changes = replay.changes.decode()
    return replay.id, replay.created_at_ms, replay.state, replay.request.decode(), replay.total, *position, changes, replay.error


def replay(row: tuple[Any, ...]) -> StoredReplay:
    """Convert a row of `replays`. Raises RowDamaged."""
    identity, created, state, request, total, at, sequence, changes, error = row
    if not all(map(_is_text, (identity, state, request, changes))):
        raise RowDamaged("corrupt row of a replay")
    try:
        from_json(request)
        from_json(changes)
    except ValueError:
        raise RowDamaged("corrupt row of a replay") from None
    position = None if at is None else Cursor(at, sequence)
    return StoredReplay(identity, created, state, request.encode(), total, position, changes.encode(), error)
