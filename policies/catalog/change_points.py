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


def newest_linux_policy(arm_error_types: str | None = None) -> Policy:
    """Return the policy of the newest release that was analysed, for a Linux machine whose kernel is not known.

    `arm_error_types`: the numbering of ARM error types that the kernel uses, `legacy` or a later one; None: any.
    """
    return next(
        policy
        for policy in reversed(change_points())
        if arm_error_types is None or policy.behaviours.arm_error_type_bitmask == (arm_error_types != "legacy")
    )


def added_flags(policy: Policy) -> tuple[str, ...]:
    """Return the flags that exactly this release sets in its series."""
    return tuple(flag for flag, since in policy.since.items() if since == str(policy.release))


def removed_flags(policy: Policy) -> tuple[str, ...]:
    """Return the flags that exactly this release clears."""
    return tuple(change.flag for change in change_ledger() if policy.release in change.ended)
