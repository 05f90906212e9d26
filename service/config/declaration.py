"""Declaration of a setting: annotation of a field, and what is derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import ByteSize, SecretStr

from ras_triage.service.config.value_types import IN_BYTES

PREFIX: Final = "RAS_TRIAGE_"
"""Of environment variables."""


class Written(NamedTuple):
    """What is written for a setting whose field has the content of files."""

    type: Any
    """Type with limits."""
    default: Any
    name: str | None = None
    """Name of the setting, if it is not that of the field."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field of the settings means, and where it may come from.

    The field has the type with its limits (`ras_triage.service.config.value_types`) and the default. Each setting may come from the file
    and from the environment. A field of the type SecretStr is a secret.
    """

    help: str
    """One sentence without a full stop, with the unit; in the help of the command line and in docs/settings.md."""
    option: str | None = None
    """Option of `ras-triage serve`, to be repeated for several values; None: operators do not change it by hand."""
    metavar: str | None = None
    """Placeholder of the option's value."""
    reloadable: bool = False
    """Whether it can change while the service runs (SIGHUP)."""
    service_default: Callable[[], Any] | None = None
    """Default of `ras-triage serve`, where it depends on the machine."""
    written: Written | None = None
    """What is written, if it differs from what the field has."""


@dataclass(frozen=True, slots=True)
class DeclaredSetting:
    """A setting with all that is derived from its declaration."""

    name: str
    """Name in the file."""
    field: str
    """Field of `Settings`; for a group the field that has the group."""
    type: Any
    """Type of the written value, with limits."""
    default: Any
    """Written default; None: none."""
    declaration: Setting

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def default_text(self) -> str:
        """Default as text, with the unit of sizes."""
        if self.declaration.service_default is not None:
            return "depends on the machine"
        if self.default is None or self.default == ():
            return "none"
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if IN_BYTES in getattr(self.type, "__metadata__", ()):
            return ByteSize(self.default).human_readable(separator=" ").replace(".0 ", " ")
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def is_list(self) -> bool:
        """Whether the setting has several values."""
        return get_origin(_without_limits(self.type)) is tuple

    @property
    def is_path(self) -> bool:
        """Whether the values name files, whose names need not be UTF-8."""
        return Path in (_without_limits(self.type), *get_args(_without_limits(self.type)))

    @property
    def is_secret(self) -> bool:
        """Whether the value must not be shown."""
        return _without_limits(self.type) is SecretStr


def declared_settings(cls: type[Any]) -> tuple[DeclaredSetting, ...]:
    """Return the settings that the fields of a dataclass declare, in order.

    A field that has a dataclass is a group: its settings begin with the field's name.
    """
    return tuple(_declared(cls, "", None))


def _declared(cls: type[Any], prefix: str, group: str | None) -> Iterator[DeclaredSetting]:
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        hint = hints[field.name]
        nested = next((part for part in get_args(hint) if is_dataclass(part) and isinstance(part, type)), None)
        if get_origin(hint) is not Annotated and nested is not None:
            yield from _declared(nested, f"{field.name}_", field.name)
            continue
        declaration = next(part for part in hint.__metadata__ if isinstance(part, Setting))
        written = declaration.written or Written(_without(hint, declaration), None if field.default is MISSING else field.default)
        yield DeclaredSetting(written.name or prefix + field.name, group or field.name, written.type, written.default, declaration)


def _without(hint: Any, declaration: Setting) -> Any:
    """Return an annotated type without its declaration."""
    inner, *metadata = get_args(hint)
    rest = tuple(part for part in metadata if part is not declaration)
    return Annotated[(inner, *rest)] if rest else inner


def _without_limits(hint: Any) -> Any:
    """Return the type below annotations and `| None`."""
    while get_origin(hint) is Annotated or type(None) in get_args(hint):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return hint
