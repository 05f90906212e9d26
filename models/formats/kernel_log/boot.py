"""Facts about one boot of a machine that a kernel log states."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

_PAGE_SUFFIXES: Final = ((re.compile(r".*[-+._]64k\b.*"), 65536), (re.compile(r".*[-+._]16k\b.*"), 16384))
"""Names of kernel packages with larger pages, such as `5.14.0-427.el9.aarch64+64k` and `6.8.0-1010-nvidia-64k`."""

_HEADER = re.compile(r"(?:OSRELEASE=|RELEASE: +|Linux \S{1,64} (?=\d.{1,200} GNU/Linux$))(?P<release>\d{1,3}\.\d{1,3}\S{0,120})(?: .*)?")
"""Of kdump's vmcoreinfo, of crash, and of `uname -a`."""
_PAGE_SIZE = re.compile(r"PAGESIZE=(?P<size>4096|16384|65536)")
"""Of vmcoreinfo."""

KEYWORDS: Final = (b"RELEASE", b"GNU/Linux", b"PAGESIZE=")
"""Every line that `read_header_release` and `read_page_size` parse contains one of these."""


def read_header_release(text: str) -> str | None:
    """Return the release that a header names; None for any other line."""
    match = _HEADER.fullmatch(text)
    return match["release"] if match else None


def read_page_size(text: str) -> int | None:
    """Return the page size in bytes that a header names; None for any other line."""
    match = _PAGE_SIZE.fullmatch(text)
    return int(match["size"]) if match else None


@dataclass(slots=True)
class Boot:
    """What is known about one boot. Its records share it, because a log may state a fact after them."""

    release: str | None = None
    page_size: int | None = None
    """Bytes; None: not known, or the kernel's default of 4096."""
    synchronous_sources: set[int] = field(default_factory=set)
    """Ids of error sources whose records come with an abort: a source has one notification type (ACPI 6.5 18.3.2.7)."""

    def set_release(self, release: str) -> None:
        """Set the release, and the page size if the release names it."""
        self.release = release
        for pattern, size in _PAGE_SUFFIXES:
            if self.page_size is None and pattern.fullmatch(release):
                self.page_size = size

    def host_facts(self) -> dict[str, Any]:
        """Return the facts as fields of `Host`."""
        facts = {"kernel": self.release, "page_size": self.page_size}
        return {name: value for name, value in facts.items() if value is not None}
