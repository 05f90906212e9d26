"""Reader of policy and VMM files (TOML)."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from ras_triage.models.errors import suggestion


class InvalidDefinition(ValueError):
    """A policy or VMM file is malformed."""


class DefinitionFile:
    """Content of a policy or VMM file. Methods raise the subclass of InvalidDefinition that the constructor got."""

    def __init__(self, text: str, keys: Sequence[str], error: type[InvalidDefinition]) -> None:
        """Read TOML that has no other keys than `keys`."""
        self.error = error
        try:
            self._table: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as malformed:
            raise error(f"not valid TOML: {malformed}") from None
        if unknown := set(self._table) - set(keys):
            raise error(f"`{min(unknown)}`: unknown key; expected one of {', '.join(f'`{key}`' for key in keys)}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string that is not empty; `default` where the file has none."""
        value = self._table.get(key, default)
        if value is None:
            raise self.error(f"`{key}`: missing; expected a string")
        if not isinstance(value, str) or not (value or value == default):
            raise self.error(f"`{key}`: empty or not a string; expected a string")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; empty where the file has none."""
        value = self._table.get(key, [])
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise self.error(f"`{key}`: expected a list of strings")
        return tuple(value)

    def table(self, key: str) -> dict[str, Any]:
        """Return a table; empty where the file has none."""
        value = self._table.get(key, {})
        if not isinstance(value, dict):
            raise self.error(f"`{key}`: expected a table")
        return value

    def flags(self, known: Sequence[str]) -> dict[str, bool]:
        """Return the values of the table `flags`, whose keys are of `known`."""
        flags = self.table("flags")
        for flag, value in flags.items():
            if flag not in known:
                raise self.error(f"`flags.{flag}`: unknown behaviour flag{suggestion(flag, known)}")
            if not isinstance(value, bool):
                raise self.error(f"`flags.{flag}`: expected true or false")
        return flags
