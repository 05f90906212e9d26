"""Sources of settings: options, environment, file, defaults; in this order."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ras_triage.policies.catalog.policies import UNIFORM
from ras_triage.service.api.escaping import valid_text
from ras_triage.service.config.authority import parse_authority, parse_host
from ras_triage.service.config.settings import ALGORITHMS, InvalidSetting, Oidc, Settings, is_loopback, read_policies, read_text
from ras_triage.service.config.store_address import MEMORY, SQLITE, sqlite_path

PREFIX: Final = "RAS_TRIAGE_"

CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"

HIDDEN: Final = "********"

SettingOrigin = Literal["default", "file", "environment", "flag"]

Words = Annotated[tuple[str, ...], NoDecode]
"""Several values: an array in the file, separated by commas in the environment."""

Files = Annotated[tuple[Path, ...], NoDecode]

Positive = Annotated[int, Field(gt=0)]
Bytes = Annotated[ByteSize, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MAX_WORKERS: Final = 64
_MOST_OF_USE: Final = 4

_URL: Final = re.compile("(?P<scheme>https?)://(?P<authority>[^/?#]*)[!-~]*", re.IGNORECASE)

_PORT_LINK: Final = "tcp://"


class RawSettings(BaseSettings):
    """Settings as written; None: not set. Names are those in the file, and in capitals those in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, validate_default=False)

    host: str | None = Field(None, min_length=1)
    port: int | None = Field(None, ge=0, le=0xFFFF)
    store: str | None = None
    default_policy: str | None = None
    policy_files: Files | None = None
    max_body_bytes: Bytes | None = None
    max_workload: Positive | None = None
    queue_entries: Positive | None = None
    queue_bytes: Bytes | None = None
    max_batch_bytes: Bytes | None = None
    spill_bytes: Bytes | None = None
    batch_workers: int | None = Field(None, ge=0, le=MAX_WORKERS)
    worker_timeout_s: float | None = Field(None, ge=0.1, allow_inf_nan=False)
    retention_days: float | None = Field(None, gt=0, allow_inf_nan=False)
    retention_bytes: Bytes | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_key_password: SecretStr | None = None
    tls_client_ca: Path | None = None
    trusted_hosts: Words | None = None
    trusted_proxies: Words | None = None
    keys_file: Path | None = None
    oidc_issuer: str | None = None
    oidc_audience: str | None = Field(None, min_length=1)
    oidc_jwks_url: str | None = None
    oidc_scope_claim: str | None = Field(None, min_length=1)
    oidc_algorithms: Words | None = None
    rate_limit: float | None = Field(None, gt=0, allow_inf_nan=False)
    rate_burst: Positive | None = None
    max_header_bytes: Bytes | None = None
    max_connections: Positive | None = None
    max_connections_per_peer: Positive | None = None
    head_timeout_s: Seconds | None = None
    keep_alive_s: Seconds | None = None
    body_timeout_s: Seconds | None = None
    line_timeout_s: Seconds | None = None
    min_body_rate: Bytes | None = None
    answer_timeout_s: Seconds | None = None
    max_in_flight: Positive | None = None
    max_in_flight_per_client: Positive | None = None
    max_imports: Positive | None = None
    max_batch_wait_s: Seconds | None = None
    max_in_flight_bytes: Bytes | None = None
    max_streams: Positive | None = None
    max_stream_filters: Positive | None = None
    metrics_public: bool | None = None
    log_format: Literal["json", "text"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    otel: bool | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the constructor's arguments: the sources are read one by one, to record the origin of each setting."""
        return (init_settings,)

    @field_validator("trusted_hosts", "trusted_proxies", "oidc_algorithms", "policy_files", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _has_no_null(cls, value: object) -> object:
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str) and "\0" in part:
                raise ValueError("should not contain a NUL character")
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _is_no_link(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith(_PORT_LINK):
            raise ValueError("Kubernetes sets this variable for a Service of this name; set `enableServiceLinks: false` in the pod")
        return value

    @field_validator("store")
    @classmethod
    def _is_store(cls, value: str) -> str:
        if value != MEMORY and sqlite_path(value) is None:
            raise ValueError(f"unknown store `{value}`; expected `{MEMORY}` or `{SQLITE}PATH`")
        return value

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _is_https(cls, value: str) -> str:
        url = _URL.fullmatch(value)
        authority = None if url is None else parse_authority(url["authority"])
        if url is None or authority is None or not (url["scheme"].lower() == "https" or is_loopback(authority.host)):
            raise ValueError("should be an https URL without a password")
        return value

    @field_validator("trusted_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if parse_host(host) is None:
                raise ValueError(f"`{host}` is not a host name or address without a port")
        return value

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_public(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= set(ALGORITHMS):
            raise ValueError(f"expected one or more of {', '.join(ALGORITHMS)}")
        return value


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """Settings with the origin of each."""

    settings: Settings
    raw: RawSettings
    origins: Mapping[str, SettingOrigin]
    """By name; defaults are not listed."""

    def listed(self) -> dict[str, dict[str, Any]]:
        """Return every setting by name: `value` for JSON, with secrets hidden, and `from`."""
        return {
            name: {"value": _shown(name, self._value(name)), "from": self.origins.get(name, "default")} for name in RawSettings.model_fields
        }

    def _value(self, name: str) -> Any:
        if name == "default_policy":
            return self.raw.default_policy or UNIFORM
        if name == "policy_files":
            return self.raw.policy_files or ()
        if name.startswith("oidc_"):
            return getattr(self.settings.oidc, name.removeprefix("oidc_"), None)
        return getattr(self.settings, name)


def _shown(name: str, value: Any) -> Any:
    if name == "tls_key_password":
        return None if value is None else HIDDEN
    if isinstance(value, tuple):
        return [valid_text(str(part)) for part in value]
    return valid_text(str(value)) if isinstance(value, (str, Path)) else value


def default_store() -> str:
    """Return the default store address (XDG Base Directory Specification: state)."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"{SQLITE}{Path(home).expanduser() / 'ras-triage' / 'store.db'}"


def default_workers() -> int:
    """Return the default number of workers: one per usable processor, 0 if there is only one. A few saturate the writer."""
    processors = len(os.sched_getaffinity(0))
    return min(processors, _MOST_OF_USE) if processors > 1 else 0


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


def load_settings(flags: Mapping[str, Any], file: Path | None = None) -> EffectiveSettings:
    """Load the settings of a service. Raises InvalidSetting.

    `flags`: options of the command line; None: not given. `file` defaults to the value of `RAS_TRIAGE_CONFIG`.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = file or (Path(named) if named else None)
    layers: dict[SettingOrigin, Mapping[str, Any]] = {
        "file": _read_file(path) if path else {},
        "environment": EnvSettingsSource(RawSettings)(),
        "flag": {name: value for name, value in flags.items() if value is not None},
    }
    origins: dict[str, SettingOrigin] = {name: origin for origin, layer in layers.items() for name in layer}
    merged = {name: value for layer in layers.values() for name, value in layer.items()}
    try:
        raw = RawSettings(**merged)
    except ValidationError as error:
        raise InvalidSetting(_explain(error, origins, path)) from None
    return EffectiveSettings(_effective(raw), raw, origins)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"`{path}`: {str(error)[:1].lower()}{str(error)[1:]}") from None
    for name in content:
        if name not in RawSettings.model_fields:
            raise InvalidSetting(f"`{name}` in `{path}`: unknown setting")
    return content


def _explain(error: ValidationError, origins: Mapping[str, SettingOrigin], path: Path | None) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    where = written(name, origins.get(name, "default"), path)
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    message = first["msg"].replace("Input should", "should").replace("'", "`")
    return f"{where}: {message[:1].lower()}{message[1:]}"


def written(name: str, origin: SettingOrigin, path: Path | None = None) -> str:
    """Return the name of a setting in its source."""
    if origin == "environment":
        return f"`{PREFIX}{name.upper()}`"
    if origin == "flag":
        return f"`--{_FLAGS.get(name, name).replace('_', '-')}`"
    return f"`{name}` in `{path}`"


_FLAGS: Final = {"tls_certificate": "tls-cert", "policy_files": "policy-file"}
"""Options whose names differ from the setting."""

_INDIRECT: Final = frozenset({"default_policy", "tls_key_password"})

_DIRECT: Final = frozenset(field.name for field in fields(Settings)) & frozenset(RawSettings.model_fields) - _INDIRECT


def _effective(raw: RawSettings) -> Settings:
    policy, custom = read_policies(list(raw.policy_files or ()), raw.default_policy or UNIFORM)
    values = {name: value for name in _DIRECT if (value := getattr(raw, name)) is not None}
    values.setdefault("store", default_store())
    values.setdefault("batch_workers", default_workers())
    if raw.tls_key_password is not None:
        values["tls_key_password"] = raw.tls_key_password.get_secret_value()
    settings = replace(Settings(policy, custom), oidc=_oidc(raw), **values)
    _check(settings, raw)
    return settings


def _oidc(raw: RawSettings) -> Oidc | None:
    names = ("issuer", "audience", "jwks_url", "scope_claim", "algorithms")
    values = {name: value for name in names if (value := getattr(raw, f"oidc_{name}")) is not None}
    if not values:
        return None
    for name in ("issuer", "audience"):
        if name not in values:
            raise InvalidSetting(f"`oidc_{name}` is required with the other `oidc_*` settings")
    return Oidc(**values)


def _check(settings: Settings, raw: RawSettings) -> None:
    """Check the consistency of settings that are each valid. Raises InvalidSetting."""
    if settings.tls_certificate is None:
        for name in ("tls_key", "tls_key_password", "tls_client_ca"):
            if getattr(raw, name) is not None:
                raise InvalidSetting(f"`{name}` requires `tls_certificate`")
    if settings.rate_burst is not None and settings.rate_limit is None:
        raise InvalidSetting("`rate_burst` requires `rate_limit`")
    if settings.max_in_flight_bytes < settings.max_body_bytes:
        raise InvalidSetting("`max_in_flight_bytes` is less than `max_body_bytes`; the longest request would never fit")
