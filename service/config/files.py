"""Files that settings name: policies, and the folder of the store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ras_triage.policies.catalog.choice import find_policy, load_policies
from ras_triage.policies.catalog.policies import UNIFORM, InvalidPolicy, UnknownPolicy
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.config.store_address import default_store, sqlite_path


def read_settings(policy_files: Iterable[Path] = (), default_policy: str = UNIFORM) -> Settings:
    """Return settings with the content of files, and otherwise defaults: those of a command without a service. Raises InvalidSetting."""
    try:
        custom = load_policies(read_text(path) for path in policy_files)
        return Settings(find_policy(default_policy, custom), custom)
    except (InvalidPolicy, UnknownPolicy) as error:
        raise InvalidSetting(str(error)) from None


def read_text(path: Path) -> str:
    """Read a text file. Raises InvalidSetting."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSetting(f"`{path}`: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"`{path}` is not UTF-8 text") from None


def prepare_store(settings: Settings) -> None:
    """Create the folder of the default store, accessible only to its owner. Raises InvalidSetting."""
    path = sqlite_path(settings.store)
    if path is None or settings.store != default_store():
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise InvalidSetting(f"cannot create `{path.parent}`: {reason}; select a store with `--store sqlite:///PATH`") from None
