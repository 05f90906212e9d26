"""What an operator can set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from policies.catalog import UNIFORM, InvalidPolicy, Policy, UnknownPolicy, uniform
from policies.choose import find, load

MAX_BODY_BYTES = 4 << 20
"""Longest request: room for the longest status block in base64, and for the facts of a large machine."""


class InvalidSetting(ValueError):
    """A setting that cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service decides with, and what it accepts."""

    default_policy: Policy = field(default_factory=uniform)
    """Decides events that name neither a policy nor a kernel."""
    custom: Mapping[str, Policy] = field(default_factory=dict)
    """The operator's own policies, by name."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Longest request, and longest event of a batch."""
    store: str = "memory:"
    """`memory:` or `sqlite:///PATH`."""
    queue_entries: int = 4096
    """Decisions that may wait to be written."""
    queue_bytes: int = 64 << 20
    """And their bytes, events and decisions together."""
    max_batch_bytes: int = 1 << 40
    """Longest batch, unpacked."""
    spill_bytes: int = 16 << 30
    """Results of one batch that may wait on disk for a client that does not read yet."""
    retention_days: float | None = None
    """Decisions that are older are purged; None: never."""
    retention_bytes: int | None = None
    """The oldest decisions are purged while the store is larger; None: never."""


def read_settings(policy_files: list[Path] | None = None, default_policy: str = UNIFORM) -> Settings:
    """Settings from the command line. Raises InvalidSetting."""
    files = policy_files or []
    try:
        custom = load(_read_text(path) for path in files)
        return Settings(find(default_policy, custom), custom)
    except (InvalidPolicy, UnknownPolicy) as error:
        raise InvalidSetting(str(error)) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSetting(f"`{path}`: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"`{path}` is not UTF-8 text") from None
