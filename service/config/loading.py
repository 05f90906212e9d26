"""Loader of settings from options, environment, file and defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from ras_triage.models.errors import suggestion
from ras_triage.service.api.escaping import valid_text
from ras_triage.service.config.declaration import PREFIX, DeclaredSetting
from ras_triage.service.config.files import read_settings, read_text
from ras_triage.service.config.settings import InvalidSetting, Oidc, Settings, all_settings

CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"

HIDDEN: Final = "********"

SettingOrigin = Literal["default", "file", "environment", "flag"]

_OIDC: Final = "oidc_"

_FILES: Final = ("policy_files", "vmm_files", "default_policy")
"""Settings that name files or what is in them."""

_LONGEST_SHOWN: Final = 64
"""Characters of an invalid value that an error shows."""


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """Settings with the origin of each."""

    settings: Settings
    written: Mapping[str, Any]
    """Valid values of those that are set, by name."""
    origins: Mapping[str, SettingOrigin]
    """By name; defaults are not listed."""

    def listed(self) -> dict[str, dict[str, Any]]:
        """Return every setting by name: `value` for JSON, with secrets hidden, and `from`."""
        return {
            name: {"value": _shown(setting, self._value(setting)), "from": self.origins.get(name, "default")}
            for name, setting in all_settings().items()
        }

    def _value(self, setting: DeclaredSetting) -> Any:
        if setting.declaration.written is not None:
            return self.written.get(setting.name, setting.default)
        value = getattr(self.settings, setting.field)
        return value if setting.field == setting.name else getattr(value, setting.name.removeprefix(_OIDC), None)


def _shown(setting: DeclaredSetting, value: Any) -> Any:
    if setting.is_secret:
        return None if value is None else HIDDEN
    if isinstance(value, tuple):
        return [valid_text(str(part)) for part in value]
    return valid_text(str(value)) if isinstance(value, (str, Path)) else value


def load_settings(flags: Mapping[str, Any], file: Path | None = None) -> EffectiveSettings:
    """Load the settings of a service. Raises InvalidSetting.

    `flags`: options of the command line by the name of the setting; None: not given. `file` defaults to the value of `RAS_TRIAGE_CONFIG`.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = file or (Path(named) if named else None)
    layers: dict[SettingOrigin, Mapping[str, Any]] = {
        "file": _read_file(path) if path else {},
        "environment": _read_environment(),
        "flag": {name: value for name, value in flags.items() if value is not None},
    }
    origins: dict[str, SettingOrigin] = {name: origin for origin, layer in layers.items() for name in layer}
    given = {name: value for layer in layers.values() for name, value in layer.items()}
    written = {
        name: _parse(setting, given[name], written_name(setting, origins[name], path))
        for name, setting in all_settings().items()
        if name in given
    }
    return EffectiveSettings(_effective(written), written, origins)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"`{path}`: {str(error)[:1].lower()}{str(error)[1:]}") from None
    for name in content:
        if name not in all_settings():
            raise InvalidSetting(f"`{name}` in `{path}`: unknown setting{suggestion(name, all_settings())}")
    return content


def _read_environment() -> dict[str, str]:
    """Return the values of variables that are not empty. Other variables with the prefix are ignored: Kubernetes sets some, too."""
    variables = {name.upper(): value for name, value in os.environ.items()}
    return {name: value for name, setting in all_settings().items() if (value := variables.get(setting.variable))}


def _parse(setting: DeclaredSetting, value: Any, where: str) -> Any:
    """Return a value of the setting's type. Raises InvalidSetting."""
    if any(isinstance(part, str) and "\0" in part for part in (value if isinstance(value, list) else [value])):
        raise InvalidSetting(f"{where}: should not contain a NUL character")
    try:
        return TypeAdapter(setting.type).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":
        raise InvalidSetting(f"{where}: {first['ctx']['error']}")
    message = first["msg"].replace("Input should", "should").replace("'", "`")
    raise InvalidSetting(f"{where}: {message[:1].lower()}{message[1:]}{_got(setting, value)}")


def _got(setting: DeclaredSetting, value: Any) -> str:
    """Return the value for an error, if it is short and no secret."""
    text = valid_text(str(value))
    is_shown = isinstance(value, (str, int, float)) and not setting.is_secret and 0 < len(text) <= _LONGEST_SHOWN
    return f"; got `{text}`" if is_shown else ""


def written_name(setting: DeclaredSetting, origin: SettingOrigin, path: Path | None = None) -> str:
    """Return the name of a setting in its source."""
    if origin == "environment":
        return f"`{setting.variable}`"
    if origin == "flag":
        return f"`{setting.declaration.option}`"
    return f"`{setting.name}` in `{path}`"


def _effective(written: Mapping[str, Any]) -> Settings:
    """Return the settings with the content of files and the defaults of this machine. Raises InvalidSetting."""
    declared = all_settings().values()
    values = {setting.field: make() for setting in declared if (make := setting.declaration.service_default) is not None}
    direct = (setting for setting in declared if setting.field == setting.name and setting.declaration.written is None)
    values |= {setting.name: written[setting.name] for setting in direct if setting.name in written}
    from_files = {name: written[name] for name in _FILES if name in written}
    settings = replace(read_settings(**from_files), oidc=_oidc(written), **values)
    _check(settings, written)
    return settings


def _oidc(written: Mapping[str, Any]) -> Oidc | None:
    values = {name.removeprefix(_OIDC): value for name, value in written.items() if name.startswith(_OIDC)}
    if not values:
        return None
    for name in ("issuer", "audience"):
        if name not in values:
            raise InvalidSetting(f"`{_OIDC}{name}` is required with the other `{_OIDC}*` settings")
    return Oidc(**values)


def _check(settings: Settings, written: Mapping[str, Any]) -> None:
    """Check the consistency of settings that are each valid. Raises InvalidSetting."""
    if settings.tls_certificate is None:
        for name in ("tls_key", "tls_key_password", "tls_client_ca"):
            if name in written:
                raise InvalidSetting(f"`{name}` requires `tls_certificate`")
    if settings.rate_burst is not None and settings.rate_limit is None:
        raise InvalidSetting("`rate_burst` requires `rate_limit`")
    if settings.max_in_flight_bytes < settings.max_body_bytes:
        raise InvalidSetting("`max_in_flight_bytes` is less than `max_body_bytes`; the longest request would never fit")
