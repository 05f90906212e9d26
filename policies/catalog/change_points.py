"""Releases that change a behaviour."""

from __future__ import annotations

from functools import lru_cache

from ras_triage.policies.catalog.policies import NEWEST_SERIES, OLDEST, Policy, change_ledger, linux_policy


@lru_cache(maxsize=1)
def change_points() -> tuple[Policy, ...]:
    """Return a policy for the oldest release of the ledger and for each later release that changed a behaviour, oldest first.

    Any other release behaves like the last change point before it in its series, or, without one, like the newest older mainline change
    point.
    """
    releases = {release for change in change_ledger() for release in (change.mainline, *change.stable, *change.ended)}
    known = {release for release in releases if release > OLDEST and release.series <= NEWEST_SERIES}
    return tuple(linux_policy(release) for release in sorted({OLDEST, *known}))


def added_flags(policy: Policy) -> tuple[str, ...]:
    """Return the flags that exactly this release sets in its series."""
    return tuple(flag for flag, since in policy.since.items() if since == str(policy.release))


def removed_flags(policy: Policy) -> tuple[str, ...]:
    """Return the flags that exactly this release clears."""
    return tuple(change.flag for change in change_ledger() if policy.release in change.ended)
