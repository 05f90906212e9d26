"""Evidence for the value of each behaviour flag in a release.

Kernels were booted and recorded, and sources and changelogs were read, for some releases of some series. `ledger.toml` says how each of its
releases is known, `releases.toml` what was read of each series.
"""

from __future__ import annotations

from functools import lru_cache

from ras_triage.models.decision import Evidence
from ras_triage.models.frozen import frozen
from ras_triage.policies.catalog.policies import NEWEST_SERIES, LedgerEntry, catalog_table, change_ledger
from ras_triage.policies.catalog.release import Release, parse_mainline, parse_release

Series = tuple[int, int]


@frozen
class SeriesEvidence:
    """What was read and booted of one series."""

    changelogs: tuple[Release, Release] | None
    """The first and last release whose lists of commits were read."""
    sources: tuple[Release, ...]
    booted: tuple[Release, ...]


_NOTHING = SeriesEvidence(None, (), ())


@lru_cache(maxsize=1)
def series_evidence() -> dict[Series, SeriesEvidence]:
    """Return what was read and booted, by series."""
    found = {}
    for name, row in catalog_table("releases.toml").items():
        logs, sources, booted = (tuple(map(parse_mainline, row.get(key, ()))) for key in ("changelogs", "sources", "booted"))
        found[parse_release(name).series] = SeriesEvidence((logs[0], logs[-1]) if logs else None, sources, booted)
    return found


@lru_cache(maxsize=1)
def _entries() -> dict[str, LedgerEntry]:
    return {entry.flag: entry for entry in change_ledger()}


def flag_evidence(flag: str, release: Release) -> Evidence | None:
    """Return the evidence for the flag's value in a release; None for a flag that no kernel has."""
    entry = _entries().get(flag)
    if entry is None:
        return None
    if _is_recorded(entry, release):
        return Evidence.RECORDED
    is_read = _presence_is_read if entry.arrived(release) else _absence_is_read
    return Evidence.READ if release.series <= NEWEST_SERIES and is_read(entry, release) else Evidence.INFERRED


def _is_recorded(entry: LedgerEntry, release: Release) -> bool:
    """Return whether the release was recorded, or lies between two recorded ones of its series that agree."""
    if release.patch is None:
        return False
    shown = [[known for known in side if known.series == release.series] for side in (entry.recorded_off, entry.recorded_on)]
    return any(min(side) <= release <= max(side) for side in shown if side)


def _presence_is_read(entry: LedgerEntry, release: Release) -> bool:
    """Return whether it was read that the release has the change: that it arrived, and that it had not ended yet."""
    since = entry.arrived(release)
    end = next((end for end in entry.ended if end.series == release.series), None)
    if since is None or not _is_read(entry, since, release):
        return False
    if release.patch is None:
        return since.series < release.series and end is None
    return end is None or release.patch == 0 or _is_read(entry, end, None)


def _absence_is_read(entry: LedgerEntry, release: Release) -> bool:
    """Return whether it was read that the release lacks the change."""
    ends = [end for end in entry.ended if end.series <= release.series]
    if release.patch is None:
        return bool(ends) and max(ends).series < release.series and _is_read(entry, max(ends), None)
    if ends and release >= min(ends):
        end = next((end for end in ends if end.series == release.series), max(ends))
        return _is_read(entry, end, release)
    return release.patch <= _last_without(entry, release.series)


def _is_read(entry: LedgerEntry, change: Release, release: Release | None) -> bool:
    """Return whether the release that changed the behaviour is known, or a source from there up to `release` shows the change."""
    if entry.known_by[change] != Evidence.INFERRED:
        return True
    if release is None or release.patch is None:
        return False
    read = (*series_evidence().get(release.series, _NOTHING).sources, *entry.recorded_on)
    return any(change <= known <= release for known in read if known.series == release.series)


def _last_without(entry: LedgerEntry, series: Series) -> int:
    """Return the last stable release of a series that is known to lack the change; -1: none.

    The first release of a series lacks what a later one of it, or a later series, added. Changelogs continue from there.
    """
    backport = next((known for known in entry.stable if known.series == series), None)
    read = series_evidence().get(series, _NOTHING)
    without = [known for known in (*entry.absent, *entry.recorded_off) if known.series == series]
    without += [known for known in read.sources if backport is None or known < backport]
    last = max((known.patch or 0 for known in without), default=-1)
    if backport is not None:
        return max(last, (backport.patch or 0) - 1) if _is_read(entry, backport, None) else last
    if any(_is_read(entry, change, None) for change in (entry.mainline, *entry.stable) if change.series > series):
        last = max(last, 0)
    if read.changelogs is not None and (read.changelogs[0].patch or 0) <= last + 1:
        last = max(last, read.changelogs[1].patch or 0)
    return last
