"""Kernel release numbers, as upstream and distributions write them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_RELEASE = re.compile(r"(?:linux-)?v?(?P<major>\d{1,3})\.(?P<minor>\d{1,3})(?:\.(?P<patch>\d{1,5}))?(?P<suffix>(?:[-+~.].*)?)", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """An upstream release, `major.minor.patch`. A patch of None is a series with an unknown stable release."""

    major: int
    minor: int
    patch: int | None

    @property
    def series(self) -> tuple[int, int]:
        return (self.major, self.minor)

    @property
    def brief(self) -> str:
        """Return the usual short form: `6.12` for `6.12.0`."""
        return f"{self.major}.{self.minor}" if self.patch == 0 else str(self)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{'x' if self.patch is None else self.patch}"


def parse_release(text: str) -> Release:
    """Parse `6.12.107`, `v6.12.107`, `linux-6.12.107`, `6.12.107+deb13-arm64` or `6.17-rc3`.

    `6.12` and `6.12.x` are a series without its stable release; 6.12.0 is `6.12.0`, as `uname -r` prints it. Some distributions put an ABI
    number where the stable release would be (`6.1.0-50-cloud-arm64`): then only the series is known. Raises ValueError for any other text.
    """
    match = _RELEASE.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text.removeprefix('linux-')}` is not a kernel release; expected one such as `6.12.107`")
    return Release(int(match["major"]), int(match["minor"]), _patch(match["patch"], match["suffix"]))


def parse_mainline(text: str) -> Release:
    """Parse a release of the change ledger, in which `6.17` is the mainline release 6.17.0. Raises ValueError."""
    release = parse_release(text)
    return replace(release, patch=0) if release.patch is None else release


def _patch(patch: str | None, suffix: str) -> int | None:
    """Return the number of the stable release; None: not known."""
    if patch is None and _CANDIDATE.match(suffix):
        return 0
    names_abi = patch is not None and int(patch) == 0 and _ABI.match(suffix) is not None
    return None if patch is None or names_abi else int(patch)


_CANDIDATE = re.compile(r"[-~]rc\d")
_ABI = re.compile(r"-\d")
