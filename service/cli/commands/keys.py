"""Command `keys`: API keys in the store of a service."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from pydantic_core import to_json

from ras_triage.service.api.times import now_ms, rfc3339
from ras_triage.service.cli.options import add_config, add_examples, add_json
from ras_triage.service.cli.output import note, warn, warn_json, write_json, write_text
from ras_triage.service.config.files import prepare_store
from ras_triage.service.config.loading import load_settings
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.config.store_address import sqlite_path
from ras_triage.service.security.keys import create, file_entry
from ras_triage.service.security.principal import SCOPES
from ras_triage.service.store.port import ApiKey, StoreError
from ras_triage.service.store.sqlite import SqliteStore

_MAX_NAME = 200


def configure(command: ArgumentParser) -> None:
    command.description = "Create, list and revoke API keys in the store of a service. A running service applies a change within a second."
    add_examples(
        command,
        "ras-triage keys create --name fleet --scope decide --scope read",
        "ras-triage keys list",
        "ras-triage keys revoke ID",
    )
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    new = actions.add_parser("create", help="create a key and print it; it cannot be shown again")
    new.add_argument("--name", required=True, help="name of the owner")
    new.add_argument("--scope", action="append", required=True, choices=SCOPES, help="permission; may be repeated; admin has all")
    new.add_argument(
        "--hash-only", action="store_true", help="store nothing: print the entry for a keys file, and the key on standard error"
    )
    _add_store(new)
    known = actions.add_parser("list", help="list all keys, revoked ones included, without their secrets")
    _add_store(known)
    add_json(known)
    gone = actions.add_parser("revoke", help="revoke a key")
    gone.add_argument("id", metavar="ID", help="id from `keys list`, or the part of the key between `rt_` and the next `_`")
    _add_store(gone)


def _add_store(command: ArgumentParser) -> None:
    command.add_argument("--store", metavar="URL", help="store of the service, sqlite:///PATH (default: see `ras-triage config`)")
    add_config(command)


def run(options: Namespace) -> int:
    return {"create": _create, "list": _list, "revoke": _revoke}[options.action](options)


def _create(options: Namespace) -> int:
    if not options.name.strip() or len(options.name) > _MAX_NAME:
        raise InvalidSetting(f"`--name`: expected 1 to {_MAX_NAME} characters")
    key, shown = create(options.name, [scope for scope in SCOPES if scope in options.scope], now_ms())
    if options.hash_only:
        note(f"API key, cannot be shown again: {shown}")
    else:
        with _store(options, create_file=True) as store:
            store.add_api_key(key)
    _audit("key.created", key)
    for line in file_entry(key).rstrip("\n").split("\n") if options.hash_only else (shown,):
        write_text(line)
    return 0


def _list(options: Namespace) -> int:
    with _store(options) as store:
        keys = store.api_keys()
    if options.json:
        write_json(to_json([_key_fields(key) for key in keys]))
        return 0
    for key in keys:
        revoked = "" if key.revoked_at_ms is None else f"  revoked {rfc3339(key.revoked_at_ms)}"
        write_text(f"{key.id}  {rfc3339(key.created_at_ms)}  {','.join(key.scopes):<17}  {key.name}{revoked}")
    return 0


def _revoke(options: Namespace) -> int:
    identity = options.id.removeprefix("rt_").partition("_")[0]
    with _store(options) as store:
        key = store.api_key(identity)
        if key is None:
            raise InvalidSetting(f"unknown key `{identity}`; `ras-triage keys list` shows all ids")
        at_ms = now_ms()
        revoked = store.revoke_api_key(identity, at_ms)
    if revoked:
        _audit("key.revoked", replace(key, revoked_at_ms=at_ms))
    else:
        warn(f"key `{identity}` is already revoked")
    return 0


@contextmanager
def _store(options: Namespace, *, create_file: bool = False) -> Iterator[SqliteStore]:
    """Open the store that the options name; a service may have it open, too. Raises InvalidSetting."""
    settings = load_settings({"store": options.store}, options.config).settings
    path = sqlite_path(settings.store)
    if path is None:
        raise InvalidSetting(f"`{settings.store}` cannot store keys; use `--store sqlite:///PATH`, or `--hash-only` with a `keys_file`")
    if create_file:
        prepare_store(settings)
    elif not path.exists():
        raise InvalidSetting(f"no store at `{path}`")
    try:
        with closing(SqliteStore(path, exclusive=False)) as store:
            yield store
    except StoreError as error:
        raise InvalidSetting(str(error)) from None


def _audit(action: str, key: ApiKey) -> None:
    """Print a line of the audit log on standard error."""
    line = {"time": rfc3339(now_ms()), "event": "audit", "action": action, "by": f"uid {os.getuid()}", **_key_fields(key)}
    warn_json(to_json(line))


def _key_fields(key: ApiKey) -> dict[str, object]:
    """Return the fields of a key without its hash."""
    revoked = None if key.revoked_at_ms is None else rfc3339(key.revoked_at_ms)
    return {"id": key.id, "name": key.name, "scopes": key.scopes, "created_at": rfc3339(key.created_at_ms), "revoked_at": revoked}
