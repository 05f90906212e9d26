"""Custom policies in the store: validation, and merge with those of the settings."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from ras_triage.models.errors import suggestion
from ras_triage.models.frozen import frozen
from ras_triage.policies.catalog.behaviours import FLAGS
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy, custom_policy, resolve_policy
from ras_triage.service.api.json_limits import require_value_limit
from ras_triage.service.api.policy_pages import PolicyDefinition
from ras_triage.service.api.problems import ProblemError, invalid, invalid_value, pointer_to, policy_conflict, unknown_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.store.port import Store
from ras_triage.service.telemetry import logs

MAX_POLICIES: Final = 100
"""Names of stored policies: every call of a worker process carries them all."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@frozen
class DefinedPolicy:
    """The newest version of a stored policy."""

    policy: Policy
    definition: bytes
    """JSON as it is stored."""


def read_policies(store: Store) -> dict[str, DefinedPolicy]:
    """Return the stored policies by name. One that cannot be used is logged: events that name it are refused. Raises StoreError."""
    found, damaged = store.policies()
    if damaged:
        logs.log(logging.ERROR, "stored policies are corrupt", count=damaged)
    policies: dict[str, DefinedPolicy] = {}
    for stored in found:
        try:
            policies[stored.name] = DefinedPolicy(*define_policy(stored.name, stored.definition))
        except ProblemError as error:
            logs.log(logging.ERROR, "stored policy cannot be used", policy=stored.name, reason=error.problem.detail)
    return policies


def define_policy(name: str, body: bytes) -> tuple[Policy, bytes]:
    """Return a policy, and its definition as it is stored. Raises ProblemError."""
    require_value_limit(body)
    try:
        definition = PolicyDefinition.model_validate_json(body)
    except ValidationError as error:
        raise ProblemError(invalid(error, body, "policy", PolicyDefinition)) from None
    for flag in definition.flags:
        if flag not in FLAGS:
            detail = f"unknown behaviour flag{suggestion(flag, FLAGS)}"
            raise ProblemError(invalid_value("policy", pointer_to(("flags", flag)), detail))
    try:
        policy = custom_policy(name, definition.base, definition.notes, definition.flags)
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error), "/base")) from None
    return policy, definition.model_dump_json().encode()


def require_free_name(name: str, configured: Settings, stored: Mapping[str, DefinedPolicy]) -> None:
    """Raise ProblemError if no policy of this name may be stored."""
    if _NAME.fullmatch(name) is None:
        raise ProblemError(invalid_value("policy", "", "invalid name; expected 1 to 64 of letters, digits, `.`, `_` and `-`"))
    if _is_built_in(name):
        raise ProblemError(policy_conflict(f"`{name}` is the name of a built-in policy; expected another name"))
    if name in configured.custom_policies:
        raise ProblemError(policy_conflict(f"`{name}` is the name of a policy file; expected another name, or a change of the file"))
    if name not in stored and len(stored) >= MAX_POLICIES:
        raise ProblemError(policy_conflict(f"{MAX_POLICIES} policies are stored already; change one of them"))


def _is_built_in(name: str) -> bool:
    if name.startswith("linux-"):
        return True
    try:
        resolve_policy(name)
    except UnknownPolicy:
        return False
    return True


def with_stored(configured: Settings, stored: Mapping[str, DefinedPolicy]) -> Settings:
    """Return settings with the stored policies. A policy file takes precedence over a stored policy of the same name."""
    if not stored:
        return configured
    if hidden := stored.keys() & configured.custom_policies.keys():
        logs.log(logging.WARNING, "policy files hide stored policies", names=", ".join(sorted(hidden)))
    policies = {name: one.policy for name, one in stored.items()}
    return replace(configured, custom_policies={**policies, **configured.custom_policies})
