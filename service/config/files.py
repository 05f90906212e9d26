"""Files that settings name: policies, VMMs, and the folder of the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from ras_triage.policies.catalog.choice import find_policy, load_policy
from ras_triage.policies.catalog.definition_file import InvalidDefinition
from ras_triage.policies.catalog.policies import UNIFORM, Policy, UnknownPolicy
from ras_triage.policies.catalog.vmms import Vmm, load_vmm
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.config.store_address import default_store, sqlite_path

Definition = TypeVar("Definition", Policy, Vmm)


def read_settings(policy_files: Iterable[Path] = (), vmm_files: Iterable[Path] = (), default_policy: str = UNIFORM) -> Settings:
    """Return settings with the content of files, and otherwise defaults: those of a command without a service. Raises InvalidSetting."""
    policies, custom_vmms = _read_definitions(policy_files, load_policy), _read_definitions(vmm_files, load_vmm)
    try:
        return Settings(find_policy(default_policy, policies), policies, custom_vmms)
    except UnknownPolicy as error:
        raise InvalidSetting(str(error)) from None


def _read_definitions(files: Iterable[Path], load: Callable[[str, Collection[str]], Definition]) -> dict[str, Definition]:
    """Return policies or VMMs by name, from one file each. Raises InvalidSetting."""
    found: dict[str, Definition] = {}
    for path in files:
        text = read_text(path)
        try:
            definition = load(text, found)
        except (InvalidDefinition, UnknownPolicy) as error:
            raise InvalidSetting(f"`{path}`: {error}") from None
        found[definition.name] = definition
    return found


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
