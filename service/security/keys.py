"""API keys: `rt_<id>_<secret>`.

Only the SHA-256 of the secret is stored. The secret has 256 random bits, so that a slow hash would add nothing.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ras_triage.service.api.escaping import escape_toml
from ras_triage.service.api.problems import ProblemError, store_unavailable
from ras_triage.service.config.files import read_text
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.security.principal import Scope
from ras_triage.service.store.port import ApiKey, StoreError
from ras_triage.service.telemetry.redaction import PREFIX

FRESH_S: Final = 1.0
"""Seconds for which keys are cached: how long a revoked key may still be accepted."""

_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32

_log = logging.getLogger("ras_triage.security")


def create(name: str, scopes: Sequence[Scope], at_ms: int) -> tuple[ApiKey, str]:
    """Create a key. Return the record to store and the key itself, which is shown only once."""
    identity, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    return ApiKey(identity, name, tuple(scopes), _hash(secret), at_ms), f"{PREFIX}{identity}_{secret}"


def verify(credentials: str, keys: Mapping[str, ApiKey]) -> ApiKey | None:
    """Return the record of a key; None: unknown or revoked."""
    identity, _, secret = credentials.removeprefix(PREFIX).partition("_")
    key = keys.get(identity)
    if key is None or not hmac.compare_digest(_hash(secret), key.secret_hash) or key.revoked_at_ms is not None:
        return None
    return key


def _hash(secret: str) -> str:
    return sha256(secret.encode(errors="surrogateescape")).hexdigest()


class _Entry(BaseModel):
    """Entry of a keys file."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[0-9A-Za-z]{1,64}$")
    name: str
    scopes: tuple[Scope, ...] = Field(min_length=1)
    secret_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


_ENTRIES: Final = TypeAdapter(tuple[_Entry, ...])


def file_entry(key: ApiKey) -> str:
    """Return the entry of a key for a keys file."""
    name = escape_toml(TypeAdapter(str).dump_json(key.name).decode())
    scopes = ", ".join(f'"{scope}"' for scope in key.scopes)
    return f'[[key]]\nid = "{key.id}"\nname = {name}\nscopes = [{scopes}]\nsecret_sha256 = "{key.secret_hash}"\n'


def read_file(path: Path) -> dict[str, ApiKey]:
    """Read a keys file. Return its keys by id. Raises InvalidSetting, whose text quotes nothing of a key."""
    try:
        content = tomllib.loads(read_text(path))
        entries = _ENTRIES.validate_python(content.pop("key", []))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"`{path}`: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidSetting(f"`{path}`: key {first['loc'][0] if first['loc'] else ''}, `{_field(first)}` is invalid") from None
    if content:
        raise InvalidSetting(f"`{path}`: unknown table or key `{next(iter(content))}`; expected only `[[key]]`")
    keys = {entry.id: ApiKey(entry.id, entry.name, entry.scopes, entry.secret_sha256, 0) for entry in entries}
    if len(keys) < len(entries):
        raise InvalidSetting(f"`{path}`: two keys have the same `id`")
    return keys


def _field(error: Any) -> str:
    return ".".join(str(part) for part in error["loc"][1:]) or "key"


class KeyRing:
    """Cache of all keys, refreshed at most once a second, so that guessed keys cause no load on the store."""

    def __init__(self, load: Callable[[], Awaitable[Sequence[ApiKey]]], file: Path | None) -> None:
        """`load` returns the store's keys. Raises InvalidSetting for an invalid file."""
        self._load = load
        self._file = file
        self._stamp = None if file is None else _stamp(file)
        self._from_file = {} if file is None else read_file(file)
        self._keys: dict[str, ApiKey] = {}
        self._loaded_at: float | None = None
        self._loading = False

    async def keys(self) -> Mapping[str, ApiKey]:
        """Return all keys, revoked ones included, at most a second old. Raises ProblemError if the store cannot be read."""
        now = monotonic()
        if self._loaded_at is None or (now - self._loaded_at >= FRESH_S and not self._loading):
            self._loading = True
            try:
                self._keys = await self._load_all()
            except StoreError as error:
                _log.error("API keys cannot be read: %s", error)
                raise ProblemError(store_unavailable(), {"Retry-After": "1"}) from None
            finally:
                self._loading = False
            self._loaded_at = now
        return self._keys

    async def _load_all(self) -> dict[str, ApiKey]:
        kept = {key.id: key for key in await self._load()}
        if self._file is not None:
            self._reload_file(self._file)
        return {**kept, **self._from_file}

    def _reload_file(self, file: Path) -> None:
        """Reload a changed keys file; if it is invalid, keep the keys from before."""
        if (stamp := _stamp(file)) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._from_file = read_file(file)
        except InvalidSetting as error:
            _log.error("keys file not reloaded, previous keys stay in use: %s", error)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
