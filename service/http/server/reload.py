"""Reload of the settings of a running service (SIGHUP)."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from fastapi import FastAPI

from ras_triage.policies.catalog.policies import Policy
from ras_triage.service.config.settings import InvalidSetting, Settings, all_settings
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.http.server.tls import ReloadableContext, server_context
from ras_triage.service.security.guard import Security
from ras_triage.service.telemetry import logs

_RELOADABLE: Final = frozenset(setting.field for setting in all_settings().values() if setting.declaration.reloadable)
"""Fields of the settings that apply to a running service; the others need a restart."""

_TLS: Final = frozenset(field for field in _RELOADABLE if field.startswith("tls_"))

_SETTING_NAMES: Final = {setting.field: name for name, setting in all_settings().items() if setting.declaration.written is not None}
"""Names of settings by field, where they differ."""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """Result of a reload."""

    settings: Settings
    """The settings to use."""
    changed: tuple[str, ...]
    need_restart: tuple[str, ...]
    """Settings that were changed but need a restart."""


def merge(old: Settings, new: Settings) -> ReloadResult:
    """Return the old settings with the new values of those that are reloadable. Raises InvalidSetting."""
    if (old.keys_file or old.oidc) and not (new.keys_file or new.oidc):
        raise InvalidSetting("`keys_file` and `oidc_issuer` were both removed; this needs a restart")
    named = [field.name for field in fields(Settings)]
    different = [name for name in named if _comparable(getattr(old, name)) != _comparable(getattr(new, name))]
    fixed = _TLS if (old.tls_certificate is None) != (new.tls_certificate is None) else frozenset()
    changed = [name for name in different if name in _RELOADABLE - fixed]
    values = {name: getattr(new, name) for name in changed}
    fixed_names = [name for name in different if name not in changed]
    return ReloadResult(replace(old, **values), _setting_names(changed), _setting_names(fixed_names))


def _comparable(value: Any) -> Any:
    """Return a value that can be compared; policies compare by identity and are replaced by name and digest."""
    if isinstance(value, Policy):
        return value.name, value.digest
    return {name: _comparable(one) for name, one in value.items()} if isinstance(value, Mapping) else value


def _setting_names(names: list[str]) -> tuple[str, ...]:
    return tuple(_SETTING_NAMES.get(name, name) for name in names)


class Reload:
    """Reload of the settings on request: all of them, or none if one is invalid."""

    def __init__(self, load: Callable[[], Settings]) -> None:
        """`load` reads the settings from their sources. Raises InvalidSetting."""
        self._load = load
        self._requested = False
        self._had_terminal = sys.stderr.isatty()
        self._running: asyncio.Task[None] | None = None

    def request(self, *_: object) -> None:
        """Request a reload; a signal handler."""
        self._requested = True

    @property
    def lost_terminal(self) -> bool:
        """Whether SIGHUP was sent because the terminal was closed: then the service stops."""
        return self._requested and self._had_terminal and not sys.stderr.isatty()

    def start_if_requested(self, app: FastAPI, tls: ReloadableContext | None) -> None:
        """Start a reload if one was requested and none is in progress."""
        if self._requested and (self._running is None or self._running.done()):
            self._requested = False
            self._running = asyncio.create_task(self._reload(app, tls))

    async def _reload(self, app: FastAPI, tls: ReloadableContext | None) -> None:
        try:
            reloaded, security, context = await asyncio.to_thread(self._prepare, app.state.settings, app.state.security)
        except InvalidSetting as error:
            logs.log(logging.ERROR, "settings not reloaded, old settings stay in effect", reason=str(error))
            return
        except Exception as error:  # a defect must not end the service either
            logs.log(logging.ERROR, "defect", **logs.explain(error))
            return
        if tls is not None and context is not None:
            tls.current = context
        use(app, reloaded.settings, security)
        if {"log_format", "log_level"} & set(reloaded.changed):
            logging.config.dictConfig(logs.config(reloaded.settings.log_format, reloaded.settings.log_level))
        logs.audit("settings.reload", "settings", None, changed=", ".join(reloaded.changed))
        if reloaded.need_restart:
            logs.log(logging.WARNING, "settings that need a restart", names=", ".join(reloaded.need_restart))

    def _prepare(self, old: Settings, security: Security) -> tuple[ReloadResult, Security, Any]:
        """Read and validate settings, keys and certificates. Raises InvalidSetting."""
        reloaded = merge(old, self._load())
        return reloaded, security.reloaded(old, reloaded.settings), server_context(reloaded.settings)


def use(app: FastAPI, settings: Settings, security: Security) -> None:
    """Apply other settings to an application, within one step of the event loop."""
    runtime: Runtime = app.state.runtime
    runtime.use(settings)
    app.state.settings = settings
    app.state.allowed_origins.origins = settings.cors_origins
    app.state.security, old_security = security, app.state.security
    old_security.replaced_by(security)
