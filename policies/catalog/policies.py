"""Policies as data: the change ledger of Linux, the `uniform` policy, and policies that users write.

UnknownPolicy       no policy has this name
InvalidPolicy       a policy file does not say what it must
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ras_triage.models.decision import PolicyRef
from ras_triage.policies.catalog.behaviours import FLAGS, Behaviours
from ras_triage.policies.catalog.release import Release, parse_release

RULES = 3
"""Counts changes of the rules themselves; part of every digest."""

OLDEST_PATCH = 209
OLDEST = Release(5, 10, OLDEST_PATCH)
"""The ledger says nothing of releases before this one."""

NEWEST_SERIES = (7, 3)
"""The last series that was read and recorded; later ones behave like it as far as anyone knows."""

UNIFORM = "uniform"


class UnknownPolicy(ValueError):
    """No policy has this name."""


class InvalidPolicy(ValueError):
    """A policy file does not say what it must."""


@dataclass(frozen=True, eq=False)
class Policy:
    """A named set of behaviours. Policies are compared by identity: the catalogue hands out one object per name."""

    name: str
    behaviours: Behaviours
    since: Mapping[str, str]
    """For each flag that is set: the release from which this kernel's series has it."""
    release: Release
    """The kernel that the policy mirrors, or is based on."""
    reference: PolicyRef
    """Name and digest, as decisions carry them."""
    notes: tuple[str, ...] = ()
    """What a reader must know before relying on it."""
    unknowns: tuple[str, ...] = ()
    """What is not known of the kernel that it mirrors, and what is taken instead: every decision depends on it."""

    @property
    def digest(self) -> str:
        """A hash over everything that decides: equal digests, equal decisions."""
        return self.reference.digest


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line of the ledger: a behaviour and the releases that brought it."""

    flag: str
    summary: str
    mirrors: str
    mainline: Release
    stable: tuple[Release, ...]
    ended: tuple[Release, ...]
    evidence: str

    def arrived(self, release: Release) -> Release | None:
        """The release from which `release`'s series has the change; None where it does not have it, or no longer."""
        if any(_contains(end, release) for end in self.ended) or release.series >= max(self.ended, default=_NEVER).series:
            return None
        if release.series >= self.mainline.series:
            return self.mainline
        return next((carried for carried in self.stable if _contains(carried, release)), None)


_NEVER = Release(1 << 16, 0, 0)


def _contains(carried: Release, release: Release) -> bool:
    """Whether `release` is that stable release or a later one of its series."""
    return carried.series == release.series and (release.patch is None or release.patch >= (carried.patch or 0))


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(files("ras_triage.policies.catalog").joinpath(name).read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def change_ledger() -> tuple[LedgerEntry, ...]:
    """The change ledger, oldest mainline release first."""
    changes = [
        LedgerEntry(
            flag=flag,
            summary=row["summary"],
            mirrors=row["mirrors"],
            mainline=parse_release(row["mainline"]),
            stable=tuple(parse_release(release) for release in row.get("stable", ())),
            ended=tuple(parse_release(release) for release in row.get("ended", ())),
            evidence=row["evidence"],
        )
        for flag, row in _table("ledger.toml").items()
    ]
    return tuple(sorted(changes, key=lambda change: (change.mainline, FLAGS.index(change.flag))))


def _digest(name: str, behaviours: Behaviours, since: Mapping[str, str]) -> str:
    content = {"name": name, "rules": RULES, "behaviours": asdict(behaviours), "since": dict(since)}
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _policy(name: str, behaviours: Behaviours, since: Mapping[str, str], release: Release, notes: Iterable[str] = ()) -> Policy:
    reference = PolicyRef(name, _digest(name, behaviours, since))
    unknown = tuple(_unknowns(release))
    return Policy(name, behaviours, since, release, reference, (*unknown, *notes), unknown)


@lru_cache(maxsize=4096)
def linux_policy(release: Release) -> Policy:
    """What that release does. Raises UnknownPolicy for one older than the ledger."""
    if release.series < OLDEST.series or (release.series == OLDEST.series and release.patch in range(OLDEST_PATCH)):
        raise UnknownPolicy(f"`linux-{release}` is older than `linux-{OLDEST}`, where the change ledger begins")
    arrivals = ((change.flag, change.arrived(release)) for change in change_ledger())
    behaviours, since = _shared(tuple((flag, arrival.brief) for flag, arrival in arrivals if arrival is not None))
    return _policy(f"linux-{release}", behaviours, since, release)


@lru_cache(maxsize=512)
def _shared(since: tuple[tuple[str, str], ...]) -> tuple[Behaviours, Mapping[str, str]]:
    """Return what the releases share in which the same changes arrived: thousands of them may be held, and few differ."""
    return Behaviours(**dict.fromkeys(dict(since), True)), dict(since)


def _unknowns(release: Release) -> Iterable[str]:
    """What the ledger cannot say about a release, and what is taken instead."""
    if release.patch is None:
        yield f"the stable release of {release} is not known: every back-port that the series ever got is taken as present"
    if release.series > NEWEST_SERIES:
        yield f"{release} is newer than {NEWEST_SERIES[0]}.{NEWEST_SERIES[1]}, the last series that was read: taken to behave the same"


def derive_policy(text: str) -> Policy:
    """A policy from TOML: `name`, `base`, and under `[flags]` those that differ from the base.

    Raises InvalidPolicy where the text is not such a table, and UnknownPolicy for an unknown base.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidPolicy(f"not valid TOML: {error}") from None
    if unknown := set(table) - {"name", "base", "notes", "flags"}:
        raise InvalidPolicy(f"`{min(unknown)}` is not a key of a policy")
    name, base_name, flags, notes = (table.get(key, default) for key, default in (("name", ""), ("base", ""), ("flags", {}), ("notes", [])))
    if not (isinstance(name, str) and isinstance(base_name, str) and name and base_name):
        raise InvalidPolicy("expected `name` and `base` as strings")
    if not (isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
        raise InvalidPolicy("expected `notes` as a list of strings")
    base = resolve_policy(base_name)
    changed = _flags(flags)
    since = {flag: release for flag, release in base.since.items() if changed.get(flag, True)}
    return _policy(name, replace(base.behaviours, **changed), since, base.release, notes)


def _flags(table: Any) -> dict[str, bool]:
    if not isinstance(table, dict):
        raise InvalidPolicy("expected `[flags]` as a table")
    for flag, value in table.items():
        if flag not in FLAGS:
            raise InvalidPolicy(f"`{flag}` is not a behaviour flag")
        if not isinstance(value, bool):
            raise InvalidPolicy(f"flag `{flag}` must be true or false")
    return table


@lru_cache(maxsize=1)
def flag_meanings() -> dict[str, tuple[str, str | None]]:
    """For each flag what it means, and the kernel function that shows it; a principle has none."""
    of_linux = {change.flag: (change.summary, change.mirrors) for change in change_ledger()}
    return {flag: of_linux.get(flag) or (_table("principles.toml")[flag], None) for flag in FLAGS}


@lru_cache(maxsize=1)
def uniform_policy() -> Policy:
    """One classification whatever the notification; see docs/uniform.md."""
    return derive_policy(files("ras_triage.policies.catalog").joinpath("uniform.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=4096)
def resolve_policy(name: str) -> Policy:
    """The policy of that name: `uniform`, or `linux-` and any release. Raises UnknownPolicy."""
    if name == UNIFORM:
        return uniform_policy()
    if not name.startswith("linux-"):
        raise UnknownPolicy(f"`{name}` is neither `{UNIFORM}` nor `linux-` and a release")
    try:
        release = parse_release(name.removeprefix("linux-"))
    except ValueError as error:
        raise UnknownPolicy(str(error)) from None
    return linux_policy(release)


def flag_differences(one: Policy, other: Policy) -> dict[str, tuple[bool, bool]]:
    """The flags that differ, with what each policy says."""
    pairs = ((flag, (getattr(one.behaviours, flag), getattr(other.behaviours, flag))) for flag in FLAGS)
    return {flag: values for flag, values in pairs if values[0] != values[1]}
