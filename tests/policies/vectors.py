"""Recordings of booted kernels (tests/vectors/README.md)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.paths import VECTORS

Case = dict[str, Any]


def recordings(kind: str) -> list[Path]:
    """The files of one kind, such as `linux` or `kvm`."""
    return sorted([*VECTORS.glob(f"{kind}-*.jsonl"), *VECTORS.glob(f"{kind}-*.jsonl.gz")])


def name_of(path: Path) -> str:
    """The name without its endings: `linux-6.12.118`."""
    return path.name.partition(".jsonl")[0]


def cases(path: Path) -> list[Case]:
    """The recorded cases, one for each line."""
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    return [json.loads(line) for line in lines]
