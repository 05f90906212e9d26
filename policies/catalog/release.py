"""Kernel release numbers, as upstream and distributions write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RELEASE = re.compile(r"(?P<major>\d{1,3})\.(?P<minor>\d{1,3})(?:\.(?P<patch>\d{1,5}))?(?P<suffix>(?:[-+~.].*)?)", re.DOTALL)


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
    """Parse `6.12.107`, `6.12.107+deb13-arm64` or `6.17-rc3`; also `6.12.x`, a series without its stable release.

    Some distributions put an ABI number where the stable release would be (`6.1.0-50-cloud-arm64`): then only the series is known.
    Raises ValueError for any other text.
    """
    if series := re.fullmatch(r"(\d{1,3})\.(\d{1,3})\.x", text):
        return Release(int(series[1]), int(series[2]), None)
    match = _RELEASE.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a kernel release; expected one such as `6.12.107`")
    patch = int(match["patch"] or 0)
    names_abi = patch == 0 and match["patch"] is not None and re.match(r"-\d", match["suffix"]) is not None
    return Release(int(match["major"]), int(match["minor"]), None if names_abi else patch)
