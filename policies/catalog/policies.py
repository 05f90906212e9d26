"""Policies: Linux releases from the change ledger, `uniform`, and custom ones.

UnknownPolicy       no policy has this name
InvalidPolicy       a policy file is malformed
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
from ras_triage.policies.catalog.definition_file import DefinitionFile, InvalidDefinition
from ras_triage.policies.catalog.release import Release, parse_mainline, parse_release

RULES = 5
"""Version of the rules, part of every policy's digest. Raise it when decisions change, texts included."""

OLDEST_PATCH = 209
OLDEST = Release(5, 10, OLDEST_PATCH)
"""The oldest release in the ledger."""

NEWEST_SERIES = (7, 3)
"""The newest series that was analysed and recorded; later ones are assumed to behave like it."""

UNIFORM = "uniform"


class UnknownPolicy(ValueError):
    """No policy has this name."""


class InvalidPolicy(InvalidDefinition):
    """A policy file is malformed."""


@dataclass(frozen=True, eq=False)
class Policy:
    """A named set of behaviours. Policies are compared by identity: the catalogue returns one object per name."""

    name: str
    behaviours: Behaviours
    since: Mapping[str, str]
    """For each flag that is set: the release from which this kernel's series has it."""
    release: Release
    """The kernel release that the policy mirrors or is based on."""
    reference: PolicyRef
    """Name and digest, as in decisions."""
    notes: tuple[str, ...] = ()
    """Limits of the policy that its users should know."""
    unknowns: tuple[str, ...] = ()
    """Unknown facts about the kernel and what is assumed instead: every decision depends on them."""

    @property
    def digest(self) -> str:
        """Return a hash of everything that decides: equal digests, equal decisions."""
        return self.reference.digest


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One entry of the ledger: a behaviour and the releases that added it."""

    flag: str
    summary: str
    mirrors: str
    mainline: Release
    stable: tuple[Release, ...]
    ended: tuple[Release, ...]
    evidence: str
    known_by: Mapping[Release, str]
    """How each of these releases is known (`ledger.toml`)."""
    absent: tuple[Release, ...]
    """Of a series: the last release that was read and does not have the change."""
    recorded_off: tuple[Release, ...]
    """Booted releases that show the behaviour before the change."""
    recorded_on: tuple[Release, ...]
    """Booted releases that show the change."""

    def arrived(self, release: Release) -> Release | None:
        """Return the release from which `release`'s series has the change; None where `release` does not have it."""
        if any(_includes(end, release) for end in self.ended) or release.series >= max(self.ended, default=_NEVER).series:
            return None
        if release.series >= self.mainline.series:
            return self.mainline
        return next((backport for backport in self.stable if _includes(backport, release)), None)


_NEVER = Release(1 << 16, 0, 0)


def _includes(backport: Release, release: Release) -> bool:
    """Return whether `release` is that stable release or a later one of its series."""
    return backport.series == release.series and (release.patch is None or release.patch >= (backport.patch or 0))


def catalog_table(name: str) -> dict[str, Any]:
    """Return a TOML file of the catalogue."""
    return tomllib.loads(files("ras_triage.policies.catalog").joinpath(name).read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def change_ledger() -> tuple[LedgerEntry, ...]:
    """Return the change ledger, oldest mainline release first."""
    changes = [_entry(flag, row) for flag, row in catalog_table("ledger.toml").items()]
    return tuple(sorted(changes, key=lambda change: (change.mainline, FLAGS.index(change.flag))))


def _entry(flag: str, row: Mapping[str, Any]) -> LedgerEntry:
    mainline, recorded = parse_mainline(row["mainline"]), row.get("recorded", {})
    return LedgerEntry(
        flag=flag,
        summary=row["summary"],
        mirrors=row["mirrors"],
        mainline=mainline,
        stable=_releases(row.get("stable", ())),
        ended=_releases(row.get("ended", ())),
        evidence=row["evidence"],
        known_by={mainline if release == "mainline" else parse_mainline(release): how for release, how in row["known_by"].items()},
        absent=_releases(row.get("absent", {}).values()),
        recorded_off=_releases(recorded.get("off", ())),
        recorded_on=_releases(recorded.get("on", ())),
    )


def _releases(names: Iterable[str]) -> tuple[Release, ...]:
    return tuple(parse_mainline(name) for name in names)


def _digest(name: str, behaviours: Behaviours, since: Mapping[str, str]) -> str:
    return content_digest({"name": name, "rules": RULES, "behaviours": asdict(behaviours), "since": dict(since)})


def content_digest(content: Mapping[str, Any]) -> str:
    """Return the hash of everything that decides in a policy or a VMM."""
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _policy(name: str, behaviours: Behaviours, since: Mapping[str, str], release: Release, notes: Iterable[str] = ()) -> Policy:
    reference = PolicyRef(name, _digest(name, behaviours, since))
    unknown = tuple(_unknowns(release))
    return Policy(name, behaviours, since, release, reference, notes=(*unknown, *notes), unknowns=unknown)


@lru_cache(maxsize=4096)
def linux_policy(release: Release) -> Policy:
    """Return the policy of a release. Raises UnknownPolicy for one older than the ledger."""
    if _is_too_old(release):
        raise UnknownPolicy(f"`linux-{release}` is older than the change ledger; expected `linux-{OLDEST}` or later")
    arrivals = ((change.flag, change.arrived(release)) for change in change_ledger())
    behaviours, since = _shared(tuple((flag, arrival.brief) for flag, arrival in arrivals if arrival is not None))
    return _policy(f"linux-{release}", behaviours, since, release)


@lru_cache(maxsize=4096)
def kernel_policy(kernel: str) -> Policy:
    """Return the policy of the kernel that a machine runs, `6.12.107+deb13-arm64`. Raises UnknownPolicy for any other text.

    A kernel older than the ledger has the policy of the oldest release in it: every decision depends on that.
    """
    release = _release(kernel)
    if not _is_too_old(release):
        return linux_policy(release)
    unknown = f"{release} is older than {OLDEST}, the oldest release analysed: the same behaviour assumed"
    return replace(linux_policy(OLDEST), notes=(unknown,), unknowns=(unknown,))


def _is_too_old(release: Release) -> bool:
    return release.series < OLDEST.series or (release.series == OLDEST.series and release.patch in range(OLDEST_PATCH))


def _release(text: str) -> Release:
    """Parse a release. Raises UnknownPolicy."""
    try:
        return parse_release(text)
    except ValueError as error:
        raise UnknownPolicy(str(error)) from None


@lru_cache(maxsize=512)
def _shared(since: tuple[tuple[str, str], ...]) -> tuple[Behaviours, Mapping[str, str]]:
    """Return behaviours and `since` that all releases with the same changes share: thousands may be cached, and few differ."""
    return Behaviours(**dict.fromkeys(dict(since), True)), dict(since)


def _unknowns(release: Release) -> Iterable[str]:
    """Yield the unknown facts about a release, and what is assumed instead."""
    if release.patch is None:
        yield f"stable release of {release} unknown: every backport of the series assumed present"
    if release.series > NEWEST_SERIES:
        yield f"{release} is newer than {NEWEST_SERIES[0]}.{NEWEST_SERIES[1]}, the newest series analysed: the same behaviour assumed"


def derive_policy(text: str) -> Policy:
    """Return a policy from TOML: `name`, `base`, optional `notes`, and under `[flags]` those that differ from the base.

    Raises InvalidPolicy for malformed text, and UnknownPolicy for an unknown base.
    """
    file = DefinitionFile(text, ("name", "base", "notes", "flags"), InvalidPolicy)
    name, base_name, notes, changed = file.text("name"), file.text("base"), file.texts("notes"), file.flags(FLAGS)
    return custom_policy(name, base_name, notes, changed)


def custom_policy(name: str, base_name: str, notes: Iterable[str], changed: Mapping[str, bool]) -> Policy:
    """Return a policy with the behaviours of a base, except for the flags in `changed`. Raises UnknownPolicy for an unknown base."""
    base = resolve_policy(base_name)
    since = {flag: release for flag, release in base.since.items() if changed.get(flag, True)}
    return _policy(name, replace(base.behaviours, **changed), since, base.release, notes)


@lru_cache(maxsize=1)
def flag_meanings() -> dict[str, tuple[str, str | None]]:
    """Return each flag's meaning and kernel function; a principle has no function."""
    of_linux = {change.flag: (change.summary, change.mirrors) for change in change_ledger()}
    return {flag: of_linux.get(flag) or (catalog_table("principles.toml")[flag], None) for flag in FLAGS}


@lru_cache(maxsize=1)
def uniform_policy() -> Policy:
    """Return the `uniform` policy (docs/uniform.md)."""
    return derive_policy(files("ras_triage.policies.catalog").joinpath("uniform.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=2048)
def resolve_policy(name: str) -> Policy:
    """Return the policy of that name: `uniform`, or any release with or without `linux-`. Raises UnknownPolicy.

    `linux-6.12` is the series: its policy is `linux-6.12.x`. That of the first release is `linux-6.12.0`.
    """
    if name == UNIFORM:
        return uniform_policy()
    if name.startswith("linux-"):
        return release_policy(name)
    try:
        release = parse_release(name)
    except ValueError:
        raise UnknownPolicy(
            f"unknown policy `{name}`; expected `{UNIFORM}`, `linux-<release>` such as `linux-6.12.107`, or a custom policy"
        ) from None
    return linux_policy(release)


def canonical_name(name: str) -> str:
    """Return the name that decisions have for a policy: `linux-6.12.x` for `linux-6.12`. Other names are unchanged."""
    try:
        return resolve_policy(name).name
    except UnknownPolicy:
        return name


def release_policy(release: str) -> Policy:
    """Return the policy of a kernel release. Raises UnknownPolicy, also for one older than the ledger."""
    return linux_policy(_release(release))


def flag_differences(one: Policy, other: Policy) -> dict[str, tuple[bool, bool]]:
    """Return the flags that differ, with each policy's value."""
    pairs = ((flag, (getattr(one.behaviours, flag), getattr(other.behaviours, flag))) for flag in FLAGS)
    return {flag: values for flag, values in pairs if values[0] != values[1]}
