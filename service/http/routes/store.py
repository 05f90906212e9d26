"""Route with size, retention, purges and losses of the store."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Depends

from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import TimeText
from ras_triage.service.api.times import rfc3339
from ras_triage.service.http.dependencies import RuntimeOf, only_parameters

router = APIRouter(prefix="/v1/store", tags=["store"], dependencies=[Depends(only_parameters())])

MAX_PURGES: Final = 100


@frozen
class PurgeJson:
    """Decisions that retention deleted together."""

    at: TimeText
    """RFC 3339, UTC."""
    reason: str
    """`age` or `size`."""
    count: int
    """Decisions deleted."""
    oldest: TimeText
    """RFC 3339, UTC: when the oldest of them was decided."""
    newest: TimeText
    """When the oldest and the newest of them were decided."""


@frozen
class LossJson:
    """A loss that an operator has accepted."""

    at: TimeText
    """RFC 3339, UTC: when it was accepted."""
    reason: str
    """`incomplete`: the last commits were missing at a start; `replaced`: the file of the store was replaced; `damaged`: rows were."""
    decisions: int
    """Decisions lost."""
    changes: int
    """Commits of host facts, API keys or purges."""


@frozen
class StoreJson:
    """Size, retention, purges and losses of a store."""

    decisions: int
    """Decisions kept."""
    bytes: int
    """On disk, without free pages."""
    oldest: TimeText | None
    """RFC 3339, UTC: when the oldest was decided; null: there is none."""
    newest: TimeText | None
    """RFC 3339, UTC: when the newest was decided; null: there is none."""
    retention_days: float | None
    """Older decisions are purged; null: never."""
    retention_bytes: int | None
    """The oldest decisions are purged while the store is larger; null: never."""
    purges: tuple[PurgeJson, ...]
    """Latest first, at most the latest 100."""
    wal_bytes: int = 0
    """Length of the write-ahead log, not included in `bytes`."""
    losses: tuple[LossJson, ...] = ()
    """Latest first."""


@router.get("", operation_id="getStore")
async def describe(runtime: RuntimeOf) -> StoreJson:
    """Return size, retention, purges and losses of the store."""
    size = await runtime.read(lambda store: store.size())
    purges = await runtime.read(lambda store: store.purges(MAX_PURGES))
    losses = await runtime.read(lambda store: store.losses())
    return StoreJson(
        size.decisions,
        size.bytes,
        None if size.oldest_ms is None else rfc3339(size.oldest_ms),
        None if size.newest_ms is None else rfc3339(size.newest_ms),
        runtime.settings.retention_days,
        runtime.settings.retention_bytes,
        tuple(
            PurgeJson(rfc3339(purge.at_ms), purge.reason, purge.count, rfc3339(purge.oldest_ms), rfc3339(purge.newest_ms))
            for purge in purges
        ),
        size.log_bytes,
        tuple(LossJson(rfc3339(loss.at_ms), loss.reason, loss.decisions, loss.changes) for loss in losses),
    )
