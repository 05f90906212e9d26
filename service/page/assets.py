"""Files of the web page, as they are sent to a browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
"""Folder of the files; it has no subfolders."""

DOCUMENT: Final = "index.html"

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file with its media type and validator."""

    content: bytes
    media_type: str
    etag: str


@lru_cache(maxsize=1)
def load_assets() -> Mapping[str, Asset]:
    """Return the files of the page by name. They are read once: the page and its modules are always of one version."""
    return {path.name: _load(path) for path in sorted(STATIC.iterdir()) if path.suffix in _MEDIA_TYPES}


def _load(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, _MEDIA_TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
