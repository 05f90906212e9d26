"""The releases at which something in the change ledger flips."""

from __future__ import annotations

from functools import lru_cache

from ras_triage.policies.catalog.policies import NEWEST_SERIES, OLDEST, Policy, change_ledger, linux_policy


@lru_cache(maxsize=1)
def change_points() -> tuple[Policy, ...]:
    """One policy for the oldest release of the ledger and one for each later release that changed a behaviour, oldest first.

    Every other release behaves like the landmark before it in its series, or, where there is none, like the newest mainline landmark
    that is older.
    """
    flips = {release for change in change_ledger() for release in (change.mainline, *change.stable, *change.ended)}
    known = {release for release in flips if release > OLDEST and release.series <= NEWEST_SERIES}
    return tuple(linux_policy(release) for release in sorted({OLDEST, *known}))


def added_flags(policy: Policy) -> tuple[str, ...]:
    """The flags whose behaviour came with exactly this release of its series."""
    return tuple(flag for flag, since in policy.since.items() if since == str(policy.release))


def removed_flags(policy: Policy) -> tuple[str, ...]:
    """The flags whose behaviour went with exactly this release."""
    return tuple(change.flag for change in change_ledger() if policy.release in change.ended)
